package images

import (
	"regexp"
	"testing"

	"gantry/registry/registrytest"
	"gantry/tests/harness"

	"github.com/opencontainers/go-digest"
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

// Who waits for a registry that asks for patience is told so, and for how long.
func TestRetrying(t *testing.T) {
	if harness.Oracle() {
		t.Skip("dockerd gives a registry that is busy up at some requests, and waits for other times at others")
	}
	e := harness.New(t, daemon)
	reg := registrytest.New()
	t.Cleanup(reg.Close)
	layer := harness.Layer(harness.Entry{Name: "a", Body: "a"})
	reg.AddImage("app", "1", ocispec.Platform{OS: "linux", Architecture: "amd64"}, layer)
	busy := func(method, path string) {
		reg.Break(registrytest.Fault{Method: method, Path: path, Times: 1, Do: registrytest.Status(429, "2")})
	}
	says := func(want, path, method string, args ...string) {
		t.Helper()
		busy(method, path)
		if out := e.OK(args...); !regexp.MustCompile(`(?m)^` + want + `Retrying in [123] seconds?\r?$`).MatchString(out) {
			t.Errorf("%v says %q", args, out)
		}
	}
	ref, other := reg.Host()+"/app:1", reg.Host()+"/other:1"
	says("", "/manifests/", "GET", "pull", ref)
	e.OK("rmi", ref)
	says("[0-9a-f]{12}: ", "/blobs/"+digest.FromBytes(layer).String(), "GET", "pull", ref)
	e.OK("tag", ref, other)
	says("[0-9a-f]{12}: ", "/blobs/uploads/", "POST", "push", other)
}
