package signature

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"

	"gantry/errdefs"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

const maxPolicy = 1 << 20 // bytes

// Policy says which images may be used, in the form of containers-policy.json(5). Of its transports "docker" counts, which images of registries have.
type Policy struct {
	Default    []Requirement                       `json:"default"`
	Transports map[string]map[string][]Requirement `json:"transports,omitempty"`
}

// Requirement is what an image must meet. An image must meet all requirements of its scope.
type Requirement struct {
	Type     string    `json:"type"`              // "insecureAcceptAnything", "reject", "sigstoreSigned"
	KeyPath  string    `json:"keyPath,omitempty"` // of sigstoreSigned: one of the four
	KeyPaths []string  `json:"keyPaths,omitempty"`
	KeyData  []byte    `json:"keyData,omitempty"`
	KeyDatas [][]byte  `json:"keyDatas,omitempty"`
	Identity *Identity `json:"signedIdentity,omitempty"` // nil: matchRepoDigestOrExact
}

// Identity says which names a signature may have for an image.
type Identity struct {
	Type         string `json:"type"`
	Reference    string `json:"dockerReference,omitempty"`  // of exactReference
	Repository   string `json:"dockerRepository,omitempty"` // of exactRepository
	Prefix       string `json:"prefix,omitempty"`           // of remapIdentity
	SignedPrefix string `json:"signedPrefix,omitempty"`
}

// Kinds of identities. matchDigest is not in containers-policy.json: it is for signatures that name no image, as those in bundles.
const (
	matchExact          = "matchExact"
	matchDigestOrExact  = "matchRepoDigestOrExact"
	matchRepository     = "matchRepository"
	exactReference      = "exactReference"
	exactRepository     = "exactRepository"
	remapIdentity       = "remapIdentity"
	matchDigest         = "matchDigest"
	matchIfNamed        = "matchRepository, if it names one" // of ByKeys; no policy may ask for it
	acceptAnything      = "insecureAcceptAnything"
	reject              = "reject"
	sigstoreSigned      = "sigstoreSigned"
	transportOfRegistry = "docker"
)

// ReadPolicy reads a policy from a file.
func ReadPolicy(path string) (*Policy, error) {
	data, err := readFile(path, maxPolicy)
	if err != nil {
		return nil, fmt.Errorf("image policy: %w", err)
	}
	p, err := ParsePolicy(data)
	if err != nil {
		return nil, fmt.Errorf("image policy %s: %w", path, err)
	}
	return p, nil
}

// readFile reads a file up to one byte more than a limit, which the parser refuses. It waits for nobody to write to it.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit+1))
}

// ParsePolicy reads a policy. What it does not know is an error: a policy that is not understood protects nobody.
func ParsePolicy(data []byte) (*Policy, error) {
	if len(data) > maxPolicy {
		return nil, errdefs.New(errdefs.InvalidParameter, "more than %d bytes", maxPolicy)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	p := new(Policy)
	if err := d.Decode(p); err != nil {
		return nil, errdefs.New(errdefs.InvalidParameter, "%w", err)
	}
	if _, err := d.Token(); err != io.EOF { //nolint:errorlint // as Decoder has it
		return nil, errdefs.New(errdefs.InvalidParameter, "something follows the policy")
	}
	if len(p.Default) == 0 {
		return nil, errdefs.New(errdefs.InvalidParameter, "default: there is no requirement")
	}
	if err := check("default", p.Default); err != nil {
		return nil, err
	}
	for scope, list := range p.Transports[transportOfRegistry] {
		if err := check("transports.docker."+scope, list); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func check(field string, list []Requirement) error {
	if len(list) == 0 {
		return errdefs.New(errdefs.InvalidParameter, "%s: there is no requirement", field)
	}
	for i, r := range list {
		if err := r.check(); err != nil {
			return errdefs.New(errdefs.InvalidParameter, "%s[%d]: %w", field, i, err)
		}
	}
	return nil
}

func (r Requirement) check() error {
	given := 0
	for _, is := range []bool{r.KeyPath != "", len(r.KeyPaths) > 0, len(r.KeyData) > 0, len(r.KeyDatas) > 0} {
		if is {
			given++
		}
	}
	switch r.Type {
	case acceptAnything, reject:
		if given > 0 || r.Identity != nil {
			return errdefs.New(errdefs.InvalidParameter, "%s takes no keys and no identity", r.Type)
		}
		return nil
	case sigstoreSigned:
		if given != 1 {
			return errdefs.New(errdefs.InvalidParameter, "%s takes one of keyPath, keyPaths, keyData, keyDatas", r.Type)
		}
		return r.Identity.check()
	case "signedBy":
		return errdefs.New(errdefs.NotImplemented, "signedBy, which is of GPG keys, is not supported: sigstoreSigned is")
	}
	return errdefs.New(errdefs.InvalidParameter, "type %q is unknown", r.Type)
}

func (i *Identity) check() error {
	if i == nil {
		return nil
	}
	switch i.Type {
	case matchExact, matchDigestOrExact, matchRepository, matchDigest:
		return nil
	case exactReference:
		return parses(i.Reference)
	case exactRepository:
		return parses(i.Repository)
	case remapIdentity:
		if i.Prefix == "" || i.SignedPrefix == "" {
			return errdefs.New(errdefs.InvalidParameter, "signedIdentity: remapIdentity takes prefix and signedPrefix")
		}
		return nil
	}
	return errdefs.New(errdefs.InvalidParameter, "signedIdentity: type %q is unknown", i.Type)
}

func parses(name string) error {
	if _, err := reference.ParseNormalizedNamed(name); err != nil {
		return errdefs.New(errdefs.InvalidParameter, "signedIdentity: %q: %w", name, err)
	}
	return nil
}

// For returns the requirements of an image, and the scope that they are of: the image itself, its repository, what that is in up to the registry's
// host, a "*." and a domain that the host is in, all of the transport, the default.
func (p *Policy) For(ref reference.Named) (scope string, list []Requirement) {
	scopes := p.Transports[transportOfRegistry]
	var names []string
	if tagged, ok := ref.(reference.Tagged); ok {
		names = append(names, ref.Name()+":"+tagged.Tag())
	}
	if digested, ok := ref.(reference.Digested); ok {
		names = append(names, ref.Name()+"@"+digested.Digest().String())
	}
	for name := ref.Name(); ; {
		names = append(names, name)
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			break
		}
		name = name[:i]
	}
	host, _, _ := strings.Cut(reference.Domain(ref), ":")
	for {
		_, rest, ok := strings.Cut(host, ".")
		if !ok {
			break
		}
		names, host = append(names, "*."+rest), rest
	}
	for _, name := range append(names, "") {
		if list, ok := scopes[name]; ok {
			return "docker:" + name, list
		}
	}
	return "default", p.Default
}

// Decision is whether an image may be used, and why.
type Decision struct {
	Allowed bool
	Scope   string   // of the policy
	Reasons []string // a line for each requirement
}

// Needs reports whether signatures make a difference for an image.
func (p *Policy) Needs(ref reference.Named) bool {
	_, list := p.For(ref)
	for _, r := range list {
		if r.Type == sigstoreSigned {
			return true
		}
	}
	return false
}

// Decide says whether an image with that manifest may be used under a name, given the signatures that were found.
func (p *Policy) Decide(ref reference.Named, manifest digest.Digest, found []Found) Decision {
	d := Decision{Allowed: true}
	var list []Requirement
	d.Scope, list = p.For(ref)
	for _, r := range list {
		reason, ok := r.met(ref, manifest, found)
		d.Reasons = append(d.Reasons, r.Type+": "+reason)
		d.Allowed = d.Allowed && ok
	}
	return d
}

// DecideUnnamed says whether an image that has no name may be used.
func (p *Policy) DecideUnnamed() Decision {
	d := Decision{Allowed: true, Scope: "default"}
	for _, r := range p.Default {
		reason, ok := "a signature is for a name, and the image has none", false
		if r.Type != sigstoreSigned {
			reason, ok = r.met(nil, "", nil)
		}
		d.Reasons, d.Allowed = append(d.Reasons, r.Type+": "+reason), d.Allowed && ok
	}
	return d
}

// ByKeys is a policy that asks for a signature by one of the keys, for the repository of the image unless it names none.
func ByKeys(keys []byte) (*Policy, error) {
	if _, err := ParseKeys(keys); err != nil {
		return nil, err
	}
	return &Policy{Default: []Requirement{{Type: sigstoreSigned, KeyData: keys, Identity: &Identity{Type: matchIfNamed}}}}, nil
}

func (r Requirement) met(ref reference.Named, manifest digest.Digest, found []Found) (reason string, ok bool) {
	switch r.Type {
	case acceptAnything:
		return "every image is accepted", true
	case reject:
		return "no image is accepted", false
	}
	keys, err := r.keys()
	if err != nil {
		return err.Error(), false
	}
	if len(found) == 0 {
		return "no signature was found", false
	}
	var why []string
	for i, f := range found {
		c, err := f.Verify(keys)
		if err == nil && c.Digest != manifest {
			err = fmt.Errorf("it is of another image, %s", c.Digest)
		}
		if err == nil {
			err = r.Identity.match(ref, c.Reference)
		}
		if err == nil {
			return fmt.Sprintf("signature %d of %d is good", i+1, len(found)), true
		}
		why = append(why, fmt.Sprintf("signature %d of %d: %v", i+1, len(found), err))
	}
	return strings.Join(why, "; "), false
}

func (r Requirement) keys() ([]Key, error) {
	datas := slices.Clone(r.KeyDatas)
	if len(r.KeyData) > 0 {
		datas = append(datas, r.KeyData)
	}
	paths := slices.Clone(r.KeyPaths)
	if r.KeyPath != "" {
		paths = append(paths, r.KeyPath)
	}
	for _, path := range paths {
		data, err := readFile(path, maxKeys)
		if err != nil {
			return nil, err
		}
		datas = append(datas, data)
	}
	var keys []Key
	for _, data := range datas {
		more, err := ParseKeys(data)
		if err != nil {
			return nil, err
		}
		keys = append(keys, more...)
	}
	return keys, nil
}

// match reports an error unless a signature that names an image signed may be for ref.
func (i *Identity) match(ref reference.Named, signed string) error {
	kind := matchDigestOrExact
	if i != nil {
		kind = i.Type
	}
	if kind == matchDigest || kind == matchIfNamed && signed == "" {
		return nil
	}
	if signed == "" {
		return fmt.Errorf("it names no image, which signedIdentity %s needs: matchDigest does not", kind)
	}
	name, err := reference.ParseNormalizedNamed(signed)
	if err != nil {
		return fmt.Errorf("it names the image %q: %w", signed, err)
	}
	_, digested := ref.(reference.Digested)
	good := false
	switch kind {
	case matchExact:
		good = !reference.IsNameOnly(name) && same(name, ref)
	case matchDigestOrExact:
		good = digested && name.Name() == ref.Name() || !reference.IsNameOnly(name) && same(name, ref)
	case matchRepository, matchIfNamed:
		good = name.Name() == ref.Name()
	case exactReference:
		want, err := reference.ParseNormalizedNamed(i.Reference)
		good = err == nil && same(name, want)
	case exactRepository:
		want, err := reference.ParseNormalizedNamed(i.Repository)
		good = err == nil && name.Name() == want.Name()
	case remapIdentity:
		mapped, err := reference.ParseNormalizedNamed(i.remap(ref.String()))
		good = err == nil && (digested && name.Name() == mapped.Name() || !reference.IsNameOnly(name) && same(name, mapped))
	}
	if !good {
		return fmt.Errorf("it names the image %s, which is not %s by %s", signed, reference.FamiliarString(ref), kind)
	}
	return nil
}

// remap replaces a prefix of a name, at the end of one of its parts.
func (i *Identity) remap(name string) string {
	rest, ok := strings.CutPrefix(name, i.Prefix)
	if ok && (rest == "" || strings.IndexByte("/:@", rest[0]) >= 0) {
		return i.SignedPrefix + rest
	}
	return name
}

// same reports whether two references are equal, tags included.
func same(a, b reference.Named) bool { return a.String() == b.String() }
