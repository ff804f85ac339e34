package graph

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"

	"gantry/archive"
	"gantry/build/dockerfile"
	"gantry/build/tree"
	"gantry/errdefs"
	"gantry/image"
	"gantry/linux/dir"
	"gantry/linux/safepath"

	"github.com/opencontainers/go-digest"
)

// source is what COPY or ADD says.
type source struct {
	word         string
	paths        []string
	to           string
	from         string // of COPY --from
	chown, chmod string
	add          bool // archives are unpacked and URLs fetched
}

// piece is one thing to be copied.
type piece struct {
	tree.Entry
	tree   *tree.Tree
	unpack bool // an archive, to be unpacked
}

// copy takes a COPY or an ADD.
func (b *build) copy(ctx context.Context, st *stage, s source) (err error) {
	if len(s.paths) == 0 || s.to == "" {
		return errdefs.New(errdefs.InvalidParameter, "%s requires at least two arguments", s.word)
	}
	if len(s.paths) > 1 && !strings.HasSuffix(s.to, "/") {
		return errdefs.New(errdefs.InvalidParameter, "When using %s with more than one source file, the destination must be a directory and end with a /", s.word)
	}
	mode, err := parseMode(s.chmod)
	if err != nil {
		return err
	}
	pieces, opened, err := b.gather(ctx, st, s)
	defer func() {
		for _, t := range opened {
			err = errors.Join(err, t.Close())
		}
	}()
	if err != nil {
		return fmt.Errorf("%s failed: %w", s.word, err)
	}
	to := s.to
	if !path.IsAbs(to) {
		to = path.Join("/", st.Config.WorkingDir, to)
		if s.to == "." || strings.HasSuffix(s.to, "/") || strings.HasSuffix(s.to, "/.") {
			to += "/"
		}
	}
	sums := make([]string, len(pieces))
	all := digest.Canonical.Hash()
	for i, p := range pieces {
		sums[i] = p.tree.Sum(p.Entry).String()
		_, _ = io.WriteString(all, sums[i]) // never fails
	}
	createdBy := dockerfile.Comment(fmt.Sprintf("%s %s in %s ", s.word, summary(pieces, sums, digest.NewDigest(digest.Canonical, all)), s.to))
	var work *image.Workspace
	defer func() { b.close(ctx, work) }()
	return b.keep(ctx, st, result{createdBy: createdBy, inputs: [][]string{{"copy", strconv.FormatBool(s.add), s.to, to, s.chown, s.chmod}, sums}, do: func(ctx context.Context) (string, error) {
		var err error
		if work, err = b.workspace(ctx, st); err != nil {
			return "", err
		}
		if err := b.place(ctx, work.Root, pieces, to, s.chown, mode); err != nil {
			return "", fmt.Errorf("%s failed: %w", s.word, err)
		}
		return work.Key, work.Unmount()
	}})
}

// summary is docker's word for what is copied: "file:SUM", "dir:SUM" or "multi:SUM".
func summary(pieces []piece, sums []string, all digest.Digest) string {
	switch {
	case len(pieces) > 1:
		return "multi:" + all.Encoded()
	case pieces[0].IsDir():
		return "dir:" + digest.Digest(sums[0]).Encoded()
	default:
		return "file:" + digest.Digest(sums[0]).Encoded()
	}
}

// parseMode reads the mode of --chmod; nil for none.
func parseMode(text string) (*int64, error) {
	if text == "" {
		return nil, nil
	}
	n, err := strconv.ParseInt(text, 8, 32)
	if err != nil || n < 0 || n > 0o7777 {
		return nil, errdefs.New(errdefs.InvalidParameter, "--chmod=%s is not an octal mode from 0 to 7777", text)
	}
	return &n, nil
}

// gather finds what the paths stand for. The trees are for the caller to close, after an error, too.
func (b *build) gather(ctx context.Context, st *stage, s source) (pieces []piece, opened []*tree.Tree, err error) {
	var from *image.Image
	if s.from != "" {
		if from, err = b.copiedFrom(ctx, st, s.from); err != nil {
			return nil, nil, err
		}
	}
	for _, name := range s.paths {
		var more []piece
		switch {
		case s.add && isURL(name):
			var p piece
			p, err = b.fetch(ctx, name, s.to)
			more = []piece{p}
		case from != nil:
			more, err = b.view(ctx, from, name)
		default:
			more, err = b.find(name, s.add)
		}
		for _, p := range more {
			if p.tree != nil && p.tree != b.files {
				opened = append(opened, p.tree)
			}
		}
		if err != nil {
			return nil, opened, err
		}
		pieces = append(pieces, more...)
	}
	switch {
	case len(pieces) == 0:
		return nil, opened, errdefs.New(errdefs.InvalidParameter, "no source files were specified")
	case len(pieces) > 1 && !strings.HasSuffix(s.to, "/"):
		return nil, opened, errdefs.New(errdefs.InvalidParameter, "When using %s with more than one source file, the destination must be a directory and end with a /", s.word)
	}
	return pieces, opened, nil
}

// find finds what a path or a pattern stands for in the context.
func (b *build) find(name string, add bool) ([]piece, error) {
	if clean := path.Clean(strings.TrimLeft(name, "/")); clean == ".." || strings.HasPrefix(clean, "../") {
		return nil, errdefs.New(errdefs.InvalidParameter, "forbidden path outside the build context: %s", name)
	}
	entries, err := b.files.Find(name)
	if errdefs.Is(err, errdefs.NotFound) {
		return nil, errdefs.New(errdefs.NotFound, "file not found in build context or excluded by .dockerignore: stat %w", err)
	}
	if err != nil {
		return nil, err
	}
	var pieces []piece
	for _, e := range entries {
		p := piece{Entry: e, tree: b.files}
		p.unpack = add && b.isArchive(p)
		pieces = append(pieces, p)
	}
	return pieces, nil
}

// view takes those parts of an image in that a path or a pattern stands for. What it returns after an error is to be closed, too.
func (b *build) view(ctx context.Context, from *image.Image, name string) (pieces []piece, err error) {
	work, err := b.images.Workspace(ctx, "build", from.DiffIDs, true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, work.Close(ctx)) }()
	root, err := dir.Of(work.Root)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	names, err := glob(root, path.Clean("/"+name))
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		target, err := root.Resolve(n)
		if errors.Is(err, fs.ErrNotExist) {
			return pieces, errdefs.New(errdefs.NotFound, "stat %s: file does not exist", n)
		}
		if err != nil {
			return pieces, errdefs.With(errdefs.InvalidParameter, err)
		}
		var t *tree.Tree
		err = piped(func(w io.Writer) error { return under(ctx, work.Root, target, n, w) }, func(r io.Reader) (err error) {
			t, err = tree.Read(ctx, r, b.currentLimits(), b.tmp)
			return err
		})
		if err != nil {
			return pieces, err
		}
		pieces = append(pieces, piece{tree: t})
		e, err := t.Get(n)
		if err != nil {
			return pieces, err
		}
		pieces[len(pieces)-1].Entry = e
	}
	return pieces, nil
}

// glob lists the paths in root that match a pattern, sorted; one without special characters is itself.
func glob(root *dir.Dir, pattern string) ([]string, error) {
	found := []string{"/"}
	for element := range strings.SplitSeq(strings.TrimPrefix(pattern, "/"), "/") {
		if !strings.ContainsAny(element, `*?[\`) {
			for i := range found {
				found[i] = path.Join(found[i], element)
			}
			continue
		}
		var next []string
		for _, folder := range found {
			d, err := root.Sub(folder)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
				continue
			}
			if err != nil {
				return nil, err
			}
			names, err := d.Names()
			if err = errors.Join(err, d.Close()); err != nil {
				return nil, err
			}
			for _, name := range names {
				if ok, err := path.Match(element, name); err != nil {
					return nil, errdefs.New(errdefs.InvalidParameter, "pattern %q: %w", pattern, err)
				} else if ok {
					next = append(next, path.Join(folder, name))
				}
			}
		}
		found = next
	}
	return found, nil
}

// under writes what is at target in root as a tar in which it is called name.
func under(ctx context.Context, root *os.File, target, name string, w io.Writer) error {
	o := archive.TarOptions{Contents: true}
	if name = strings.TrimPrefix(name, "/"); name != "" {
		o = archive.TarOptions{Name: name}
	}
	return archive.Tar(ctx, root, target, w, o)
}

// piped has read read what write writes, and returns when both have ended.
func piped(write func(io.Writer) error, read func(io.Reader) error) error {
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = w.CloseWithError(write(w)) // the reader gets it
	}()
	err := errors.Join(read(r), r.Close())
	<-done
	return err
}

// isArchive reports whether a file is a tar, compressed or not.
func (b *build) isArchive(p piece) bool {
	if !p.IsRegular() {
		return false
	}
	plain, _, err := archive.DecompressLayer(p.tree.Open(p.Entry), b.currentLimits())
	if err != nil {
		return false
	}
	_, err = tar.NewReader(plain).Next()
	_ = plain.Close() // read only
	return err == nil
}

// place copies pieces to a path of a root file system, in which links are followed.
func (b *build) place(ctx context.Context, root *os.File, pieces []piece, to, chown string, mode *int64) error {
	folder := strings.HasSuffix(to, "/") || strings.HasSuffix(to, "/.")
	to = path.Clean(to)
	d, err := dir.Of(root)
	if err != nil {
		return err
	}
	defer d.Close()
	if target, err := d.Resolve(to); err == nil { // what is there is meant, not a link to it
		to = target
		folder = folder || isFolder(d, to)
	}
	owner := archive.Owner{}
	if chown != "" {
		if owner, err = b.containers.StepOwner(root, chown); err != nil {
			return err
		}
	}
	for _, p := range pieces {
		if err := b.put(ctx, root, d, p, to, folder, owner, chown != "", mode); err != nil {
			return err
		}
	}
	return nil
}

func isFolder(d *dir.Dir, name string) bool {
	sub, err := d.Sub(name)
	if err != nil {
		return false
	}
	_ = sub.Close() // it was only looked for
	return true
}

// put copies one piece.
func (b *build) put(ctx context.Context, root *os.File, d *dir.Dir, p piece, to string, folder bool, owner archive.Owner, chosen bool, mode *int64) error {
	if p.IsDir() || p.unpack {
		if _, err := d.Resolve(to); err == nil && !isFolder(d, to) {
			return errdefs.New(errdefs.InvalidParameter, "cannot copy to non-directory: %s", to)
		}
	}
	err := piped(func(w io.Writer) error { return write(w, d, p, to, folder, owner, mode) }, func(r io.Reader) error {
		return archive.Extract(ctx, root, "/", r, archive.ExtractOptions{})
	})
	if err != nil || !p.unpack {
		return err
	}
	plain, _, err := archive.DecompressLayer(p.tree.Open(p.Entry), b.currentLimits())
	if err != nil {
		return err
	}
	o := archive.ExtractOptions{}
	if chosen {
		o.Owner = &owner
	}
	return errors.Join(archive.Extract(ctx, root, to, plain, o), plain.Close())
}

// write writes the tar that puts one piece, or only the folder that an archive goes to, where it belongs.
func write(w io.Writer, d *dir.Dir, p piece, to string, folder bool, owner archive.Owner, mode *int64) error {
	tw := tree.NewWriter(w)
	tw.Owner = &owner
	name := to
	if !p.IsDir() && !p.unpack {
		if folder {
			name = path.Join(to, p.Name)
		}
		to = path.Dir(name)
	}
	for _, missing := range lacking(d, to) {
		if err := tw.Folder(missing); err != nil {
			return err
		}
	}
	if !p.unpack {
		tw.Mode = mode
		if err := tw.Entry(p.tree, p.Entry, strings.TrimPrefix(name, "/")); err != nil {
			return err
		}
	}
	return tw.Close()
}

// lacking lists the folders that are missing on the way to a path, the topmost first, without a slash in front.
func lacking(d *dir.Dir, to string) []string {
	var missing []string
	for ; to != "/"; to = path.Dir(to) {
		if _, err := d.Resolve(to); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		missing = append([]string{strings.TrimPrefix(to, "/")}, missing...)
	}
	return missing
}

// workspace makes a file system on what a stage has come to, to be written to.
func (b *build) workspace(ctx context.Context, st *stage) (*image.Workspace, error) {
	var layers []digest.Digest
	if st.image != nil {
		layers = st.image.DiffIDs
	}
	return b.images.Workspace(ctx, "build", layers, false)
}

// close gives a workspace up; nil is none.
func (b *build) close(ctx context.Context, work *image.Workspace) {
	if work == nil {
		return
	}
	if err := work.Close(ctx); err != nil {
		b.log.Error("close the workspace of a build", "error", err)
	}
}

// makeFolder makes a folder in a root file system, and says whether it was missing.
func makeFolder(root *os.File, name string) (made bool, err error) {
	d, err := dir.Of(root)
	if err != nil {
		return false, err
	}
	defer d.Close()
	if _, err := d.Resolve(name); err == nil {
		if !isFolder(d, name) {
			return false, errdefs.New(errdefs.InvalidParameter, "cannot make %s a directory: something else is there", name)
		}
		return false, nil
	}
	f, err := safepath.MkdirAll(root, name, 0o755)
	if err != nil {
		return false, err
	}
	return true, f.Close()
}
