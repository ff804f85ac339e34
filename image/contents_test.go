package image_test

import (
	"archive/tar"
	"bytes"
	"slices"
	"strings"
	"testing"

	"gantry/errdefs"
	"gantry/image"
)

// twoImages loads base:1 and base:2, which has more layers.
func twoImages(t *testing.T, s *store) {
	t.Helper()
	first := tarOf(t, text("etc/one", "1"), text("etc/two", "22"), text("opt/x/old", "old!"), tar.Header{Typeflag: tar.TypeLink, Name: "etc/also", Linkname: "etc/one"},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "lib", Linkname: "usr/lib"}, tar.Header{Typeflag: tar.TypeDir, Name: "srv", Mode: 0o700})
	second := tarOf(t, text("etc/.wh.two", ""), text("etc/one", "uno"), text("opt/x/.wh..wh..opq", ""), text("opt/x/new", "new"),
		tar.Header{Typeflag: tar.TypeSymlink, Name: "lib", Linkname: "lib64"}, tar.Header{Typeflag: tar.TypeDir, Name: "srv", Mode: 0o755, Uid: 7}, text("srv/in", "it"))
	third := tarOf(t, text(".wh.srv", ""), text("big", strings.Repeat("b", 1000)))
	for tag, layers := range map[string][][]byte{"base:1": {first}, "base:2": {first, second, third}} {
		data, _ := dockerArchive(t, tag, layers...)
		if _, err := s.Load(t.Context(), bytes.NewReader(data), image.LoadOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLayers(t *testing.T) {
	s := start(t)
	twoImages(t, s)
	l, err := s.Layers(t.Context(), "base:2")
	if err != nil {
		t.Fatal(err)
	}
	// Of the first layer "two" and "old" go; "one" stays under its other name. Of the second "srv/in" goes.
	type numbers struct {
		size, waste int64
		files       int
	}
	var got []numbers
	for _, one := range l.Layers {
		got = append(got, numbers{one.Size, one.Waste, one.Files})
	}
	if want := []numbers{{7, 6, 6}, {8, 2, 5}, {1000, 0, 1}}; !slices.Equal(got, want) || l.Size != 1015 || l.Waste != 8 {
		t.Errorf("%+v of %d and %d, want %+v", got, l.Size, l.Waste, want)
	}
	if _, err := s.Layers(t.Context(), "nosuch"); !errdefs.Is(err, errdefs.NotFound) {
		t.Error(err)
	}
}

func TestCompare(t *testing.T) {
	s := start(t)
	twoImages(t, s)
	list, err := s.Compare(t.Context(), "base:1", "base:2")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range list {
		got = append(got, d.Kind+" "+d.Path+" "+strings.Join(d.What, ","))
	}
	want := []string{"A /big ", "C /etc/one content", "D /etc/two ", "C /lib link", "A /opt/x/new ", "D /opt/x/old ", "D /srv "}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if list, err := s.Compare(t.Context(), "base:2", "base:2"); len(list) != 0 || err != nil {
		t.Errorf("an image and itself: %+v, %v", list, err)
	}
}

func TestSquash(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	twoImages(t, s)
	before, err := s.Get(ctx, "base:2")
	if err != nil {
		t.Fatal(err)
	}
	i, err := s.Squash(ctx, "base:2", image.SquashOptions{Repo: "flat"})
	if err != nil {
		t.Fatal(err)
	}
	if len(i.DiffIDs) != 1 || !slices.Equal(i.RepoTags, []string{"flat:latest"}) || !slices.Equal(i.Config.Config.Cmd, before.Config.Config.Cmd) || !slices.Equal(i.Config.Config.Env, before.Config.Config.Env) {
		t.Errorf("%+v", i)
	}
	if list, err := s.Compare(ctx, "base:2", "flat"); len(list) != 0 || err != nil {
		t.Errorf("the files are others: %+v, %v", list, err)
	}
	l, err := s.Layers(ctx, "flat")
	if err != nil || l.Waste != 0 || len(l.Layers) != 1 {
		t.Errorf("%+v, %v", l, err)
	}
	if keys, err := s.snapshots.List(ctx); len(keys) != 0 || err != nil {
		t.Errorf("left: %v, %v", keys, err)
	}
	if _, err := s.Squash(ctx, "flat", image.SquashOptions{}); !errdefs.Is(err, errdefs.InvalidParameter) {
		t.Errorf("one layer: %v", err)
	}
}
