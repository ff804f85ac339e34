package client

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/url"

	"github.com/moby/moby/api/types/registry"
)

// Layer is a layer of an image.
type Layer struct {
	DiffID, Digest, MediaType string
	Compressed                int64 // bytes of the blob
	Size                      int64 // bytes of the files
	Files                     int
	Waste                     int64 // bytes of files that layers above replace or take away
	CreatedBy                 string
}

// Layers is an image layer by layer, bottom first.
type Layers struct {
	ID     string
	Layers []Layer
	Size   int64
	Waste  int64
}

// ImageLayers looks into the layers of an image. Only gantryd does.
func (c *Client) ImageLayers(ctx context.Context, ref string) (Layers, error) {
	var out Layers
	return out, c.Call(ctx, Request{Method: "GET", Path: "/gantry/images/layers", Query: url.Values{"image": {ref}}, Unversioned: true}, &out)
}

// FileDifference is a path that is not the same in two images.
type FileDifference struct {
	Path     string
	Kind     string   // "A", "C", "D"
	What     []string // of a changed one
	From, To int64    // bytes
}

// ImageCompare lists what of the files of one image is another in a second. Only gantryd does.
func (c *Client) ImageCompare(ctx context.Context, from, to string) ([]FileDifference, error) {
	var out []FileDifference
	return out, c.Call(ctx, Request{Method: "GET", Path: "/gantry/images/compare", Query: url.Values{"from": {from}, "to": {to}}, Unversioned: true}, &out)
}

// ImageSquash makes an image of one layer of another and returns its ID. Only gantryd does.
func (c *Client) ImageSquash(ctx context.Context, ref, repo, tag, comment string) (string, error) {
	q := url.Values{"image": {ref}}
	setNonEmpty(q, "repo", repo)
	setNonEmpty(q, "tag", tag)
	setNonEmpty(q, "comment", comment)
	var out struct{ ID string }
	return out.ID, c.Call(ctx, Request{Method: "POST", Path: "/gantry/images/squash", Query: q, Unversioned: true}, &out)
}

// Settled is what ImageSettle has done.
type Settled struct {
	Layers         int   // that are kept once now
	Kept           int   // that stay as they came, too
	SpaceReclaimed int64 // bytes
}

// ImageSettle replaces the compressed layers of all images by what is missing to make them anew. Only gantryd does.
func (c *Client) ImageSettle(ctx context.Context) (Settled, error) {
	var out Settled
	return out, c.Call(ctx, Request{Method: "POST", Path: "/gantry/images/settle", Unversioned: true}, &out)
}

// Verdict is what a policy says of an image by one of its names.
type Verdict struct {
	Allowed bool
	Scope   string   // of the policy
	Reasons []string // a line for each requirement
	Image   string
	Digest  string
	Policy  string // file; empty for that of a key
}

// ImageVerify asks for the signatures of an image and what the daemon's policy makes of them, or keys in PEM if there are any. Only gantryd does.
func (c *Client) ImageVerify(ctx context.Context, ref string, keys []byte, auth *registry.AuthConfig) ([]Verdict, error) {
	h, err := authHeader(auth)
	if err != nil {
		return nil, err
	}
	r := Request{Method: "POST", Path: "/gantry/images/verify", Query: url.Values{"image": {ref}}, Unversioned: true, Header: h}
	if len(keys) > 0 {
		r.Body, r.ContentType = bytes.NewReader(keys), "application/x-pem-file"
	}
	var out []Verdict
	return out, c.Call(ctx, r, &out)
}

// ImageCopy copies an image from registry to registry; auths are the credentials of registries by what docker's config.json calls them. The stream
// returned is that of ImagePush. Only gantryd does.
func (c *Client) ImageCopy(ctx context.Context, from, to string, auths map[string]registry.AuthConfig) (io.ReadCloser, error) {
	h, err := authsHeader(auths)
	if err != nil {
		return nil, err
	}
	return c.stream(ctx, Request{Method: "POST", Path: "/gantry/images/copy", Query: url.Values{"from": {from}, "to": {to}}, Header: h, Unversioned: true})
}

// authsHeader is the X-Registry-Config header for the credentials of several registries.
func authsHeader(auths map[string]registry.AuthConfig) (map[string]string, error) {
	if len(auths) == 0 {
		return nil, nil
	}
	b, err := json.Marshal(auths)
	if err != nil {
		return nil, fmt.Errorf("encode registry credentials: %w", err)
	}
	return map[string]string{"X-Registry-Config": base64.URLEncoding.EncodeToString(b)}, nil
}
