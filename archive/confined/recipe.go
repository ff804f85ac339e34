package confined

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"gantry/archive"
	"gantry/archive/recipe"
	"gantry/errdefs"
	"gantry/linux/dir"
)

// What a child does instead of unpacking.
const (
	describe = "describe"
	rebuild  = "rebuild"
	check    = "check"
)

// recipeMemory bounds the memory of a child that makes or uses a recipe. It takes a twentieth of that, and half of it for zstd with the largest window.
const recipeMemory = 512 << 20

// task is work on a recipe.
type task struct {
	Verb           string `json:",omitempty"`
	Most           int64  `json:",omitempty"` // bytes of the recipe, or of the blob
	Offset, Length int64  `json:",omitempty"` // of the recipe in its file
	Idle           bool   `json:",omitempty"` // when the machine has nothing better to do
}

func (t task) work(ctx context.Context, in io.Reader, file, layer *os.File, out io.Writer) error {
	d, err := dir.Of(layer)
	if err != nil {
		return err
	}
	r := io.NewSectionReader(file, t.Offset, t.Length)
	switch t.Verb {
	case describe:
		err = recipe.Describe(ctx, in, d, file, t.Most)
	case check:
		err = recipe.Check(ctx, r, t.Length, d, out)
	default:
		err = recipe.Rebuild(ctx, r, t.Length, d, out, t.Most)
	}
	return errors.Join(err, d.Close())
}

// Describe writes the recipe of a layer's blob to a file, from where that is on, at most so many bytes; layer is a mount of the unpacked layer. It takes its time: the child's priority is the
// lowest. Errors: recipe.ErrUnsupported, and those of blob.
func Describe(ctx context.Context, blob io.Reader, layer, file *os.File, most int64) error {
	t := task{Verb: describe, Most: most, Idle: true}
	if !Possible {
		return t.work(ctx, blob, file, layer, nil)
	}
	j := Job{Image: file, Lock: file, Lower: []*os.File{layer}, Limits: archive.Limits{Memory: recipeMemory}, other: t}
	c, err := start(j)
	if err != nil {
		return fmt.Errorf("make recipe in a confined process: %w", err)
	}
	stop := context.AfterFunc(ctx, c.kill)
	defer stop()
	_, err = c.result(ctx, j, c.feed(blob))
	return err
}

// Rebuild writes the blob, of at most so many bytes, that a recipe makes of a layer. The recipe is a part of a file; layer is a mount of the unpacked layer. Whether it is the right blob is for the
// caller to see.
func Rebuild(ctx context.Context, file *os.File, offset, length int64, layer *os.File, w io.Writer, most int64, idle bool) error {
	return use(ctx, task{Verb: rebuild, Most: most, Offset: offset, Length: length, Idle: idle}, file, layer, w)
}

// Check writes the tar that a recipe has of a layer, as recipe.Check does: its digest says whether the blob can be made anew.
func Check(ctx context.Context, file *os.File, offset, length int64, layer *os.File, w io.Writer) error {
	return use(ctx, task{Verb: check, Offset: offset, Length: length}, file, layer, w)
}

// use has a child read a recipe and a layer, and write something to w.
func use(ctx context.Context, t task, file, layer *os.File, w io.Writer) (err error) {
	if !Possible {
		return t.work(ctx, nil, file, layer, w)
	}
	in, out, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	j := Job{Image: file, Lock: out, Lower: []*os.File{layer}, Limits: archive.Limits{Memory: recipeMemory}, other: t}
	c, err := start(j)
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("use recipe in a confined process: %w", err)
	}
	stop := context.AfterFunc(ctx, c.kill)
	defer stop()
	_, werr := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{in}, make([]byte, 256<<10))
	if werr != nil {
		c.kill()
	}
	if _, err = c.result(ctx, j, c.in.Close()); werr != nil && !errdefs.Is(err, errdefs.Canceled) {
		err = werr
	}
	return err
}
