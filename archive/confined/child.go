package confined

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"

	"gantry/archive"
	"gantry/archive/recipe"
	"gantry/errdefs"
	"gantry/linux/dir"
)

// name is what a child is called, and how it knows what it is; option comes before its order, and is one that no other program takes.
const (
	name   = "gantry-unpack"
	option = "-gantry-unpack-order"
)

// Main is the child's whole life: a program that calls Unpack begins with it. In any other process it returns at once.
func Main() {
	if len(os.Args) != 3 || os.Args[0] != name || os.Args[1] != option {
		return
	}
	os.Exit(run(os.Args[2]))
}

func run(told string) int {
	var o order
	if err := json.Unmarshal([]byte(told), &o); err != nil {
		fmt.Fprintln(os.Stderr, "unreadable order:", err)
		return 1
	}
	debug.SetMemoryLimit(o.Limits.OrDefault().Memory / 4 * 3)
	if o.Other.Verb != "" {
		debug.SetGCPercent(25) // buffers are what there is, and they stay
	}
	result, err := work(o)
	a := answer{Result: result}
	if err != nil {
		a = answer{Error: clip(err.Error()), Kind: errdefs.KindOf(err), NotExist: errors.Is(err, fs.ErrNotExist), Refused: errors.Is(err, recipe.ErrUnsupported)}
		_ = errors.As(err, &a.Errno)
	}
	data, err := json.Marshal(a)
	if err == nil {
		_, err = os.Stdout.Write(data)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "write the answer:", err)
		return 1
	}
	return 0
}

// clip keeps an error, which may quote the layer, short.
func clip(text string) string { return text[:min(len(text), 8<<10)] }

func work(o order) (archive.Unpacked, error) {
	ctx := context.Background() // its parent ends it
	if o.Other.Verb != "" {
		return archive.Unpacked{}, o.Other.work(ctx, os.Stdin, os.NewFile(imageFD, "recipe"), inherited(1)[0], os.NewFile(lockFD, "blob"))
	}
	options := archive.ApplyOptions{Lower: lower(inherited(o.Lower)), Limits: o.Limits}
	if o.Image {
		return archive.UnpackImage(ctx, os.NewFile(imageFD, "image"), os.Stdin, options)
	}
	root, err := os.Open("/layer")
	if err != nil {
		return archive.Unpacked{}, err
	}
	u, err := archive.Unpack(ctx, root, os.Stdin, options)
	return u, errors.Join(err, root.Close())
}

// inherited returns the descriptors of the n layers beneath.
func inherited(n int) []*os.File {
	files := make([]*os.File, n)
	for i := range files {
		files[i] = os.NewFile(uintptr(firstLower+i), fmt.Sprint("layer ", i))
	}
	return files
}

// lower finds files in the layers beneath, top first.
func lower(files []*os.File) func(string) (*dir.Dir, string, error) {
	return func(name string) (*dir.Dir, string, error) {
		var layers []*dir.Dir
		defer func() {
			for _, d := range layers {
				_ = d.Close() // read only
			}
		}()
		for _, f := range files {
			d, err := dir.Of(f)
			if err != nil {
				return nil, "", err
			}
			layers = append(layers, d)
		}
		return archive.FindLower(layers, name)
	}
}
