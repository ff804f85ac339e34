package container

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"gantry/errdefs"
	"gantry/linux/mount"
	"gantry/linux/safepath"
	"gantry/linux/seccomp"
	"gantry/network"
	"gantry/sandbox"
	"gantry/shim"

	"github.com/moby/moby/api/types/container"
	apinet "github.com/moby/moby/api/types/network"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Start runs a container that does not run. NotModified: it runs already.
func (s *Service) Start(ctx context.Context, ref string) error {
	c, err := s.Get(ref)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.cancelRestart()
	c.rec.ManuallyStopped, c.rec.RestartCount = false, 0 // it counts the restarts by policy since
	c.mu.Unlock()
	return s.start(ctx, c, nil)
}

// start takes all steps from a created container to a running process. What it takes from the kernel hangs on
// descriptors until the process exists, so a crash between two steps leaves only the network's record, which the next
// start of the daemon drops, and the run folder, which it removes. due, unless nil, tells from the state whether the
// start is still wanted once it is its turn; else it does nothing.
func (s *Service) start(ctx context.Context, c *Container, due func(State) bool) (err error) {
	c.op.Lock()
	defer c.op.Unlock()
	ctx = context.WithoutCancel(ctx) // a client that hangs up does not leave half a start
	c.mu.Lock()
	wanted := due == nil || due(c.rec.State)
	c.mu.Unlock()
	if !wanted {
		return nil
	}
	streams := c.takeWaiting()
	c.mu.Lock()
	before := c.rec
	next, err := c.rec.State.on(onStart, c.rec.ID)
	c.mu.Unlock()
	if err != nil {
		closeStreams(streams)
		return err
	}
	var undo undo
	defer func() {
		if err == nil {
			return
		}
		err = errors.Join(err, undo.run())
		s.failStart(ctx, c, err)
	}()
	launched := false
	defer func() {
		if !launched {
			closeStreams(streams)
		}
	}()
	rec := before
	req := shim.StartRequest{ID: rec.ID, Dir: s.runDir(rec.ID), OpenStdin: rec.Config.OpenStdin, StdinOnce: rec.Config.StdinOnce,
		Log: rec.LogConfig, Streams: streams, Rows: uint16(rec.Host.ConsoleSize[0]), Cols: uint16(rec.Host.ConsoleSize[1])}
	s.shareHostname(&rec)
	if err := s.checkLinked(&rec); err != nil {
		return err
	}
	req.Runtime = s.runtimes().paths[rec.Host.Runtime]
	if req.Namespaces, err = s.joinedNamespaces(&rec); err != nil {
		return err
	}
	if req.Mounts, err = s.sharedMounts(&rec); err != nil {
		return err
	}
	defer func() {
		for _, f := range req.Namespaces {
			_ = f.Close() // descriptors only
		}
		for _, f := range req.Mounts {
			_ = f.Close() // the shim has its own
		}
	}()
	join := s.beginJoin(ctx, rec) // while the file system is mounted
	undo.add(func() error { return join.undo(ctx) })
	mounts := slices.Clone(rec.Mounts)
	undo.add(func() error { return s.unmountVolumes(ctx, &rec) })
	if err := s.mountVolumes(ctx, &rec, mounts); err != nil {
		return err
	}
	rec.Mounts = mounts
	if err := subpathMounts(mounts, req.Mounts); err != nil {
		return err
	}
	if rec.Host.AutoRemove || rec.Step { // what it writes goes when it ends, or is synced when it is stored: there is no sense in syncing it to disk
		req.Root, err = s.snapshots.MountVolatile(ctx, rec.ID)
	} else {
		req.Root, err = s.snapshots.Mount(ctx, rec.ID, false)
	}
	if err != nil {
		return fmt.Errorf("mount the file system of container %s: %w", rec.ID, err)
	}
	defer func() { _ = req.Root.Close() }() // the shim has its own
	if req.Spec, req.Seccomp, err = s.buildSpec(ctx, &rec, req.Root, req.Namespaces); err != nil {
		return err
	}
	req.Health = health(&rec, req.Spec.Process)
	if err := os.RemoveAll(req.Dir); err != nil {
		return err
	}
	if err := os.Mkdir(req.Dir, 0o700); err != nil {
		return err
	}
	undo.add(func() error { return os.RemoveAll(req.Dir) })
	sb, err := join.wait()
	if err != nil {
		return err
	}
	if sb.Netns != nil {
		req.Namespaces[specs.NetworkNamespace] = sb.Netns
	}
	launched = true
	task, err := s.launcher.Start(ctx, req)
	if err != nil {
		return err
	}
	initial := task.Initial()
	c.mu.Lock()
	c.task = task
	c.runs++
	c.stopping = false
	c.rec.RestartAsked = false
	c.rec.State, c.rec.Pid, c.rec.StartedAt = next, task.Pid(), initial.StartedAt.UTC()
	if initial.StartedAt.IsZero() {
		c.rec.StartedAt = time.Now().UTC()
	}
	c.rec.FinishedAt, c.rec.ExitCode, c.rec.Error, c.rec.OOMKilled = before.FinishedAt, 0, "", false
	c.rec.Networks, c.rec.Ports = settings(before.Networks, sb.Endpoints), ports(sb.Ports)
	if req.Health != nil {
		c.rec.Health = &container.Health{Status: container.Starting}
	} else {
		c.rec.Health = nil
	}
	saved := c.rec
	late := c.waiting // attached during the start
	c.waiting = nil
	c.wake()
	c.mu.Unlock()
	for _, st := range late {
		if err := task.Attach(ctx, st); err != nil {
			s.log.Warn("cannot attach to a container that has just started", "container", saved.ID, "error", err)
		}
	}
	s.saveLogged(saved)
	s.refreshParents(ctx, saved.ID)
	s.publish(&saved, "start", nil)
	s.background.Go(func() { s.follow(ctx, c, task) })
	return nil
}

// failStart records why a container could not start.
func (s *Service) failStart(ctx context.Context, c *Container, cause error) {
	code := 128
	var exec *shim.ExecError
	if errors.As(cause, &exec) {
		code = exec.Code
	}
	c.mu.Lock()
	if next, err := c.rec.State.on(onFail, c.rec.ID); err == nil {
		c.rec.State = next
	}
	c.rec.ExitCode, c.rec.Error, c.rec.RestartAsked = code, cause.Error(), false
	saved := c.rec
	c.wake()
	c.mu.Unlock()
	s.saveLogged(saved)
	if saved.Host.AutoRemove {
		s.background.Go(func() {
			if err := s.remove(ctx, c, RemoveOptions{Volumes: true, Force: true}); err != nil && !notFound(err) {
				s.log.Warn("cannot remove a container that did not start", "container", saved.ID, "error", err)
			}
		})
	}
}

// closeStreams closes connections that never got a container.
func closeStreams(streams []shim.Stream) {
	for _, st := range streams {
		_ = st.Conn.Close()
	}
}

// joinedNamespaces opens the namespaces of other containers that this one shares.
func (s *Service) joinedNamespaces(r *Record) (_ map[specs.LinuxNamespaceType]*os.File, err error) {
	joined := map[specs.LinuxNamespaceType]*os.File{}
	defer func() {
		if err != nil {
			for _, f := range joined {
				_ = f.Close()
			}
		}
	}()
	join := func(kind specs.LinuxNamespaceType, file, ref string, wanted bool) error {
		if !wanted {
			return nil
		}
		other, err := s.Get(ref)
		if err != nil {
			return err
		}
		or := other.Record()
		if !or.State.alive() {
			return errdefs.New(errdefs.Conflict, "cannot join %s namespace of a non running container: container %s is %s", kind, or.ID, or.State)
		}
		if kind == specs.IPCNamespace && !or.Host.IpcMode.IsShareable() && !or.Host.IpcMode.IsHost() {
			return errdefs.New(errdefs.InvalidParameter, "container %s does not have a shareable IPC: non-shareable IPC (hint: use IpcMode:shareable for the donor container)", or.ID)
		}
		f, err := os.Open("/proc/" + strconv.Itoa(or.Pid) + "/ns/" + file)
		if err != nil {
			return fmt.Errorf("join %s namespace of container %s: %w", kind, or.ID, err)
		}
		joined[kind] = f
		return nil
	}
	h := r.Host
	return joined, errors.Join(
		join(specs.NetworkNamespace, "net", h.NetworkMode.ConnectedContainer(), h.NetworkMode.IsContainer()),
		join(specs.IPCNamespace, "ipc", h.IpcMode.Container(), h.IpcMode.IsContainer()),
		join(specs.PIDNamespace, "pid", h.PidMode.Container(), h.PidMode.IsContainer()),
	)
}

// sharedMounts returns what is mounted in other containers and must be seen in this one too: the shared memory of the
// container whose IPC namespace it joins.
func (s *Service) sharedMounts(r *Record) (map[string]*os.File, error) {
	shared := map[string]*os.File{}
	if !r.Host.IpcMode.IsContainer() || r.mountAt("/dev/shm") != nil {
		return shared, nil
	}
	other, err := s.Get(r.Host.IpcMode.Container())
	if err != nil {
		return nil, err
	}
	or := other.Record()
	if or.Host.IpcMode.IsHost() {
		return shared, nil
	}
	shm, err := mount.FromProcess(or.Pid, "/dev/shm", mount.Tmpfs)
	if err != nil {
		return nil, fmt.Errorf("share the memory of container %s: %w", or.ID, err)
	}
	shared["/dev/shm"] = shm
	return shared, nil
}

// subpathMounts adds the mounts of paths within volumes. They are not given to the shim as paths: another container that has the volume
// could lead those out of it.
func subpathMounts(mounts []Mount, to map[string]*os.File) error {
	for i := range mounts {
		m := &mounts[i]
		if m.Subpath == "" {
			continue
		}
		f, err := m.bind()
		if err != nil {
			return err
		}
		to[m.Destination] = f
		if err := mount.SetAttr(f, 0, 0, mount.Private, true); err != nil {
			return err
		}
		if !m.RW {
			if err := mount.SetAttr(f, mount.ReadOnly, 0, 0, true); err != nil {
				return err
			}
		}
	}
	return nil
}

// shareHostname gives a container that shares another's network the other's host name too.
func (s *Service) shareHostname(r *Record) {
	if owner := s.networkOwner(r); owner != nil {
		r.Hostname = owner.Record().Hostname
	}
}

// networkOwner returns the container whose network this one shares, nil for its own; the one in between may share it, too.
func (s *Service) networkOwner(r *Record) *Container {
	var owner *Container
	for mode, steps := r.Host.NetworkMode, 0; mode.IsContainer() && steps < maxSharing; steps++ {
		other, err := s.Get(mode.ConnectedContainer())
		if err != nil {
			return nil
		}
		owner, mode = other, other.Record().Host.NetworkMode
	}
	return owner
}

// maxSharing is how long a chain of containers with one network may be.
const maxSharing = 1000

// joining is a sandbox that comes into being in the background.
type joining struct {
	done  chan struct{} // closed when sb and err are set
	sb    *sandbox.Sandbox
	err   error
	leave func(context.Context) error
}

// beginJoin starts to bring the container's sandbox into being.
func (s *Service) beginJoin(ctx context.Context, r Record) *joining {
	j := &joining{done: make(chan struct{}), leave: func(ctx context.Context) error { return s.sandboxes.Leave(ctx, r.ID) }}
	go func() {
		defer close(j.done)
		j.sb, j.err = s.joinNetworks(ctx, &r)
	}()
	return j
}

func (j *joining) wait() (*sandbox.Sandbox, error) {
	<-j.done
	return j.sb, j.err
}

// undo gives back what was joined for a start that failed.
func (j *joining) undo(ctx context.Context) error {
	if sb, err := j.wait(); err == nil && sb.Netns != nil {
		_ = sb.Netns.Close() // only a descriptor, perhaps closed already
	}
	return j.leave(ctx)
}

// joinNetworks brings the container's sandbox into being. A container that shares another's network has none of its own.
func (s *Service) joinNetworks(ctx context.Context, r *Record) (*sandbox.Sandbox, error) {
	if r.Host.NetworkMode.IsContainer() {
		return &sandbox.Sandbox{}, nil
	}
	cfg := s.sandboxConfig(r)
	var err error
	if cfg.Network.Ports, err = portBindings(r); err != nil {
		return nil, err
	}
	for _, name := range r.networkNames() {
		cfg.Network.Endpoints = append(cfg.Network.Endpoints, s.endpointConfig(r, name, r.Networks[name]))
	}
	if len(cfg.Network.Endpoints) == 0 {
		cfg.Network.Endpoints = []network.EndpointConfig{{Network: network.None}}
	}
	return s.sandboxes.Ensure(ctx, cfg)
}

func (s *Service) sandboxConfig(r *Record) sandbox.Config {
	return sandbox.Config{ID: r.ID, Dir: s.dir(r.ID), Hostname: r.Hostname, Domainname: r.Config.Domainname, ExtraHosts: r.Host.ExtraHosts, Linked: s.linkedHosts(r),
		DNS: orElse(r.Host.DNS, s.opts.DNS), DNSSearch: orElse(r.Host.DNSSearch, s.opts.DNSSearch), DNSOptions: orElse(r.Host.DNSOptions, s.opts.DNSOptions),
		Network: network.SandboxConfig{ID: r.ID, Name: r.Name}}
}

// orElse returns the list, or the daemon's when it is empty.
func orElse[T any](list, fallback []T) []T {
	if len(list) > 0 {
		return list
	}
	return fallback
}

// endpointConfig translates Docker's settings of an endpoint.
func (s *Service) endpointConfig(r *Record, name string, e *apinet.EndpointSettings) network.EndpointConfig {
	cfg := network.EndpointConfig{Network: name, Aliases: e.Aliases, DNSNames: []string{r.Name, r.ID[:12]}, GatewayPriority: e.GwPriority, DriverOpts: e.DriverOpts, Links: map[string]string{}}
	if r.Hostname != "" && r.Hostname != r.ID[:12] {
		cfg.DNSNames = append(cfg.DNSNames, r.Hostname)
	}
	if e.IPAMConfig != nil {
		cfg.IPv4, cfg.IPv6 = e.IPAMConfig.IPv4Address, e.IPAMConfig.IPv6Address
	}
	if r.StaticMACs[name] {
		cfg.MAC = e.MacAddress.String()
	}
	links := e.Links
	if name == primaryNetwork(r.Host) && !r.usesLinks() {
		links = append(slices.Clone(links), r.Host.Links...)
	}
	for _, l := range links {
		target, alias, err := parseLink(l)
		if err != nil {
			continue // checked at the creation
		}
		cfg.Links[alias] = target // may come later
		if other, err := s.Get(target); err == nil {
			cfg.Links[alias] = other.ID()
		}
	}
	return cfg
}

// portBindings returns what the container publishes.
func portBindings(r *Record) ([]network.PortBinding, error) {
	var bindings []network.PortBinding
	add := func(port apinet.Port, host netip.Addr, hostPort string) error {
		b := network.PortBinding{Proto: string(port.Proto()), ContainerPort: port.Num(), HostAddr: host}
		if hostPort != "" {
			first, last, isRange := strings.Cut(hostPort, "-")
			a, err := strconv.ParseUint(first, 10, 16)
			if err != nil {
				return errdefs.New(errdefs.InvalidParameter, "invalid port specification: %q", hostPort)
			}
			b.HostPort = uint16(a)
			if isRange {
				z, err := strconv.ParseUint(last, 10, 16)
				if err != nil {
					return errdefs.New(errdefs.InvalidParameter, "invalid port specification: %q", hostPort)
				}
				b.HostPortEnd = uint16(z)
			}
		}
		bindings = append(bindings, b)
		return nil
	}
	for _, port := range sortedPorts(r.Host.PortBindings) {
		list := r.Host.PortBindings[port]
		if len(list) == 0 {
			list = []apinet.PortBinding{{}}
		}
		for _, b := range list {
			if err := add(port, b.HostIP, b.HostPort); err != nil {
				return nil, err
			}
		}
	}
	if r.Host.PublishAllPorts {
		for _, port := range sortedPorts(r.Config.ExposedPorts) {
			if _, bound := r.Host.PortBindings[port]; !bound {
				if err := add(port, netip.Addr{}, ""); err != nil {
					return nil, err
				}
			}
		}
	}
	return bindings, nil
}

// sortedPorts returns the ports of a map by number and protocol, so that ephemeral ports are handed out in order.
func sortedPorts[V any](m map[apinet.Port]V) []apinet.Port {
	ports := make([]apinet.Port, 0, len(m))
	for p := range m {
		ports = append(ports, p)
	}
	slices.SortFunc(ports, func(a, b apinet.Port) int {
		if a.Num() != b.Num() {
			return int(a.Num()) - int(b.Num())
		}
		return strings.Compare(string(a.Proto()), string(b.Proto()))
	})
	return ports
}

// settings returns the networks' configuration together with what the endpoints got.
func settings(configured map[string]*apinet.EndpointSettings, endpoints []network.Endpoint) map[string]*apinet.EndpointSettings {
	all := map[string]*apinet.EndpointSettings{}
	for name, e := range configured {
		all[name] = e.Copy()
	}
	for i := range endpoints {
		e := &endpoints[i]
		have := all[e.NetworkName]
		if have == nil {
			have = &apinet.EndpointSettings{}
			all[e.NetworkName] = have
		}
		operational(have, e)
	}
	return all
}

// operational fills in what an endpoint got.
func operational(to *apinet.EndpointSettings, e *network.Endpoint) {
	to.NetworkID, to.EndpointID = e.NetworkID, e.EndpointID
	to.IPAddress, to.IPPrefixLen, to.Gateway = e.IPv4.Addr(), max(e.IPv4.Bits(), 0), e.Gateway
	to.GlobalIPv6Address, to.GlobalIPv6PrefixLen, to.IPv6Gateway = e.IPv6.Addr(), max(e.IPv6.Bits(), 0), e.Gateway6
	to.DNSNames = e.DNSNames
	to.MacAddress = nil
	_ = to.MacAddress.UnmarshalText([]byte(e.MAC)) // our own MAC is well formed, or empty
}

// notOperational clears it again.
func notOperational(to *apinet.EndpointSettings, staticMAC bool) {
	to.EndpointID = ""
	to.IPAddress, to.IPPrefixLen, to.Gateway = netip.Addr{}, 0, netip.Addr{}
	to.GlobalIPv6Address, to.GlobalIPv6PrefixLen, to.IPv6Gateway = netip.Addr{}, 0, netip.Addr{}
	if !staticMAC {
		to.MacAddress = nil
	}
}

func ports(published []network.Published) apinet.PortMap {
	m := apinet.PortMap{}
	for _, p := range published {
		if port, ok := apinet.PortFrom(p.ContainerPort, apinet.IPProtocol(p.Proto)); ok {
			m[port] = append(m[port], apinet.PortBinding{HostIP: p.HostAddr, HostPort: strconv.Itoa(int(p.HostPort))})
		}
	}
	return m
}

// buildSpec gathers the facts and returns the spec with its compiled seccomp filter.
func (s *Service) buildSpec(ctx context.Context, r *Record, root *os.File, joined map[specs.LinuxNamespaceType]*os.File) (*specs.Spec, []byte, error) {
	in := Inputs{Files: s.files(r), LinkEnv: s.linkEnvironment(r), NoNewPrivs: s.opts.NoNewPrivs, Joined: map[specs.LinuxNamespaceType]bool{}}
	for kind := range joined {
		in.Joined[kind] = kind != specs.NetworkNamespace || r.Host.NetworkMode.IsContainer()
	}
	var err error
	if in.User, err = lookupUser(root, r.Config.User, r.Host.GroupAdd); err != nil {
		return nil, nil, err
	}
	if in.Devices, err = devices(r.Host); err != nil {
		return nil, nil, err
	}
	if in.Capabilities, err = capabilities(r.Host.CapAdd, r.Host.CapDrop, r.Host.Privileged); err != nil {
		return nil, nil, err
	}
	if in.Security, err = parseSecurity(r.Host.SecurityOpt); err != nil {
		return nil, nil, err
	}
	if in.AppArmor, err = in.Security.onThisHost(r.Host.Privileged).profile(ctx); err != nil {
		return nil, nil, err
	}
	parent := r.Host.CgroupParent
	if parent == "" {
		parent = s.opts.CgroupParent
	}
	in.CgroupPath = cgroupPath(parent, r.ID)
	if (r.Host.Init != nil && *r.Host.Init) || (r.Host.Init == nil && s.opts.Init) {
		in.InitPath = s.opts.InitPath
	}
	sp := spec(r, in)
	if cwd := sp.Process.Cwd; cwd != "/" {
		if err := ensureWorkdir(root, r, cwd); err != nil {
			return nil, nil, err
		}
	}
	filter, err := s.filter(in.Security, r.Host.Privileged, sp)
	if err != nil {
		return nil, nil, errdefs.With(errdefs.InvalidParameter, err)
	}
	sp.Linux.Seccomp = nil
	return sp, filter, nil
}

// ensureWorkdir makes the working directory in the container's own file system when it is not there, as Docker does.
func ensureWorkdir(root *os.File, r *Record, cwd string) error {
	for i := range r.Mounts {
		if d := r.Mounts[i].Destination; cwd == d || strings.HasPrefix(cwd, d+"/") {
			return nil // inside a mount, which the container itself will see
		}
	}
	for _, d := range []string{"/proc", "/sys", "/dev"} {
		if cwd == d || strings.HasPrefix(cwd, d+"/") {
			return nil
		}
	}
	dir, err := safepath.MkdirAll(root, cwd, 0o755)
	if errors.Is(err, syscall.ENOTDIR) {
		return errdefs.New(errdefs.InvalidParameter, "Cannot mkdir: %s is not a directory", cwd)
	}
	if errors.Is(err, syscall.EROFS) {
		return errdefs.New(errdefs.InvalidParameter, "mkdir %s: %w", cwd, err)
	}
	if err != nil {
		return fmt.Errorf("make working directory %s: %w", cwd, err)
	}
	return dir.Close()
}

// files returns the files of the sandbox the container is in: its own, or those of the container whose network it shares.
func (s *Service) files(r *Record) sandbox.Files {
	if owner := s.networkOwner(r); owner != nil {
		return sandbox.FilesIn(s.dir(owner.ID()))
	}
	return sandbox.FilesIn(s.dir(r.ID))
}

// filterCache keeps compiled seccomp filters by what they were made from: compiling takes longer than starting a process.
type filterCache struct {
	mu   sync.Mutex // guards made
	made map[[32]byte][]byte
}

// maxFilters bounds the cache; profiles of one's own are few.
const maxFilters = 64

// filter returns the compiled seccomp filter for a container, nil for none.
func (s *Service) filter(sec security, privileged bool, sp *specs.Spec) ([]byte, error) {
	key := sha256.Sum256(fmt.Appendf(nil, "%q %t %q", sec.seccomp, privileged, sp.Process.Capabilities.Bounding))
	s.filters.mu.Lock()
	filter, ok := s.filters.made[key]
	s.filters.mu.Unlock()
	if ok {
		return filter, nil
	}
	profile, err := s.seccompProfile(sec, privileged, sp)
	if err != nil {
		return nil, err
	}
	if profile != nil {
		if filter, err = seccomp.Compile(profile); err != nil {
			return nil, fmt.Errorf("compile the seccomp profile: %w", err)
		}
	}
	s.filters.mu.Lock()
	defer s.filters.mu.Unlock()
	if s.filters.made == nil || len(s.filters.made) >= maxFilters {
		s.filters.made = map[[32]byte][]byte{}
	}
	s.filters.made[key] = filter
	return filter, nil
}
