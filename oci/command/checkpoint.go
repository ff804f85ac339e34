package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/linux/cgroup"
	"gantry/linux/fd"
	"gantry/linux/mount"
	"gantry/linux/ns"
	"gantry/linux/safepath"
	"gantry/oci"
	"gantry/oci/criu"
	"gantry/oci/store"
)

// saving is what checkpoint and restore are told by flags.
type saving struct {
	o          criu.Options
	pageServer string
	emptyNS    []string
	preDump    bool
}

// descriptors is the file that remembers what the standard streams were.
const descriptors = "descriptors.json"

func (s *saving) declare(a *app) {
	a.text(&s.o.Images, "image-path", "path of criu's image files (default: ./checkpoint)")
	a.text(&s.o.Work, "work-path", "path for criu's work files and logs")
	a.on(&s.o.TCPEstablished, "tcp-established", "allow open tcp connections")
	a.on(&s.o.ExtUnixSockets, "ext-unix-sk", "allow external unix sockets")
	a.on(&s.o.ShellJob, "shell-job", "allow shell jobs")
	a.on(&s.o.LazyPages, "lazy-pages", "use userfaultfd to lazily restore memory pages")
	a.on(&s.o.FileLocks, "file-locks", "handle file locks, for safety")
	a.text(&s.o.CgroupMode, "manage-cgroups-mode", "cgroups mode: soft|full|strict|ignore (default: soft)")
	a.many(&s.emptyNS, "empty-ns", "create a namespace, but don't restore its properties")
	a.on(&s.o.AutoDedup, "auto-dedup", "enable auto deduplication of memory images")
	s.o.StatusFD = -1
}

// settle makes the flags' values complete and checks them.
func (s *saving) settle(spec *specs.Spec) error {
	if s.o.Images == "" {
		s.o.Images = "checkpoint"
	}
	var err error
	for _, dir := range []*string{&s.o.Images, &s.o.Work} {
		if *dir == "" {
			continue
		}
		if *dir, err = filepath.Abs(*dir); err != nil {
			return err
		}
		if err := os.MkdirAll(*dir, 0o700); err != nil {
			return err
		}
	}
	if s.o.Parent != "" {
		if filepath.IsAbs(s.o.Parent) {
			return errors.New("--parent-path must be relative")
		}
		st, err := os.Stat(filepath.Join(s.o.Images, s.o.Parent))
		if err == nil && !st.IsDir() {
			err = &os.PathError{Op: "open", Path: filepath.Join(s.o.Images, s.o.Parent), Err: syscall.ENOTDIR}
		}
		if err != nil {
			return fmt.Errorf("invalid --parent-path: %w", err)
		}
	}
	if err := criu.CheckMode(s.o.CgroupMode); err != nil {
		return err
	}
	if s.pageServer != "" {
		host, port, ok := cutLast(s.pageServer, ":")
		if !ok || host == "" || port == "" {
			return errors.New("Use --page-server ADDRESS:PORT to specify page server") //nolint:staticcheck // runc's words
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return errors.New("Invalid port number") //nolint:staticcheck // runc's words
		}
		if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
			host = a.String()
		}
		s.o.PageServer, s.o.PageServerPort = host, int(n)
	}
	for _, n := range s.emptyNS {
		if specs.LinuxNamespaceType(n) != specs.NetworkNamespace {
			return fmt.Errorf("namespace %q is not supported", n)
		}
	}
	s.o.EmptyNS = uint32(ns.Flag(specs.NetworkNamespace)) // its links and addresses are others' to make
	s.o.Config = "/etc/criu/gantry-oci.conf"
	if file, ok := spec.Annotations["org.criu.config"]; ok {
		s.o.Config = file
	}
	return nil
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func (a *app) checkpoint() func(context.Context) error {
	var s saving
	s.declare(a)
	a.text(&s.o.Parent, "parent-path", "path for previous criu image files in pre-dump, relative to image-path")
	a.on(&s.o.LeaveRunning, "leave-running", "leave the process running after checkpointing")
	a.on(&s.o.TCPSkipInFlight, "tcp-skip-in-flight", "skip in-flight tcp connections")
	a.on(&s.o.LinkRemap, "link-remap", "allow one to link unlinked files back when possible")
	a.number(&s.o.StatusFD, "status-fd", "criu writes \\0 to this FD once lazy-pages is ready")
	a.text(&s.pageServer, "page-server", "ADDRESS:PORT of the page server")
	a.on(&s.preDump, "pre-dump", "dump container's memory information only, leave the container running after this")
	return func(ctx context.Context) error {
		if a.rootless {
			a.log.warn("checkpoint is untested with rootless containers")
		}
		c, st, err := a.load()
		if err != nil {
			return err
		}
		if status := st.Status(); status == specs.StateCreated || status == specs.StateStopped {
			return fmt.Errorf("Container cannot be checkpointed in %s state", status) //nolint:staticcheck // runc's words
		}
		if err := s.settle(st.Spec); err != nil {
			return err
		}
		if s.o.LazyPages && s.o.StatusFD >= 0 && !fd.IsOpen(s.o.StatusFD) {
			return fmt.Errorf("invalid --status-fd argument %d: it is not open", s.o.StatusFD)
		}
		dir, err := a.store.Lock(st.ID)
		if err != nil {
			return err
		}
		defer dir.Unlock()
		if err := dir.DropEnd(); err != nil {
			return err
		}
		if err := s.dump(ctx, st); err != nil {
			return err
		}
		if s.o.LeaveRunning || s.preDump {
			return nil
		}
		return errors.Join(c.Delete(ctx), dir.Remove())
	}
}

func (s *saving) dump(ctx context.Context, st oci.State) error {
	if err := criu.Check(ctx, s.preDump, s.o.LazyPages); err != nil {
		return err
	}
	s.o.LogFile, s.o.Pid, s.o.Root = "dump.log", st.Pid, rootfsOf(st.Bundle, st.Spec)
	for _, n := range st.Spec.Linux.Namespaces {
		if n.Path == "" || n.Type != specs.NetworkNamespace && n.Type != specs.PIDNamespace {
			continue
		}
		info, err := os.Stat(n.Path)
		if err != nil {
			return err
		}
		s.o.External = append(s.o.External, fmt.Sprintf("%s[%d]:%s", shortName(n.Type), info.Sys().(*syscall.Stat_t).Ino, externalKey(n.Type)))
	}
	g, err := cgroupOf(st)
	if err == nil {
		for _, d := range g.Dirs() {
			if d.Name == "freezer" || d.Name == "" {
				s.o.FreezeCgroup = d.Path
			}
		}
	}
	if s.preDump {
		return criu.Run(ctx, criu.PreDump, &s.o)
	}
	for _, m := range st.Spec.Mounts {
		if isBind(m) {
			s.o.Mounts = append(s.o.Mounts, criu.Mount{Key: m.Destination, Value: m.Destination})
		}
	}
	for _, m := range cgroupMounts(st.Spec, g) {
		s.o.Mounts = append(s.o.Mounts, criu.Mount{Key: m.Key, Value: m.Key})
	}
	root, err := fd.Dir(fmt.Sprintf("/proc/%d/root", st.Pid))
	if err != nil {
		return err
	}
	defer root.Close()
	s.o.Mounts = append(s.o.Mounts, maskedFiles(root, st.Spec.Linux.MaskedPaths)...)
	var streams [3]string
	for i := range streams {
		if streams[i], err = os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", st.Pid, i)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	data, err := json.Marshal(streams)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.o.Images, descriptors), data, 0o600); err != nil {
		return err
	}
	return criu.Run(ctx, criu.Dump, &s.o)
}

// cgroupMounts are the directories of a cgroup v1 where the container has them mounted: parts of file systems, which criu cannot save.
func cgroupMounts(spec *specs.Spec, g *cgroup.Cgroup) (list []criu.Mount) {
	if g == nil || cgroup.Unified() {
		return nil
	}
	for _, m := range spec.Mounts {
		if m.Type != "cgroup" && m.Type != "cgroup2" || isBind(m) {
			continue
		}
		for _, d := range g.Dirs() {
			list = append(list, criu.Mount{Key: path.Join(m.Destination, d.Name), Value: d.Path})
		}
	}
	return list
}

func rootfsOf(bundle string, spec *specs.Spec) string {
	if filepath.IsAbs(spec.Root.Path) {
		return spec.Root.Path
	}
	return filepath.Join(bundle, spec.Root.Path)
}

func isBind(m specs.Mount) bool {
	if m.Type == "bind" {
		return true
	}
	for _, o := range m.Options {
		if o == "bind" || o == "rbind" {
			return true
		}
	}
	return false
}

// maskedFiles are the masked paths that are files in the container: each lies behind /dev/null.
func maskedFiles(root *os.File, paths []string) []criu.Mount {
	var list []criu.Mount
	for _, p := range paths {
		const oPath = 0x200000
		f, err := safepath.Open(root, p, oPath, 0)
		if err != nil {
			continue // it is not there
		}
		st, err := f.Stat()
		f.Close()
		if err == nil && !st.IsDir() {
			list = append(list, criu.Mount{Key: p, Value: "/dev/null"})
		}
	}
	return list
}

func shortName(t specs.LinuxNamespaceType) string {
	switch t {
	case specs.NetworkNamespace:
		return "net"
	case specs.MountNamespace:
		return "mnt"
	}
	return string(t)
}

// externalKey is the name under which a dump and its restore speak of a namespace that is not the container's own.
func externalKey(t specs.LinuxNamespaceType) string {
	name := shortName(t)
	return "extRoot" + strings.ToUpper(name[:1]) + name[1:] + "NS"
}

func (a *app) restore() func(context.Context) error {
	var s saving
	var c creation
	c.declare(a)
	s.declare(a)
	a.on(&c.detach, "detach,d", "detach from the container's process")
	a.on(&c.noSubreaper, "no-subreaper", "disable the use of the subreaper used to reap reparented processes")
	a.text(&s.o.LSMProfile, "lsm-profile", "specify an LSM profile to be used during restore in the form of TYPE:NAME")
	a.text(&s.o.LSMMountContext, "lsm-mount-context", "specify an LSM mount context to be used during restore")
	return func(ctx context.Context) error {
		if a.rootless {
			a.log.warn("restore is untested with rootless containers")
		}
		code, err := a.restoreOne(ctx, c, &s)
		if err == nil && code != 0 {
			err = exitError(code)
		}
		return err
	}
}

func (a *app) restoreOne(ctx context.Context, c creation, s *saving) (code int, err error) {
	id := a.args[0]
	bundle, spec, text, err := loadBundle(c.bundle)
	if err != nil {
		return 0, err
	}
	if err := c.checkTerminal(spec.Process); err != nil {
		return 0, err
	}
	if err := s.settle(spec); err != nil {
		return 0, err
	}
	if err := criu.Check(ctx, false, s.o.LazyPages); err != nil {
		return 0, err
	}
	dir, err := a.store.Make(id)
	if err != nil {
		return 0, err
	}
	defer dir.Unlock()
	ct, console, err := s.bringBack(ctx, dir, oci.Bundle{ID: id, Dir: bundle, Spec: spec, SystemdCgroup: a.systemd, RootlessCgroups: a.rootless}, text)
	if err != nil {
		return 0, errors.Join(err, dir.Remove())
	}
	p := ct.Init()
	p.Console = console
	conn, err := c.pidfdConn()
	if err == nil {
		defer conn.close()
		err = c.handOver(p, conn)
	}
	if err != nil {
		return 0, errors.Join(err, ct.Delete(ctx), dir.Remove())
	}
	if c.detach {
		return 0, nil
	}
	f, err := watch(p, !c.noSubreaper)
	dir.Unlock()
	if err == nil {
		code, err = f.wait(ctx)
	}
	if dir, lerr := a.store.Lock(id); lerr == nil {
		err = errors.Join(err, ct.Delete(ctx), dir.Remove())
	} else if !errors.Is(lerr, store.ErrNotExist) {
		err = errors.Join(err, lerr)
	}
	return code, err
}

// bringBack has criu restore the container, and records it.
func (s *saving) bringBack(ctx context.Context, dir *store.Dir, b oci.Bundle, text []byte) (ct *oci.Container, console *os.File, err error) {
	b.Intent = func(st oci.State) error {
		if err := st.Vacant(); err != nil {
			return err
		}
		return errors.Join(dir.WriteConfig(text), dir.Write(st))
	}
	group, state, release, err := oci.CgroupFor(ctx, b)
	if err != nil {
		return nil, nil, err
	}
	state.Spec = b.Spec
	defer func() {
		err = errors.Join(err, release())
		if err != nil && group != nil {
			err = errors.Join(err, group.Delete())
		}
	}()
	// criu wants a root that is a mount point.
	root := dir.CriuRoot()
	if err := os.Mkdir(root, 0o755); err != nil {
		return nil, nil, err
	}
	tree, err := mount.Bind(rootfsOf(b.Dir, b.Spec), true)
	if err != nil {
		return nil, nil, err
	}
	err = errors.Join(mount.SetAttr(tree, 0, 0, mount.Private, true), mount.MoveTo(tree, root), tree.Close())
	defer func() { err = errors.Join(err, dir.DropCriuRoot()) }()
	if err != nil {
		return nil, nil, err
	}
	s.o.Mounts = cgroupMounts(b.Spec, group)
	if err := s.restoreOptions(b.Spec, root); err != nil {
		return nil, nil, err
	}
	defer func() {
		for _, f := range s.o.Extra {
			f.Close()
		}
	}()
	s.o.Started = func(pid int, o *criu.Options) error {
		if group == nil {
			return nil
		}
		if err := group.Add(pid); err != nil {
			return err
		}
		o.Roots, err = rootsOf(pid)
		return err
	}
	s.o.Notified = func(script string, pid int, file *os.File) error {
		switch script {
		case "setup-namespaces", "post-restore":
			var err error
			if ct, state, err = oci.Restored(state, pid); err != nil {
				return err
			}
			if script == "setup-namespaces" {
				return ct.RunHooks(ctx, "prestart", "createRuntime")
			}
			return dir.Write(state)
		case "orphan-pts-master":
			if file == nil {
				return errors.New("criu sent no terminal")
			}
			console, err = fd.Dup(file)
			return err
		}
		return nil
	}
	if err := criu.Run(ctx, criu.Restore, &s.o); err != nil {
		return nil, nil, err
	}
	if ct == nil {
		return nil, nil, errors.New("criu did not say what it restored")
	}
	return ct, console, nil
}

// restoreOptions are the options of a restore that follow from the specification.
func (s *saving) restoreOptions(spec *specs.Spec, root string) error {
	s.o.LogFile, s.o.Root = "restore.log", root
	s.o.Stdio = [3]*os.File{os.Stdin, os.Stdout, os.Stderr}
	var streams [3]string
	if err := oci.ReadJSON(filepath.Join(s.o.Images, descriptors), &streams); err != nil {
		return err
	}
	for i, name := range streams {
		if strings.HasPrefix(name, "pipe:") {
			s.o.Inherit = append(s.o.Inherit, criu.InheritFD{Key: name, FD: i})
		}
	}
	for _, m := range spec.Mounts {
		if isBind(m) {
			s.o.Mounts = append(s.o.Mounts, criu.Mount{Key: m.Destination, Value: m.Source})
		}
	}
	if len(spec.Linux.MaskedPaths) > 0 { // the dump has the files among them under this name
		s.o.Mounts = append(s.o.Mounts, criu.Mount{Key: "/dev/null", Value: "/dev/null"})
	}
	for _, n := range spec.Linux.Namespaces {
		switch {
		case n.Path == "":
		case n.Type == specs.NetworkNamespace, n.Type == specs.PIDNamespace:
			f, err := os.Open(n.Path)
			if err != nil {
				return fmt.Errorf("Requested network namespace %v does not exist: %w", n.Path, err) //nolint:staticcheck // runc's words
			}
			s.o.Inherit = append(s.o.Inherit, criu.InheritFD{Key: externalKey(n.Type), FD: criu.FirstExtra + len(s.o.Extra)})
			s.o.Extra = append(s.o.Extra, f)
		case n.Type == specs.CgroupNamespace:
			return errors.New("restore: a cgroup namespace cannot be joined by path")
		default:
			s.o.JoinNS = append(s.o.JoinNS, [2]string{shortName(n.Type), n.Path})
		}
	}
	return nil
}

// rootsOf are the cgroups of a process.
func rootsOf(pid int) ([]criu.Root, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil, err
	}
	var list []criu.Root
	for line := range strings.Lines(string(data)) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 {
			list = append(list, criu.Root{Controller: f[1], Path: f[2]})
		}
	}
	return list, nil
}
