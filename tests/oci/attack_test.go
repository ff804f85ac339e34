package oci_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/linux/fd"
)

// TestOwnProgram attacks the runtime's file from inside (CVE-2019-5736): whatever a container can reach or have executed as
// /proc/PID/exe of the runtime's process, it never is the host's file, and cannot be written.
func TestOwnProgram(t *testing.T) {
	r := setup(t, "sleep", "1000")
	sum := func() string {
		data, err := os.ReadFile(binary)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%x", sha256.Sum256(data))
	}
	before := sum()
	host, err := os.Stat(binary)
	if err != nil {
		t.Fatal(err)
	}
	// The process that waits for start, which those who share its pid namespace see for as long as it waits.
	r.must("create", "w")
	exe, err := os.Open(fmt.Sprintf("/proc/%d/exe", r.state("w").Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	if st, err := exe.Stat(); err != nil || os.SameFile(st, host) || !fd.IsSealed(exe) {
		t.Errorf("the waiting process runs a file that can be written: %v, %v", st, err)
	}
	r.must("start", "w")
	// exec, watched by a process of the container that opens every exe it sees and writes to it again and again.
	watcher := r.command("exec", "w", "sh", "-c", `n=0; while [ $n -lt 400 ]; do n=$((n+1)); for p in /proc/[0-9]*; do [ "$p" = /proc/1 ] || [ "$p" = /proc/$$ ] || { exec 5<$p/exe; } 2>/dev/null && echo x 2>/dev/null >/proc/self/fd/5; done; done`)
	if err := watcher.Start(); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		r.must("exec", "w", "true")
	}
	_ = watcher.Wait() // it does not matter how it ends
	r.must("delete", "-f", "w")
	// The runtime as the container's program: by its path, as an interpreter, by a link in the image.
	bin := filepath.Join(r.bundle, "rootfs/bin")
	if err := os.WriteFile(filepath.Join(bin, "script"), []byte("#!/proc/self/exe\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/proc/self/exe", filepath.Join(bin, "link")); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"/proc/self/exe", "/bin/script", "link"} {
		r.edit(func(s *specs.Spec) { s.Process.Args = []string{program, "features"} })
		if res := r.run("create", "x"); res.code != 0 {
			t.Logf("%s: %s", program, res.err)
			continue
		}
		pid := r.state("x").Pid
		r.run("start", "x")
		if exe, err := os.Open(fmt.Sprintf("/proc/%d/exe", pid)); err == nil {
			if st, err := exe.Stat(); err != nil || os.SameFile(st, host) {
				t.Errorf("%s: the container runs the host's file", program)
			}
			exe.Close()
		}
		r.must("delete", "-f", "x")
	}
	if after := sum(); after != before {
		t.Error("the runtime's file has changed")
	}
}

// TestDescriptors looks for what a program must not inherit (CVE-2024-21626): any descriptor, and a working directory by one.
func TestDescriptors(t *testing.T) {
	r := setup(t, "ls", "/proc/self/fd")
	if res := r.run("run", "d"); res.out != "0\n1\n2\n3\n" { // 3 is the directory that ls reads
		t.Errorf("%+v", res)
	}
	for n := 3; n < 24; n++ {
		r.edit(func(s *specs.Spec) {
			s.Process.Cwd, s.Process.Args = fmt.Sprintf("/proc/self/fd/%d", n), []string{"sh", "-c", "pwd; ls"}
		})
		if res := r.run("run", "d"); res.code == 0 {
			t.Errorf("working directory /proc/self/fd/%d: %+v", n, res)
		}
	}
	r.edit(func(s *specs.Spec) { s.Process.Cwd, s.Process.Args = "/", []string{"sleep", "1000"} })
	r.must("run", "-d", "d")
	defer r.must("delete", "-f", "d")
	if res := r.run("exec", "d", "ls", "/proc/self/fd"); res.out != "0\n1\n2\n3\n" {
		t.Errorf("%+v", res)
	}
	for n := 3; n < 24; n++ {
		if res := r.run("exec", "--cwd", fmt.Sprintf("/proc/self/fd/%d", n), "d", "pwd"); res.code != 255 {
			t.Errorf("exec with working directory /proc/self/fd/%d: %+v", n, res)
		}
	}
}
