package archive

import (
	"context"
	"errors"
	"io/fs"
	"path"
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
	return nil
}

func (c *comparer) entry(d *dir.Dir, base, name string, fresh bool) error {
	st, err := d.Stat(base)
	if err != nil {
		return err
	}
	if st.IsWhiteout() {
		c.add(name, Deleted)
		return nil
	}
	kind, same, old := Added, false, dir.Stat{}
	if !fresh {
		if old, err = c.below(name); err == nil {
			kind = Modified
			same = st.IsDir() && old.IsDir() && st.ModTime.Equal(old.ModTime) && st.Mode == old.Mode && st.UID == old.UID && st.GID == old.GID
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
	fresh = fresh || kind == Added || !old.IsDir() || opaque(child)
	return errors.Join(c.folder(child, name, fresh), child.Close())
}

func (c *comparer) below(name string) (dir.Stat, error) {
	d, base, err := FindLower(c.layers, name)
	if err != nil {
		return dir.Stat{}, err
	}
	st, err := d.Stat(base)
	return st, errors.Join(err, d.Close())
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
