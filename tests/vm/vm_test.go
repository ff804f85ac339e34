package vm

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// modules are what containers, and criu, need of the kernel; what is built in has no file and is left out.
var modules = []string{"overlay", "veth", "bridge", "br_netfilter", "loop", "nf_tables", "nfnetlink", "nf_conntrack", "nf_nat", "nft_chain_nat", "nft_nat", "nft_masq", "nft_redir", "nft_ct", "nft_limit",
	"nft_reject", "nft_reject_inet", "nft_reject_ipv4", "nft_reject_ipv6", "nft_fib", "nft_fib_inet", "nft_fib_ipv4", "nft_fib_ipv6", "nft_counter", "nft_hash", "nft_numgen", "nft_log", "nf_conntrack_netlink", "bfq",
	"unix_diag", "inet_diag", "tcp_diag", "udp_diag", "raw_diag", "af_packet_diag", "netlink_diag", "tun", "nft_compat", "x_tables", "ip_tables", "ip6_tables", "iptable_filter", "ip6table_filter", "xt_mark", "xt_tcpudp"}

// TestUnified boots a machine that has nothing but cgroup v2 and runs the scenarios of package guest in it.
func TestUnified(t *testing.T) {
	root, kernel := ready(t, "cgroup v2")
	watch(t, kernel, machine(t, root, kernel, nil), "", 12*time.Minute) // minutes, because the processor is emulated and others use the host's
}

// TestSystemd boots a machine whose first process is Debian's systemd, and lets it make containers' cgroups.
func TestSystemd(t *testing.T) {
	root, kernel := ready(t, "systemd")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	dir := filepath.Join(root, "bin/vm-systemd")
	if err := FetchRoot(ctx, dir); err != nil {
		t.Skipf("no machine with systemd was tried: there are no packages: %v", err)
	}
	files, err := RootFiles(dir, "machine/")
	if err != nil {
		t.Fatal(err)
	}
	watch(t, kernel, machine(t, root, kernel, files), "systemd.unit=guest.service systemd.show_status=false systemd.log_target=null", 12*time.Minute)
}

// ready returns the module's folder and the kernel, or skips the test where one of what a machine takes cannot be had.
func ready(t *testing.T, what string) (root string, k *Kernel) {
	t.Helper()
	for need, missing := range map[string]bool{"amd64": runtime.GOARCH != "amd64", "qemu-system-x86_64": !installed("qemu-system-x86_64"), "apt-get": !installed("apt-get"), "dpkg-deb": !installed("dpkg-deb"), "busybox-static": !installed("busybox")} {
		if missing {
			t.Skipf("no machine with %s was tried: this needs %s", what, need)
		}
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if k, err = FetchKernel(ctx, filepath.Join(root, "bin/vm")); err != nil {
		t.Skipf("no machine with %s was tried: there is no kernel: %v", what, err)
	}
	return root, k
}

// watch runs a machine and takes its report. One that stands still, which emulated processors do now and then, is run once more: what a scenario waits for has
// limits of its own in it, and fails there.
func watch(t *testing.T, kernel *Kernel, initramfs, options string, patience time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	console, err := report(ctx, t, kernel, initramfs, options)
	if errors.Is(err, ErrSilent) {
		t.Logf("%v; once more, after this console:\n%s", err, strings.Join(console, "\n"))
		console, err = report(ctx, t, kernel, initramfs, options)
	}
	if err != nil {
		t.Errorf("the machine did not come to its end: %v; its console:\n%s", err, strings.Join(console, "\n"))
	}
}

// report boots a machine, hands on what it says of its scenarios, and returns its console.
func report(ctx context.Context, t *testing.T, kernel *Kernel, initramfs, options string) (console []string, err error) {
	t.Helper()
	ended, scenarios := false, 0
	err = Boot(ctx, kernel, initramfs, options, func(line string) {
		_, report, ok := strings.Cut(line, "gantry-vm ")
		word, text, _ := strings.Cut(report, " ")
		if ok && word == "alive" {
			return
		}
		console = append(console, line)
		if !ok {
			return
		}
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
	if err == nil && (!ended || scenarios == 0) {
		err = errors.New("it was switched off before")
	}
	return console, err
}

func installed(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

// machine builds the programs and the file system of the machine, and returns the file. With files it is theirs, and what is added is
// less.
func machine(t *testing.T, root string, k *Kernel, files []File) string {
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
	programs := []string{"cmd/gantry", "cmd/gantryd", "cmd/gantry-shim", "cmd/gantry-oci", "tests/vm/guest"}
	tests := []string{"linux/cgroup", "linux/clone", "linux/fd", "linux/mount", "linux/netlink", "linux/safepath", "linux/seccomp", "network", "oci", "oci/initproc", "snapshot/overlay"}
	systemd := files != nil
	if systemd {
		tests = []string{"linux/cgroup", "linux/cgroup/systemd", "linux/dbus"}
	}
	args := []string{"build", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o", bin}
	for _, p := range programs {
		args = append(args, "./"+p)
		files = append(files, File{Name: "machine/bin/" + filepath.Base(p), Host: bin + filepath.Base(p)})
	}
	build(args...)
	for _, p := range tests {
		name := "machine/unit/" + strings.ReplaceAll(p, "/", "-")
		test := filepath.Base(name) + ".test"
		build("test", "-c", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o", bin+test, "./"+p)
		files = append(files, File{Name: name + "/" + test, Host: bin + test})
		data, err := filepath.Glob(filepath.Join(root, p, "testdata/*.golden"))
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range data {
			files = append(files, File{Name: name + "/testdata/" + filepath.Base(d), Host: d, Mode: 0o644})
		}
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
	files = append(files, File{Name: "init", Host: bin + "guest"}, File{Name: "machine/image.tar", Body: image}, File{Name: "machine/bin/busybox", Body: body}, File{Name: "machine/root/.keep"})
	if !systemd {
		files = append(files, File{Name: "machine/etc/passwd", Body: []byte("root:x:0:0::/root:/bin/sh\n"), Mode: 0o644}, File{Name: "machine/etc/group", Body: []byte("root:x:0:\n"), Mode: 0o644})
	}
	there := map[string]bool{}
	for _, f := range files {
		there[f.Name] = true
	}
	for _, a := range applets {
		if a != "busybox" && !there["machine/bin/"+a] && !there["machine/sbin/"+a] && !there["machine/usr/bin/"+a] {
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
