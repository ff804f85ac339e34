// Package tree keeps the files that COPY and ADD take from: a build's context, or a part of another image. They are never unpacked: what a tar names is an index in memory, and what
// its files have in them lies one after the other in a file without a name. So no path, link or device of a stranger's archive is ever one of the host's, and a killed process leaves nothing.
package tree

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"gantry/archive"
	"gantry/errdefs"
	"gantry/linux/dir"

	"github.com/opencontainers/go-digest"
)

// Tree is a tree of files, which does not change any more.
type Tree struct {
	data *os.File // the contents of all files, one after the other
	end  int64
	root *node
}

// inode is a file of any kind. Hard links share one.
type inode struct {
	kind       byte // of tar
	mode       int64
	uid, gid   int
	time       time.Time
	link       string // of a symbolic link
	device     [2]int64
	attributes map[string]string // PAX records of extended attributes

	offset, size int64 // of the contents in Tree.data
	sum          [sha256.Size]byte
}

// node is a name.
type node struct {
	*inode
	children map[string]*node // of a folder; nil for others
}

const (
	paxXattr = "SCHILY.xattr."
	maxLinks = 40 // that are followed on one path, as many as the kernel does
	buffer   = 256 << 10
)

func newFolder() *node {
	return &node{inode: &inode{kind: tar.TypeDir, mode: 0o755}, children: map[string]*node{}}
}

// Read takes a tree from a tar, compressed or not, and reads r to its end. Contents go to a file in folder. Errors: InvalidParameter for a malformed or hostile archive and for one that
// exceeds a limit, Exhausted when the disk is full.
func Read(ctx context.Context, r io.Reader, limits archive.Limits, folder string) (_ *Tree, err error) {
	data, err := dir.Unnamed(folder)
	if err != nil {
		return nil, err
	}
	t := &Tree{data: data, root: newFolder()}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Close())
		}
	}()
	plain, _, err := archive.DecompressLayer(r, limits)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, buffer)
	err = archive.Entries(ctx, plain, limits, func(name string, h *tar.Header, r io.Reader) error { return t.add(ctx, name, h, r, buf) })
	if err == nil { // what comes after the end of a tar is padding
		_, err = io.CopyBuffer(io.Discard, plain, buf)
	}
	if err = errors.Join(err, plain.Close()); err != nil {
		if dir.SpaceError(err) {
			err = errdefs.With(errdefs.Exhausted, err)
		}
		return nil, err
	}
	return t, nil
}

// Close gives the contents up.
func (t *Tree) Close() error { return t.data.Close() }

// add takes one entry of a tar.
func (t *Tree) add(ctx context.Context, name string, h *tar.Header, r io.Reader, buf []byte) error {
	if name == "" {
		return nil
	}
	parent, err := t.parent(name)
	if err != nil {
		return err
	}
	base := path.Base(name)
	switch h.Typeflag {
	case tar.TypeLink:
		target, err := t.linked(h.Linkname)
		if err != nil {
			return err
		}
		parent.children[base] = &node{inode: target.inode}
		return nil
	case tar.TypeDir:
		if old := parent.children[base]; old != nil && old.children != nil {
			old.inode = t.inode(h)
			return nil
		}
		parent.children[base] = &node{inode: t.inode(h), children: map[string]*node{}}
		return nil
	case tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		parent.children[base] = &node{inode: t.inode(h)}
		return nil
	default:
		n := &node{inode: t.inode(h)}
		n.kind = tar.TypeReg
		if err := t.fill(ctx, n.inode, r, buf); err != nil {
			return err
		}
		parent.children[base] = n
		return nil
	}
}

func (t *Tree) inode(h *tar.Header) *inode {
	i := &inode{kind: h.Typeflag, mode: h.Mode & 0o7777, uid: h.Uid, gid: h.Gid, time: h.ModTime, device: [2]int64{h.Devmajor, h.Devminor}}
	if h.Typeflag == tar.TypeSymlink {
		i.link = h.Linkname
	}
	for key, value := range h.PAXRecords {
		if strings.HasPrefix(key, paxXattr) {
			if i.attributes == nil {
				i.attributes = map[string]string{}
			}
			i.attributes[key] = value
		}
	}
	return i
}

// fill appends the contents of a file to the data.
func (t *Tree) fill(ctx context.Context, i *inode, r io.Reader, buf []byte) error {
	sum := sha256.New()
	i.offset = t.end
	for {
		n, err := r.Read(buf)
		if n > 0 {
			_, _ = sum.Write(buf[:n]) // never fails
			if _, werr := t.data.WriteAt(buf[:n], t.end); werr != nil {
				return werr
			}
			t.end += int64(n)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
	}
	i.size = t.end - i.offset
	sum.Sum(i.sum[:0])
	return nil
}

// parent returns the folder that a name of the archive is in, and makes what is missing of it. It is not looked for behind symbolic links.
func (t *Tree) parent(name string) (*node, error) {
	at := t.root
	elements := strings.Split(name, "/")
	for _, e := range elements[:len(elements)-1] {
		next := at.children[e]
		if next == nil {
			next = newFolder()
			at.children[e] = next
		}
		if next.children == nil {
			return nil, errdefs.New(errdefs.InvalidParameter, "it lies beneath %q, which is no folder in the archive", e)
		}
		at = next
	}
	return at, nil
}

// linked returns the file that a hard link is for.
func (t *Tree) linked(name string) (*node, error) {
	at := t.root
	for e := range strings.SplitSeq(strings.TrimPrefix(path.Clean("/"+name), "/"), "/") {
		if at = at.children[e]; at == nil {
			break
		}
	}
	if at == nil || at.children != nil {
		return nil, errdefs.New(errdefs.InvalidParameter, "link to %q, which is no file of the archive", name)
	}
	return at, nil
}

// Entry is something in the tree that a source stands for.
type Entry struct {
	Name string // the last element of the path that it was found by; empty for the root
	node *node
}

// IsDir reports whether it is a folder.
func (e Entry) IsDir() bool { return e.node.children != nil }

// IsRegular reports whether it is a regular file.
func (e Entry) IsRegular() bool { return e.node.kind == tar.TypeReg }

// Find returns what is at a path, or what matches a pattern (path.Match) of its elements, by name. Symbolic links are followed within the tree, the last one, too.
// Errors: NotFound for a path where nothing is; a pattern may have no match.
func (t *Tree) Find(source string) ([]Entry, error) {
	found := []at{{node: t.root}}
	pattern := false
	for element := range strings.SplitSeq(strings.TrimPrefix(path.Clean("/"+source), "/"), "/") {
		if element == "" { // the root
			continue
		}
		var next []at
		wild := strings.ContainsAny(element, `*?[\`)
		pattern = pattern || wild
		for _, one := range found {
			names := []string{element}
			if wild {
				names = slices.Sorted(maps.Keys(one.node.children))
			}
			for _, name := range names {
				if wild {
					if ok, err := path.Match(element, name); err != nil {
						return nil, errdefs.New(errdefs.InvalidParameter, "pattern %q: %w", source, err)
					} else if !ok {
						continue
					}
				}
				n, err := t.follow(one, name)
				if errdefs.Is(err, errdefs.NotFound) && wild {
					continue // a link to nowhere
				}
				if err != nil {
					return nil, fmt.Errorf("%s: %w", source, err)
				}
				n.name = name
				next = append(next, n)
			}
		}
		found = next
	}
	if len(found) == 0 && !pattern {
		return nil, errdefs.New(errdefs.NotFound, "%s: file does not exist", source)
	}
	entries := make([]Entry, len(found))
	for i, one := range found {
		entries[i] = Entry{one.name, one.node}
	}
	return entries, nil
}

// Get returns what is at a path, as Find does, which is no pattern.
func (t *Tree) Get(name string) (Entry, error) {
	found, err := t.follow(at{node: t.root}, path.Clean("/"+name))
	if err != nil {
		return Entry{}, fmt.Errorf("%s: %w", name, err)
	}
	return Entry{path.Base(path.Clean("/" + name)), found.node}, nil
}

// at is a node with the folders above it, the root first.
type at struct {
	node  *node
	above []*node
	name  string
}

// follow goes from a folder to the one that path leads to within the tree.
func (t *Tree) follow(from at, name string) (at, error) {
	rest := strings.Split(name, "/")
	for links := 0; len(rest) > 0; {
		element := rest[0]
		rest = rest[1:]
		switch element {
		case "", ".":
			continue
		case "..":
			if n := len(from.above); n > 0 {
				from = at{node: from.above[n-1], above: from.above[:n-1]}
			}
			continue
		}
		next := from.node.children[element]
		if next == nil {
			return from, errdefs.New(errdefs.NotFound, "file does not exist")
		}
		if next.kind != tar.TypeSymlink {
			from = at{node: next, above: append(slices.Clip(from.above), from.node)}
			continue
		}
		if links++; links > maxLinks {
			return from, errdefs.New(errdefs.InvalidParameter, "too many levels of symbolic links")
		}
		if path.IsAbs(next.link) {
			from = at{node: t.root}
		}
		rest = append(strings.Split(next.link, "/"), rest...)
	}
	return from, nil
}

// Open returns the contents of a regular file.
func (t *Tree) Open(e Entry) *io.SectionReader {
	return io.NewSectionReader(t.data, e.node.offset, e.node.size)
}

// ReadFile returns the contents of the file at a path, which has at most limit bytes. Errors: NotFound, InvalidParameter.
func (t *Tree) ReadFile(name string, limit int64) ([]byte, error) {
	e, err := t.Get(name)
	if err != nil {
		return nil, err
	}
	if !e.IsRegular() {
		return nil, errdefs.New(errdefs.InvalidParameter, "%s is not a regular file", name)
	}
	if e.node.size > limit {
		return nil, errdefs.New(errdefs.InvalidParameter, "%s has %d bytes: at most %d are read", name, e.node.size, limit)
	}
	return io.ReadAll(t.Open(e))
}

// Sum is a digest of an entry with all beneath it: of names, kinds, modes, links, attributes and contents, but not of owners and times, which the copy does not have from there or which do not matter.
func (t *Tree) Sum(e Entry) digest.Digest {
	h := sha256.New()
	var add func(name string, n *node)
	add = func(name string, n *node) {
		fmt.Fprintf(h, "%q %c %o %q %d %x", name, n.kind, n.mode, n.link, n.device, n.sum)
		for _, key := range slices.Sorted(maps.Keys(n.attributes)) {
			fmt.Fprintf(h, " %q=%q", key, n.attributes[key])
		}
		fmt.Fprintln(h)
		for _, child := range slices.Sorted(maps.Keys(n.children)) {
			add(path.Join(name, child), n.children[child])
		}
	}
	if e.IsDir() { // its contents are copied
		add("", &node{inode: &inode{kind: tar.TypeDir}, children: e.node.children})
	} else {
		add(e.Name, e.node)
	}
	return digest.NewDigest(digest.SHA256, h)
}

// Remove takes away what keep does not hold for, given by path, but for folders in which something is left.
func (t *Tree) Remove(keep func(name string) (bool, error)) error {
	var prune func(prefix string, n *node) error
	prune = func(prefix string, n *node) error {
		for name, child := range n.children {
			full := path.Join(prefix, name)
			if err := prune(full, child); err != nil {
				return err
			}
			kept, err := keep(full)
			if err != nil {
				return err
			}
			if !kept && len(child.children) == 0 {
				delete(n.children, name)
			}
		}
		return nil
	}
	return prune("", t.root)
}

// Writer writes entries of trees as a tar.
type Writer struct {
	tw    *tar.Writer
	Owner *archive.Owner // of all; nil: as they are
	Mode  *int64         // of all but symbolic links; nil: as they are
	names map[*inode]string
}

// NewWriter returns a writer to w.
func NewWriter(w io.Writer) *Writer { return &Writer{tw: tar.NewWriter(w), names: map[*inode]string{}} }

// Folder writes a folder that is in no tree.
func (w *Writer) Folder(name string) error {
	h := &tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, ModTime: time.Now(), Format: tar.FormatPAX}
	if w.Owner != nil {
		h.Uid, h.Gid = w.Owner.UID, w.Owner.GID
	}
	return w.tw.WriteHeader(h)
}

func (w *Writer) refit(h *tar.Header) {
	if w.Owner != nil {
		h.Uid, h.Gid = w.Owner.UID, w.Owner.GID
	}
	if w.Mode != nil && h.Typeflag != tar.TypeSymlink {
		h.Mode = *w.Mode
	}
}

// Entry writes an entry under a name, or, of a folder, all that is in it beneath that name.
func (w *Writer) Entry(t *Tree, e Entry, name string) error {
	if !e.IsDir() {
		return w.node(t, e.node, name)
	}
	for _, child := range slices.Sorted(maps.Keys(e.node.children)) {
		if err := w.node(t, e.node.children[child], path.Join(name, child)); err != nil {
			return err
		}
	}
	return nil
}

func (w *Writer) node(t *Tree, n *node, name string) error {
	h := &tar.Header{
		Typeflag: n.kind, Name: name, Mode: n.mode, Uid: n.uid, Gid: n.gid, ModTime: n.time, Linkname: n.link, Size: n.size,
		Devmajor: n.device[0], Devminor: n.device[1], PAXRecords: n.attributes, Format: tar.FormatPAX,
	}
	if n.children != nil {
		h.Name += "/"
	}
	w.refit(h)
	if first, again := w.names[n.inode]; again {
		h.Typeflag, h.Linkname, h.Size, h.PAXRecords = tar.TypeLink, first, 0, nil
		return w.tw.WriteHeader(h)
	}
	if n.children == nil {
		w.names[n.inode] = name
	}
	if err := w.tw.WriteHeader(h); err != nil {
		return err
	}
	if n.kind == tar.TypeReg {
		if _, err := io.Copy(w.tw, t.Open(Entry{node: n})); err != nil {
			return err
		}
	}
	if n.children == nil {
		return nil
	}
	return w.Entry(t, Entry{node: n}, name)
}

// Close ends the tar.
func (w *Writer) Close() error { return w.tw.Close() }

// File makes a tree of one file, which has the contents that r gives.
func File(ctx context.Context, name string, mode int64, modified time.Time, r io.Reader, folder string) (*Tree, Entry, error) {
	data, err := dir.Unnamed(folder)
	if err != nil {
		return nil, Entry{}, err
	}
	t := &Tree{data: data, root: newFolder()}
	n := &node{inode: &inode{kind: tar.TypeReg, mode: mode, time: modified}}
	if err := t.fill(ctx, n.inode, r, make([]byte, buffer)); err != nil {
		return nil, Entry{}, errors.Join(err, t.Close())
	}
	t.root.children[name] = n
	return t, Entry{name, n}, nil
}
