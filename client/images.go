package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/registry"
)

// ImageListOptions selects what ImageList returns.
type ImageListOptions struct {
	All        bool // intermediate images too
	SharedSize bool // fill SharedSize
	Filters    Filters
}

// ImageList lists images.
func (c *Client) ImageList(ctx context.Context, o ImageListOptions) ([]image.Summary, error) {
	q := url.Values{}
	if o.All {
		q.Set("all", "1")
	}
	if o.SharedSize {
		q.Set("shared-size", "1")
	}
	if err := o.Filters.set(q); err != nil {
		return nil, err
	}
	var out []image.Summary
	return out, c.Call(ctx, Request{Method: "GET", Path: "/images/json", Query: q}, &out)
}

// ImageInspect returns what is known of an image.
func (c *Client) ImageInspect(ctx context.Context, ref string) (image.InspectResponse, error) {
	var out image.InspectResponse
	return out, c.Call(ctx, Request{Method: "GET", Path: object("images", ref, "json")}, &out)
}

// ImageHistory lists the steps an image was made by, newest first.
func (c *Client) ImageHistory(ctx context.Context, ref, platform string) ([]image.HistoryResponseItem, error) {
	q := url.Values{}
	setNonEmpty(q, "platform", platform)
	var out []image.HistoryResponseItem
	return out, c.Call(ctx, Request{Method: "GET", Path: object("images", ref, "history"), Query: q}, &out)
}

// authHeader is the X-Registry-Auth header for a; nil means none.
func authHeader(a *registry.AuthConfig) (map[string]string, error) {
	if a == nil {
		return nil, nil
	}
	b, err := json.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("encode registry credentials: %w", err)
	}
	return map[string]string{registry.AuthHeader: base64.URLEncoding.EncodeToString(b)}, nil
}

// ImagePull downloads an image. The stream returned has JSON objects of jsonstream.Message; an error may come inside it.
// tag may be a digest, or empty to pull all tags.
func (c *Client) ImagePull(ctx context.Context, name, tag, platform string, allPlatforms bool, auth *registry.AuthConfig) (io.ReadCloser, error) {
	h, err := authHeader(auth)
	if err != nil {
		return nil, err
	}
	q := url.Values{"fromImage": {name}}
	setNonEmpty(q, "tag", tag)
	setNonEmpty(q, "platform", platform)
	if allPlatforms {
		q.Set("all-platforms", "1")
	}
	return c.stream(ctx, Request{Method: "POST", Path: "/images/create", Query: q, Header: h})
}

// ImageImport makes an image of a file system's tar stream, given as src, or of one that the server fetches when src is nil.
func (c *Client) ImageImport(ctx context.Context, src io.Reader, fromSrc, repo, tag, message, platform string, changes []string) (io.ReadCloser, error) {
	q := url.Values{"fromSrc": {fromSrc}}
	setNonEmpty(q, "repo", repo)
	setNonEmpty(q, "tag", tag)
	setNonEmpty(q, "message", message)
	setNonEmpty(q, "platform", platform)
	for _, ch := range changes {
		q.Add("changes", ch)
	}
	return c.stream(ctx, Request{Method: "POST", Path: "/images/create", Query: q, Body: src, ContentType: "application/x-tar"})
}

// ImagePush uploads an image; the stream is as ImagePull's. An empty tag means all tags, an empty compression that layers go as they are.
func (c *Client) ImagePush(ctx context.Context, name, tag, platform, compression string, auth registry.AuthConfig) (io.ReadCloser, error) {
	h, err := authHeader(&auth)
	if err != nil {
		return nil, err
	}
	q := url.Values{}
	setNonEmpty(q, "tag", tag)
	setNonEmpty(q, "platform", platform)
	setNonEmpty(q, "compression", compression)
	return c.stream(ctx, Request{Method: "POST", Path: object("images", name, "push"), Query: q, Header: h})
}

// ImageTag gives an image another name.
func (c *Client) ImageTag(ctx context.Context, src, repo, tag string) error {
	q := url.Values{"repo": {repo}}
	setNonEmpty(q, "tag", tag)
	return c.Call(ctx, Request{Method: "POST", Path: object("images", src, "tag"), Query: q}, nil)
}

// ImageRemove removes a name of an image, and the image with its last.
func (c *Client) ImageRemove(ctx context.Context, ref string, force, noPrune bool) ([]image.DeleteResponse, error) {
	q := url.Values{}
	if force {
		q.Set("force", "1")
	}
	if noPrune {
		q.Set("noprune", "1")
	}
	var out []image.DeleteResponse
	return out, c.Call(ctx, Request{Method: "DELETE", Path: object("images", ref), Query: q}, &out)
}

// ImageLoad takes in a docker-archive or OCI layout tar stream. The stream returned has JSON objects of jsonstream.Message.
func (c *Client) ImageLoad(ctx context.Context, r io.Reader, quiet bool, platforms []string) (*Response, error) {
	q := url.Values{"quiet": {"0"}}
	if quiet {
		q.Set("quiet", "1")
	}
	for _, p := range platforms {
		q.Add("platform", p)
	}
	return c.Do(ctx, Request{Method: "POST", Path: "/images/load", Query: q, Body: r, ContentType: "application/x-tar"})
}

// ImageSave returns images as one tar stream.
func (c *Client) ImageSave(ctx context.Context, refs, platforms []string) (io.ReadCloser, error) {
	q := url.Values{"names": refs}
	for _, p := range platforms {
		q.Add("platform", p)
	}
	return c.stream(ctx, Request{Method: "GET", Path: "/images/get", Query: q})
}

// ImagesPrune removes unused images.
func (c *Client) ImagesPrune(ctx context.Context, f Filters) (image.PruneReport, error) {
	var out image.PruneReport
	return out, c.prune(ctx, "/images/prune", f, &out)
}

// BuildPrune removes the builder's cache, unused parts only unless all is set, and returns the bytes freed.
func (c *Client) BuildPrune(ctx context.Context, all bool, f Filters) (build.CachePruneReport, error) {
	q := url.Values{}
	if all {
		q.Set("all", "1")
	}
	if err := f.set(q); err != nil {
		return build.CachePruneReport{}, err
	}
	var out build.CachePruneReport
	return out, c.Call(ctx, Request{Method: "POST", Path: "/build/prune", Query: q}, &out)
}

// ImageSearch searches a registry.
func (c *Client) ImageSearch(ctx context.Context, term string, limit int, f Filters, auth *registry.AuthConfig) ([]registry.SearchResult, error) {
	h, err := authHeader(auth)
	if err != nil {
		return nil, err
	}
	q := url.Values{"term": {term}}
	if limit > 0 {
		q.Set("limit", fmt.Sprint(limit))
	}
	if err := f.set(q); err != nil {
		return nil, err
	}
	var out []registry.SearchResult
	return out, c.Call(ctx, Request{Method: "GET", Path: "/images/search", Query: q, Header: h}, &out)
}

// BuildOptions shapes ImageBuild; zero values are the server's defaults.
type BuildOptions struct {
	Dockerfile, Target, Platform                      string
	Tags, CacheFrom, ExtraHosts, SecurityOpt          []string
	BuildArgs                                         map[string]*string
	Labels                                            map[string]string
	NoCache, Pull, Quiet, Remove, ForceRemove         bool
	NetworkMode, CpusetCpus, CpusetMems, CgroupParent string
	ShmSize, Memory, MemorySwap                       int64 // bytes
	CPUShares, CPUPeriod, CPUQuota                    int64
	Ulimits                                           []*container.Ulimit
	Auths                                             map[string]registry.AuthConfig // by the name in config.json
}

// ImageBuild builds an image of a context, a tar stream. The stream returned is as ImagePull's.
func (c *Client) ImageBuild(ctx context.Context, r io.Reader, o BuildOptions) (io.ReadCloser, error) {
	h, err := authsHeader(o.Auths)
	if err != nil {
		return nil, err
	}
	q := url.Values{"t": o.Tags, "extrahosts": o.ExtraHosts, "version": {"1"}}
	for name, value := range map[string]string{
		"dockerfile": o.Dockerfile, "target": o.Target, "platform": o.Platform, "networkmode": o.NetworkMode, "cpusetcpus": o.CpusetCpus, "cpusetmems": o.CpusetMems, "cgroupparent": o.CgroupParent,
	} {
		setNonEmpty(q, name, value)
	}
	for name, value := range map[string]bool{"nocache": o.NoCache, "pull": o.Pull, "q": o.Quiet, "rm": o.Remove, "forcerm": o.ForceRemove} {
		q.Set(name, "0")
		if value {
			q.Set(name, "1")
		}
	}
	for name, value := range map[string]int64{
		"shmsize": o.ShmSize, "memory": o.Memory, "memswap": o.MemorySwap, "cpushares": o.CPUShares, "cpuperiod": o.CPUPeriod, "cpuquota": o.CPUQuota,
	} {
		if value != 0 {
			q.Set(name, strconv.FormatInt(value, 10))
		}
	}
	for name, value := range map[string]any{"buildargs": o.BuildArgs, "labels": o.Labels, "cachefrom": o.CacheFrom, "ulimits": o.Ulimits, "securityopt": o.SecurityOpt} {
		text, err := json.Marshal(value)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", name, err)
		}
		if string(text) != "null" {
			q.Set(name, string(text))
		}
	}
	return c.stream(ctx, Request{Method: "POST", Path: "/build", Query: q, Body: r, ContentType: "application/x-tar", Header: h})
}
