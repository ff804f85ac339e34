package archive

import (
	"context"
	"errors"
	"io/fs"
	"syscall"

	"gantry/linux/dir"
)

// MergeLayer brings what an unpacked layer changes into a folder that has all the layers beneath it merged, as overlayfs would show them together. Data is shared
// between the two where the file system can do that.
func MergeLayer(ctx context.Context, to, layer *dir.Dir) error {
	m := merger{copier{root: to, links: map[[2]uint64]string{}}}
	st, err := layer.StatSelf()
	if err != nil {
		return err
	}
	return m.contents(ctx, to, layer, "", st)
}

type merger struct{ copier }

func (m *merger) contents(ctx context.Context, to, from *dir.Dir, prefix string, st dir.Stat) error {
	return each(ctx, "merge", to, from, prefix, st, m.entry)
}

func (m *merger) entry(ctx context.Context, to, from *dir.Dir, name, full string) error {
	st, err := from.Stat(name)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		if err := to.RemoveAll(name); err != nil || st.IsWhiteout() {
			return err
		}
		return m.copier.entry(ctx, to, from, name, full)
	}
	source, err := from.Child(name)
	if err != nil {
		return err
	}
	defer source.Close()
	if old, err := to.Stat(name); err == nil && (!old.IsDir() || opaque(source)) {
		if err := to.RemoveAll(name); err != nil {
			return err
		}
	}
	if err := to.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	target, err := to.Child(name)
	if err != nil {
		return err
	}
	return errors.Join(m.resetXattrs(target), m.contents(ctx, target, source, full, st), target.Close())
}

// resetXattrs takes the attributes of a folder away that the layer above it replaces whole.
func (m *merger) resetXattrs(d *dir.Dir) error {
	names, err := d.Self().Listxattr()
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == "security.selinux" {
			continue
		}
		if err := d.Self().Removexattr(name); err != nil && !errors.Is(err, syscall.ENOTSUP) {
			return err
		}
	}
	return nil
}

// LowerNames lists a folder of a stack of unpacked layers, top first, as overlayfs would: each name once, without what is removed.
func LowerNames(layers []*dir.Dir, name string) ([]string, error) {
	var list []string
	seen := map[string]bool{}
	for _, layer := range layers {
		d, last, err := descend(layer, elements(name))
		if err != nil {
			if last || !errors.Is(err, fs.ErrNotExist) {
				break
			}
			continue
		}
		names, err := d.Names()
		for _, n := range names {
			if seen[n] {
				continue
			}
			seen[n] = true
			st, serr := d.Stat(n)
			if serr == nil && !st.IsWhiteout() {
				list = append(list, n)
			}
			err = errors.Join(err, serr)
		}
		hides := opaque(d)
		if err = errors.Join(err, d.Close()); err != nil {
			return nil, err
		}
		if hides {
			break
		}
	}
	return list, nil
}
