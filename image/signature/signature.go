// Package signature checks by public keys that somebody has signed an image: signatures as cosign stores them beside images, in its simple-signing form and as
// Sigstore bundles, and policies that say which images need which.
package signature

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	"gantry/errdefs"

	"github.com/opencontainers/go-digest"
)

// Limits of signatures, in bytes.
const (
	MaxPayload = 1 << 20
	MaxBundle  = 8 << 20
)

const (
	maxKeys = 1 << 20 // bytes
	minRSA  = 2048    // bits
)

// Media types and annotations by which signatures are found (cosign's SIGNATURE_SPEC, Sigstore's bundle format).
const (
	SimpleSigning       = "application/vnd.dev.cosign.simplesigning.v1+json"
	SignatureAnnotation = "dev.cosignproject.cosign/signature" // base64
	BundlePrefix        = "application/vnd.dev.sigstore.bundle"
	payloadType         = "cosign container image signature"
	inTotoType          = "application/vnd.in-toto+json"
)

// Key is a public key.
type Key struct{ public crypto.PublicKey }

// ParseKeys reads PEM blocks of public keys (PKIX): ECDSA, RSA of 2048 bits or more, Ed25519.
func ParseKeys(data []byte) ([]Key, error) {
	if len(data) > maxKeys {
		return nil, errdefs.New(errdefs.InvalidParameter, "public keys have more than %d bytes", maxKeys)
	}
	var keys []Key
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "PUBLIC KEY" {
			return nil, errdefs.New(errdefs.InvalidParameter, "PEM block %q is no public key", block.Type)
		}
		k, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, errdefs.New(errdefs.InvalidParameter, "public key: %w", err)
		}
		switch k := k.(type) {
		case *ecdsa.PublicKey, ed25519.PublicKey:
		case *rsa.PublicKey:
			if k.N.BitLen() < minRSA {
				return nil, errdefs.New(errdefs.InvalidParameter, "RSA key of %d bits: %d are the least", k.N.BitLen(), minRSA)
			}
		default:
			return nil, errdefs.New(errdefs.InvalidParameter, "public key of type %T is not supported", k)
		}
		keys = append(keys, Key{k})
	}
	if len(keys) == 0 {
		return nil, errdefs.New(errdefs.InvalidParameter, "there is no PEM block with a public key")
	}
	return keys, nil
}

var errNotSigned = errors.New("the signature is not of this key")

// verify reports an error unless the key has signed the message.
func (k Key) verify(message, sig []byte) error {
	switch public := k.public.(type) {
	case *ecdsa.PublicKey: // signers hash with SHA-256 whatever the curve, or as is usual for it
		for _, sum := range hashes(public, message) {
			if ecdsa.VerifyASN1(public, sum, sig) {
				return nil
			}
		}
	case ed25519.PublicKey:
		if ed25519.Verify(public, message, sig) {
			return nil
		}
	case *rsa.PublicKey:
		sum := sha256.Sum256(message)
		if rsa.VerifyPKCS1v15(public, crypto.SHA256, sum[:], sig) == nil {
			return nil
		}
	}
	return errNotSigned
}

func hashes(k *ecdsa.PublicKey, message []byte) [][]byte {
	sum := sha256.Sum256(message)
	list := [][]byte{sum[:]}
	switch k.Curve.Params().BitSize {
	case 384:
		s := sha512.Sum384(message)
		list = append(list, s[:])
	case 521:
		s := sha512.Sum512(message)
		list = append(list, s[:])
	}
	return list
}

// Found is a signature that lies beside an image.
type Found struct {
	Payload   []byte // what is signed; of a bundle, the bundle
	Signature []byte // of a bundle: none
	Bundle    bool
}

// Equal reports whether two are the same signature.
func (f Found) Equal(g Found) bool {
	return f.Bundle == g.Bundle && bytes.Equal(f.Payload, g.Payload) && bytes.Equal(f.Signature, g.Signature)
}

// Claim is what somebody has signed.
type Claim struct {
	Digest    digest.Digest // of the image's manifest
	Reference string        // the image's name; empty where only the digest is signed
}

// Verify returns what the signature says, if one of the keys has made it.
func (f Found) Verify(keys []Key) (Claim, error) {
	if f.Bundle {
		return verifyBundle(f.Payload, keys)
	}
	if len(f.Payload) > MaxPayload {
		return Claim{}, errdefs.New(errdefs.InvalidParameter, "signed payload has more than %d bytes", MaxPayload)
	}
	if err := anyOf(keys, f.Payload, f.Signature); err != nil {
		return Claim{}, err
	}
	var p struct {
		Critical struct {
			Identity struct {
				Reference string `json:"docker-reference"`
			} `json:"identity"`
			Image struct {
				Digest digest.Digest `json:"docker-manifest-digest"`
			} `json:"image"`
			Type string `json:"type"`
		} `json:"critical"`
	}
	if err := json.Unmarshal(f.Payload, &p); err != nil {
		return Claim{}, errdefs.New(errdefs.InvalidParameter, "signed payload: %w", err)
	}
	if p.Critical.Type != payloadType {
		return Claim{}, errdefs.New(errdefs.InvalidParameter, "signed payload is of type %q, not %q", p.Critical.Type, payloadType)
	}
	if err := p.Critical.Image.Digest.Validate(); err != nil {
		return Claim{}, errdefs.New(errdefs.InvalidParameter, "signed payload: digest: %w", err)
	}
	return Claim{p.Critical.Image.Digest, p.Critical.Identity.Reference}, nil
}

func anyOf(keys []Key, message, sig []byte) error {
	for _, k := range keys {
		if k.verify(message, sig) == nil {
			return nil
		}
	}
	return errNotSigned
}

// verifyBundle checks a Sigstore bundle: a DSSE envelope with an in-toto statement of which the image is a subject.
func verifyBundle(data []byte, keys []Key) (Claim, error) {
	if len(data) > MaxBundle {
		return Claim{}, errdefs.New(errdefs.InvalidParameter, "bundle has more than %d bytes", MaxBundle)
	}
	var b struct {
		MediaType string `json:"mediaType"`
		Envelope  *struct {
			Payload     []byte `json:"payload"`
			PayloadType string `json:"payloadType"`
			Signatures  []struct {
				Sig []byte `json:"sig"`
			} `json:"signatures"`
		} `json:"dsseEnvelope"`
	}
	if err := json.Unmarshal(data, &b); err != nil {
		return Claim{}, errdefs.New(errdefs.InvalidParameter, "bundle: %w", err)
	}
	switch {
	case b.Envelope == nil:
		return Claim{}, errdefs.New(errdefs.NotImplemented, "bundle %q has no DSSE envelope: other kinds are not supported", b.MediaType)
	case b.Envelope.PayloadType != inTotoType:
		return Claim{}, errdefs.New(errdefs.NotImplemented, "bundle's payload is of type %q, not %q", b.Envelope.PayloadType, inTotoType)
	case len(b.Envelope.Signatures) != 1:
		return Claim{}, errdefs.New(errdefs.InvalidParameter, "bundle has %d signatures instead of one", len(b.Envelope.Signatures))
	}
	// DSSE's pre-authentication encoding.
	message := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(b.Envelope.PayloadType), b.Envelope.PayloadType, len(b.Envelope.Payload), b.Envelope.Payload)
	if err := anyOf(keys, message, b.Envelope.Signatures[0].Sig); err != nil {
		return Claim{}, err
	}
	var statement struct {
		Subject []struct {
			Name   string            `json:"name"`
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
		PredicateType string `json:"predicateType"`
	}
	if err := json.Unmarshal(b.Envelope.Payload, &statement); err != nil {
		return Claim{}, errdefs.New(errdefs.InvalidParameter, "bundle's statement: %w", err)
	}
	const sign = "https://sigstore.dev/cosign/sign/v1"
	if statement.PredicateType != sign {
		return Claim{}, errdefs.New(errdefs.InvalidParameter, "bundle's statement is of type %q: it says something of the image, but not that it is signed", statement.PredicateType)
	}
	if len(statement.Subject) != 1 {
		return Claim{}, errdefs.New(errdefs.InvalidParameter, "bundle's statement is of %d images instead of one", len(statement.Subject))
	}
	d := digest.NewDigestFromEncoded(digest.SHA256, statement.Subject[0].Digest["sha256"])
	if err := d.Validate(); err != nil {
		return Claim{}, errdefs.New(errdefs.InvalidParameter, "bundle's statement: digest: %w", err)
	}
	return Claim{d, statement.Subject[0].Name}, nil
}
