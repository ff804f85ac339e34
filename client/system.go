package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/url"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
)

// Ping settles the API version and returns the answer's header.
func (c *Client) Ping(ctx context.Context) (Header, error) {
	resp, err := c.Do(ctx, Request{Method: "HEAD", Path: "/_ping", Unversioned: true})
	var refused *Error
	if errors.As(err, &refused) { // the answer to a HEAD has no words
		resp, err = c.Do(ctx, Request{Method: "GET", Path: "/_ping", Unversioned: true})
	}
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	v := resp.Header["api-version"]
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.version == "" && v != "" {
		c.version = MaxAPIVersion
		if lessVersion(v, MaxAPIVersion) {
			c.version = v
		}
	}
	return resp.Header, nil
}

// ServerVersion returns the server's versions.
func (c *Client) ServerVersion(ctx context.Context) (system.VersionResponse, error) {
	var out system.VersionResponse
	return out, c.Call(ctx, Request{Method: "GET", Path: "/version"}, &out)
}

// Info describes the server and its machine.
func (c *Client) Info(ctx context.Context) (system.Info, error) {
	var out system.Info
	return out, c.Call(ctx, Request{Method: "GET", Path: "/info"}, &out)
}

// RegistryLogin checks credentials at a registry.
func (c *Client) RegistryLogin(ctx context.Context, a registry.AuthConfig) (registry.AuthResponse, error) {
	var out registry.AuthResponse
	return out, c.Call(ctx, Request{Method: "POST", Path: "/auth", JSON: a}, &out)
}

// Events returns a stream of JSON objects of events.Message. Times are RFC 3339 or seconds since 1970.
func (c *Client) Events(ctx context.Context, since, until string, f Filters) (io.ReadCloser, error) {
	q := url.Values{}
	setNonEmpty(q, "since", since)
	setNonEmpty(q, "until", until)
	if err := f.set(q); err != nil {
		return nil, err
	}
	return c.stream(ctx, Request{Method: "GET", Path: "/events", Query: q})
}

// DiskUsage says what takes how much space. The answer's shape depends on the API version, so it comes undecoded.
func (c *Client) DiskUsage(ctx context.Context, verbose bool) (json.RawMessage, error) {
	q := url.Values{}
	if verbose {
		q.Set("verbose", "1")
	}
	var out json.RawMessage
	return out, c.Call(ctx, Request{Method: "GET", Path: "/system/df", Query: q}, &out)
}

// Difference is one disagreement between the engine's records and what is really there.
type Difference struct {
	Area     string // "container", "network", "layer", ...
	Object   string // the ID, name or path concerned
	Problem  string // what is wrong
	Repaired bool
	Error    string // why it could not be repaired
}

// Fsck lists the differences between records and kernel, with layers those between layers and their archives, too, and removes them when repair is set. Only gantryd has it.
func (c *Client) Fsck(ctx context.Context, repair, layers bool, auths map[string]registry.AuthConfig) ([]Difference, error) {
	h, err := authsHeader(auths)
	if err != nil {
		return nil, err
	}
	q := url.Values{}
	if repair {
		q.Set("repair", "1")
	}
	if layers {
		q.Set("layers", "1")
	}
	var out []Difference
	return out, c.Call(ctx, Request{Method: "GET", Path: "/gantry/fsck", Query: q, Unversioned: true, Header: h}, &out)
}

// Raw gets an object's JSON as the server sent it.
func (c *Client) Raw(ctx context.Context, q url.Values, elem ...string) (json.RawMessage, error) {
	var out json.RawMessage
	return out, c.Call(ctx, Request{Method: "GET", Path: object(elem...), Query: q}, &out)
}

// NetworkList lists networks.
func (c *Client) NetworkList(ctx context.Context, f Filters) ([]network.Summary, error) {
	q := url.Values{}
	if err := f.set(q); err != nil {
		return nil, err
	}
	var out []network.Summary
	return out, c.Call(ctx, Request{Method: "GET", Path: "/networks", Query: q}, &out)
}

// NetworkInspect returns what is known of a network.
func (c *Client) NetworkInspect(ctx context.Context, name string) (network.Inspect, error) {
	var out network.Inspect
	return out, c.Call(ctx, Request{Method: "GET", Path: object("networks", name)}, &out)
}

// NetworkCreate makes a network.
func (c *Client) NetworkCreate(ctx context.Context, r network.CreateRequest) (network.CreateResponse, error) {
	// CheckDuplicate has no meaning since API 1.44; older servers need it to refuse a name that is taken.
	req := struct {
		network.CreateRequest
		CheckDuplicate bool
	}{r, true}
	var out network.CreateResponse
	return out, c.Call(ctx, Request{Method: "POST", Path: "/networks/create", JSON: req}, &out)
}

// NetworkRemove removes a network.
func (c *Client) NetworkRemove(ctx context.Context, name string) error {
	return c.Call(ctx, Request{Method: "DELETE", Path: object("networks", name)}, nil)
}

// NetworkConnect attaches a container to a network.
func (c *Client) NetworkConnect(ctx context.Context, name string, r network.ConnectRequest) error {
	return c.Call(ctx, Request{Method: "POST", Path: object("networks", name, "connect"), JSON: r}, nil)
}

// NetworkDisconnect detaches it.
func (c *Client) NetworkDisconnect(ctx context.Context, name string, r network.DisconnectRequest) error {
	return c.Call(ctx, Request{Method: "POST", Path: object("networks", name, "disconnect"), JSON: r}, nil)
}

// NetworksPrune removes unused networks.
func (c *Client) NetworksPrune(ctx context.Context, f Filters) (network.PruneReport, error) {
	var out network.PruneReport
	return out, c.prune(ctx, "/networks/prune", f, &out)
}

// VolumeList lists volumes.
func (c *Client) VolumeList(ctx context.Context, f Filters) (volume.ListResponse, error) {
	q := url.Values{}
	if err := f.set(q); err != nil {
		return volume.ListResponse{}, err
	}
	var out volume.ListResponse
	return out, c.Call(ctx, Request{Method: "GET", Path: "/volumes", Query: q}, &out)
}

// VolumeCreate makes a volume.
func (c *Client) VolumeCreate(ctx context.Context, r volume.CreateRequest) (volume.Volume, error) {
	var out volume.Volume
	return out, c.Call(ctx, Request{Method: "POST", Path: "/volumes/create", JSON: r}, &out)
}

// VolumeRemove removes a volume. force ignores one that does not exist.
func (c *Client) VolumeRemove(ctx context.Context, name string, force bool) error {
	q := url.Values{}
	if force {
		q.Set("force", "1")
	}
	return c.Call(ctx, Request{Method: "DELETE", Path: object("volumes", name), Query: q}, nil)
}

// VolumesPrune removes unused volumes.
func (c *Client) VolumesPrune(ctx context.Context, f Filters) (volume.PruneReport, error) {
	var out volume.PruneReport
	return out, c.prune(ctx, "/volumes/prune", f, &out)
}
