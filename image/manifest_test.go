package image_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"gantry/errdefs"
	"gantry/image"
	"gantry/registry/registrytest"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	manifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
	schema1      = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

func platform(text string) *ocispec.Platform {
	parts := append(strings.Split(text, "/"), "")
	return &ocispec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
}

// Indexes of both families, nested, with attestations and annotations: the platform that fits best is taken.
func TestPullPlatform(t *testing.T) {
	t.Parallel()
	reg := registrytest.New()
	defer reg.Close()
	s := openWith(t, t.TempDir(), quick())
	defer s.close(t)
	byPlatform := map[string]ocispec.Descriptor{}
	var all []ocispec.Descriptor
	for n, name := range []string{"linux/amd64", "linux/amd64/v3", "linux/386", "linux/arm/v5", "linux/arm/v7", "linux/arm64/v8", "windows/amd64"} {
		d := reg.AddImage("app", "", *platform(name), tarOf(t, text("platform", name), text("n", fmt.Sprint(n))))
		d.Annotations = map[string]string{"org.example.note": name}
		byPlatform[name] = d
		all = append(all, d)
	}
	attestation := reg.AddManifest("app", "", ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"config":{"digest":"`+digest.FromString("x").String()+`","size":1},"layers":[]}`))
	attestation.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	attestation.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	all = append([]ocispec.Descriptor{attestation}, all...)
	reg.AddIndex("app", "oci", ocispec.MediaTypeImageIndex, all...)
	reg.AddIndex("app", "docker", manifestList, all...)
	reg.AddIndex("app", "nested", ocispec.MediaTypeImageIndex, reg.AddIndex("app", "", ocispec.MediaTypeImageIndex, all...))
	for _, tag := range []string{"oci", "docker", "nested"} {
		for want, got := range map[string]string{
			"linux/amd64": "linux/amd64", "linux/x86_64": "linux/amd64", "linux/amd64/v2": "linux/amd64", "linux/amd64/v3": "linux/amd64/v3", "linux/386": "linux/386",
			"linux/arm/v6": "linux/arm/v5", "linux/arm/v7": "linux/arm/v7", "linux/armhf": "linux/arm/v7", "linux/arm64": "linux/arm64/v8", "linux/aarch64": "linux/arm64/v8",
		} {
			i, err := s.Pull(t.Context(), reg.Host()+"/app:"+tag, image.PullOptions{Platform: platform(want)})
			if err != nil || i.Manifest.Digest != byPlatform[got].Digest {
				t.Errorf("%s %s: %+v %v", tag, want, i, err)
			}
		}
		_, err := s.Pull(t.Context(), reg.Host()+"/app:"+tag, image.PullOptions{Platform: platform("linux/s390x")})
		if !errdefs.Is(err, errdefs.NotFound) || !strings.HasPrefix(err.Error(), "no matching manifest for linux/s390x in the manifest list entries") {
			t.Error(err)
		}
	}
	_, err := s.Pull(t.Context(), reg.Host()+"/app:oci", image.PullOptions{Platform: platform("linux/s390x")})
	if err == nil || !strings.HasSuffix(err.Error(), ": there are linux/amd64, linux/amd64/v3, linux/386, linux/arm/v5, linux/arm/v7, linux/arm64/v8, windows/amd64") {
		t.Error(err)
	}
	// An index that leads back to itself ends.
	reg.AddIndex("app", "loop", ocispec.MediaTypeImageIndex, reg.AddIndex("app", "", ocispec.MediaTypeImageIndex, reg.AddIndex("app", "", ocispec.MediaTypeImageIndex, reg.AddIndex("app", "", ocispec.MediaTypeImageIndex, reg.AddIndex("app", "", manifestList, all...)))))
	if _, err := s.Pull(t.Context(), reg.Host()+"/app:loop", image.PullOptions{}); err == nil || !strings.Contains(err.Error(), "nested too deep") {
		t.Error(err)
	}
	s.clean(t)
}

// Indexes within an index are looked into until one has the platform; what says nothing of a variant is what its architecture begins with; 32 bits will do where there is nothing else.
func TestPullWithin(t *testing.T) {
	t.Parallel()
	reg := registrytest.New()
	defer reg.Close()
	s := openWith(t, t.TempDir(), quick())
	defer s.close(t)
	images := map[string]ocispec.Descriptor{}
	for _, name := range []string{"linux/amd64", "linux/386", "linux/arm", "linux/arm/v6", "linux/arm64", "linux/s390x"} {
		images[name] = reg.AddImage("app", "", *platform(name), tarOf(t, text("platform", name)))
	}
	index := func(tag string, list ...ocispec.Descriptor) ocispec.Descriptor {
		return reg.AddIndex("app", tag, ocispec.MediaTypeImageIndex, list...)
	}
	index("nested", index("", images["linux/arm64"]), index("", index("", images["linux/s390x"]), images["linux/amd64"]))
	index("arms", images["linux/arm/v6"], images["linux/arm"])
	index("narrow", images["linux/s390x"], images["linux/386"], images["linux/arm"])
	for _, c := range []struct{ tag, want, got string }{
		{"nested", "linux/amd64", "linux/amd64"}, {"nested", "linux/arm64/v8", "linux/arm64"}, {"nested", "linux/s390x", "linux/s390x"},
		{"arms", "linux/arm/v7", "linux/arm"}, {"arms", "linux/arm", "linux/arm"}, {"arms", "linux/arm/v6", "linux/arm/v6"}, {"arms", "linux/arm/7", "linux/arm"},
		{"narrow", "linux/amd64", "linux/386"}, {"narrow", "linux/arm64", "linux/arm"},
	} {
		i, err := s.Pull(t.Context(), reg.Host()+"/app:"+c.tag, image.PullOptions{Platform: platform(c.want)})
		if err != nil || i.Manifest.Digest != images[c.got].Digest {
			t.Errorf("%s %s: %+v %v", c.tag, c.want, i, err)
		}
	}
	for _, c := range []struct{ tag, want, says string }{
		{"nested", "linux/riscv64", "no matching manifest for linux/riscv64 in the manifest list entries: there are linux/arm64, linux/amd64, linux/s390x"},
		{"arms", "linux/arm/v5", "no matching manifest for linux/arm/v5 in the manifest list entries: there are linux/arm/v6, linux/arm"},
	} {
		if _, err := s.Pull(t.Context(), reg.Host()+"/app:"+c.tag, image.PullOptions{Platform: platform(c.want)}); !errdefs.Is(err, errdefs.NotFound) || err.Error() != c.says {
			t.Error(err)
		}
	}
	// As many as there are, that lead nowhere.
	var many []ocispec.Descriptor
	for n := range 100 {
		d := index("", images["linux/s390x"])
		d.Annotations = map[string]string{"n": fmt.Sprint(n)}
		many = append(many, d)
	}
	index("many", many...)
	reg.Forget()
	if _, err := s.Pull(t.Context(), reg.Host()+"/app:many", image.PullOptions{Platform: platform("linux/amd64")}); err == nil || reg.Count("GET", "/manifests/") > 100 {
		t.Error(err, reg.Count("GET", "/manifests/"))
	}
	s.clean(t)
}

func TestParsePlatform(t *testing.T) {
	for text, want := range map[string]string{"arm": "armv7", "linux": "amd64", "linux/arm/v7": "armv7", "aarch64": "arm64", "LINUX/AMD64": "amd64"} {
		if p, err := image.ParsePlatform(text); err != nil || p.OS != "linux" || p.Architecture+p.Variant != want && want != "amd64" {
			t.Errorf("%s: %+v %v", text, p, err)
		}
	}
	for _, text := range []string{"foo", "", "a/b/c/d", "linux/", "linux/x y"} {
		if _, err := image.ParsePlatform(text); !errdefs.Is(err, errdefs.InvalidParameter) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// What is no container image is refused in words that say what it is and what to do.
func TestPullOther(t *testing.T) {
	reg := registrytest.New()
	defer reg.Close()
	s := openWith(t, t.TempDir(), quick())
	defer s.close(t)
	empty := reg.AddBlob("app", []byte("{}"))
	empty.MediaType = "application/vnd.oci.empty.v1+json"
	chart := reg.AddBlob("app", []byte("a chart"))
	chart.MediaType = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
	add := func(tag, mediaType string, m any) {
		data, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		reg.AddManifest("app", tag, mediaType, data)
	}
	config := reg.AddBlob("app", []byte(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["`+chart.Digest.String()+`"]}}`))
	config.MediaType = ocispec.MediaTypeImageConfig
	type fields map[string]any
	manifest := fields{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageManifest}
	with := func(more fields) fields {
		all := fields{}
		for _, f := range []fields{manifest, more} {
			for k, v := range f {
				all[k] = v
			}
		}
		return all
	}
	add("artifact", ocispec.MediaTypeImageManifest, with(fields{"artifactType": "application/vnd.example.sbom", "config": empty, "layers": []any{chart}}))
	add("chart", ocispec.MediaTypeImageManifest, with(fields{"config": fields{"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": empty.Digest, "size": 2}, "layers": []any{chart}}))
	add("draft", "application/vnd.oci.artifact.manifest.v1+json", fields{"mediaType": "application/vnd.oci.artifact.manifest.v1+json", "blobs": []any{}})
	add("layer", ocispec.MediaTypeImageManifest, with(fields{"config": config, "layers": []any{fields{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "digest": chart.Digest, "size": chart.Size}}}))
	add("schema1", schema1, fields{"schemaVersion": 1, "name": "app", "fsLayers": []any{}, "history": []any{}})
	add("confused", ocispec.MediaTypeImageManifest, with(fields{"config": config, "layers": []any{}, "manifests": []any{}}))
	add("index", ocispec.MediaTypeImageIndex, fields{"schemaVersion": 2, "manifests": []any{}, "layers": []any{}})
	reg.AddManifest("app", "html", "text/html", []byte("<html>"))
	reg.AddManifest("app", "deep", ocispec.MediaTypeImageManifest, []byte(strings.Repeat("[", 1<<20)))
	for tag, want := range map[string]string{
		"artifact": `artifact of type "application/vnd.example.sbom"`,
		"chart":    `artifact of type "application/vnd.cncf.helm.config.v1+json"`,
		"draft":    "artifact and no container image",
		"layer":    "tar+gzip+encrypted\", which cannot be unpacked",
		"schema1":  "schema version 1, which is not supported: push the image again",
		"confused": "an index as well",
		"index":    "a manifest as well",
		"html":     "malformed",
		"deep":     "malformed",
	} {
		if _, err := s.Pull(t.Context(), reg.Host()+"/app:"+tag, image.PullOptions{}); !errdefs.Is(err, errdefs.InvalidParameter) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", tag, err)
		}
	}
	s.clean(t)
}
