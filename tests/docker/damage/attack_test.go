package damage

import (
	"archive/tar"
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/tests/harness"
)

// CVE-2024-21626: no descriptor of ours is open in a container, and no working directory leads through one.
func TestLeakedDescriptors(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.Sleeper()
	for _, got := range []string{
		e.Run(image, "sh", "-c", "ls /proc/1/fd; true"),
		e.OK("exec", id, "ls", "/proc/1/fd"),
		e.OK("exec", id, "sh", "-c", "ls /proc/$$/fd; true"),
		e.OK("exec", "--privileged", id, "sh", "-c", "ls /proc/$$/fd; true"),
	} {
		for _, fd := range strings.Fields(got) {
			if len(fd) == 1 && fd > "2" || len(fd) > 1 && fd != "10" { // 10 is the shell's own copy of a terminal or script
				t.Errorf("descriptor %s is open: %q", fd, got)
			}
		}
	}
	for n := range 30 {
		for _, args := range [][]string{{"run", "--rm", "-w", fmt.Sprintf("/proc/self/fd/%d", n), image}, {"exec", "-w", fmt.Sprintf("/proc/self/fd/%d/../../..", n), id}} {
			r := e.Do(append(args, "sh", "-c", "cat ../../../../../../../"+e.D.DataRoot()+"/lock && echo escaped")...)
			if strings.Contains(r.Stdout, "escaped") {
				t.Errorf("%v", r)
			}
		}
		if n == 12 && testing.Short() {
			break
		}
	}
}

// CVE-2019-5736: nothing in a container can write to the program that supervises it.
func TestOverwriteOfRuntime(t *testing.T) {
	e := harness.New(t, daemon)
	sums := func() (all string) {
		for _, name := range []string{"gantryd", "gantry-shim", "gantry"} {
			data, err := os.ReadFile(harness.Bin(name))
			if err != nil && !harness.Oracle() {
				t.Fatal(err)
			}
			all += fmt.Sprintf("%x ", sha256.Sum256(data))
		}
		return all
	}
	before := sums()
	e.LoadImage("exe:1", harness.ImageConfig{Entrypoint: []string{"/self"}}, harness.Layer(
		harness.Entry{Name: "self", Type: tar.TypeSymlink, Link: "/proc/self/exe"},
		harness.Entry{Name: "evil", Mode: 0o755, Body: "#!/proc/self/exe\n"},
	))
	e.Do("run", "--rm", "exe:1")
	id := e.OK("run", "-d", image, "sh", "-c", "while :; do for p in /proc/[0-9]*; do case $p in /proc/1) ;; *) { echo x > $p/exe; } 2>/dev/null && echo overwritten;; esac; done; done")
	for range 15 {
		e.Do("exec", id, "/proc/self/exe")
		e.Do("exec", id, "/bin/true")
	}
	if after := sums(); after != before {
		t.Error("a program of ours was changed")
	}
	e.Is("", "logs", id)
	e.Is("hi", "run", "--rm", image, "echo", "hi")
}

// Inheritable and ambient sets are empty, in run and in exec, for root and others (CVE-2022-24769, CVE-2022-29162).
func TestCapabilitySets(t *testing.T) {
	e := harness.New(t, daemon)
	const show = "grep -E '^Cap' /proc/self/status | tr -s '\\t\\n' '  '"
	id := e.Sleeper()
	user := e.Sleeper("-u", "app", "--cap-add", "NET_ADMIN")
	for want, got := range map[string]string{
		"CapInh: 0000000000000000 CapPrm: 00000000a80425fb CapEff: 00000000a80425fb CapBnd: 00000000a80425fb CapAmb: 0000000000000000":  e.OK("exec", id, "sh", "-c", show),
		"CapInh: 0000000000000000 CapPrm: 0000000000000000 CapEff: 0000000000000000 CapBnd: 00000000a80425fb CapAmb: 0000000000000000":  e.OK("exec", "-u", "app", id, "sh", "-c", show),
		"CapInh: 0000000000000000 CapPrm: 0000000000000000 CapEff: 0000000000000000 CapBnd: 00000000a80435fb CapAmb: 0000000000000000":  e.OK("exec", user, "sh", "-c", show),
		"CapInh: 0000000000000000 CapPrm: 00000000a80435fb CapEff: 00000000a80435fb CapBnd: 00000000a80435fb CapAmb: 0000000000000000 ": e.OK("exec", "-u", "0", user, "sh", "-c", show) + " ",
	} {
		if got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
	// Groups: those of the image's file and no others of the daemon (CVE-2022-36109, CVE-2022-2995).
	e.Is("1000 2000", "run", "--rm", "-u", "app", image, "id", "-G")
	e.Is("0", "run", "--rm", "-u", "65000", image, "id", "-G")
	e.Is("2000", "run", "--rm", "-u", "app:extra", image, "id", "-G")
}

// Images are data: what is hostile in them is refused or stays inside.
func TestHostileImages(t *testing.T) {
	e := harness.New(t, daemon)
	canary := filepath.Join(t.TempDir(), "canary")
	if err := os.WriteFile(canary, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	bounded := func(what string, args ...string) harness.Result {
		t.Helper()
		r := e.Do(args...)
		if r.Took > 10*time.Second {
			t.Errorf("%s took %v", what, r.Took)
		}
		return r
	}
	fifo := harness.Layer(harness.Entry{Name: "etc/passwd", Type: tar.TypeFifo}, harness.Entry{Name: "etc/group", Type: tar.TypeFifo})
	e.LoadImage("fifo:1", harness.ImageConfig{User: "app"}, fifo)
	if r := bounded("passwd as FIFO", "run", "--rm", "fifo:1", "true"); r.Code == 0 {
		t.Errorf("%v", r)
	}
	bounded("passwd as FIFO", "run", "--rm", "-u", "0", "fifo:1", "true")
	e.LoadImage("link:1", harness.ImageConfig{User: "outside"}, harness.Layer(harness.Entry{Name: "etc/passwd", Type: tar.TypeSymlink, Link: canary}))
	if r := bounded("passwd as link", "run", "--rm", "link:1", "id"); r.Code == 0 {
		t.Errorf("%v", r)
	}
	e.LoadImage("giant:1", harness.ImageConfig{User: "last"}, harness.Layer(harness.Entry{Name: "etc/passwd", Body: strings.Repeat("x", 32<<20) + "\nlast:x:0:0::/:/bin/sh\n"}))
	bounded("giant passwd", "run", "--rm", "giant:1", "true")
	for _, user := range []string{"4294967296", "-1", "4294967295", "1000:4294967296", "2147483648:0:0", "app\n0"} {
		e.LoadImage("uid:1", harness.ImageConfig{User: user})
		r := e.Do("run", "--rm", "uid:1", "id", "-u")
		if r.Code == 0 && strings.TrimSpace(r.Stdout) == "0" {
			t.Errorf("user %q became root: %v", user, r)
		}
		e.OK("rmi", "uid:1")
	}
	// Volumes, labels and working directories (CVE-2022-23648).
	e.LoadImage("vol:1", harness.ImageConfig{
		Volumes:    map[string]struct{}{"/../../../../etc": {}, "/link": {}},
		Labels:     map[string]string{"a\nb": "c\n{\"x\":1}", "io.podman.annotations.privileged": "true"},
		WorkingDir: "/work",
	}, harness.Layer(
		harness.Entry{Name: "link", Type: tar.TypeSymlink, Link: "/../../../../../../" + filepath.Dir(canary)},
		harness.Entry{Name: "work", Type: tar.TypeSymlink, Link: "/../../../../../../" + filepath.Dir(canary)},
	))
	r := e.Do("run", "--rm", "vol:1", "sh", "-c", "cat canary /link/canary /etc/shadow; echo changed > canary; echo changed > /link/canary; ls -l /etc/passwd; grep CapEff /proc/self/status")
	if strings.Contains(r.Stdout, "untouched") || strings.Contains(r.Stdout, "root:*") || r.Code == 0 && !strings.Contains(r.Stdout, "00000000a80425fb") {
		t.Errorf("%v", r)
	}
	if data, err := os.ReadFile(canary); err != nil || string(data) != "untouched" {
		t.Errorf("the canary is %q, %v", data, err)
	}
	// Masked and read-only places as links (CVE-2025-31133), and the places of our own mounts.
	for _, place := range []string{"proc", "sys", "dev", "etc/hosts", "etc/resolv.conf", "dev/null", "dev/console", "dev/pts"} {
		e.LoadImage("mask:1", harness.ImageConfig{}, harness.Layer(harness.Entry{Name: place, Type: tar.TypeSymlink, Link: "/../../../../" + filepath.Dir(canary)}))
		r := e.Do("run", "--rm", "mask:1", "sh", "-c", "echo changed > /"+place+"/canary; cat /"+place+"/canary; echo 1 > /proc/sys/kernel/domainname && echo writable")
		if strings.Contains(r.Stdout, "untouched") || strings.Contains(r.Stdout, "writable") {
			t.Errorf("%s: %v", place, r)
		}
		e.OK("rmi", "-f", "mask:1")
	}
	if data, err := os.ReadFile(canary); err != nil || string(data) != "untouched" {
		t.Errorf("the canary is %q, %v", data, err)
	}
	e.LoadImage("entry:1", harness.ImageConfig{Entrypoint: []string{"/no/such/program"}})
	e.Fails(127, "no such file or directory", "run", "--rm", "entry:1")
}

// CVE-2021-30465: the place of a mount is swapped with a link while containers start.
func TestMountTargetSwapped(t *testing.T) {
	e := harness.New(t, daemon)
	canary := t.TempDir()
	if err := os.WriteFile(filepath.Join(canary, "canary"), []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.Sleeper("--name", "swapper", "-v", "shared:/s")
	e.OK("exec", "-d", "swapper", "sh", "-c", "cd /s; mkdir a; ln -s /../../../../../../../"+canary+" b; while :; do mv a c; mv b a; mv a b; mv c a; done")
	for i := range 40 {
		r := e.Do("run", "--rm", "-v", "shared:/s", "--tmpfs", "/s/a/x", image, "sh", "-c", "cat /s/a/canary /s/b/canary; echo changed > /s/b/canary")
		if strings.Contains(r.Stdout, "untouched") {
			t.Fatalf("round %d: %v", i, r)
		}
		e.Do("cp", "swapper:/s/a/canary", filepath.Join(t.TempDir(), "out"))
		if r := e.DoInput(string(harness.Layer(harness.Entry{Name: "canary", Body: "changed"})), "cp", "-", "swapper:/s/a"); i == 0 && r.Code > 1 {
			t.Errorf("%v", r)
		}
		if data, err := os.ReadFile(filepath.Join(canary, "canary")); err != nil || string(data) != "untouched" {
			t.Fatalf("round %d: the canary is %q, %v", i, data, err)
		}
	}
	if entries, err := os.ReadDir(canary); err != nil || len(entries) != 1 {
		t.Errorf("in the host's directory: %v %v", entries, err)
	}
}

// Nobody but root reads or reaches what the daemon keeps (CVE-2021-41091), and no socket of ours is abstract (CVE-2020-15257).
func TestStateIsPrivate(t *testing.T) {
	e := harness.New(t, daemon)
	e.Sleeper("-v", "private:/v")
	for _, dir := range []string{e.D.DataRoot(), e.D.ExecRoot()} {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm()&0o077 != 0 && !harness.Oracle() {
			t.Errorf("%s: %v %v", dir, info.Mode(), err)
		}
	}
	if info, err := os.Stat(e.D.Socket()); err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	sockets, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(sockets)) {
		if fields := strings.Fields(line); len(fields) > 7 && strings.HasPrefix(fields[7], "@") {
			t.Errorf("an abstract socket: %s", line)
		}
	}
}

// CVE-2025-9074: no port of the daemon answers containers, nor does what listens on the host's loopback only.
func TestHostFromContainers(t *testing.T) {
	e := harness.New(t, daemon)
	l, err := net.Listen("tcp", "127.0.0.1:18199")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("HTTP/1.0 200 OK\r\n\r\nsecret"))
			c.Close()
		}
	}()
	e.OK("run", "-d", "--name", "published", "-p", "127.0.0.1:18198:80", image, "probe", "serve", "80", "hello")
	e.OK("network", "create", "n1")
	for _, network := range []string{"bridge", "n1"} {
		gateway := e.OK("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", network)
		// Every TCP port of the gateway that anything listens on in the host's namespace, tried from inside.
		out := e.Run("--network", network, image, "sh", "-c", "for p in 18199 18198 2375 2376 53 80 443; do nc -w 1 -z "+gateway+" $p 2>/dev/null && echo open $p; done; nc -w 1 127.0.0.1 18199 </dev/null; route add -host 127.0.0.2 gw "+gateway+" 2>&1; true")
		if strings.Contains(out, "open") || strings.Contains(out, "secret") {
			t.Errorf("%s: %s", network, out)
		}
	}
}

// Devices are denied but for the known ones.
func TestDeviceDefaultDeny(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.Sleeper()
	for _, node := range []string{"b 8 0", "b 7 0", "c 1 1", "c 1 2", "c 1 4", "c 10 237", "b 259 0"} {
		for _, r := range []harness.Result{
			e.Do("run", "--rm", image, "sh", "-c", "mknod /d "+node+" && head -c 1 /d"),
			e.Do("exec", id, "sh", "-c", "rm -f /d; mknod /d "+node+" && head -c 1 /d"),
		} {
			if r.Code == 0 || !strings.Contains(r.Stderr, "Operation not permitted") {
				t.Errorf("%s: %v", node, r)
			}
		}
	}
	if err := syscall.Access("/dev/null", 2); err != nil {
		t.Error(err)
	}
}
