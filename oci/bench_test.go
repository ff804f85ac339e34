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
	benchmark(b, oci.Bundle{ID: "c1", Dir: "/", Spec: dockerSpec(b, rootfs(b), "true")})
}

// BenchmarkRunPooled is BenchmarkRun as the daemon's hot path has it: the network namespace is there already, the seccomp filter
// compiled.
func BenchmarkRunPooled(b *testing.B) {
	s := dockerSpec(b, rootfs(b), "true")
	p, err := profile.GetDefaultProfile(s)
	if err != nil {
		b.Fatal(err)
	}
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
	namespaces := map[specs.LinuxNamespaceType]*os.File{specs.NetworkNamespace: net}
	b.Run("seccomp", func(b *testing.B) {
		benchmark(b, oci.Bundle{ID: "c1", Dir: "/", Spec: s, Namespaces: namespaces, Seccomp: filter})
	})
	b.Run("plain", func(b *testing.B) { benchmark(b, oci.Bundle{ID: "c1", Dir: "/", Spec: s, Namespaces: namespaces}) })
}

// BenchmarkExec is a `true` in a running container.
func BenchmarkExec(b *testing.B) {
	ctx := context.Background()
	c, err := oci.Create(ctx, oci.Bundle{ID: "c1", Dir: "/", Spec: dockerSpec(b, rootfs(b), "sleep", "1000")}, oci.Stdio{})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Delete(ctx)
	if err := c.Start(ctx); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		p, err := c.Exec(ctx, process("true"), oci.ExecOptions{})
		if err != nil {
			b.Fatal(err)
		}
		if st, err := p.Wait(ctx); err != nil || st.Code != 0 {
			b.Fatal(st, err)
		}
		p.Close()
	}
}

func benchmark(b *testing.B, bundle oci.Bundle) {
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
