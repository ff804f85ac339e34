package image

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"gantry/archive"
	"gantry/errdefs"

	"github.com/opencontainers/go-digest"
)

// maxEntries is how many files an image may have for this package to look into it.
const maxEntries = 5_000_000

// Names by which a layer takes away what is beneath it (OCI image-spec, layer.md).
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// LayerInfo is a layer of an image.
type LayerInfo struct {
	DiffID     digest.Digest
	Digest     digest.Digest // of the blob
	MediaType  string
	Compressed int64  // bytes of the blob
	Size       int64  // bytes of the files
	Files      int    // entries of any kind
	Waste      int64  // bytes of files that layers above replace or take away
	CreatedBy  string // of the history
}

// Layers is an image layer by layer, bottom first.
type Layers struct {
	ID     digest.Digest
	Layers []LayerInfo
	Size   int64
	Waste  int64
}

// Layers looks into every layer of an image.
func (s *Service) Layers(ctx context.Context, ref string) (*Layers, error) {
	c, err := s.contents(ctx, ref, false)
	if err != nil {
		return nil, fmt.Errorf("layers of image: %w", err)
	}
	l := &Layers{ID: c.image.ID, Layers: c.layers}
	for _, one := range c.layers {
		l.Size += one.Size
		l.Waste += one.Waste
	}
	return l, nil
}

// FileDifference is a path that is not the same in two images.
type FileDifference struct {
	Path string
	Kind string   // "A" added, "C" changed, "D" deleted
	What []string // of a changed one: "type", "mode", "owner", "content", "link", "device", "attributes"
	From int64    // bytes in the first image
	To   int64    // bytes in the second
}

// Compare lists what of the files of one image is another in a second, by path. Times are not compared.
func (s *Service) Compare(ctx context.Context, first, second string) ([]FileDifference, error) {
	a, err := s.contents(ctx, first, true)
	if err != nil {
		return nil, fmt.Errorf("compare images: %w", err)
	}
	b, err := s.contents(ctx, second, true)
	if err != nil {
		return nil, fmt.Errorf("compare images: %w", err)
	}
	var list []FileDifference
	compare(&list, "", a.root, b.root)
	return list, nil
}

// inode is a file of an image. Hard links share one.
type inode struct {
	layer      int
	names      int
	kind       byte // of the tar entry
	mode       int64
	uid, gid   int
	size       int64
	link       string
	device     [2]int64
	content    [sha256.Size]byte
	attributes map[string]string
}

// node is a name in an image's tree.
type node struct {
	*inode
	children map[string]*node // of a directory
}

// contents is the tree of an image as its layers make it.
type contents struct {
	image   *Image
	layers  []LayerInfo
	root    *node
	entries int
	hash    bool
}

func (s *Service) contents(ctx context.Context, ref string, hash bool) (*contents, error) {
	end := s.hold(false)
	defer end(ctx)
	i, err := s.Get(ctx, ref)
	if err != nil {
		return nil, err
	}
	blobs, err := s.blobsOf(i)
	if err != nil {
		return nil, err
	}
	var steps []string
	for _, h := range i.Config.History {
		if !h.EmptyLayer {
			steps = append(steps, h.CreatedBy)
		}
	}
	c := &contents{image: i, root: directory(0), hash: hash}
	for n, b := range blobs {
		l := LayerInfo{DiffID: i.DiffIDs[n], Digest: b.Digest, MediaType: b.MediaType, Compressed: b.Size}
		if n < len(steps) {
			l.CreatedBy = steps[n]
		}
		c.layers = append(c.layers, l)
		if err := c.add(ctx, s, n, b.Digest); err != nil {
			return nil, fmt.Errorf("layer %s: %w", b.Digest, s.blame(ctx, err, b.Digest))
		}
	}
	return c, nil
}

// directory is one that no entry speaks of.
func directory(layer int) *node {
	return &node{inode: &inode{layer: layer, kind: tar.TypeDir, mode: 0o755}, children: map[string]*node{}}
}

// add puts a layer over the tree.
func (c *contents) add(ctx context.Context, s *Service, layer int, blob digest.Digest) (err error) {
	f, err := s.sound(ctx, blob)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	plain, _, err := archive.Decompress(f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plain.Close()) }()
	r := tar.NewReader(plain)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			_, err := io.Copy(io.Discard, f) // up to its digest
			return err
		}
		if err != nil {
			return errdefs.New(errdefs.InvalidParameter, "read layer: %w", err)
		}
		if err := ctx.Err(); err != nil {
			return errdefs.With(errdefs.Canceled, err)
		}
		if c.entries++; c.entries > maxEntries {
			return errdefs.New(errdefs.InvalidParameter, "the image has more than %d entries", maxEntries)
		}
		if err := c.entry(r, h, layer); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

func (c *contents) entry(r io.Reader, h *tar.Header, layer int) error {
	name := path.Clean("/" + h.Name)
	parent, base := c.walk(path.Dir(name), layer), path.Base(name)
	switch {
	case base == opaque:
		for child, n := range parent.children {
			if n.layer != layer {
				c.waste(n)
				delete(parent.children, child)
			}
		}
		return nil
	case strings.HasPrefix(base, whiteout):
		c.remove(parent, strings.TrimPrefix(base, whiteout))
		return nil
	}
	c.layers[layer].Files++
	n := &node{inode: &inode{layer: layer, kind: h.Typeflag, mode: h.Mode & 0o7777, uid: h.Uid, gid: h.Gid, link: h.Linkname, device: [2]int64{h.Devmajor, h.Devminor}}}
	switch h.Typeflag {
	case tar.TypeLink:
		target := c.find(path.Clean("/" + h.Linkname))
		if target == nil || target.kind == tar.TypeDir {
			return errdefs.New(errdefs.InvalidParameter, "hard link to %s, which is not there", h.Linkname)
		}
		n.inode = target.inode
	case tar.TypeDir:
		n.children = map[string]*node{}
		if name == "/" {
			n.children = c.root.children
			c.root = n
			return nil
		}
		if old := parent.children[base]; old != nil && old.kind == tar.TypeDir { // what is in it stays
			n.children = old.children
			delete(parent.children, base)
		}
	case tar.TypeReg:
		n.size = h.Size
		c.layers[layer].Size += h.Size
		if c.hash {
			sum := sha256.New()
			if _, err := io.Copy(sum, r); err != nil {
				return errdefs.New(errdefs.InvalidParameter, "read layer: %w", err)
			}
			sum.Sum(n.content[:0])
		}
	}
	if h.Typeflag != tar.TypeLink {
		n.attributes = attributes(h)
	}
	c.remove(parent, base)
	n.names++
	parent.children[base] = n
	return nil
}

// attributes returns the extended attributes of an entry.
func attributes(h *tar.Header) map[string]string {
	const prefix = "SCHILY.xattr."
	var m map[string]string
	for k, v := range h.PAXRecords {
		if name, ok := strings.CutPrefix(k, prefix); ok {
			if m == nil {
				m = map[string]string{}
			}
			m[name] = v
		}
	}
	return m
}

// walk returns the directory of that name; what is missing of it is made, and what is no directory is replaced by one.
func (c *contents) walk(name string, layer int) *node {
	at := c.root
	for part := range strings.SplitSeq(strings.Trim(name, "/"), "/") {
		if part == "" {
			continue
		}
		next := at.children[part]
		if next == nil || next.kind != tar.TypeDir {
			c.remove(at, part)
			next = directory(layer)
			at.children[part] = next
		}
		at = next
	}
	return at
}

func (c *contents) find(name string) *node {
	at := c.root
	for part := range strings.SplitSeq(strings.Trim(name, "/"), "/") {
		if part == "" {
			continue
		}
		if at = at.children[part]; at == nil {
			return nil
		}
	}
	return at
}

func (c *contents) remove(parent *node, name string) {
	if n := parent.children[name]; n != nil {
		c.waste(n)
		delete(parent.children, name)
	}
}

// waste counts the files at and below a name that is taken away. One with several names goes with the last.
func (c *contents) waste(n *node) {
	if n.names--; n.kind == tar.TypeReg && n.names == 0 {
		c.layers[n.layer].Waste += n.size
	}
	for _, child := range n.children {
		c.waste(child)
	}
}

// compare adds the differences below a path, in the order of paths.
func compare(list *[]FileDifference, at string, a, b *node) {
	names := slices.Sorted(maps.Keys(a.children))
	for name := range b.children {
		if a.children[name] == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		p := at + "/" + name
		x, y := a.children[name], b.children[name]
		switch {
		case y == nil:
			*list = append(*list, FileDifference{Path: p, Kind: "D", From: x.size})
		case x == nil:
			*list = append(*list, FileDifference{Path: p, Kind: "A", To: y.size})
			compare(list, p, &node{}, y)
		default:
			if what := changes(x.inode, y.inode); len(what) > 0 {
				*list = append(*list, FileDifference{Path: p, Kind: "C", What: what, From: x.size, To: y.size})
			}
			compare(list, p, x, y)
		}
	}
}

func changes(a, b *inode) (what []string) {
	for _, c := range []struct {
		name    string
		differs bool
	}{
		{"type", a.kind != b.kind},
		{"mode", a.mode != b.mode && a.kind != tar.TypeSymlink}, // which has none
		{"owner", a.uid != b.uid || a.gid != b.gid},
		{"content", a.kind == b.kind && (a.size != b.size || a.content != b.content)},
		{"link", a.kind == b.kind && a.kind == tar.TypeSymlink && a.link != b.link},
		{"device", a.kind == b.kind && a.device != b.device},
		{"attributes", !maps.Equal(a.attributes, b.attributes)},
	} {
		if c.differs {
			what = append(what, c.name)
		}
	}
	return what
}
