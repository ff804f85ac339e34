package image

import (
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	fuzzDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	fuzzConfig = `{"architecture":"amd64","os":"linux","config":{"Env":["A=b"]},"rootfs":{"type":"layers","diff_ids":["` + fuzzDigest + `"]},"history":[{"created_by":"x"}]}`
)

func TestParseManifest(t *testing.T) {
	config := `"config":{"digest":"` + fuzzDigest + `","size":1}`
	for _, c := range []struct {
		data, mediaType string
		ok              bool
	}{
		{`{"schemaVersion":2,` + config + `,"layers":[]}`, "", true},
		{`{"schemaVersion":2,` + config + `}`, "", true},
		{`{"schemaVersion":2,"mediaType":"` + dockerManifest + `",` + config + `,"layers":[]}`, dockerManifest, true},
		{`{"schemaVersion":2,"mediaType":"` + dockerManifestList + `",` + config + `,"layers":[]}`, dockerManifest, false},
		{`{"schemaVersion":2,` + config + `,"layers":[],"manifests":[]}`, "", false},
		{`{"schemaVersion":1,"fsLayers":[],"history":[]}`, "", false},
		{`{"schemaVersion":2,"layers":[]}`, "", false},
		{`{"schemaVersion":2,` + config + `,"layers":[{"digest":"sha256:short","size":1}]}`, "", false},
		{`{"schemaVersion":2,` + config + `,"layers":[{"digest":"` + fuzzDigest + `","size":-1}]}`, "", false},
		{`{"schemaVersion":2,` + config + `,"layers":[` + strings.Repeat(`{"digest":"`+fuzzDigest+`","size":1},`, maxLayers) + `{"digest":"` + fuzzDigest + `","size":1}]}`, "", false},
		{`[]`, "", false}, {``, "", false}, {`{`, "", false}, {`null`, "", false},
	} {
		if _, err := parseManifest([]byte(c.data), c.mediaType); (err == nil) != c.ok {
			t.Errorf("%.120s: %v", c.data, err)
		}
	}
	for data, ok := range map[string]bool{
		`{"manifests":[{"digest":"` + fuzzDigest + `","size":1}]}`: true,
		`{"manifests":[],"layers":[]}`:                             false,
		`{"manifests":[],"config":{}}`:                             false,
		`{"manifests":[{"digest":"../../x","size":1}]}`:            false,
	} {
		if _, err := parseIndex([]byte(data), ""); (err == nil) != ok {
			t.Errorf("%s: %v", data, err)
		}
	}
	for data, ok := range map[string]bool{
		fuzzConfig: true, `{}`: true,
		`{"rootfs":{"type":"windows"}}`:                        false,
		`{"rootfs":{"type":"layers","diff_ids":["sha512:x"]}}`: false,
		`{"rootfs":{"type":"layers","diff_ids":["../../x"]}}`:  false,
	} {
		if _, err := parseConfig([]byte(data)); (err == nil) != ok {
			t.Errorf("%s: %v", data, err)
		}
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{"digest":"` + fuzzDigest + `","size":1},"layers":[]}`))
	f.Add([]byte(`{"manifests":[{"digest":"` + fuzzDigest + `","size":1,"platform":{"os":"linux","architecture":"arm","variant":"v7"}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseManifest(data, "")
		entries, ierr := parseIndex(data, "")
		if err == nil && ierr == nil && len(entries) > 0 {
			t.Error("both a manifest and an index")
		}
		if err == nil && (len(m.Layers) > maxLayers || m.Config.Digest.Validate() != nil) {
			t.Error("limits do not hold")
		}
		choose(entries, nil)
		mediaTypeOf(data, "")
	})
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"manifests":[{"digest":"`+fuzzDigest+`","size":1,"platform":{"os":"linux","architecture":"arm","variant":"v7"},"annotations":{"a":"b"}}]}`), "linux", "arm64", "v8")
	f.Add([]byte(`{"manifests":[{"digest":"`+fuzzDigest+`","size":1}]}`), "", "armhf", "")
	f.Fuzz(func(t *testing.T, data []byte, system, architecture, variant string) {
		entries, err := parseIndex(data, "")
		if err != nil {
			return
		}
		for _, e := range entries {
			if e.Digest.Validate() != nil || e.Size < 0 {
				t.Error(e)
			}
		}
		want := ocispec.Platform{OS: system, Architecture: architecture, Variant: variant}
		if i, ok := choose(entries, &want); ok && (i < 0 || i >= len(entries) || attestation(entries[i])) {
			t.Error(i)
		} else if list := candidates(entries, &want); ok && len(list) == 0 || slices.ContainsFunc(list, func(i int) bool { return attestation(entries[i]) }) {
			t.Error(list)
		}
		if text := offered(entries); len(text) > 100*maxOffered*10 || strings.ContainsAny(text, "\n\x1b") {
			t.Errorf("%q", text)
		}
	})
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(fuzzConfig))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseConfig(data)
		if err != nil {
			return
		}
		for _, d := range c.RootFS.DiffIDs {
			if d.Validate() != nil {
				t.Error(d)
			}
		}
	})
}

func FuzzName(f *testing.F) {
	for _, s := range []string{"busybox", "localhost:5000/a/b:c", "a@" + fuzzDigest, "sha256:abc", fuzzDigest, "deadbeef", "../..", "A/b", ""} {
		f.Add(s)
	}
	s := &Service{}
	f.Fuzz(func(t *testing.T, ref string) {
		if named, err := parseName(ref); err == nil {
			if again, err := parseName(named.String()); err != nil || again.String() != named.String() {
				t.Error(ref, named, again, err)
			}
			familiarize(named.String())
		}
		if id, err := s.resolve(ref); err == nil {
			t.Error("found", id)
		}
		_, _ = tagName(ref)
		_, _ = newName(ref, ref)
		entryName(ref)
	})
}
