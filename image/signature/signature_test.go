package signature

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// signer signs as cosign does.
type signer struct {
	pem  []byte
	sign func(message []byte) []byte
}

func pemOf(t testing.TB, public any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func signers(t testing.TB) map[string]signer {
	t.Helper()
	must := func(sig []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return sig
	}
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edPublic, edPrivate, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]signer{
		"P-256": {pemOf(t, &p256.PublicKey), func(m []byte) []byte {
			s := sha256.Sum256(m)
			return must(ecdsa.SignASN1(rand.Reader, p256, s[:]))
		}},
		"P-384": {pemOf(t, &p384.PublicKey), func(m []byte) []byte {
			s := sha512.Sum384(m)
			return must(ecdsa.SignASN1(rand.Reader, p384, s[:]))
		}},
		"Ed25519": {pemOf(t, edPublic), func(m []byte) []byte { return ed25519.Sign(edPrivate, m) }},
		"RSA": {pemOf(t, &rsaKey.PublicKey), func(m []byte) []byte {
			s := sha256.Sum256(m)
			return must(rsa.SignPKCS1v15(rand.Reader, rsaKey, crypto.SHA256, s[:]))
		}},
	}
}

var manifest = digest.FromString("manifest")

func payload(name string, d digest.Digest) []byte {
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, name, d)
}

func (s signer) simple(name string, d digest.Digest) Found {
	p := payload(name, d)
	return Found{Payload: p, Signature: s.sign(p)}
}

func (s signer) bundle(t testing.TB, predicate, name string, d digest.Digest) Found {
	t.Helper()
	statement := fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":%q,"digest":{"sha256":%q}}],"predicateType":%q,"predicate":{}}`, name, d.Encoded(), predicate)
	sig := s.sign(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(inTotoType), inTotoType, len(statement), statement))
	data, err := json.Marshal(map[string]any{"mediaType": BundlePrefix + ".v0.3+json", "verificationMaterial": map[string]any{"publicKey": map[string]any{"hint": "x"}}, "dsseEnvelope": map[string]any{"payload": statement, "payloadType": inTotoType, "signatures": []any{map[string]any{"sig": sig}}}})
	if err != nil {
		t.Fatal(err)
	}
	return Found{Payload: data, Bundle: true}
}

const cosignPredicate = "https://sigstore.dev/cosign/sign/v1"

func TestVerify(t *testing.T) {
	all := signers(t)
	for name, s := range all {
		keys, err := ParseKeys(s.pem)
		if err != nil {
			t.Fatal(err)
		}
		for kind, f := range map[string]Found{"simple": s.simple("example.com/app", manifest), "bundle": s.bundle(t, cosignPredicate, "example.com/app", manifest)} {
			if c, err := f.Verify(keys); err != nil || c.Digest != manifest || c.Reference != "example.com/app" {
				t.Errorf("%s %s: %+v, %v", name, kind, c, err)
			}
			for other, o := range all {
				if other == name {
					continue
				}
				keys, err := ParseKeys(o.pem)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := f.Verify(keys); err == nil {
					t.Errorf("%s %s is good by the key of %s", name, kind, other)
				}
			}
			for i := range f.Payload { // no byte may change unnoticed, but of what is not signed
				changed := f
				changed.Payload = append([]byte{}, f.Payload...)
				changed.Payload[i] ^= 1
				if c, err := changed.Verify(keys); err == nil && (kind == "simple" || c.Digest != manifest || c.Reference != "example.com/app") {
					t.Fatalf("%s %s: byte %d changed: %+v", name, kind, i, c)
				}
			}
		}
		if _, err := s.bundle(t, "https://slsa.dev/provenance/v1", "", manifest).Verify(keys); err == nil {
			t.Errorf("%s: a statement that is no signature is one", name)
		}
	}
}

func TestKeys(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"nothing": nil, "text": []byte("key"), "private": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}}), "broken": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte{1}}),
		"weak": pemOf(t, &weak.PublicKey), "endless": make([]byte, maxKeys+1),
	} {
		if keys, err := ParseKeys(data); err == nil {
			t.Errorf("%s: %v", name, keys)
		}
	}
}

func TestPolicy(t *testing.T) {
	s := signers(t)["P-256"]
	key := filepath.Join(t.TempDir(), "cosign.pub")
	if err := os.WriteFile(key, s.pem, 0o600); err != nil {
		t.Fatal(err)
	}
	signed := func(identity string) string {
		return fmt.Sprintf(`[{"type":"sigstoreSigned","keyPath":%q%s}]`, key, identity)
	}
	p, err := ParsePolicy(fmt.Appendf(nil, `{"default":[{"type":"reject"}],"transports":{"docker":{"docker.io/library":[{"type":"insecureAcceptAnything"}],"reg.example.com/team":%s,
		"reg.example.com/team/exact":%s,"*.example.org":%s,"reg.example.com/one:v1":%s,"mirror.example.com":%s},"atomic":{"":[{"type":"reject"}]}}}`,
		signed(`,"signedIdentity":{"type":"matchRepository"}`), signed(""), signed(`,"signedIdentity":{"type":"matchDigest"}`), signed(`,"signedIdentity":{"type":"exactRepository","dockerRepository":"other.example.com/x"}`),
		signed(`,"signedIdentity":{"type":"remapIdentity","prefix":"mirror.example.com","signedPrefix":"reg.example.com"}`)))
	if err != nil {
		t.Fatal(err)
	}
	unnamed := s.bundle(t, cosignPredicate, "", manifest)
	for _, c := range []struct {
		ref   string
		found []Found
		scope string
		want  bool
	}{
		{"busybox", nil, "docker:docker.io/library", true},
		{"quay.io/x", []Found{s.simple("quay.io/x", manifest)}, "default", false},
		{"reg.example.com/team/app:1", nil, "docker:reg.example.com/team", false},
		{"reg.example.com/team/app:1", []Found{s.simple("reg.example.com/team/app", manifest)}, "docker:reg.example.com/team", true},
		{"reg.example.com/team/app:1", []Found{s.simple("reg.example.com/team/other", manifest)}, "docker:reg.example.com/team", false},
		{"reg.example.com/team/app:1", []Found{s.simple("reg.example.com/team/app", digest.FromString("x"))}, "docker:reg.example.com/team", false},
		{"reg.example.com/team/app:1", []Found{{Payload: []byte("{}"), Signature: []byte("x")}, s.simple("reg.example.com/team/app", manifest)}, "docker:reg.example.com/team", true},
		{"reg.example.com/team/app:1", []Found{unnamed}, "docker:reg.example.com/team", false},
		{"reg.example.com/team/exact:1", []Found{s.simple("reg.example.com/team/exact", manifest)}, "docker:reg.example.com/team/exact", false},
		{"reg.example.com/team/exact:1", []Found{s.simple("reg.example.com/team/exact:1", manifest)}, "docker:reg.example.com/team/exact", true},
		{"reg.example.com/team/exact:2", []Found{s.simple("reg.example.com/team/exact:1", manifest)}, "docker:reg.example.com/team/exact", false},
		{"reg.example.com/team/exact@" + manifest.String(), []Found{s.simple("reg.example.com/team/exact", manifest)}, "docker:reg.example.com/team/exact", true},
		{"a.b.example.org:5000/x", []Found{unnamed}, "docker:*.example.org", true},
		{"example.org/x", []Found{unnamed}, "default", false},
		{"reg.example.com/one:v1", []Found{s.simple("other.example.com/x:any", manifest)}, "docker:reg.example.com/one:v1", true},
		{"reg.example.com/one:v2", []Found{s.simple("other.example.com/x:any", manifest)}, "default", false},
		{"mirror.example.com/y:1", []Found{s.simple("reg.example.com/y:1", manifest)}, "docker:mirror.example.com", true},
		{"mirror.example.com/y:1", []Found{s.simple("mirror.example.com/y:1", manifest)}, "docker:mirror.example.com", false},
	} {
		ref, err := reference.ParseDockerRef(c.ref)
		if err != nil {
			t.Fatal(err)
		}
		if d := p.Decide(ref, manifest, c.found); d.Allowed != c.want || d.Scope != c.scope || len(d.Reasons) != 1 {
			t.Errorf("%s: %+v, want %t by %s", c.ref, d, c.want, c.scope)
		}
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	ref, _ := reference.ParseDockerRef("reg.example.com/team/app:1")
	if d := p.Decide(ref, manifest, []Found{s.simple("reg.example.com/team/app", manifest)}); d.Allowed || !strings.Contains(d.Reasons[0], key) {
		t.Errorf("without the key: %+v", d)
	}
}

var badPolicies = []string{
	``, `{}`, `[]`, `null`, `{"default":[]}`, `{"default":[{"type":"maybe"}]}`, `{"default":[{"type":"reject","keyPath":"/x"}]}`, `{"default":[{"type":"sigstoreSigned"}]}`, `{"default":[{"type":"signedBy","keyPath":"/x"}]}`,
	`{"default":[{"type":"sigstoreSigned","keyPath":"/x","keyData":"eA=="}]}`, `{"default":[{"type":"sigstoreSigned","keyPath":"/x","signedIdentity":{"type":"any"}}]}`,
	`{"default":[{"type":"sigstoreSigned","keyPath":"/x","signedIdentity":{"type":"exactReference","dockerReference":"UPPER"}}]}`, `{"default":[{"type":"sigstoreSigned","keyPath":"/x","signedIdentity":{"type":"remapIdentity"}}]}`,
	`{"default":[{"type":"reject"}],"transport":{}}`, `{"default":[{"type":"reject"}],"transports":{"docker":{"x":[]}}}`, `{"default":[{"type":"reject"}]}{}`,
}

func TestBadPolicies(t *testing.T) {
	for _, text := range badPolicies {
		if p, err := ParsePolicy([]byte(text)); err == nil {
			t.Errorf("%s: %+v", text, p)
		}
	}
}

func FuzzParsePolicy(f *testing.F) {
	for _, text := range badPolicies {
		f.Add([]byte(text))
	}
	f.Add([]byte(`{"default":[{"type":"insecureAcceptAnything"}],"transports":{"docker":{"a/b":[{"type":"sigstoreSigned","keyData":"eA==","signedIdentity":{"type":"matchExact"}}]}}}`))
	ref, err := reference.ParseDockerRef("a.b/c:1")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParsePolicy(data)
		if err != nil {
			return
		}
		if d := p.Decide(ref, manifest, nil); len(d.Reasons) == 0 {
			t.Errorf("%s: %+v", data, d)
		}
	})
}

func FuzzVerify(f *testing.F) {
	s := signers(f)["P-256"]
	keys, err := ParseKeys(s.pem)
	if err != nil {
		f.Fatal(err)
	}
	good := s.simple("a.b/c", manifest)
	f.Add(good.Payload, good.Signature, false)
	f.Add(s.bundle(f, cosignPredicate, "a.b/c", manifest).Payload, []byte{}, true)
	f.Fuzz(func(t *testing.T, payload, sig []byte, bundle bool) {
		c, err := Found{payload, sig, bundle}.Verify(keys)
		if err == nil && c.Digest != manifest {
			t.Errorf("%q, %q: %+v", payload, sig, c)
		}
	})
}
