package container

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gantry/errdefs"
	"gantry/image"
	"gantry/logs"
	"gantry/network"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	apinet "github.com/moby/moby/api/types/network"
)

// Create makes a container and returns its ID and warnings. A container exists from the moment its record is in the
// database; the folders made before are removed by the next start of the daemon if there is no record for them.
func (s *Service) Create(ctx context.Context, cfg Config) (_ string, warnings []string, err error) {
	if cfg.Name != "" {
		if cfg.Name, err = normalName(cfg.Name); err != nil {
			return "", nil, err
		}
	}
	if cfg.Config == nil {
		return "", nil, errdefs.New(errdefs.InvalidParameter, "config cannot be empty in order to create a container")
	}
	var img *image.Image
	var imgConfig *dockerspec.DockerOCIImageConfig
	switch {
	case cfg.Step != nil:
		img, imgConfig = cfg.Step, &cfg.Step.Config.Config
	case cfg.Config.Image != "":
		if img, err = s.images.Get(ctx, cfg.Config.Image); err != nil {
			return "", nil, err
		}
		if err := s.images.Trusted(cfg.Config.Image, img); err != nil {
			return "", nil, err
		}
		if err := checkPlatform(cfg.Platform, cfg.Config.Image, img); err != nil {
			return "", nil, err
		}
		imgConfig = &img.Config.Config
	}
	if err := s.normalize(&cfg, imgConfig); err != nil {
		return "", nil, err
	}
	if img == nil {
		return "", nil, errdefs.New(errdefs.InvalidParameter, "no image specified")
	}
	c := &Container{svc: s, changed: make(chan struct{}), removed: make(chan struct{}), execs: map[string]*Exec{}}
	c.rec = Record{ID: hexID(), Created: time.Now().UTC(), ImageID: img.ID, Layers: img.DiffIDs, Config: cfg.Config, Host: cfg.Host, State: Created, Step: cfg.Step != nil}
	id := c.rec.ID // no result: the steps back below must see it after a return of ""
	if err := s.resolveModes(&c.rec); err != nil {
		return "", nil, err
	}
	if err := s.resolveNetworks(ctx, &c.rec, cfg.Network); err != nil {
		return "", nil, err
	}
	if err := s.resolveLinks(&c.rec); err != nil {
		return "", nil, err
	}
	argv := append(slices.Clone([]string(cfg.Config.Entrypoint)), cfg.Config.Cmd...)
	c.rec.Path, c.rec.Args = argv[0], argv[1:]
	s.resolveHostname(&c.rec)

	if c.rec.Name, err = s.reserve(id, cfg.Name); err != nil {
		return "", nil, err
	}
	var undo undo
	defer func() {
		if err != nil {
			err = errors.Join(err, undo.run())
		}
	}()
	undo.add(func() error { s.release(c.rec.Name); return nil })
	if err := s.snapshots.Prepare(ctx, id, img.DiffIDs); err != nil {
		return "", nil, fmt.Errorf("prepare the file system of container %s: %w", id, err)
	}
	undo.add(func() error { return s.snapshots.Remove(context.WithoutCancel(ctx), id) })
	if err := os.Mkdir(s.dir(id), 0o710); err != nil {
		return "", nil, err
	}
	undo.add(func() error { return os.RemoveAll(s.dir(id)) })
	undo.add(func() error { return s.releaseVolumes(context.WithoutCancel(ctx), id, c.rec.Mounts, true) })
	if c.rec.Mounts, err = s.resolveMounts(ctx, id, cfg.Config, cfg.Host); err != nil {
		return "", nil, err
	}
	if err := s.fillVolumes(ctx, &c.rec); err != nil {
		return "", nil, err
	}
	c.rec.LogConfig = s.logConfig(&c.rec)
	if err := s.save(c.rec); err != nil {
		return "", nil, err
	}
	s.enter(c)
	created := c.Record()
	s.publish(&created, "create", nil)
	return id, s.warnings(cfg.Host), nil
}

// undo is a stack of steps back.
type undo struct{ steps []func() error }

func (u *undo) add(step func() error) { u.steps = append(u.steps, step) }

func (u *undo) run() error {
	var errs []error
	for _, step := range slices.Backward(u.steps) {
		errs = append(errs, step())
	}
	return errors.Join(errs...)
}

// checkPlatform refuses an image for another platform than the one asked for.
func checkPlatform(want, ref string, img *image.Image) error {
	if want == "" {
		return nil
	}
	parts := strings.Split(want, "/")
	have := []string{img.Config.OS, img.Config.Architecture, img.Config.Variant}
	if len(parts) == 1 {
		parts = []string{"linux", parts[0]}
		if want == "linux" {
			return nil
		}
	}
	aliases := map[string]string{"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64"}
	for i, p := range parts {
		if a := aliases[p]; a != "" {
			p = a
		}
		if i < len(have) && have[i] != "" && have[i] != p {
			return errdefs.New(errdefs.NotFound, "image with reference %s was found but its platform (%s/%s) does not match the specified platform (%s)", ref, have[0], have[1], want)
		}
	}
	return nil
}

// resolveModes replaces the names in container: modes by IDs.
func (s *Service) resolveModes(r *Record) error {
	resolve := func(ref string, ok bool, set func(string)) error {
		if !ok {
			return nil
		}
		other, err := s.Get(ref)
		if err != nil { // not NotFound: to docker's command line that means the image, which it would pull
			return errdefs.With(errdefs.InvalidParameter, err)
		}
		set("container:" + other.ID())
		return nil
	}
	h := r.Host
	if err := resolve(h.NetworkMode.ConnectedContainer(), h.NetworkMode.IsContainer(), func(v string) { h.NetworkMode = container.NetworkMode(v) }); err != nil {
		return err
	}
	if err := resolve(h.IpcMode.Container(), h.IpcMode.IsContainer(), func(v string) { h.IpcMode = container.IpcMode(v) }); err != nil {
		return err
	}
	return resolve(h.PidMode.Container(), h.PidMode.IsContainer(), func(v string) { h.PidMode = container.PidMode(v) })
}

// resolveNetworks fills in the networks that the container joins at its start.
func (s *Service) resolveNetworks(ctx context.Context, r *Record, n *apinet.NetworkingConfig) error {
	r.Networks = map[string]*apinet.EndpointSettings{}
	mode := r.Host.NetworkMode
	if mode.IsContainer() || r.Config.NetworkDisabled {
		return nil
	}
	for ref, settings := range n.EndpointsConfig {
		if settings == nil {
			settings = &apinet.EndpointSettings{}
		}
		if ref == apinet.NetworkDefault {
			ref = apinet.NetworkBridge
		}
		nw, err := s.networkOrName(ctx, ref)
		if err != nil {
			return err
		}
		settings.NetworkID = nw.ID
		r.Networks[nw.Name] = settings
	}
	primary, err := s.networkOrName(ctx, primaryNetwork(r.Host))
	if err != nil {
		return err
	}
	r.Host.NetworkMode = container.NetworkMode(primary.Name)
	if r.Networks[primary.Name] == nil {
		r.Networks[primary.Name] = &apinet.EndpointSettings{NetworkID: primary.ID}
	}
	if len(r.Networks) > 1 && (primary.Name == apinet.NetworkHost || primary.Name == apinet.NetworkNone) {
		return errdefs.New(errdefs.InvalidParameter, "conflicting options: cannot attach both user-defined and non-user-defined network-modes")
	}
	r.StaticMACs = map[string]bool{}
	for name, e := range r.Networks {
		if err := checkEndpoint(name, e); err != nil {
			return err
		}
		if len(e.MacAddress) > 0 {
			r.StaticMACs[name] = true
		}
	}
	return nil
}

// networkOrName finds a network. One that does not exist is told at the start, as Docker does: it may be made until then.
func (s *Service) networkOrName(ctx context.Context, ref string) (*network.Network, error) {
	nw, err := s.networks.Get(ctx, ref)
	if errdefs.Is(err, errdefs.NotFound) {
		return &network.Network{Name: ref}, nil
	}
	return nw, err
}

// checkEndpoint refuses what only networks of the user's own can do.
func checkEndpoint(name string, e *apinet.EndpointSettings) error {
	user := name != apinet.NetworkBridge && name != apinet.NetworkHost && name != apinet.NetworkNone
	if user {
		return nil
	}
	if e.IPAMConfig != nil && (e.IPAMConfig.IPv4Address.IsValid() || e.IPAMConfig.IPv6Address.IsValid()) {
		return errdefs.New(errdefs.InvalidParameter, "invalid config for network %s: invalid endpoint settings:\nuser specified IP address is supported on user defined networks only", name)
	}
	if len(e.Aliases) > 0 {
		return errdefs.New(errdefs.InvalidParameter, "invalid config for network %s: invalid endpoint settings:\nnetwork-scoped aliases are only supported for user-defined networks", name)
	}
	return nil
}

// resolveHostname sets the host name: asked for, the host's own, or the beginning of the ID.
func (s *Service) resolveHostname(r *Record) {
	switch {
	case r.Config.Hostname != "":
	case r.Host.UTSMode.IsHost() || r.Host.NetworkMode.IsHost():
		if name, err := os.Hostname(); err == nil {
			r.Config.Hostname = name
		}
	default:
		r.Config.Hostname = r.ID[:12]
	}
	r.Hostname = r.Config.Hostname
}

// logConfig returns how and where the container logs.
func (s *Service) logConfig(r *Record) logs.Config {
	c := logs.Config{Driver: r.Host.LogConfig.Type, Options: maps.Clone(r.Host.LogConfig.Config), ContainerID: r.ID, Name: r.Name,
		Image: r.Config.Image, ImageID: string(r.ImageID), Labels: r.Config.Labels, Env: r.Config.Env}
	switch c.Driver {
	case "json-file":
		c.Path = filepath.Join(s.dir(r.ID), r.ID+"-json.log")
	case "local":
		c.Path = filepath.Join(s.dir(r.ID), "container.log")
	default:
	}
	return c
}

// warnings returns what the host cannot do of what was asked.
func (s *Service) warnings(h *container.HostConfig) []string {
	var w []string
	if h.OomKillDisable != nil && *h.OomKillDisable && h.Memory == 0 {
		w = append(w, "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.")
	}
	if h.NetworkMode.IsHost() && len(h.PortBindings) > 0 {
		w = append(w, "Published ports are discarded when using host network mode")
	}
	for _, name := range h.CapAdd {
		if full, err := normalCapability(name); err == nil && full != "ALL" && !capabilityAvailable(full) {
			w = append(w, fmt.Sprintf("The capability %s is not available to the daemon on this host and was not granted.", full))
		}
	}
	return w
}
