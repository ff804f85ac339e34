package archive

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"sort"

	"gantry/errdefs"
	"gantry/linux/dir"
)

// UpperChanges lists what the upper folder of an overlay changes of the layers beneath it, top first, sorted by path. A folder counts as changed
// when its own attributes are, or when something was added to it or removed from it.
func UpperChanges(ctx context.Context, upper *dir.Dir, layers []*dir.Dir) ([]Change, error) {
	c := comparer{ctx: ctx, layers: layers, listed: map[string]bool{"/": true}}
	if err := c.folder(upper, "", false); err != nil {
		return nil, err
	}
	sort.Slice(c.changes, func(i, j int) bool { return c.changes[i].Path < c.changes[j].Path })
	return c.changes, nil
}

type comparer struct {
	ctx     context.Context //nolint:containedctx // lives for one call
	layers  []*dir.Dir
	changes []Change
	listed  map[string]bool // folders that have their change, or need none
	whole   bool            // the tree has the layers merged into it: everything is compared, and what is missing was removed
}

// folder compares what is in d. fresh says that nothing beneath shows through.
func (c *comparer) folder(d *dir.Dir, name string, fresh bool) error {
	if err := c.ctx.Err(); err != nil {
		return errdefs.With(errdefs.Canceled, err)
	}
	names, err := d.Names()
	if err != nil {
		return err
	}
	for _, base := range names {
		if err := c.entry(d, base, path.Join(name, base), fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if !c.whole || fresh {
		return nil
	}
	below, err := LowerNames(c.layers, name)
	for _, base := range below {
		if _, found := slices.BinarySearch(names, base); !found {
			c.add(path.Join(name, base), Deleted)
		}
	}
	return err
}

func (c *comparer) entry(d *dir.Dir, base, name string, fresh bool) error {
	st, err := d.Stat(base)
	if err != nil {
		return err
	}
	if st.IsWhiteout() && !c.whole {
		c.add(name, Deleted)
		return nil
	}
	kind, same, old := Added, false, dir.Stat{}
	if !fresh {
		if old, same, err = c.below(d, base, name, st); err == nil {
			kind = Modified
		} else if !errdefs.Is(err, errdefs.NotFound) {
			return err
		}
	}
	if !same {
		c.add(name, kind)
	}
	if !st.IsDir() {
		return nil
	}
	child, err := d.Child(base)
	if err != nil {
		return err
	}
	fresh = fresh || kind == Added || !old.IsDir() || !c.whole && opaque(child)
	return errors.Join(c.folder(child, name, fresh), child.Close())
}

// below describes what the layers have at the place of a file, and says whether that is the same.
func (c *comparer) below(d *dir.Dir, base, name string, st dir.Stat) (old dir.Stat, same bool, err error) {
	lower, lowerBase, err := FindLower(c.layers, name)
	if err != nil {
		return old, false, err
	}
	old, err = lower.Stat(lowerBase)
	switch {
	case err != nil:
	case c.whole:
		same, err = unchanged(d, base, st, lower, lowerBase, old)
	default:
		same = st.IsDir() && old.IsDir() && st.ModTime.Equal(old.ModTime) && st.Mode == old.Mode && st.UID == old.UID && st.GID == old.GID
	}
	return old, same, errors.Join(err, lower.Close())
}

func (c *comparer) add(name string, kind Kind) {
	full := "/" + name
	if kind != Modified {
		if parent := path.Dir(full); !c.listed[parent] {
			c.listed[parent] = true
			c.changes = append(c.changes, Change{Path: parent, Kind: Modified})
		}
	}
	if c.listed[full] {
		return
	}
	c.listed[full] = true
	c.changes = append(c.changes, Change{Path: full, Kind: kind})
}
