package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"

	"github.com/moby/moby/api/types/container"
)

// Filters are the conditions of a list or prune call: what to look at, and the values accepted.
type Filters map[string]map[string]bool

// Add adds a value to those accepted for key.
func (f Filters) Add(key, value string) {
	if f[key] == nil {
		f[key] = map[string]bool{}
	}
	f[key][value] = true
}

// set puts the filters into q.
func (f Filters) set(q url.Values) error {
	if len(f) == 0 {
		return nil
	}
	b, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("encode filters: %w", err)
	}
	q.Set("filters", string(b))
	return nil
}

// ContainerListOptions selects what ContainerList returns.
type ContainerListOptions struct {
	All     bool // stopped ones too
	Size    bool // fill SizeRw and SizeRootFs
	Limit   int  // only the newest n; 0 or less: all
	Brief   bool // leave out labels, mounts and networks; only gantryd knows this, other servers send all
	Filters Filters
}

// ContainerList lists containers, newest first.
func (c *Client) ContainerList(ctx context.Context, o ContainerListOptions) ([]container.Summary, error) {
	var out []container.Summary
	return out, c.ContainerListInto(ctx, o, &out)
}

// ContainerListInto is ContainerList for callers that need less of each container than there is; out is a pointer to a slice.
func (c *Client) ContainerListInto(ctx context.Context, o ContainerListOptions, out any) error {
	q := url.Values{}
	if o.All {
		q.Set("all", "1")
	}
	if o.Size {
		q.Set("size", "1")
	}
	if o.Brief {
		q.Set("brief", "1")
	}
	if o.Limit > 0 {
		q.Set("limit", strconv.Itoa(o.Limit))
	}
	if err := o.Filters.set(q); err != nil {
		return err
	}
	return c.Call(ctx, Request{Method: "GET", Path: "/containers/json", Query: q}, out)
}

// ContainerCreate creates a container. name and platform may be empty.
func (c *Client) ContainerCreate(ctx context.Context, name, platform string, r container.CreateRequest) (container.CreateResponse, error) {
	q := url.Values{}
	if name != "" {
		q.Set("name", name)
	}
	if platform != "" {
		q.Set("platform", platform)
	}
	var out container.CreateResponse
	return out, c.Call(ctx, Request{Method: "POST", Path: "/containers/create", Query: q, JSON: r}, &out)
}

// ContainerInspect returns what is known of a container.
func (c *Client) ContainerInspect(ctx context.Context, id string) (container.InspectResponse, error) {
	// All parts are there whatever the server leaves out, so that callers need not ask.
	out := container.InspectResponse{State: &container.State{}, HostConfig: &container.HostConfig{}, Config: &container.Config{}, NetworkSettings: &container.NetworkSettings{}}
	return out, c.Call(ctx, Request{Method: "GET", Path: object("containers", id, "json")}, &out)
}

// ContainerStart starts a container.
func (c *Client) ContainerStart(ctx context.Context, id, detachKeys, checkpoint, checkpointDir string) error {
	q := url.Values{}
	setNonEmpty(q, "detachKeys", detachKeys)
	setNonEmpty(q, "checkpoint", checkpoint)
	setNonEmpty(q, "checkpoint-dir", checkpointDir)
	return c.Call(ctx, Request{Method: "POST", Path: object("containers", id, "start"), Query: q}, nil)
}

// StopOptions says how Stop and Restart end a container.
type StopOptions struct {
	Signal  string // "": the container's own
	Timeout *int   // seconds before it is killed; nil: the container's own; -1: never
}

func (o StopOptions) query() url.Values {
	q := url.Values{}
	setNonEmpty(q, "signal", o.Signal)
	if o.Timeout != nil {
		q.Set("t", strconv.Itoa(*o.Timeout))
	}
	return q
}

// ContainerStop stops a container.
func (c *Client) ContainerStop(ctx context.Context, id string, o StopOptions) error {
	return c.Call(ctx, Request{Method: "POST", Path: object("containers", id, "stop"), Query: o.query()}, nil)
}

// ContainerRestart stops and starts a container.
func (c *Client) ContainerRestart(ctx context.Context, id string, o StopOptions) error {
	return c.Call(ctx, Request{Method: "POST", Path: object("containers", id, "restart"), Query: o.query()}, nil)
}

// ContainerKill sends a signal, by name or number; "" means SIGKILL.
func (c *Client) ContainerKill(ctx context.Context, id, signal string) error {
	q := url.Values{}
	setNonEmpty(q, "signal", signal)
	return c.Call(ctx, Request{Method: "POST", Path: object("containers", id, "kill"), Query: q}, nil)
}

// ContainerPause freezes a container's processes.
func (c *Client) ContainerPause(ctx context.Context, id string) error {
	return c.Call(ctx, Request{Method: "POST", Path: object("containers", id, "pause")}, nil)
}

// ContainerUnpause thaws them.
func (c *Client) ContainerUnpause(ctx context.Context, id string) error {
	return c.Call(ctx, Request{Method: "POST", Path: object("containers", id, "unpause")}, nil)
}

// ContainerRename gives a container another name.
func (c *Client) ContainerRename(ctx context.Context, id, name string) error {
	return c.Call(ctx, Request{Method: "POST", Path: object("containers", id, "rename"), Query: url.Values{"name": {name}}}, nil)
}

// ContainerRemoveOptions says how far ContainerRemove goes.
type ContainerRemoveOptions struct {
	Force   bool // kill it if it runs
	Volumes bool // remove its anonymous volumes
	Link    bool // remove the link of that name, not the container
}

// ContainerRemove removes a container.
func (c *Client) ContainerRemove(ctx context.Context, id string, o ContainerRemoveOptions) error {
	q := url.Values{}
	if o.Force {
		q.Set("force", "1")
	}
	if o.Volumes {
		q.Set("v", "1")
	}
	if o.Link {
		q.Set("link", "1")
	}
	return c.Call(ctx, Request{Method: "DELETE", Path: object("containers", id), Query: q}, nil)
}

// ContainerWait starts waiting for a container and returns once the server watches it. The function returned gives the exit
// status when the condition is met; it must be called, and ends with ctx.
func (c *Client) ContainerWait(ctx context.Context, id string, cond container.WaitCondition) (func() (container.WaitResponse, error), error) {
	q := url.Values{}
	setNonEmpty(q, "condition", string(cond))
	resp, err := c.Do(ctx, Request{Method: "POST", Path: object("containers", id, "wait"), Query: q})
	if err != nil {
		return nil, err
	}
	return func() (container.WaitResponse, error) {
		defer resp.Body.Close()
		var out container.WaitResponse
		b, err := io.ReadAll(resp.Body)
		if err == nil {
			err = json.Unmarshal(b, &out)
		}
		if err != nil {
			return out, fmt.Errorf("wait for container %s: %w", id, err)
		}
		return out, nil
	}, nil
}

// ContainerTop lists a container's processes as ps with args shows them.
func (c *Client) ContainerTop(ctx context.Context, id, args string) (container.TopResponse, error) {
	q := url.Values{}
	setNonEmpty(q, "ps_args", args)
	var out container.TopResponse
	return out, c.Call(ctx, Request{Method: "GET", Path: object("containers", id, "top"), Query: q}, &out)
}

// ContainerStats returns a stream of JSON objects of container.StatsResponse, only one unless stream is set.
func (c *Client) ContainerStats(ctx context.Context, id string, stream bool) (io.ReadCloser, error) {
	q := url.Values{"stream": {"0"}}
	if stream {
		q.Set("stream", "1")
	}
	return c.stream(ctx, Request{Method: "GET", Path: object("containers", id, "stats"), Query: q})
}

// LogsOptions selects log lines. Times are RFC 3339 or seconds since 1970.
type LogsOptions struct {
	Stdout, Stderr, Follow, Timestamps, Details bool
	Since, Until, Tail                          string // Tail: number of lines or "all"
}

// ContainerLogs returns log lines: frames for Demux, raw bytes for a container with a terminal.
func (c *Client) ContainerLogs(ctx context.Context, id string, o LogsOptions) (io.ReadCloser, error) {
	q := url.Values{}
	for k, v := range map[string]bool{"stdout": o.Stdout, "stderr": o.Stderr, "follow": o.Follow, "timestamps": o.Timestamps, "details": o.Details} {
		if v {
			q.Set(k, "1")
		}
	}
	setNonEmpty(q, "since", o.Since)
	setNonEmpty(q, "until", o.Until)
	setNonEmpty(q, "tail", o.Tail)
	return c.stream(ctx, Request{Method: "GET", Path: object("containers", id, "logs"), Query: q})
}

// AttachOptions says what ContainerAttach connects.
type AttachOptions struct {
	Stream, Stdin, Stdout, Stderr, Logs bool
	DetachKeys                          string
}

// ContainerAttach connects to a container's standard streams.
func (c *Client) ContainerAttach(ctx context.Context, id string, o AttachOptions) (*Stream, error) {
	q := url.Values{}
	for k, v := range map[string]bool{"stream": o.Stream, "stdin": o.Stdin, "stdout": o.Stdout, "stderr": o.Stderr, "logs": o.Logs} {
		if v {
			q.Set(k, "1")
		}
	}
	setNonEmpty(q, "detachKeys", o.DetachKeys)
	return c.Hijack(ctx, Request{Method: "POST", Path: object("containers", id, "attach"), Query: q})
}

// ContainerResize sets the size of a container's terminal.
func (c *Client) ContainerResize(ctx context.Context, id string, rows, cols uint) error {
	return c.Call(ctx, Request{Method: "POST", Path: object("containers", id, "resize"), Query: size(rows, cols)}, nil)
}

func size(rows, cols uint) url.Values {
	return url.Values{"h": {strconv.FormatUint(uint64(rows), 10)}, "w": {strconv.FormatUint(uint64(cols), 10)}}
}

// ContainerDiff lists what changed in a container's file system since its image.
func (c *Client) ContainerDiff(ctx context.Context, id string) ([]container.FilesystemChange, error) {
	var out []container.FilesystemChange
	return out, c.Call(ctx, Request{Method: "GET", Path: object("containers", id, "changes")}, &out)
}

// ContainerExport returns a container's file system as a tar stream.
func (c *Client) ContainerExport(ctx context.Context, id string) (io.ReadCloser, error) {
	return c.stream(ctx, Request{Method: "GET", Path: object("containers", id, "export")})
}

// ContainerUpdate changes a running container's limits and restart policy.
func (c *Client) ContainerUpdate(ctx context.Context, id string, u container.UpdateConfig) (container.UpdateResponse, error) {
	var out container.UpdateResponse
	return out, c.Call(ctx, Request{Method: "POST", Path: object("containers", id, "update"), JSON: u}, &out)
}

// ContainersPrune removes stopped containers.
func (c *Client) ContainersPrune(ctx context.Context, f Filters) (container.PruneReport, error) {
	var out container.PruneReport
	return out, c.prune(ctx, "/containers/prune", f, &out)
}

// ContainerStatPath describes a file of a container; the error is NotFound's when there is none.
func (c *Client) ContainerStatPath(ctx context.Context, id, path string) (container.PathStat, error) {
	resp, err := c.Do(ctx, Request{Method: "HEAD", Path: object("containers", id, "archive"), Query: url.Values{"path": {path}}})
	if err != nil {
		return container.PathStat{}, err
	}
	defer resp.Body.Close()
	return pathStat(resp.Header)
}

func pathStat(h Header) (container.PathStat, error) {
	var st container.PathStat
	b, err := base64.StdEncoding.DecodeString(h["x-docker-container-path-stat"])
	if err == nil {
		err = json.Unmarshal(b, &st)
	}
	if err != nil {
		return st, fmt.Errorf("unable to decode container path stat header: %w", err)
	}
	return st, nil
}

// CopyFromContainer returns a file or directory of a container as a tar stream.
func (c *Client) CopyFromContainer(ctx context.Context, id, path string) (io.ReadCloser, container.PathStat, error) {
	resp, err := c.Do(ctx, Request{Method: "GET", Path: object("containers", id, "archive"), Query: url.Values{"path": {path}}})
	if err != nil {
		return nil, container.PathStat{}, err
	}
	st, err := pathStat(resp.Header)
	if err != nil {
		_ = resp.Body.Close()
		return nil, st, err
	}
	return resp.Body, st, nil
}

// CopyToContainer unpacks a tar stream into a directory of a container. Unless overwrite is set, a directory never replaces a
// file nor a file a directory. copyUIDGID keeps the owners' numbers of the stream.
func (c *Client) CopyToContainer(ctx context.Context, id, dir string, r io.Reader, overwrite, copyUIDGID bool) error {
	q := url.Values{"path": {dir}}
	if !overwrite {
		q.Set("noOverwriteDirNonDir", "true")
	}
	if copyUIDGID {
		q.Set("copyUIDGID", "true")
	}
	return c.Call(ctx, Request{Method: "PUT", Path: object("containers", id, "archive"), Query: q, Body: r, ContentType: "application/x-tar"}, nil)
}

// CommitOptions says what ContainerCommit makes.
type CommitOptions struct {
	Repo, Tag       string
	Comment, Author string
	Changes         []string // Dockerfile instructions
	NoPause         bool
}

// ContainerCommit makes an image of a container and returns the image's ID.
func (c *Client) ContainerCommit(ctx context.Context, id string, o CommitOptions) (string, error) {
	q := url.Values{"container": {id}, "repo": {o.Repo}, "tag": {o.Tag}, "comment": {o.Comment}, "author": {o.Author}}
	for _, ch := range o.Changes {
		q.Add("changes", ch)
	}
	if o.NoPause {
		q.Set("pause", "0")
	}
	var out container.CommitResponse
	err := c.Call(ctx, Request{Method: "POST", Path: "/commit", Query: q}, &out)
	return out.ID, err
}

// ExecCreate prepares a process in a running container and returns its ID.
func (c *Client) ExecCreate(ctx context.Context, id string, r container.ExecCreateRequest) (string, error) {
	var out container.ExecCreateResponse
	err := c.Call(ctx, Request{Method: "POST", Path: object("containers", id, "exec"), JSON: r}, &out)
	return out.ID, err
}

// ExecStart starts such a process in the background.
func (c *Client) ExecStart(ctx context.Context, execID string, r container.ExecStartRequest) error {
	return c.Call(ctx, Request{Method: "POST", Path: object("exec", execID, "start"), JSON: r}, nil)
}

// ExecAttach starts it and connects to its standard streams.
func (c *Client) ExecAttach(ctx context.Context, execID string, r container.ExecStartRequest) (*Stream, error) {
	return c.Hijack(ctx, Request{Method: "POST", Path: object("exec", execID, "start"), JSON: r})
}

// ExecInspect says whether it runs and how it ended.
func (c *Client) ExecInspect(ctx context.Context, execID string) (container.ExecInspectResponse, error) {
	var out container.ExecInspectResponse
	return out, c.Call(ctx, Request{Method: "GET", Path: object("exec", execID, "json")}, &out)
}

// ExecResize sets the size of its terminal.
func (c *Client) ExecResize(ctx context.Context, execID string, rows, cols uint) error {
	return c.Call(ctx, Request{Method: "POST", Path: object("exec", execID, "resize"), Query: size(rows, cols)}, nil)
}

func setNonEmpty(q url.Values, key, value string) {
	if value != "" {
		q.Set(key, value)
	}
}

func (c *Client) stream(ctx context.Context, r Request) (io.ReadCloser, error) {
	resp, err := c.Do(ctx, r)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

func (c *Client) prune(ctx context.Context, path string, f Filters, out any) error {
	q := url.Values{}
	if err := f.set(q); err != nil {
		return err
	}
	return c.Call(ctx, Request{Method: "POST", Path: path, Query: q}, out)
}
