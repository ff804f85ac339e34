package vm

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// modules are what containers need of the kernel; what is built in has no file and is left out.
var modules = []string{"overlay", "veth", "bridge", "br_netfilter", "loop", "nf_tables", "nfnetlink", "nf_conntrack", "nf_nat", "nft_chain_nat", "nft_nat", "nft_masq", "nft_redir", "nft_ct", "nft_limit",
	"nft_reject", "nft_reject_inet", "nft_reject_ipv4", "nft_reject_ipv6", "nft_fib", "nft_fib_inet", "nft_fib_ipv4", "nft_fib_ipv6", "nft_counter", "nft_hash", "nft_numgen", "nft_log", "nf_conntrack_netlink", "bfq"}

// TestUnified boots a machine that has nothing but cgroup v2 and runs the scenarios of package guest in it.
func TestUnified(t *testing.T) {
	for what, missing := range map[string]bool{"amd64": runtime.GOARCH != "amd64", "qemu-system-x86_64": !installed("qemu-system-x86_64"), "apt-get": !installed("apt-get"), "dpkg-deb": !installed("dpkg-deb"), "busybox-static": !installed("busybox")} {
		if missing {
			t.Skip("no machine with cgroup v2 was tried: this needs " + what)
		}
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 12*time.Minute) // minutes, because the processor is emulated and others use the host's
	defer cancel()
	kernel, err := FetchKernel(ctx, filepath.Join(root, "bin/vm"))
	if err != nil {
		t.Skipf("no machine with cgroup v2 was tried: there is no kernel: %v", err)
	}
	initramfs := machine(t, root, kernel)
	var console []string
	ended, scenarios := false, 0
	err = Boot(ctx, kernel, initramfs, func(line string) {
		console = append(console, line)
		_, report, ok := strings.Cut(line, "gantry-vm ")
		if !ok {
			return
		}
		word, text, _ := strings.Cut(report, " ")
		switch word {
		case "ok":
			scenarios++
			t.Log("ok", text, "ms")
		case "fail":
			t.Error(text)
		case "note":
			t.Log(text)
		case "end":
			ended = true
		}
	})
	if err != nil || !ended || scenarios == 0 {
		t.Errorf("the machine did not come to its end: %v; its console:\n%s", err, strings.Join(console, "\n"))
	}
}

func installed(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

// machine builds the programs and the file system of the machine, and returns the file.
func machine(t *testing.T, root string, k *Kernel) string {
	t.Helper()
	tmp := t.TempDir()
	build := func(args ...string) {
		c := exec.Command("go", args...)
		c.Dir, c.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	bin := tmp + string(filepath.Separator)
	build("build", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o", bin, "./cmd/gantry", "./cmd/gantryd", "./cmd/gantry-shim", "./tests/vm/guest")
	var files []File
	for _, p := range []string{"gantry", "gantryd", "gantry-shim", "guest"} {
		files = append(files, File{Name: "machine/bin/" + p, Host: bin + p})
	}
	for _, p := range []string{"linux/cgroup", "linux/mount", "snapshot/overlay"} {
		test := filepath.Base(p) + ".test"
		build("test", "-c", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o", bin+test, "./"+p)
		files = append(files, File{Name: "machine/unit/" + test, Host: bin + test})
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	body, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	list, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	applets := strings.Fields(string(list))
	image, err := RootTar(body, applets)
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, File{Name: "init", Host: bin + "guest"}, File{Name: "machine/image.tar", Body: image}, File{Name: "machine/bin/busybox", Body: body},
		File{Name: "machine/etc/passwd", Body: []byte("root:x:0:0::/root:/bin/sh\n")}, File{Name: "machine/etc/group", Body: []byte("root:x:0:\n")}, File{Name: "machine/root/.keep"})
	for _, a := range applets {
		if a != "busybox" {
			files = append(files, File{Name: "machine/bin/" + a, Link: "busybox"})
		}
	}
	loaded, err := k.Modules(modules...)
	if err != nil {
		t.Fatal(err)
	}
	var order strings.Builder
	for _, m := range loaded {
		files = append(files, File{Name: "machine/modules/" + filepath.Base(m), Host: m})
		order.WriteString(filepath.Base(m) + "\n")
	}
	files = append(files, File{Name: "machine/modules/order", Body: []byte(order.String())})
	name := filepath.Join(tmp, "initramfs")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := Archive(f, files); err != nil {
		t.Fatal(err)
	}
	return name
}
