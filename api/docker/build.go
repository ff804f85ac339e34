package docker

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/go-digest"

	"gantry/build/graph"
	"gantry/errdefs"
	"gantry/image"
)

// buildRoutes registers the endpoint of docker's classic builder.
func (s *Server) buildRoutes(add func(method, pattern string, h Handler)) {
	add(http.MethodPost, "/build", s.build)
}

func (s *Server) build(w http.ResponseWriter, r *http.Request) error {
	request, err := buildRequest(r)
	if err != nil {
		return err
	}
	stream := NewStream(w, r)
	out := &buildOutput{stream: stream, quiet: request.Quiet}
	request.Output = graph.Output{
		Text:  func(text string) { out.send(Message{Stream: text}) },
		Pull:  func(p image.Progress) { out.send(progressMessage(p)) },
		Image: func(id digest.Digest) { out.send(Message{Aux: map[string]string{"ID": id.String()}}) },
	}
	i, err := s.engine.Builder.Build(r.Context(), request)
	if err != nil {
		out.tell()
		return stream.End(err)
	}
	if request.Quiet {
		return stream.Send(Message{Stream: i.ID.String() + "\n"})
	}
	return nil
}

// maxHeld is how many messages a quiet build keeps for the case that it fails.
const maxHeld = 10000

// buildOutput sends a build's messages, or keeps them until it fails. A client that left is noticed by the request's context.
type buildOutput struct {
	stream *Stream
	quiet  bool
	held   []Message
}

func (o *buildOutput) send(m Message) {
	if !o.quiet {
		_ = o.stream.Send(m)
		return
	}
	if m.Progress == nil && m.Aux == nil && len(o.held) < maxHeld {
		o.held = append(o.held, m)
	}
}

// tell sends what was kept.
func (o *buildOutput) tell() {
	for _, m := range o.held {
		_ = o.stream.Send(m)
	}
}

// buildRequest decodes the query and headers of a build.
func buildRequest(r *http.Request) (graph.Request, error) {
	q := r.Form
	var none graph.Request
	switch {
	case q.Get("version") == "2":
		return none, errdefs.New(errdefs.NotImplemented, "BuildKit is not supported yet by this daemon: build with DOCKER_BUILDKIT=0")
	case q.Get("remote") != "":
		return none, errdefs.New(errdefs.NotImplemented, "the remote context %q is not supported: fetch it, and send it as the request's body (docker build - < context.tar)", q.Get("remote"))
	case Bool(r, "squash"):
		return none, errdefs.New(errdefs.NotImplemented, "--squash is not supported: use gantry image squash")
	case q.Get("outputs") != "" && q.Get("outputs") != "[]":
		return none, errdefs.New(errdefs.NotImplemented, "--output needs BuildKit, which this daemon does not have yet")
	}
	o := graph.Request{
		Context: r.Body, Dockerfile: q.Get("dockerfile"), Target: q.Get("target"), NoCache: Bool(r, "nocache"), Pull: Bool(r, "pull"), Quiet: Bool(r, "q"),
		KeepBad: !Bool(r, "forcerm"), Keep: !Bool(r, "forcerm") && !BoolOr(r, "rm", true), Auth: authsOf(r).of,
	}
	if c := q.Get("cachefrom"); c != "" && c != "[]" && c != "null" {
		o.Notes = append(o.Notes, "--cache-from is not used: what was built here is the cache")
	}
	for _, name := range q["t"] {
		if name == "" {
			continue
		}
		ref, err := tagReference(name, "")
		if err != nil {
			return none, err
		}
		o.Tags = append(o.Tags, ref.String())
	}
	for name, out := range map[string]any{"buildargs": &o.Args, "labels": &o.Labels} {
		if err := jsonOf(r, name, out); err != nil {
			return none, err
		}
	}
	if text := q.Get("platform"); text != "" && VersionOf(r) >= 32 {
		var err error
		if o.Platform, err = image.ParsePlatform(text); err != nil {
			return none, err
		}
	}
	host, err := buildHost(r)
	if err != nil {
		return none, err
	}
	if o.Host, err = copies(host); err != nil {
		return none, err
	}
	return o, nil
}

// buildHost decodes what the containers of RUN get of the host.
func buildHost(r *http.Request) (*container.HostConfig, error) {
	h := &container.HostConfig{NetworkMode: container.NetworkMode(r.Form.Get("networkmode")), LogConfig: container.LogConfig{Type: "none"}, Isolation: container.Isolation(r.Form.Get("isolation"))}
	h.CgroupParent, h.CpusetCpus, h.CpusetMems, h.ExtraHosts = r.Form.Get("cgroupparent"), r.Form.Get("cpusetcpus"), r.Form.Get("cpusetmems"), r.Form["extrahosts"]
	for _, n := range []struct {
		name  string
		value *int64
	}{
		{"shmsize", &h.ShmSize}, {"memory", &h.Memory}, {"memswap", &h.MemorySwap}, {"cpushares", &h.CPUShares}, {"cpuperiod", &h.CPUPeriod}, {"cpuquota", &h.CPUQuota},
	} {
		var err error
		if *n.value, err = Int64Or(r, n.name, 0); err != nil {
			return nil, err
		}
	}
	for name, out := range map[string]any{"ulimits": &h.Ulimits, "securityopt": &h.SecurityOpt} {
		if err := jsonOf(r, name, out); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// copies returns what makes a copy of h at each call: a container takes its own over.
func copies(h *container.HostConfig) (func() *container.HostConfig, error) {
	raw, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	return func() *container.HostConfig {
		var c container.HostConfig
		_ = json.Unmarshal(raw, &c) // was encoded from one
		return &c
	}, nil
}

// jsonOf decodes a query value that is JSON; an absent one leaves out as it is.
func jsonOf(r *http.Request, name string, out any) error {
	text := r.Form.Get(name)
	if text == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(text), out); err != nil {
		return errdefs.New(errdefs.InvalidParameter, "invalid value for %s: %w", name, err)
	}
	return nil
}

// exitCode is that of a program of RUN, for the message of an error; 0 for others.
func exitCode(err error) int {
	var exit *graph.ExitError
	if errors.As(err, &exit) {
		return exit.Code
	}
	return 0
}
