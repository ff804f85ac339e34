package oci_test

import (
	"context"
	"os"
	"testing"

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
