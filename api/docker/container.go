package docker

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"gantry/build/dockerfile"
	"gantry/container"
	"gantry/errdefs"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// containerRoutes registers the endpoints of containers and execs.
func (s *Server) containerRoutes(add func(method, pattern string, h Handler)) {
	add("GET", "/containers/json", s.containerList)
	add("POST", "/containers/create", s.containerCreate)
	add("POST", "/containers/prune", s.containerPrune)
	add("GET", "/containers/{name}/json", s.containerInspect)
	add("GET", "/containers/{name}/top", s.containerTop)
	add("GET", "/containers/{name}/logs", s.containerLogs)
	add("GET", "/containers/{name}/stats", s.containerStats)
	add("GET", "/containers/{name}/changes", s.containerChanges)
	add("GET", "/containers/{name}/export", s.containerExport)
	add("GET", "/containers/{name}/archive", s.containerCopyFrom)
	add("HEAD", "/containers/{name}/archive", s.containerStat)
	add("PUT", "/containers/{name}/archive", s.containerCopyTo)
	add("GET", "/containers/{name}/attach/ws", s.containerAttachWebsocket)
	add("POST", "/containers/{name}/attach", s.containerAttach)
	add("POST", "/containers/{name}/start", s.containerStart)
	add("POST", "/containers/{name}/stop", s.containerStop)
	add("POST", "/containers/{name}/restart", s.containerRestart)
	add("POST", "/containers/{name}/kill", s.containerKill)
	add("POST", "/containers/{name}/pause", s.containerPause)
	add("POST", "/containers/{name}/unpause", s.containerUnpause)
	add("POST", "/containers/{name}/wait", s.containerWait)
	add("POST", "/containers/{name}/resize", s.containerResize)
	add("POST", "/containers/{name}/rename", s.containerRename)
	add("POST", "/containers/{name}/update", s.containerUpdate)
	add("DELETE", "/containers/{name...}", s.containerRemove) // the name of a link has a slash in its middle
	add("POST", "/commit", s.commit)
	s.execRoutes(add)
}

// containerAttachWebsocket is for browsers; docker's own clients use the other attach.
func (s *Server) containerAttachWebsocket(http.ResponseWriter, *http.Request) error {
	return errdefs.New(errdefs.NotImplemented, "attaching through a websocket is not supported; use POST /containers/{id}/attach")
}

func (s *Server) containerCreate(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		api.CreateRequest
		MacAddress string // of the container itself, until 1.44
	}
	if err := ReadJSON(w, r, &body); err != nil {
		return err
	}
	if body.Config == nil {
		return errdefs.New(errdefs.InvalidParameter, "config cannot be empty in order to create a container")
	}
	cfg := container.Config{Name: r.Form.Get("name"), Platform: r.Form.Get("platform"), Config: body.Config, Host: body.HostConfig, Network: body.NetworkingConfig}
	if cfg.Host == nil {
		cfg.Host = &api.HostConfig{}
	}
	version := VersionOf(r)
	if version < 40 { // a recursive read-only bind and a private IPC namespace came later
		if cfg.Host.IpcMode.IsEmpty() {
			cfg.Host.IpcMode = api.IPCModeShareable
		}
	}
	if version < 41 && cfg.Host.CgroupnsMode.IsEmpty() {
		cfg.Host.CgroupnsMode = api.CgroupnsModeHost
	}
	if limit := cfg.Host.PidsLimit; limit != nil && *limit <= 0 {
		cfg.Host.PidsLimit = nil
	}
	var warnings []string
	if body.MacAddress != "" {
		if err := legacyMAC(&cfg, body.MacAddress); err != nil {
			return err
		}
	}
	id, more, err := s.engine.Containers.Create(r.Context(), cfg)
	if err != nil {
		return err
	}
	warnings = append(warnings, more...)
	return WriteJSON(w, http.StatusCreated, api.CreateResponse{ID: id, Warnings: notNil(warnings)})
}

// legacyMAC moves the MAC address of a container to the endpoint of its main network.
func legacyMAC(cfg *container.Config, text string) error {
	var mac network.HardwareAddr
	if err := mac.UnmarshalText([]byte(text)); err != nil {
		return errdefs.New(errdefs.InvalidParameter, "invalid MAC address: %s", text)
	}
	name := string(cfg.Host.NetworkMode)
	if name == "" || name == network.NetworkDefault {
		name = network.NetworkBridge
	}
	if cfg.Network == nil {
		cfg.Network = &network.NetworkingConfig{}
	}
	if cfg.Network.EndpointsConfig == nil {
		cfg.Network.EndpointsConfig = map[string]*network.EndpointSettings{}
	}
	if cfg.Network.EndpointsConfig[name] == nil {
		cfg.Network.EndpointsConfig[name] = &network.EndpointSettings{}
	}
	if e := cfg.Network.EndpointsConfig[name]; len(e.MacAddress) == 0 {
		e.MacAddress = mac
	}
	return nil
}

func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// containerFilters are the keys that `docker ps --filter` takes.
var containerFilters = []string{"ancestor", "before", "exited", "expose", "health", "id", "isolation", "is-task", "label", "name", "network", "publish", "since", "status", "volume", "label!"}

func (s *Server) containerList(w http.ResponseWriter, r *http.Request) error {
	f, err := FiltersOf(r, containerFilters...)
	if err != nil {
		return err
	}
	limit, err := Int64Or(r, "limit", 0)
	if err != nil {
		return err
	}
	match, all, err := s.containerFilter(r.Context(), f, Bool(r, "all") || limit > 0)
	if err != nil {
		return err
	}
	now, brief := time.Now(), Bool(r, "brief")
	var records []container.Record
	for _, c := range s.engine.Containers.All() {
		rec := c.Record()
		if (all || rec.State == container.Running || rec.State == container.Paused || rec.State == container.Restarting) && match(&rec) {
			records = append(records, rec)
		}
	}
	slices.SortFunc(records, func(a, b container.Record) int { return b.Created.Compare(a.Created) })
	if limit > 0 && int64(len(records)) > limit {
		records = records[:limit]
	}
	out := make([]any, 0, len(records))
	for i := range records {
		sum := records[i].Summary(now)
		if img, err := s.engine.Images.Get(r.Context(), sum.Image); err != nil || img.ID.String() != sum.ImageID {
			if sum.ImageID != "" {
				sum.Image = sum.ImageID // the name means another image now
			}
		}
		if brief { // an extension: `ps` of thousands has no use for the rest
			sum.Labels, sum.Mounts, sum.NetworkSettings = nil, nil, nil
		}
		if Bool(r, "size") {
			if in, err := s.engine.Containers.Inspect(r.Context(), sum.ID, true); err == nil {
				sum.SizeRw, sum.SizeRootFs = *in.SizeRw, *in.SizeRootFs
			}
		}
		if VersionOf(r) < 52 {
			sum.Health = nil
		}
		out = append(out, sum)
	}
	return WriteJSON(w, http.StatusOK, out)
}

// containerFilter returns what a container must be to pass, and whether those that do not run are looked at too.
func (s *Server) containerFilter(ctx context.Context, f Filters, all bool) (func(*container.Record) bool, bool, error) {
	var exited []int
	for _, v := range f.Get("exited") {
		n, err := strconv.Atoi(v)
		if err != nil {
			return nil, false, errdefs.New(errdefs.InvalidParameter, "invalid filter 'exited=%s'", v)
		}
		exited = append(exited, n)
	}
	for _, v := range f.Get("status") {
		if err := api.ValidateContainerState(api.ContainerState(v)); err != nil {
			return nil, false, errdefs.With(errdefs.InvalidParameter, err)
		}
	}
	for _, v := range f.Get("health") {
		if err := api.ValidateHealthStatus(api.HealthStatus(v)); err != nil {
			return nil, false, errdefs.With(errdefs.InvalidParameter, err)
		}
	}
	for _, key := range []string{"publish", "expose"} {
		for _, v := range f.Get(key) {
			if strings.Contains(v, ":") {
				return nil, false, errdefs.New(errdefs.InvalidParameter, "filter for '%s' should not contain ':': %s", key, v)
			}
			if _, err := network.ParsePortRange(v); err != nil {
				return nil, false, errdefs.New(errdefs.InvalidParameter, "error while looking up for %s %s: %w", key, v, err)
			}
		}
	}
	tasks, err := f.Bool("is-task", false) // there is no swarm
	if err != nil {
		return nil, false, err
	}
	if f.Has("status") || f.Has("exited") {
		all = true
	}
	bound := func(key string) (time.Time, error) {
		values := f.Get(key)
		if len(values) == 0 {
			return time.Time{}, nil
		}
		c, err := s.engine.Containers.Get(values[0])
		if err != nil {
			return time.Time{}, err
		}
		return c.Record().Created, nil
	}
	before, err := bound("before")
	if err != nil {
		return nil, false, err
	}
	since, err := bound("since")
	if err != nil {
		return nil, false, err
	}
	if !before.IsZero() || !since.IsZero() {
		all = true
	}
	ancestors := map[string]bool{}
	for _, v := range f.Get("ancestor") {
		if img, err := s.engine.Images.Get(ctx, v); err == nil {
			ancestors[img.ID.String()] = true
		}
	}
	return func(rec *container.Record) bool {
		switch {
		case tasks, !f.Prefix("id", rec.ID), !f.Match("name", rec.Name) && !f.Match("name", "/"+rec.Name), !f.Labels("label", rec.Config.Labels),
			f.Has("exited") && !(rec.State == container.Exited && slices.Contains(exited, rec.ExitCode)),
			!f.Exact("status", string(rec.State)),
			!before.IsZero() && !rec.Created.Before(before), !since.IsZero() && !rec.Created.After(since),
			f.Has("ancestor") && !ancestors[rec.ImageID.String()],
			f.Has("volume") && !slices.ContainsFunc(f.Get("volume"), rec.Mounting),
			f.Has("network") && !onNetwork(rec, f.Get("network")),
			f.Has("publish") && !hasPort(f.Get("publish"), published(rec.Ports)), f.Has("expose") && !hasPort(f.Get("expose"), rec.Config.ExposedPorts):
			return false
		}
		for k := range f["label!"] {
			if (Filters{"label": {k: true}}).Labels("label", rec.Config.Labels) {
				return false
			}
		}
		health := api.NoHealthcheck
		if rec.Health != nil {
			health = rec.Health.Status
		}
		return f.Exact("health", string(health))
	}, all, nil
}

func onNetwork(rec *container.Record, wanted []string) bool {
	for name, e := range rec.Networks {
		for _, w := range wanted {
			if name == w || e.NetworkID == w || len(w) >= 3 && strings.HasPrefix(e.NetworkID, w) {
				return true
			}
		}
	}
	return false
}

// hasPort reports whether one of the ports is among those wanted: "80", "80/tcp" or "8000-8010/udp".
func hasPort[V any](wanted []string, have map[network.Port]V) bool {
	for _, w := range wanted {
		span, err := network.ParsePortRange(w)
		if err != nil {
			continue
		}
		for p := range have {
			if p.Proto() == span.Proto() && p.Num() >= span.Start() && p.Num() <= span.End() {
				return true
			}
		}
	}
	return false
}

// published returns the host's side of published ports.
func published(ports network.PortMap) network.PortSet {
	set := network.PortSet{}
	for p, bindings := range ports {
		for _, b := range bindings {
			if host, err := network.ParsePort(b.HostPort + "/" + string(p.Proto())); err == nil {
				set[host] = struct{}{}
			}
		}
	}
	return set
}

func (s *Server) containerInspect(w http.ResponseWriter, r *http.Request) error {
	in, err := s.engine.Containers.Inspect(r.Context(), r.PathValue("name"), Bool(r, "size"))
	if err != nil {
		return err
	}
	if VersionOf(r) >= 52 {
		return WriteJSON(w, http.StatusOK, in)
	}
	// Older clients read the default network's endpoint at the top of NetworkSettings too.
	e := in.NetworkSettings.Networks[network.NetworkBridge]
	if e == nil {
		e = &network.EndpointSettings{}
	}
	return WriteJSON(w, http.StatusOK, extra{in, map[string]any{"NetworkSettings": map[string]any{
		"Bridge": "", "HairpinMode": false, "LinkLocalIPv6Address": "", "LinkLocalIPv6PrefixLen": 0, "SecondaryIPAddresses": nil,
		"SecondaryIPv6Addresses": nil, "EndpointID": e.EndpointID, "Gateway": e.Gateway, "GlobalIPv6Address": e.GlobalIPv6Address,
		"GlobalIPv6PrefixLen": e.GlobalIPv6PrefixLen, "IPAddress": e.IPAddress, "IPPrefixLen": e.IPPrefixLen, "IPv6Gateway": e.IPv6Gateway,
		"MacAddress": e.MacAddress,
	}}})
}

func (s *Server) containerTop(w http.ResponseWriter, r *http.Request) error {
	out, err := s.engine.Containers.Top(r.Context(), r.PathValue("name"), strings.Fields(r.Form.Get("ps_args")))
	if err != nil {
		return err
	}
	return WriteJSON(w, http.StatusOK, out)
}

func (s *Server) containerStart(w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength > 2 {
		return errdefs.New(errdefs.InvalidParameter, "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24")
	}
	if r.Form.Get("checkpoint") != "" {
		return errdefs.New(errdefs.NotImplemented, "checkpoint is not supported yet")
	}
	if err := s.engine.Containers.Start(r.Context(), r.PathValue("name")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func stopOptions(r *http.Request) (container.StopOptions, error) {
	o := container.StopOptions{Signal: r.Form.Get("signal")}
	if text := r.Form.Get("t"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			return o, errdefs.New(errdefs.InvalidParameter, "invalid value for t: %w", err)
		}
		o.Timeout = &n
	}
	return o, nil
}

func (s *Server) containerStop(w http.ResponseWriter, r *http.Request) error {
	o, err := stopOptions(r)
	if err != nil {
		return err
	}
	if err := s.engine.Containers.Stop(r.Context(), r.PathValue("name"), o); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) containerRestart(w http.ResponseWriter, r *http.Request) error {
	o, err := stopOptions(r)
	if err != nil {
		return err
	}
	if err := s.engine.Containers.Restart(r.Context(), r.PathValue("name"), o); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) containerKill(w http.ResponseWriter, r *http.Request) error {
	if err := s.engine.Containers.Kill(r.Context(), r.PathValue("name"), r.Form.Get("signal")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) containerPause(w http.ResponseWriter, r *http.Request) error {
	if err := s.engine.Containers.Pause(r.Context(), r.PathValue("name")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) containerUnpause(w http.ResponseWriter, r *http.Request) error {
	if err := s.engine.Containers.Unpause(r.Context(), r.PathValue("name")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) containerWait(w http.ResponseWriter, r *http.Request) error {
	condition := container.WaitNotRunning
	switch v := container.WaitCondition(r.Form.Get("condition")); v {
	case "", container.WaitNotRunning:
	case container.WaitNextExit, container.WaitRemoved:
		condition = v
	default:
		return errdefs.New(errdefs.InvalidParameter, "invalid condition: %q", v)
	}
	// The header goes out as soon as the waiting has begun: the client starts the container only then.
	ready := func() {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush() // a client that went away is noticed by its context
	}
	code, err := s.engine.Containers.Wait(r.Context(), r.PathValue("name"), condition, ready)
	if err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(api.WaitResponse{StatusCode: int64(code)})
}

// terminalSize reads the query values h and w.
func terminalSize(r *http.Request) (rows, cols uint16, err error) {
	for _, v := range []struct {
		key string
		to  *uint16
	}{{"h", &rows}, {"w", &cols}} {
		n, err := strconv.ParseUint(r.Form.Get(v.key), 10, 16)
		if err != nil {
			return 0, 0, errdefs.New(errdefs.InvalidParameter, "invalid resize %s %q: %w", v.key, r.Form.Get(v.key), errors.Unwrap(err))
		}
		*v.to = uint16(n)
	}
	return rows, cols, nil
}

func (s *Server) containerResize(w http.ResponseWriter, r *http.Request) error {
	rows, cols, err := terminalSize(r)
	if err != nil {
		return err
	}
	return s.engine.Containers.Resize(r.Context(), r.PathValue("name"), rows, cols)
}

func (s *Server) containerRename(w http.ResponseWriter, r *http.Request) error {
	if err := s.engine.Containers.Rename(r.Context(), r.PathValue("name"), r.Form.Get("name")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) containerUpdate(w http.ResponseWriter, r *http.Request) error {
	var body api.UpdateConfig
	if err := ReadJSON(w, r, &body); err != nil {
		return err
	}
	if limit := body.PidsLimit; limit != nil && *limit == 0 && VersionOf(r) < 40 {
		body.PidsLimit = nil
	}
	if err := s.engine.Containers.Update(r.Context(), r.PathValue("name"), body); err != nil {
		return err
	}
	return WriteJSON(w, http.StatusOK, api.UpdateResponse{Warnings: []string{}})
}

func (s *Server) containerRemove(w http.ResponseWriter, r *http.Request) error {
	o := container.RemoveOptions{Force: Bool(r, "force"), Volumes: Bool(r, "v"), Link: Bool(r, "link")}
	if err := s.engine.Containers.Remove(r.Context(), r.PathValue("name"), o); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) containerPrune(w http.ResponseWriter, r *http.Request) error {
	f, err := FiltersOf(r, "label", "label!", "until")
	if err != nil {
		return err
	}
	match, err := s.containersToPrune(r.Context(), f)
	if err != nil {
		return err
	}
	ids, freed, err := s.engine.Containers.Prune(r.Context(), match)
	if err != nil {
		return err
	}
	return WriteJSON(w, http.StatusOK, api.PruneReport{ContainersDeleted: ids, SpaceReclaimed: uint64(freed)})
}

func (s *Server) containersToPrune(ctx context.Context, f Filters) (func(*container.Record) bool, error) {
	var until time.Time
	var err error
	for _, v := range f.Get("until") {
		if until, err = ParseTime(v, time.Now()); err != nil {
			return nil, errdefs.With(errdefs.InvalidParameter, err)
		}
	}
	match, _, err := s.containerFilter(ctx, Filters{"label": f["label"], "label!": f["label!"]}, true)
	if err != nil {
		return nil, err
	}
	return func(rec *container.Record) bool { return match(rec) && (until.IsZero() || rec.Created.Before(until)) }, nil
}

// commit makes an image of a container.
func (s *Server) commit(w http.ResponseWriter, r *http.Request) error {
	var config *api.Config
	if r.ContentLength != 0 {
		config = &api.Config{}
		if err := ReadJSON(w, r, config); err != nil {
			return err
		}
	}
	change := func(c dockerspec.DockerOCIImageConfig) (dockerspec.DockerOCIImageConfig, error) {
		return dockerfile.Change(c, r.Form["changes"])
	}
	img, err := s.engine.Containers.Commit(r.Context(), r.Form.Get("container"), container.CommitOptions{Repo: r.Form.Get("repo"), Tag: r.Form.Get("tag"),
		Author: r.Form.Get("author"), Comment: r.Form.Get("comment"), Change: change, Pause: BoolOr(r, "pause", true), Config: config})
	if err != nil {
		return err
	}
	return WriteJSON(w, http.StatusCreated, api.CommitResponse{ID: img.ID.String()})
}

// cleanPath returns the query value path, which must be there.
func cleanPath(r *http.Request) (string, error) {
	p := r.Form.Get("path")
	if p == "" {
		return "", errdefs.New(errdefs.InvalidParameter, "bad parameter: 'path' cannot be empty")
	}
	if strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.") {
		keep := "/"
		if strings.HasSuffix(p, "/.") {
			keep = "/."
		}
		if c := path.Clean("/" + p); c != "/" {
			return c + keep, nil
		}
		return "/" + keep[1:], nil
	}
	return path.Clean("/" + p), nil
}
