package image_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/db"
	"gantry/errdefs"
	"gantry/image"
	"gantry/image/signature"
	"gantry/registry/registrytest"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// keyPair makes a key, and a function that signs with it as cosign does.
func keyPair(t *testing.T) (public []byte, sign func([]byte) []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), func(message []byte) []byte {
		sum := sha256.Sum256(message)
		sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return sig
	}
}

func manifestOf(t *testing.T, layers ...ocispec.Descriptor) []byte {
	t.Helper()
	data, err := json.Marshal(ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: ocispec.DescriptorEmptyJSON, Layers: layers})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// signSimple puts a signature of d beside the images of a repository, where cosign does.
func signSimple(t *testing.T, reg *registrytest.Registry, repository string, d digest.Digest, sign func([]byte) []byte) {
	t.Helper()
	payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":"%s/%s"},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"}}`, reg.Host(), repository, d)
	layer := reg.AddBlob(repository, payload)
	layer.MediaType = signature.SimpleSigning
	layer.Annotations = map[string]string{signature.SignatureAnnotation: base64.StdEncoding.EncodeToString(sign(payload))}
	reg.AddBlob(repository, []byte("{}"))
	reg.AddManifest(repository, "sha256-"+d.Encoded()+".sig", ocispec.MediaTypeImageManifest, manifestOf(t, layer))
}

// signBundle puts a Sigstore bundle of d where clients of registries without referrers look.
func signBundle(t *testing.T, reg *registrytest.Registry, repository string, d digest.Digest, sign func([]byte) []byte) {
	t.Helper()
	signBundleFor(t, reg, repository, reg.Host()+"/"+repository, d, sign)
}

// signBundleFor is signBundle with a name for the image, which may be empty.
func signBundleFor(t *testing.T, reg *registrytest.Registry, repository, name string, d digest.Digest, sign func([]byte) []byte) {
	t.Helper()
	const kind, in = "application/vnd.dev.sigstore.bundle.v0.3+json", "application/vnd.in-toto+json"
	statement := fmt.Appendf(nil, `{"subject":[{"name":%q,"digest":{"sha256":%q}}],"predicateType":"https://sigstore.dev/cosign/sign/v1"}`, name, d.Encoded())
	bundle, err := json.Marshal(map[string]any{"mediaType": kind, "dsseEnvelope": map[string]any{"payload": statement, "payloadType": in, "signatures": []any{map[string]any{"sig": sign(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(in), in, len(statement), statement))}}}})
	if err != nil {
		t.Fatal(err)
	}
	layer := reg.AddBlob(repository, bundle)
	layer.MediaType = kind
	m := reg.AddManifest(repository, "", ocispec.MediaTypeImageManifest, manifestOf(t, layer))
	m.ArtifactType = kind
	reg.AddIndex(repository, "sha256-"+d.Encoded(), ocispec.MediaTypeImageIndex, m)
}

// TestSameImageSigned has one image in two repositories, each with a signature of its own, one of which names no image, as cosign 3 makes them.
func TestSameImageSigned(t *testing.T) {
	reg := registrytest.New()
	defer reg.Close()
	public, sign := keyPair(t)
	layer := tarOf(t, text("x", "x"))
	d := reg.AddImage("bundle", "1", host(), layer)
	reg.AddImage("simple", "1", host(), layer)
	signBundleFor(t, reg, "bundle", "", d.Digest, sign)
	signSimple(t, reg, "simple", d.Digest, sign)
	key, policy := filepath.Join(t.TempDir(), "cosign.pub"), filepath.Join(t.TempDir(), "policy.json")
	rules := fmt.Sprintf(`{"default":[{"type":"reject"}],"transports":{"docker":{"%[1]s/bundle":[{"type":"sigstoreSigned","keyPath":%[2]q,"signedIdentity":{"type":"matchDigest"}}],
		"%[1]s/simple":[{"type":"sigstoreSigned","keyPath":%[2]q,"signedIdentity":{"type":"matchRepository"}}]}}}`, reg.Host(), key)
	if err := errors.Join(os.WriteFile(key, public, 0o600), os.WriteFile(policy, []byte(rules), 0o600)); err != nil {
		t.Fatal(err)
	}
	s := openPolicy(t, t.TempDir(), policy)
	defer func() { s.close(t) }()
	names := []string{reg.Host() + "/bundle:1", reg.Host() + "/simple:1"}
	for _, name := range names {
		if _, err := s.Pull(t.Context(), name, image.PullOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range names {
		i, err := s.Get(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Trusted(name, i); err != nil {
			t.Errorf("%s after both were pulled: %v", name, err)
		}
		if v, err := s.Verify(t.Context(), name, image.VerifyOptions{Key: public}); err != nil || len(v) != 1 || !v[0].Allowed {
			t.Errorf("verify %s by key: %+v, %v", name, v, err)
		}
	}
}

func TestPolicy(t *testing.T) {
	reg := registrytest.New()
	defer reg.Close()
	public, sign := keyPair(t)
	_, other := keyPair(t)
	dir := t.TempDir()
	key, policy := filepath.Join(dir, "cosign.pub"), filepath.Join(dir, "policy.json")
	write := func(path string, data []byte) {
		t.Helper()
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(key, public)
	write(policy, fmt.Appendf(nil, `{"default":[{"type":"reject"}],"transports":{"docker":{%q:[{"type":"sigstoreSigned","keyPath":%q,"signedIdentity":{"type":"matchRepository"}}],%q:[{"type":"insecureAcceptAnything"}]}}}`,
		reg.Host(), key, reg.Host()+"/free"))
	for name, how := range map[string]func(string, digest.Digest){
		"free": nil, "unsigned": nil,
		"simple": func(repository string, d digest.Digest) { signSimple(t, reg, repository, d, sign) },
		"bundle": func(repository string, d digest.Digest) { signBundle(t, reg, repository, d, sign) },
		"forged": func(repository string, d digest.Digest) { signSimple(t, reg, repository, d, other) },
		"moved":  func(repository string, d digest.Digest) { signSimple(t, reg, repository, digest.FromString("x"), sign) },
	} {
		d := reg.AddImage(name, "1", host(), tarOf(t, text("name", name)))
		if how != nil {
			how(name, d.Digest)
		}
	}
	root := t.TempDir()
	s := openPolicy(t, root, policy)
	defer func() { s.close(t) }()
	ctx := t.Context()
	for name, want := range map[string]string{"free": "", "simple": "", "bundle": "", "unsigned": "no signature was found", "forged": "not of this key", "moved": "no signature was found"} {
		_, err := s.Pull(ctx, reg.Host()+"/"+name+":1", image.PullOptions{})
		if want == "" && err != nil || want != "" && (!errdefs.Is(err, errdefs.Forbidden) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), policy)) {
			t.Errorf("pull %s: %v, want %q", name, err, want)
		}
		if _, err := s.Get(ctx, reg.Host()+"/"+name+":1"); (err == nil) != (want == "") {
			t.Errorf("after the pull of %s: %v", name, err)
		}
	}
	// What is here is judged, too, by signatures that were kept: without the registry, after a restart, under another name.
	local, err := s.Import(ctx, bytes.NewReader(tarOf(t, text("x", "x"))), image.ImportOptions{Repo: "local"})
	if err != nil {
		t.Fatal(err)
	}
	s.close(t)
	s = openPolicy(t, root, policy)
	trusted := func(ref string) error {
		t.Helper()
		i, err := s.Get(ctx, ref)
		if err != nil {
			t.Fatal(err)
		}
		return s.Trusted(ref, i)
	}
	i, err := s.Get(ctx, reg.Host()+"/simple:1")
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{reg.Host() + "/simple:1", reg.Host() + "/bundle:1", reg.Host() + "/free:1", i.ID.String(), i.ID.Encoded()[:12], i.RepoDigests[0]} {
		if err := trusted(ref); err != nil {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if err := trusted("local"); !errdefs.Is(err, errdefs.Forbidden) {
		t.Errorf("an image of the default scope: %v", err)
	}
	for _, name := range []string{"elsewhere:1", reg.Host() + "/bundle:2"} { // a name in a scope that the signature is not for
		if err := s.Tag(ctx, i.ID.String(), name); err != nil {
			t.Fatal(err)
		}
		if err := trusted(name); !errdefs.Is(err, errdefs.Forbidden) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.Tag(ctx, local.ID.String(), reg.Host()+"/simple:local"); err != nil {
		t.Fatal(err)
	}
	if err := trusted(reg.Host() + "/simple:local"); !errdefs.Is(err, errdefs.Forbidden) {
		t.Errorf("an image under the name of a signed repository: %v", err)
	}
	// By a key alone.
	for ref, want := range map[string]bool{reg.Host() + "/simple:1": true, reg.Host() + "/bundle:1": true, reg.Host() + "/free:1": false} {
		if v, err := s.Verify(ctx, ref, image.VerifyOptions{Key: public}); err != nil || len(v) != 1 || v[0].Allowed != want {
			t.Errorf("verify %s: %+v, %v", ref, v, err)
		}
	}
	// The policy counts as it is now; one that cannot be read lets nothing through.
	write(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`))
	if err := trusted("local"); err != nil {
		t.Error(err)
	}
	write(policy, []byte(`{`))
	if err := trusted("local"); !errdefs.Is(err, errdefs.Forbidden) {
		t.Errorf("with a broken policy: %v", err)
	}
	if _, err := s.Pull(ctx, reg.Host()+"/free:1", image.PullOptions{}); !errdefs.Is(err, errdefs.Forbidden) {
		t.Errorf("with a broken policy: %v", err)
	}
	// Signatures go with the images, at the next start.
	write(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`))
	if _, err := s.Remove(ctx, reg.Host()+"/bundle:1", image.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	s.close(t)
	s = openPolicy(t, root, policy)
	n := 0
	err = s.db.View(func(tx *db.Tx) error {
		for range db.Bucket[[]signature.Found]("image-signature").All(tx) {
			n++
		}
		return nil
	})
	if n != 1 || err != nil {
		t.Errorf("signatures of %d images are kept, want 1, %v", n, err)
	}
}
