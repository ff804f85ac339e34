package image

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"gantry/db"
	"gantry/errdefs"
	"gantry/image/signature"
	"gantry/registry"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxSignatures is how many signatures of one image are looked at.
const maxSignatures = 64

// signatures are those that were found when an image was pulled, by the digest of the manifest or index that they are of: images that are
// run are held to the policy, too, which may have changed.
const signatures db.Bucket[[]signature.Found] = "image-signature"

// Verdict is what a policy says of an image.
type Verdict struct {
	signature.Decision
	Image  string        // the name that it was judged by
	Digest digest.Digest // what the name stands for
	Policy string        // file of the policy; empty where there is none, or a key stands for one
}

// refusal is the error of an image that may not be used.
func (v Verdict) refusal() error {
	return errdefs.New(errdefs.Forbidden, "image %s (%s) is refused by the policy %s, scope %s: %s", v.Image, v.Digest, v.Policy, v.Scope, strings.Join(v.Reasons, "; "))
}

// policy reads the policy anew each time: an administrator who changes it does not want to wait. It is nil where there is none. A policy that
// cannot be read lets nothing through.
func (s *Service) policy() (*signature.Policy, error) {
	if s.o.Policy == "" {
		return nil, nil
	}
	p, err := signature.ReadPolicy(s.o.Policy)
	if err != nil {
		return nil, errdefs.With(errdefs.Forbidden, err)
	}
	return p, nil
}

// trust holds what a pull is about to fetch to the policy, and keeps the signatures that it needs.
func (p *puller) trust(ctx context.Context, named reference.Named, top digest.Digest) error {
	policy, err := p.policy()
	if policy == nil || err != nil {
		return err
	}
	var found []signature.Found
	if policy.Needs(named) {
		if found, err = findSignatures(ctx, p.repository, top); err != nil {
			return fmt.Errorf("signatures of %s: %w", reference.FamiliarString(named), err)
		}
	}
	v := Verdict{Decision: policy.Decide(named, top, found), Image: reference.FamiliarString(named), Digest: top, Policy: p.Service.o.Policy}
	if !v.Allowed {
		return v.refusal()
	}
	if len(found) == 0 {
		return nil
	}
	return p.Service.o.DB.Update(func(tx *db.Tx) error {
		known, err := signatures.Get(tx, top.String())
		if err != nil && !errdefs.Is(err, errdefs.NotFound) {
			return err
		}
		for _, f := range known { // of other repositories that have the same
			if len(found) < maxSignatures && !slices.ContainsFunc(found, f.Equal) {
				found = append(found, f)
			}
		}
		return signatures.Put(tx, top.String(), found)
	})
}

// Trusted reports an error unless the policy lets the image be used by the name, or the ID, ref.
func (s *Service) Trusted(ref string, i *Image) error {
	policy, err := s.policy()
	if policy == nil || err != nil {
		return err
	}
	verdicts, err := s.judge(policy, ref, i, nil)
	if err != nil {
		return err
	}
	for _, v := range verdicts {
		if v.Allowed {
			return nil
		}
	}
	return verdicts[0].refusal()
}

// judge asks a policy about an image by a name, or by all its names if ref is its ID. found are signatures that stand
// for those that are kept.
func (s *Service) judge(policy *signature.Policy, ref string, i *Image, found map[digest.Digest][]signature.Found) ([]Verdict, error) {
	names := []string{ref}
	if named, err := parseName(ref); err != nil || !s.isNamed(named, i.ID) {
		names = append(append([]string{}, i.RepoTags...), i.RepoDigests...)
	}
	if len(names) == 0 {
		return []Verdict{{Decision: policy.DecideUnnamed(), Image: short(i.ID), Digest: i.Manifest.Digest, Policy: s.o.Policy}}, nil
	}
	var list []Verdict
	for _, name := range names {
		named, err := parseName(name)
		if err != nil {
			return nil, err
		}
		// What is signed is what the registry has under the name, or the manifest of the platform.
		digests := []digest.Digest{i.Manifest.Digest}
		for _, d := range i.RepoDigests {
			if r, err := reference.ParseNormalizedNamed(d); err == nil && r.Name() == named.Name() {
				if r, ok := r.(reference.Digested); ok && r.Digest() != i.Manifest.Digest {
					digests = append([]digest.Digest{r.Digest()}, digests...)
				}
			}
		}
		var best *Verdict
		for _, d := range digests {
			known, asked := found[d]
			if !asked {
				if known, err = s.kept(d); err != nil {
					return nil, err
				}
			}
			v := Verdict{Decision: policy.Decide(named, d, known), Image: reference.FamiliarString(named), Digest: d, Policy: s.o.Policy}
			if best == nil || v.Allowed && !best.Allowed {
				best = &v
			}
		}
		list = append(list, *best)
	}
	return list, nil
}

// isNamed reports whether an image has a name.
func (s *Service) isNamed(named reference.Named, id digest.Digest) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.names[named.String()] == id
}

// kept returns the signatures that were found when a manifest was pulled.
func (s *Service) kept(d digest.Digest) (found []signature.Found, err error) {
	err = s.o.DB.View(func(tx *db.Tx) error {
		var err error
		found, err = signatures.Get(tx, d.String())
		return err
	})
	if errdefs.Is(err, errdefs.NotFound) {
		err = nil
	}
	return found, err
}

// dropSignatures deletes the signatures of what no image is called by any more.
func (s *Service) dropSignatures(context.Context) error {
	return s.o.DB.Update(func(tx *db.Tx) error {
		named := map[string]bool{}
		for name := range s.names {
			if _, d, ok := strings.Cut(name, "@"); ok {
				named[d] = true
			}
		}
		for _, e := range s.images {
			named[e.image.Manifest.Digest.String()] = true
		}
		var old []string
		for d := range signatures.All(tx) {
			if !named[d] {
				old = append(old, d)
			}
		}
		for _, d := range old {
			if err := signatures.Delete(tx, d); err != nil {
				return err
			}
		}
		return nil
	})
}

// VerifyOptions shapes Verify.
type VerifyOptions struct {
	Key  []byte // public keys in PEM, one of which is to have signed for the image's repository; nil: the policy says what is needed
	Auth registry.Auth
}

// Verify asks the image's registry for its signatures and says what the policy, or a key, makes of them.
func (s *Service) Verify(ctx context.Context, ref string, o VerifyOptions) ([]Verdict, error) {
	i, err := s.Get(ctx, ref)
	if err != nil {
		return nil, err
	}
	var policy *signature.Policy
	if len(o.Key) > 0 {
		policy, err = signature.ByKeys(o.Key)
	} else if policy, err = s.policy(); policy == nil && err == nil {
		return nil, errdefs.New(errdefs.InvalidParameter, "there is no image policy (--image-policy): give a key to verify by")
	}
	if err != nil {
		return nil, err
	}
	found := map[digest.Digest][]signature.Found{}
	for _, name := range i.RepoDigests {
		named, err := parseName(name)
		if err != nil {
			return nil, err
		}
		repository, err := s.registry.Load().Repository(named, o.Auth, false)
		if err != nil {
			return nil, err
		}
		digests := []digest.Digest{named.(reference.Digested).Digest(), i.Manifest.Digest}
		for _, d := range slices.Compact(digests) {
			more, err := findSignatures(ctx, repository, d)
			if err != nil {
				return nil, fmt.Errorf("signatures of %s: %w", name, err)
			}
			found[d] = append(found[d], more...) // each repository has its own
		}
	}
	verdicts, err := s.judge(policy, ref, i, found)
	if len(o.Key) > 0 {
		for n := range verdicts {
			verdicts[n].Policy = ""
		}
	}
	return verdicts, err
}

// findSignatures asks a repository for the signatures of a manifest: cosign's tag, and bundles among the artifacts that refer to it.
func findSignatures(ctx context.Context, r *registry.Repository, d digest.Digest) ([]signature.Found, error) {
	found, err := simpleSignatures(ctx, r, d)
	if err != nil {
		return nil, err
	}
	data, err := r.Referrers(ctx, d)
	if errdefs.Is(err, errdefs.NotFound) {
		return found, nil
	}
	if err != nil {
		return nil, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, errdefs.New(errdefs.InvalidParameter, "list of referrers: %w", err)
	}
	for _, m := range index.Manifests {
		if !strings.HasPrefix(m.ArtifactType, signature.BundlePrefix) || len(found) >= maxSignatures {
			continue
		}
		manifest, err := artifact(ctx, r, m.Digest.String())
		if err != nil {
			return nil, err
		}
		for _, l := range manifest.Layers {
			if strings.HasPrefix(l.MediaType, signature.BundlePrefix) && len(found) < maxSignatures {
				payload, err := r.ReadBlob(ctx, l, signature.MaxBundle)
				if err != nil {
					return nil, err
				}
				found = append(found, signature.Found{Payload: payload, Bundle: true})
			}
		}
	}
	return found, nil
}

func simpleSignatures(ctx context.Context, r *registry.Repository, d digest.Digest) (found []signature.Found, err error) {
	manifest, err := artifact(ctx, r, d.Algorithm().String()+"-"+d.Encoded()+".sig")
	if errdefs.Is(err, errdefs.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, l := range manifest.Layers {
		sig, err := base64.StdEncoding.DecodeString(l.Annotations[signature.SignatureAnnotation])
		if err != nil || len(sig) == 0 || l.MediaType != signature.SimpleSigning || len(found) >= maxSignatures {
			continue // what is no signature proves nothing
		}
		payload, err := r.ReadBlob(ctx, l, signature.MaxPayload)
		if err != nil {
			return nil, err
		}
		found = append(found, signature.Found{Payload: payload, Signature: sig})
	}
	return found, nil
}

// artifact fetches a manifest that need not be an image's.
func artifact(ctx context.Context, r *registry.Repository, ref string) (ocispec.Manifest, error) {
	var m ocispec.Manifest
	data, _, err := r.Manifest(ctx, ref)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, errdefs.New(errdefs.InvalidParameter, "manifest %s: %w", ref, err)
	}
	return m, nil
}
