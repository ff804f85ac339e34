package image

import (
	"encoding/json"
	"strings"

	"gantry/archive"
	"gantry/errdefs"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Docker's media types.
const (
	dockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	dockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifestV1   = "application/vnd.docker.distribution.manifest.v1+json"
	dockerManifestV1s  = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	dockerConfig       = "application/vnd.docker.container.image.v1+json"
	dockerLayer        = "application/vnd.docker.image.rootfs.diff.tar"
	dockerLayerGzip    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	dockerLayerZstd    = "application/vnd.docker.image.rootfs.diff.tar.zstd"
	dockerLayerForeign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"

	ociArtifact = "application/vnd.oci.artifact.manifest.v1+json" // of a draft of OCI 1.1 that some registries still hold
)

// Limits of what comes from outside.
const (
	maxManifest = 4 << 20 // bytes, as registries have it
	maxConfig   = 8 << 20 // bytes
	maxLayers   = 500     // what overlayfs stacks
	maxChildren = 1000    // manifests of one index
)

// manifest is an image manifest of either family; they have the same fields.
type manifest struct {
	MediaType    string               `json:"mediaType,omitempty"`
	ArtifactType string               `json:"artifactType,omitempty"`
	Config       ocispec.Descriptor   `json:"config"`
	Layers       []ocispec.Descriptor `json:"layers"`
}

// runnable reports an error unless a manifest is that of a container image whose layers can be unpacked. OCI 1.1 registries hold other things as well.
func (m manifest) runnable() error {
	switch m.Config.MediaType {
	case ocispec.MediaTypeImageConfig, dockerConfig, "":
	default:
		kind := m.ArtifactType
		if kind == "" {
			kind = m.Config.MediaType
		}
		return errdefs.New(errdefs.InvalidParameter, "this is an artifact of type %.200q and no container image: it can be neither pulled nor run, only fetched by the tool it was made with", kind)
	}
	for _, l := range m.Layers {
		switch l.MediaType {
		case ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd, dockerLayer, dockerLayerGzip, dockerLayerZstd, dockerLayerForeign, "",
			"application/vnd.oci.image.layer.nondistributable.v1.tar", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd":
		default:
			return errdefs.New(errdefs.InvalidParameter, "layer %s has the media type %.200q, which cannot be unpacked: push the image again with layers of tar, tar+gzip or tar+zstd", l.Digest, l.MediaType)
		}
	}
	return nil
}

// parseManifest decodes an image manifest. mediaType is what it was announced as; empty: unknown.
func parseManifest(data []byte, mediaType string) (manifest, error) {
	var m manifest
	var fields struct {
		SchemaVersion int                `json:"schemaVersion"`
		MediaType     string             `json:"mediaType"`
		Manifests     json.RawMessage    `json:"manifests"`
		FSLayers      json.RawMessage    `json:"fsLayers"`
		Config        ocispec.Descriptor `json:"config"`
	}
	if err := json.Unmarshal(data, &fields); err != nil {
		return m, errdefs.New(errdefs.InvalidParameter, "manifest is malformed: %w", err)
	}
	// What one reader takes for an index and another for a manifest is neither (CVE-2021-41190).
	switch {
	case fields.FSLayers != nil || fields.SchemaVersion == 1 || mediaType == dockerManifestV1 || mediaType == dockerManifestV1s:
		return m, errdefs.New(errdefs.InvalidParameter, "manifest has schema version 1, which is not supported: push the image again with a newer client")
	case fields.MediaType == ociArtifact || mediaType == ociArtifact:
		return m, errdefs.New(errdefs.InvalidParameter, "this is an artifact and no container image: it can be neither pulled nor run, only fetched by the tool it was made with")
	case fields.Manifests != nil:
		return m, errdefs.New(errdefs.InvalidParameter, "manifest is an index as well")
	case fields.MediaType != "" && mediaType != "" && fields.MediaType != mediaType:
		return m, errdefs.New(errdefs.InvalidParameter, "manifest says that it is %q and was announced as %q", fields.MediaType, mediaType)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, errdefs.New(errdefs.InvalidParameter, "manifest is malformed: %w", err)
	}
	if err := m.Config.Digest.Validate(); err != nil {
		return m, errdefs.New(errdefs.InvalidParameter, "manifest names no config: %w", err)
	}
	if len(m.Layers) > maxLayers {
		return m, errdefs.New(errdefs.InvalidParameter, "manifest has more than %d layers", maxLayers)
	}
	for _, l := range m.Layers {
		if err := l.Digest.Validate(); err != nil || l.Size < 0 {
			return m, errdefs.New(errdefs.InvalidParameter, "manifest has a malformed layer %q", l.Digest)
		}
	}
	return m, nil
}

// parseIndex decodes an OCI index or a Docker manifest list.
func parseIndex(data []byte, mediaType string) ([]ocispec.Descriptor, error) {
	var x struct {
		MediaType string               `json:"mediaType"`
		Manifests []ocispec.Descriptor `json:"manifests"`
		Layers    json.RawMessage      `json:"layers"`
		Config    json.RawMessage      `json:"config"`
	}
	if err := json.Unmarshal(data, &x); err != nil {
		return nil, errdefs.New(errdefs.InvalidParameter, "index is malformed: %w", err)
	}
	switch {
	case x.Layers != nil || x.Config != nil:
		return nil, errdefs.New(errdefs.InvalidParameter, "index is a manifest as well")
	case x.MediaType != "" && mediaType != "" && x.MediaType != mediaType:
		return nil, errdefs.New(errdefs.InvalidParameter, "index says that it is %q and was announced as %q", x.MediaType, mediaType)
	case len(x.Manifests) > maxChildren:
		return nil, errdefs.New(errdefs.InvalidParameter, "index has more than %d manifests", maxChildren)
	}
	for _, m := range x.Manifests {
		if err := m.Digest.Validate(); err != nil || m.Size < 0 {
			return nil, errdefs.New(errdefs.InvalidParameter, "index has a malformed manifest %q", m.Digest)
		}
	}
	return x.Manifests, nil
}

func isIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == dockerManifestList
}

func isManifest(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageManifest || mediaType == dockerManifest
}

// parseConfig decodes and checks an image's configuration.
func parseConfig(data []byte) (dockerspec.DockerOCIImage, error) {
	var c dockerspec.DockerOCIImage
	if err := json.Unmarshal(data, &c); err != nil {
		return c, errdefs.New(errdefs.InvalidParameter, "image config is malformed: %w", err)
	}
	if c.RootFS.Type != "" && c.RootFS.Type != "layers" {
		return c, errdefs.New(errdefs.InvalidParameter, "image config has a root file system of type %q", c.RootFS.Type)
	}
	if len(c.RootFS.DiffIDs) > maxLayers {
		return c, errdefs.New(errdefs.InvalidParameter, "image config has more than %d layers", maxLayers)
	}
	for _, d := range c.RootFS.DiffIDs {
		if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 {
			return c, errdefs.New(errdefs.InvalidParameter, "image config has a malformed layer %q", d)
		}
	}
	return c, nil
}

// compose makes the OCI manifest of an image that came without one, and returns its bytes and descriptor.
func compose(config ocispec.Descriptor, layers []ocispec.Descriptor) ([]byte, ocispec.Descriptor, error) {
	if layers == nil {
		layers = []ocispec.Descriptor{}
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: layers}
	data, err := json.Marshal(m)
	if err != nil {
		return nil, ocispec.Descriptor{}, err
	}
	return data, ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}, nil
}

// compressionOf is what a layer's media type says that it is compressed with.
func compressionOf(mediaType string) archive.Compression {
	switch {
	case strings.HasSuffix(mediaType, "gzip"):
		return archive.Gzip
	case strings.HasSuffix(mediaType, "zstd"):
		return archive.Zstd
	default:
		return archive.Plain
	}
}

// layerMediaType is what OCI or Docker calls a layer. Docker has no name for zstd.
func layerMediaType(c archive.Compression, oci bool) string {
	switch {
	case c == archive.Zstd:
		return ocispec.MediaTypeImageLayerZstd
	case c == archive.Gzip && oci:
		return ocispec.MediaTypeImageLayerGzip
	case c == archive.Gzip:
		return dockerLayerGzip
	case oci:
		return ocispec.MediaTypeImageLayer
	default:
		return dockerLayer
	}
}

// attestation reports whether an index's entry is about another image rather than one.
func attestation(d ocispec.Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] != "" || d.Platform != nil && strings.EqualFold(d.Platform.OS, "unknown")
}
