package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"gantry/errdefs"
	"gantry/linux/dir"
)

// Differs compares two unpacked layers, marks of overlayfs and contents included, and returns the path of the first difference, or "". Times of folders are not looked at: those
// that no entry of a layer is about have the time of their making.
func Differs(ctx context.Context, a, b *dir.Dir) (string, error) {
	return differ{ctx, make([]byte, copyBuffer), make([]byte, copyBuffer)}.folders(a, b, "/")
}

type differ struct {
	ctx  context.Context //nolint:containedctx // lives for one call
	a, b []byte
}

func (d differ) folders(a, b *dir.Dir, name string) (string, error) {
	if err := d.ctx.Err(); err != nil {
		return "", errdefs.With(errdefs.Canceled, err)
	}
	names, err := a.Names()
	others, oerr := b.Names()
	if err = errors.Join(err, oerr); err != nil || !slices.Equal(names, others) {
		return name, err
	}
	for _, base := range names {
		if at, err := d.entries(a, b, base, path.Join(name, base)); at != "" || err != nil {
			return at, err
		}
	}
	same, err := sameXattrs(a.Self(), b.Self())
	if !same {
		return name, err
	}
	return "", err
}

func (d differ) entries(a, b *dir.Dir, base, full string) (string, error) {
	st, err := a.Stat(base)
	other, oerr := b.Stat(base)
	if err = errors.Join(err, oerr); err != nil {
		return full, err
	}
	if st.Mode != other.Mode || st.UID != other.UID || st.GID != other.GID || st.Major != other.Major || st.Minor != other.Minor {
		return full, nil
	}
	switch {
	case st.IsDir():
		return d.inside(a, b, base, full)
	case !st.IsWhiteout() && !st.ModTime.Equal(other.ModTime), st.Size != other.Size:
		return full, nil
	case st.IsSymlink():
		x, err := a.Readlink(base)
		y, yerr := b.Readlink(base)
		if err = errors.Join(err, yerr); err != nil || x != y {
			return full, err
		}
	case st.IsRegular():
		same, err := d.contents(a, b, base)
		if !same || err != nil {
			return full, err
		}
	}
	x, err := a.Node(base)
	if err != nil {
		return full, err
	}
	y, err := b.Node(base)
	if err != nil {
		return full, errors.Join(err, x.Close())
	}
	same, err := sameXattrs(x, y)
	if err = errors.Join(err, x.Close(), y.Close()); err != nil || !same {
		return full, err
	}
	return "", nil
}

func (d differ) inside(a, b *dir.Dir, base, full string) (string, error) {
	x, err := a.Child(base)
	if err != nil {
		return full, err
	}
	y, err := b.Child(base)
	if err != nil {
		return full, errors.Join(err, x.Close())
	}
	at, err := d.folders(x, y, full)
	return at, errors.Join(err, x.Close(), y.Close())
}

// contents compares two files of the same size.
func (d differ) contents(a, b *dir.Dir, base string) (bool, error) {
	x, err := a.File(base)
	if err != nil {
		return false, err
	}
	defer x.Close()
	y, err := b.File(base)
	if err != nil {
		return false, err
	}
	defer y.Close()
	return SameStream(x, y, d.a, d.b)
}

// SameStream compares two streams piece by piece, in two buffers of the same length.
func SameStream(a, b io.Reader, bufA, bufB []byte) (bool, error) {
	for {
		n, err := io.ReadFull(a, bufA)
		m, merr := io.ReadFull(b, bufB)
		if n != m || !bytes.Equal(bufA[:n], bufB[:m]) {
			return false, nil
		}
		end := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if end && err == merr { //nolint:errorlint // of the same function
			return true, nil
		}
		if err = errors.Join(err, merr); err != nil {
			return false, err
		}
	}
}

func sameXattrs(a, b dir.Node) (bool, error) {
	var attrs [2]map[string]string
	for i, n := range []dir.Node{a, b} {
		h := tar.Header{}
		if err := addXattrs(&h, n); err != nil {
			return false, err
		}
		attrs[i] = maps.Clone(h.PAXRecords)
		value, found, err := n.Getxattr(opaqueXattr)
		if err != nil && !strings.Contains(err.Error(), "not supported") {
			return false, err
		}
		if found {
			if attrs[i] == nil {
				attrs[i] = map[string]string{}
			}
			attrs[i][opaqueXattr] = value
		}
	}
	return maps.Equal(attrs[0], attrs[1]), nil
}
