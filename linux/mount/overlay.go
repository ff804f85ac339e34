package mount

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// OverlayOptions describe an overlay file system.
type OverlayOptions struct {
	Lower     []string // directories to stack, TOP first; at least one
	Upper     string   // takes the changes; empty for a read-only overlay
	Work      string   // empty directory on Upper's file system
	ReadOnly  bool     // the mount is read-only
	UserXattr bool     // keep overlay's marks in user.* attributes, for mounts in a user namespace
	Volatile  bool     // never sync Upper: fast, and lost after a power cut
	Source    string   // what mountinfo shows; "overlay" if empty
}

// Overlay makes an overlay file system and returns a mount of it that is attached nowhere: it lives as long as the descriptor, or
// as what it is moved to. Layers are handed to the kernel one by one ("lowerdir+", Linux 6.7), so that neither a colon in a path nor
// the number of layers (up to the kernel's 500) matters; on older kernels by olderOverlay.
func Overlay(o OverlayOptions) (*os.File, error) {
	if len(o.Lower) == 0 {
		return nil, errors.New("mount overlay: no lower directory")
	}
	make := overlay
	if !layerOption() {
		make = olderOverlay
	}
	f, err := make(o)
	if err != nil {
		return nil, fmt.Errorf("mount overlay: %w", err)
	}
	return f, nil
}

// layerOption reports whether the kernel takes layers one by one. Such a kernel looks for the directory at once; one whose overlay
// does not know the mount API yet takes any option here, and refuses it when the file system is made.
var layerOption = sync.OnceValue(func() bool {
	c, err := Open("overlay")
	if err != nil {
		return false
	}
	defer c.Close()
	return errors.Is(c.Set("lowerdir+", "/proc/self/fd/-"), unix.ENOENT)
})

// plainOptions switch off, whatever the kernel's defaults are, what would make an upper directory more than its files: directories and files that are moved or changed
// in part refer to lower ones then, which a layer made of it would lose, and a hostile layer could lead such a reference anywhere.
func plainOptions() [][2]string {
	return [][2]string{{"redirect_dir", "nofollow"}, {"metacopy", "off"}, {"index", "off"}}
}

func overlay(o OverlayOptions) (*os.File, error) {
	c, err := Open("overlay")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	source := o.Source
	if source == "" {
		source = "overlay"
	}
	if err := c.Set("source", source); err != nil {
		return nil, err
	}
	for _, kv := range plainOptions() {
		if err := c.Set(kv[0], kv[1]); err != nil {
			return nil, err
		}
	}
	for _, dir := range o.Lower {
		if err := c.Set("lowerdir+", dir); err != nil {
			return nil, err
		}
	}
	if o.Upper != "" {
		for _, kv := range [][2]string{{"upperdir", o.Upper}, {"workdir", o.Work}} {
			if err := c.Set(kv[0], kv[1]); err != nil {
				return nil, err
			}
		}
		if o.Volatile {
			if err := c.Flag("volatile"); err != nil {
				return nil, err
			}
		}
	}
	if o.UserXattr {
		if err := c.Flag("userxattr"); err != nil {
			return nil, err
		}
	}
	var attr Attr
	if o.ReadOnly {
		attr = ReadOnly
	}
	return c.Mount(attr)
}
