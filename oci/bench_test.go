package oci_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"

	profile "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/linux/seccomp"
	"gantry/oci"
)

// BenchmarkRun is create, start, wait, delete of a busybox `true` with Docker's default isolation.
func BenchmarkRun(b *testing.B) {
	s := dockerSpec(b, rootfs(b), "true")
	ctx := context.Background()
	for b.Loop() {
		c, err := oci.Create(ctx, oci.Bundle{ID: "c1", Dir: "/", Spec: s}, oci.Stdio{Stderr: os.Stderr})
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Start(ctx); err != nil {
			b.Fatal(err)
		}
		if st, err := c.Init().Wait(ctx); err != nil || st.Code != 0 {
			b.Fatal(st, err)
		}
		if err := c.Delete(ctx); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRunPooled is BenchmarkRun as the daemon's hot path has it: the network namespace is there already, the seccomp filter
// compiled.
func BenchmarkRunPooled(b *testing.B) {
	s := dockerSpec(b, rootfs(b), "true")
	p, err := profile.GetDefaultProfile(s)
	if err != nil {
		b.Fatal(err)
	}
	s.Linux.Seccomp = p
	filter, err := seccomp.Compile(p)
	if err != nil {
		b.Fatal(err)
	}
	holder := exec.Command("unshare", "-n", "sleep", "1000")
	if err := holder.Start(); err != nil {
		b.Fatal(err)
	}
	defer holder.Wait()
	defer holder.Process.Kill()
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		b.Fatal(err)
	}
	name := fmt.Sprintf("/proc/%d/ns/net", holder.Process.Pid)
	for l := own; l == own; l, err = os.Readlink(name) {
		if err != nil {
			b.Fatal(err)
		}
	}
	net, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	defer net.Close()
	bundle := oci.Bundle{ID: "c1", Dir: "/", Spec: s, Seccomp: filter, Namespaces: map[specs.LinuxNamespaceType]*os.File{specs.NetworkNamespace: net}}
	ctx := context.Background()
	for b.Loop() {
		c, err := oci.Create(ctx, bundle, oci.Stdio{Stderr: os.Stderr})
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Start(ctx); err != nil {
			b.Fatal(err)
		}
		if st, err := c.Init().Wait(ctx); err != nil || st.Code != 0 {
			b.Fatal(st, err)
		}
		if err := c.Delete(ctx); err != nil {
			b.Fatal(err)
		}
	}
}
