package archive

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"maps"
	"path"
	"slices"
	"sort"
	"strings"

	"gantry/errdefs"
	"gantry/linux/dir"
)

// TreeChanges lists what a whole tree changes of the layers, top first, that were merged into it, sorted by path. Files are told apart by type, size, mode, owner,
// time and extended attributes, and not by what is in them.
func TreeChanges(ctx context.Context, tree *dir.Dir, layers []*dir.Dir) ([]Change, error) {
	c := comparer{ctx: ctx, layers: layers, listed: map[string]bool{"/": true}, whole: true}
	if err := c.folder(tree, "", false); err != nil {
		return nil, err
	}
	sort.Slice(c.changes, func(i, j int) bool { return c.changes[i].Path < c.changes[j].Path })
	return c.changes, nil
}

// PackTree writes what a whole tree changes of the layers that were merged into it, as a layer tar.
func PackTree(ctx context.Context, tree *dir.Dir, layers []*dir.Dir, w io.Writer) error {
	changes, err := TreeChanges(ctx, tree, layers)
	if err != nil {
		return err
	}
	p := newPacker(w)
	emit := map[string]bool{} // path; true: a whiteout
	for _, c := range changes {
		name := strings.TrimPrefix(c.Path, "/")
		emit[name] = c.Kind == Deleted
		for parent := path.Dir(name); parent != "."; parent = path.Dir(parent) { // else unpacking makes it anew, with other attributes
			if _, ok := emit[parent]; !ok {
				emit[parent] = false
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(emit)) {
		if err := ctx.Err(); err != nil {
			return errdefs.With(errdefs.Canceled, err)
		}
		if emit[name] {
			err = p.mark(path.Join(path.Dir(name), whiteout+path.Base(name)))
		} else if name != "" {
			err = p.one(ctx, tree, name)
		}
		if err != nil {
			return err
		}
	}
	return p.tw.Close()
}

// one writes the path alone, without what is beneath it.
func (p *packer) one(ctx context.Context, root *dir.Dir, name string) error {
	parent, _, err := descend(root, elements(path.Dir(name)))
	if err != nil {
		return err
	}
	defer parent.Close()
	base := path.Base(name)
	st, err := parent.Stat(base)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return p.entry(ctx, parent, base, name)
	}
	d, err := parent.Child(base)
	if err != nil {
		return err
	}
	h := header(p.name(name)+"/", st)
	return errors.Join(addXattrs(h, d.Self()), p.write(h), d.Close())
}

// unchanged reports whether a file is what the layers have at its place.
func unchanged(parent *dir.Dir, base string, st dir.Stat, below *dir.Dir, belowBase string, old dir.Stat) (bool, error) {
	same := st.Mode == old.Mode && st.UID == old.UID && st.GID == old.GID && st.Size == old.Size && st.ModTime.Equal(old.ModTime) && st.Major == old.Major && st.Minor == old.Minor
	if st.IsDir() {
		same = st.Mode == old.Mode && st.UID == old.UID && st.GID == old.GID && st.ModTime.Equal(old.ModTime)
	}
	if !same {
		return false, nil
	}
	if st.IsSymlink() {
		a, err := parent.Readlink(base)
		b, berr := below.Readlink(belowBase)
		return a == b, errors.Join(err, berr)
	}
	var attrs [2]map[string]string
	for i, at := range []struct {
		d    *dir.Dir
		name string
	}{{parent, base}, {below, belowBase}} {
		node, err := at.d.Node(at.name)
		if err != nil {
			return false, err
		}
		h := tar.Header{}
		if err := errors.Join(addXattrs(&h, node), node.Close()); err != nil {
			return false, err
		}
		attrs[i] = h.PAXRecords
	}
	return maps.Equal(attrs[0], attrs[1]), nil
}
