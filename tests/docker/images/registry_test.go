package images

import (
	"testing"

	"gantry/registry/registrytest"
	"gantry/tests/harness"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Manifests that break off, indexes within indexes, and platforms, as the docker command line meets them.
func TestPullIndex(t *testing.T) {
	e := harness.New(t, daemon)
	reg := registrytest.New()
	t.Cleanup(reg.Close)
	add := func(arch, variant string) ocispec.Descriptor {
		return reg.AddImage("app", "", ocispec.Platform{OS: "linux", Architecture: arch, Variant: variant}, harness.Layer(harness.Entry{Name: "arch", Body: arch + variant}))
	}
	index := func(tag string, list ...ocispec.Descriptor) ocispec.Descriptor {
		return reg.AddIndex("app", tag, ocispec.MediaTypeImageIndex, list...)
	}
	amd64, arm, armv6 := add("amd64", ""), add("arm", ""), add("arm", "v6")
	index("flat", armv6, arm, amd64)
	index("nested", index("", arm, armv6), index("", amd64))
	is := func(want string, args ...string) {
		t.Helper()
		e.OK(append([]string{"pull", "-q"}, args...)...)
		e.Is(want, "image", "inspect", "-f", "{{.Architecture}}{{.Variant}}", args[len(args)-1])
	}
	flat, nested := reg.Host()+"/app:flat", reg.Host()+"/app:nested"
	is("arm", "--platform", "linux/arm/v7", flat)
	is("armv6", "--platform", "linux/arm/v6", flat)
	e.Fails(1, `"nosuch": unknown operating system or architecture`, "pull", "--platform", "nosuch", flat)
	e.Fails(1, "no matching manifest for linux/s390x in the manifest list entries", "pull", "--platform", "linux/s390x", flat)
	if harness.Oracle() {
		return // dockerd 20.10 knows no index in an index, and does not ask again
	}
	reg.Break(registrytest.Fault{Method: "GET", Path: "/manifests/", Times: 2, Do: registrytest.Cut(10)})
	is("amd64", nested)
	is("arm", "--platform", "linux/arm", nested)
}
