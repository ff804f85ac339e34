package cli

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// counter counts the bytes written to it.
type counter struct{ atomic.Int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.Add(int64(len(p)))
	return len(p), nil
}

// source finds the context that the command line names, and returns what writes it as a tar.
func (b *builder) source(name string) (send func(io.Writer) error, err error) {
	switch {
	case name == "-":
		if b.file == "-" {
			return nil, errors.New("invalid argument: can't use stdin for both build context and dockerfile")
		}
		return b.stdinSource()
	case strings.Contains(name, "://") || strings.HasPrefix(name, "git@") || strings.HasPrefix(name, "github.com/"):
		return nil, fmt.Errorf("the remote context %s is not supported: fetch it and give its directory, or a tar on stdin", name)
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("unable to prepare context: path %q not found", name)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("unable to prepare context: context must be a directory: %s", name)
	}
	root, err := filepath.EvalSymlinks(name)
	if err == nil {
		root, err = filepath.Abs(root)
	}
	if err != nil {
		return nil, fmt.Errorf("unable to prepare context: %w", err)
	}
	beside, err := b.dockerfile(root)
	if err != nil {
		return nil, err
	}
	ignored, err := readIgnored(root)
	if err != nil {
		return nil, err
	}
	return func(w io.Writer) error { return sendContext(w, root, ignored, b.options.Dockerfile, beside) }, nil
}

// stdinSource takes a tar, compressed or not, or else a Dockerfile, which is the whole context then.
func (b *builder) stdinSource() (func(io.Writer) error, error) {
	in := bufio.NewReaderSize(b.stdin, 4096)
	head, err := in.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("failed to peek context header from STDIN: %w", err)
	}
	packed := false
	for _, magic := range []string{"\x1f\x8b\x08", "BZh", "\xfd7zXZ\x00", "\x28\xb5\x2f\xfd"} {
		packed = packed || bytes.HasPrefix(head, []byte(magic))
	}
	if _, err := tar.NewReader(bytes.NewReader(head)).Next(); packed || err == nil {
		b.options.Dockerfile = b.file
		return func(w io.Writer) error { _, err := io.Copy(w, in); return err }, nil
	}
	if b.file != "" {
		return nil, errors.New("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles")
	}
	data, err := io.ReadAll(in)
	if err != nil {
		return nil, err
	}
	return func(w io.Writer) error {
		tw := tar.NewWriter(w)
		return errors.Join(addBytes(tw, "Dockerfile", data), tw.Close())
	}, nil
}

// dockerfile finds the Dockerfile and tells the daemon its name in the context. One that is not in there is sent beside it under a name of its own.
func (b *builder) dockerfile(root string) (beside []byte, err error) {
	switch b.file {
	case "":
		return nil, nil
	case "-":
		beside, err = io.ReadAll(b.stdin)
	default:
		var path string
		if path, err = filepath.EvalSymlinks(b.file); err == nil {
			path, err = filepath.Abs(path)
		}
		if errors.Is(err, fs.ErrNotExist) && !filepath.IsAbs(b.file) { // docker takes it as one in the context, too
			path, err = filepath.EvalSymlinks(filepath.Join(root, b.file))
		}
		if err != nil {
			return nil, fmt.Errorf("unable to prepare context: unable to evaluate symlinks in Dockerfile path: %w", err)
		}
		if rel, rerr := filepath.Rel(root, path); rerr == nil && filepath.IsLocal(rel) {
			b.options.Dockerfile = filepath.ToSlash(rel)
			return nil, nil
		}
		beside, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("unable to prepare context: read the Dockerfile: %w", err)
	}
	b.options.Dockerfile = ".dockerfile." + strings.ToLower(rand.Text())
	return beside, nil
}

// readIgnored reads the .dockerignore of a context; nil when there is none.
func readIgnored(root string) (*patternmatcher.PatternMatcher, error) {
	f, err := os.Open(filepath.Join(root, ".dockerignore"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	patterns, err := ignorefile.ReadAll(f)
	if err != nil || len(patterns) == 0 {
		return nil, err
	}
	return patternmatcher.New(patterns)
}

// sendContext writes a directory as a tar without what is ignored, but with the Dockerfile, and with beside, unless that is nil, as the Dockerfile. Files belong to root in it.
func sendContext(w io.Writer, root string, ignored *patternmatcher.PatternMatcher, dockerfile string, beside []byte) error {
	if dockerfile == "" {
		dockerfile = "Dockerfile"
	}
	tw := tar.NewWriter(w)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("can't stat '%s': %w", path, err)
		}
		rel, err := filepath.Rel(root, path)
		if err != nil || rel == "." {
			return err
		}
		name := filepath.ToSlash(rel)
		if ignored != nil && name != dockerfile && name != ".dockerignore" {
			skip, err := ignored.MatchesOrParentMatches(name)
			if err != nil {
				return err
			}
			if skip && d.IsDir() && !ignored.Exclusions() && !strings.HasPrefix(dockerfile, name+"/") {
				return filepath.SkipDir
			}
			if skip {
				return nil
			}
		}
		return addFile(tw, path, name, d, true)
	})
	if err == nil && beside != nil {
		err = addBytes(tw, dockerfile, beside)
	}
	return errors.Join(err, tw.Close())
}

func addBytes(tw *tar.Writer, name string, data []byte) error {
	if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(data)), ModTime: time.Now(), Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err := tw.Write(data)
	return err
}
