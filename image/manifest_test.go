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
