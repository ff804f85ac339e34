// Package vm boots a virtual machine that has what the machine of the tests may lack: nothing but cgroup v2, AppArmor, a
// distribution's kernel and modules. Its kernel comes from Debian's archive when the test runs, its first process is the program
// guest, and the processor is emulated, so that it runs wherever qemu does.
package vm

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Kernel is a distribution's kernel, unpacked.
type Kernel struct {
	Image   string            // bzImage
	modules map[string]string // name, with underscores, to file
}

// FetchKernel downloads Debian's newest kernel for virtual machines to dir and unpacks it, unless it is there.
func FetchKernel(ctx context.Context, dir string) (*Kernel, error) {
	if k, err := openKernel(dir); err == nil {
		return k, nil
	}
	half := dir + ".new" // renamed when all is there
	if err := errors.Join(os.RemoveAll(half), os.RemoveAll(dir), os.MkdirAll(half, 0o755)); err != nil {
		return nil, err
	}
	run := func(name string, args ...string) (string, error) {
		c := exec.CommandContext(ctx, name, args...)
		c.Dir = half
		var stderr bytes.Buffer
		c.Stderr = &stderr
		out, err := c.Output()
		if err != nil {
			return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, stderr.Bytes())
		}
		return string(out), nil
	}
	depends, err := run("apt-cache", "depends", "--important", "linux-image-cloud-amd64")
	if err != nil {
		return nil, err
	}
	_, name, ok := strings.Cut(depends, "Depends: ")
	if !ok {
		return nil, fmt.Errorf("the package linux-image-cloud-amd64 names no kernel: %q", depends)
	}
	if _, err := run("apt-get", "download", "-qq", strings.Fields(name)[0]); err != nil {
		return nil, err
	}
	packages, err := filepath.Glob(filepath.Join(half, "linux-image-*.deb"))
	if err != nil || len(packages) == 0 {
		return nil, fmt.Errorf("apt-get download left no package in %s: %w", half, err)
	}
	if _, err := run("dpkg-deb", "-x", packages[0], half); err != nil {
		return nil, err
	}
	if err := os.Rename(half, dir); err != nil {
		return nil, err
	}
	return openKernel(dir)
}

func openKernel(dir string) (*Kernel, error) {
	images, err := filepath.Glob(filepath.Join(dir, "boot/vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return nil, fmt.Errorf("%s has %d kernels: %w", dir, len(images), err)
	}
	k := &Kernel{Image: images[0], modules: map[string]string{}}
	err = filepath.WalkDir(filepath.Join(dir, "lib/modules"), func(path string, _ fs.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(filepath.Base(path), ".ko"); ok {
			k.modules[strings.ReplaceAll(name, "-", "_")] = path
		}
		return err
	})
	return k, err
}

// Modules returns the files of the named modules and of all that they depend on, in the order in which they can be loaded. A name
// without a file is built in.
func (k *Kernel) Modules(names ...string) ([]string, error) {
	var order []string
	seen := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		file, ok := k.modules[name]
		if seen[name] || !ok {
			return nil
		}
		seen[name] = true
		needs, err := depends(file)
		if err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
		for _, n := range needs {
			if err := visit(strings.ReplaceAll(n, "-", "_")); err != nil {
				return err
			}
		}
		order = append(order, file)
		return nil
	}
	for _, n := range names {
		if err := visit(n); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// depends reads what a module's own file says it needs.
func depends(file string) ([]string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return nil, errors.New("not a kernel module")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	var list []string
	for field := range strings.SplitSeq(string(info), "\x00") {
		if value, ok := strings.CutPrefix(field, "depends="); ok {
			list = append(list, strings.FieldsFunc(value, func(r rune) bool { return r == ',' })...)
		}
	}
	return list, nil
}

// File is one file of the machine's first file system.
type File struct {
	Name string // without a leading slash; the folders on the way are made
	Host string // where its contents are, or "" for Body
	Body []byte
	Link string // target of a symbolic link
	Mode uint32 // permissions; 0: those of a program
}

// Archive writes files as an initramfs: the "newc" format of cpio (the kernel's Documentation/driver-api/early-userspace/buffer-format.rst).
func Archive(w io.Writer, files []File) error {
	out := bufio.NewWriterSize(w, 1<<20)
	inode := 0
	entry := func(name string, mode uint32, body []byte) {
		inode++
		size := func(n int) int { return (n + 3) &^ 3 }
		major, minor := 0, 0
		if name == "dev/console" { // the kernel opens it for the first process
			major, minor = 5, 1
		}
		fmt.Fprintf(out, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00", inode, mode, 0, 0, 1, 0, len(body), 0, 0, major, minor, len(name)+1, 0, name)
		out.Write(make([]byte, size(110+len(name)+1)-110-len(name)-1))
		out.Write(body)
		out.Write(make([]byte, size(len(body))-len(body)))
	}
	made := map[string]bool{".": true}
	var folder func(name string)
	folder = func(name string) {
		if made[name] {
			return
		}
		folder(filepath.Dir(name))
		made[name] = true
		entry(name, 0o040755, nil)
	}
	folder("dev")
	entry("dev/console", 0o020600, nil)
	for _, f := range files {
		folder(filepath.Dir(f.Name))
		body, mode := f.Body, uint32(0o100755)
		if f.Mode != 0 {
			mode = 0o100000 | f.Mode
		}
		if f.Link != "" {
			body, mode = []byte(f.Link), 0o120777
		} else if f.Host != "" {
			var err error
			if body, err = os.ReadFile(f.Host); err != nil {
				return err
			}
		}
		entry(f.Name, mode, body)
	}
	entry("TRAILER!!!", 0, nil)
	return out.Flush() // of a failed write, too
}

// RootTar returns the layer of an image: busybox under each of the given names, and what a root has.
func RootTar(busybox []byte, applets []string) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	add := func(h *tar.Header, body string) error {
		h.Size = int64(len(body))
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err := io.WriteString(w, body)
		return err
	}
	var errs []error
	for _, dir := range []string{"bin/", "etc/", "root/", "tmp/"} {
		errs = append(errs, add(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}, ""))
	}
	errs = append(errs, add(&tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, string(busybox)),
		add(&tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644}, "root:x:0:0::/root:/bin/sh\n"))
	for _, a := range applets {
		if a != "busybox" {
			errs = append(errs, add(&tar.Header{Name: "bin/" + a, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777}, ""))
		}
	}
	errs = append(errs, w.Close())
	return buf.Bytes(), errors.Join(errs...)
}

// ErrSilent is the error of a machine that gave no sign of life for so long that it has none: its emulator or its kernel stands still.
var ErrSilent = errors.New("the machine gave no sign of life for " + silence.String())

// silence is how long a machine may say nothing: package guest says something every few seconds, once there is a first process.
const silence = 3 * time.Minute

// Boot runs a machine until it switches itself off or ctx ends, and calls line for every line of its serial console. options are for
// the kernel. Errors: ErrSilent.
func Boot(ctx context.Context, k *Kernel, initramfs, options string, line func(string)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	alive := time.AfterFunc(silence, func() { cancel(ErrSilent) })
	defer alive.Stop()
	c := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio", "-m", "1536", "-smp", "2",
		"-kernel", k.Image, "-initrd", initramfs, "-append", "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on apparmor=1 security=apparmor swapaccount=1 "+options)
	out, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	var stderr bytes.Buffer
	c.Stderr = &stderr
	if err := c.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		alive.Reset(silence)
		line(strings.TrimRight(lines.Text(), "\r"))
	}
	if err := errors.Join(lines.Err(), c.Wait()); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return fmt.Errorf("qemu: %w: %s", err, stderr.Bytes())
	}
	return nil
}
