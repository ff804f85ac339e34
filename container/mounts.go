package container

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gantry/errdefs"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

// resolveMounts returns what a container mounts: the request's --volumes-from, binds, --mount and --tmpfs, and then the
// anonymous volumes of the image for the destinations that are left. Volumes are created and acquired for id;
// after an error the mounts returned are those that were.
func (s *Service) resolveMounts(ctx context.Context, id string, c *container.Config, h *container.HostConfig) ([]Mount, error) {
	byDestination := map[string]Mount{}
	for _, from := range h.VolumesFrom {
		inherited, err := s.volumesFrom(from)
		if err != nil {
			return nil, err
		}
		for _, m := range inherited {
			byDestination[m.Destination] = m
		}
	}
	explicit := map[string]bool{}
	add := func(m Mount) error {
		if explicit[m.Destination] {
			return errdefs.New(errdefs.InvalidParameter, "Duplicate mount point: %s", m.Destination)
		}
		explicit[m.Destination] = true
		byDestination[m.Destination] = m
		return nil
	}
	for _, bind := range h.Binds {
		m, err := ParseBind(bind, h.VolumeDriver)
		if err != nil {
			return nil, errdefs.With(errdefs.InvalidParameter, err)
		}
		if err := add(m); err != nil {
			return nil, err
		}
	}
	for i := range h.Mounts {
		m, err := parseMount(&h.Mounts[i])
		if err != nil {
			return nil, errdefs.With(errdefs.InvalidParameter, err)
		}
		if err := add(m); err != nil {
			return nil, err
		}
	}
	for destination, options := range h.Tmpfs {
		m, err := parseTmpfs(destination, options)
		if err != nil {
			return nil, errdefs.With(errdefs.InvalidParameter, err)
		}
		if err := add(m); err != nil {
			return nil, err
		}
	}
	for destination := range c.Volumes {
		destination = path.Clean(destination)
		if _, taken := byDestination[destination]; !taken {
			byDestination[destination] = Mount{Anonymous: true, MountPoint: container.MountPoint{
				Type: mount.TypeVolume, Destination: destination, RW: true, Driver: h.VolumeDriver,
			}}
		}
	}
	var mounts []Mount
	for _, destination := range slices.Sorted(maps.Keys(byDestination)) {
		m := byDestination[destination]
		if m.Type == mount.TypeVolume {
			if err := s.createVolume(ctx, id, &m, h); err != nil {
				return mounts, err
			}
		}
		mounts = append(mounts, m)
	}
	return mounts, nil
}

// createVolume makes sure that the volume of a mount exists and is held for the container, and fills in its facts.
func (s *Service) createVolume(ctx context.Context, id string, m *Mount, h *container.HostConfig) error {
	var labels, options map[string]string
	for _, hm := range h.Mounts {
		if path.Clean(hm.Target) == m.Destination && hm.VolumeOptions != nil {
			labels = hm.VolumeOptions.Labels
			if hm.VolumeOptions.DriverConfig != nil {
				options = hm.VolumeOptions.DriverConfig.Options
			}
		}
	}
	if m.Anonymous {
		labels = maps.Clone(labels)
		if labels == nil {
			labels = map[string]string{}
		}
		labels["com.docker.volume.anonymous"] = ""
	}
	name := m.Name
	if m.Driver == "" {
		if v, err := s.volumes.Get(ctx, name); name != "" && err == nil {
			m.Driver = v.Driver
		} else {
			m.Driver = "local"
		}
	}
	v, err := s.volumes.Create(ctx, name, m.Driver, options, labels)
	if err != nil {
		return fmt.Errorf("create volume %q: %w", name, err)
	}
	if err := s.volumes.Acquire(ctx, v.Name, id); err != nil {
		return fmt.Errorf("use volume %q: %w", v.Name, err)
	}
	m.Name, m.Source = v.Name, v.Mountpoint
	return nil
}

// volumesFrom returns the volumes and binds of the container that a --volumes-from argument names.
func (s *Service) volumesFrom(from string) ([]Mount, error) {
	ref, mode, _ := strings.Cut(from, ":")
	if mode != "" && mode != "ro" && mode != "rw" && mode != "z" && mode != "Z" {
		return nil, errdefs.New(errdefs.InvalidParameter, "invalid mode: %s", mode)
	}
	other, err := s.Get(ref)
	if err != nil {
		return nil, errdefs.With(errdefs.InvalidParameter, err)
	}
	var inherited []Mount
	for _, m := range other.Record().Mounts {
		if m.Type == mount.TypeTmpfs {
			continue
		}
		if mode == "ro" {
			m.RW = false
		}
		m.Anonymous = false // it belongs to the other
		inherited = append(inherited, m)
	}
	return inherited, nil
}

// bindOption returns what an option of a bind is about; a bind has at most one of each kind.
func bindOption(option string) (kind string, ok bool) {
	switch option {
	case "ro", "readonly", "rw":
		return "access", true
	case "nocopy":
		return "copy", true
	case "z", "Z":
		return "label", true
	case "consistent", "cached", "delegated":
		return "consistency", true
	case "rprivate", "private", "rshared", "shared", "rslave", "slave":
		return "propagation", true
	}
	return "", false
}

// isMode reports whether text is a list of options of a bind rather than a destination.
func isMode(text string) bool {
	seen := map[string]bool{}
	for option := range strings.SplitSeq(text, ",") {
		kind, ok := bindOption(option)
		if !ok || seen[kind] {
			return false
		}
		seen[kind] = true
	}
	return true
}

func badVolumeName(name string) error {
	return fmt.Errorf("create %s: %q includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path", name, name)
}

// ParseBind reads a bind of the API and of `docker run -v`: [source:]destination[:options].
func ParseBind(bind, driver string) (Mount, error) {
	parts := strings.Split(bind, ":")
	var source, destination, mode string
	switch len(parts) {
	case 1:
		destination = parts[0]
	case 2:
		if isMode(parts[1]) {
			destination, mode = parts[0], parts[1]
		} else {
			source, destination = parts[0], parts[1]
		}
	case 3:
		source, destination, mode = parts[0], parts[1], parts[2]
	default:
		return Mount{}, fmt.Errorf("invalid volume specification: '%s'", bind)
	}
	if mode != "" && !isMode(mode) {
		return Mount{}, fmt.Errorf("invalid mode: %s", mode)
	}
	m := Mount{FromLegacy: true, MountPoint: container.MountPoint{Type: mount.TypeVolume, Destination: path.Clean(destination), Mode: mode, RW: true}}
	if path.IsAbs(source) {
		m.Type, m.Source, m.Create = mount.TypeBind, path.Clean(source), true
		m.Propagation = mount.PropagationRPrivate
	}
	bad := func(format string, args ...any) (Mount, error) {
		return Mount{}, fmt.Errorf("invalid volume specification: '%s': invalid mount config for type %q: %w", bind, m.Type, fmt.Errorf(format, args...))
	}
	switch {
	case !path.IsAbs(destination):
		return bad("invalid mount path: '%s' mount path must be absolute", destination)
	case m.Destination == "/":
		return bad("invalid specification: destination can't be '/'")
	case m.Type == mount.TypeBind:
	case source == "":
		m.Anonymous, m.Driver = len(parts) == 1 || !strings.Contains(bind, ":/"), driver
	case !validName.MatchString(source):
		return Mount{}, badVolumeName(source)
	default:
		m.Name, m.Driver = source, driver
	}
	if mode == "" {
		return m, nil
	}
	for option := range strings.SplitSeq(mode, ",") {
		kind, _ := bindOption(option)
		switch {
		case option == "ro" || option == "readonly":
			m.RW = false
		case kind == "copy" && m.Type == mount.TypeBind:
			return bad("field VolumeOptions must not be specified")
		case kind == "copy":
			m.NoCopy = true
		case kind == "propagation" && m.Type != mount.TypeBind:
			return bad("field BindOptions must not be specified")
		case kind == "propagation":
			m.Propagation = mount.Propagation(option)
		}
	}
	return m, nil
}

// parseMount reads a mount of the API's Mounts, which --mount makes.
func parseMount(in *mount.Mount) (Mount, error) {
	bad := func(format string, args ...any) (Mount, error) {
		return Mount{}, fmt.Errorf("invalid mount config for type %q: %w", in.Type, fmt.Errorf(format, args...))
	}
	if in.Target == "" {
		return bad("field Target must not be empty")
	}
	if !path.IsAbs(in.Target) {
		return bad("invalid mount path: '%s' mount path must be absolute", in.Target)
	}
	destination := path.Clean(in.Target)
	if destination == "/" {
		return bad("invalid specification: destination can't be '/'")
	}
	m := Mount{MountPoint: container.MountPoint{Type: in.Type, Destination: destination, RW: !in.ReadOnly}}
	switch in.Type {
	case mount.TypeBind:
		if in.Source == "" {
			return bad("field Source must not be empty")
		}
		if in.VolumeOptions != nil {
			return bad("field VolumeOptions must not be specified")
		}
		if !path.IsAbs(in.Source) {
			return bad("invalid mount path: '%s' mount path must be absolute", in.Source)
		}
		m.Source, m.Propagation = path.Clean(in.Source), mount.PropagationRPrivate
		if o := in.BindOptions; o != nil {
			if o.Propagation != "" {
				if !slices.Contains(mount.Propagations, o.Propagation) {
					return bad("invalid propagation mode: %s", o.Propagation)
				}
				m.Propagation = o.Propagation
			}
			m.Create = o.CreateMountpoint
			if o.NonRecursive {
				m.Flags = append(m.Flags, "bind")
			}
			if o.ReadOnlyNonRecursive {
				m.Flags = append(m.Flags, "ro")
			}
			if o.ReadOnlyForceRecursive {
				m.Flags = append(m.Flags, "rro")
			}
		}
		if _, err := os.Stat(m.Source); errors.Is(err, os.ErrNotExist) && !m.Create {
			return bad("bind source path does not exist: %s", m.Source)
		} else if err != nil && !errors.Is(err, os.ErrNotExist) {
			return bad("%w", err)
		}
	case mount.TypeVolume:
		if in.BindOptions != nil {
			return bad("field BindOptions must not be specified")
		}
		m.Name, m.Anonymous = in.Source, in.Source == ""
		if m.Name != "" && !validName.MatchString(m.Name) {
			return Mount{}, badVolumeName(m.Name)
		}
		if o := in.VolumeOptions; o != nil {
			m.NoCopy = o.NoCopy
			if o.Subpath != "" && !filepath.IsLocal(o.Subpath) {
				return bad("subpath must be a relative path within the volume")
			}
			m.Subpath = o.Subpath
			if o.DriverConfig != nil {
				m.Driver = o.DriverConfig.Name
			}
		}
	case mount.TypeTmpfs:
		if in.Source != "" {
			return bad("field Source must not be specified")
		}
		var options []string
		if o := in.TmpfsOptions; o != nil {
			if o.SizeBytes > 0 {
				options = append(options, "size="+strconv.FormatInt(o.SizeBytes, 10))
			}
			if o.Mode != 0 {
				options = append(options, fmt.Sprintf("mode=%o", o.Mode))
			}
			for _, opt := range o.Options {
				options = append(options, strings.Join(opt, "="))
			}
		}
		m.Options = strings.Join(options, ",")
	case mount.TypeNamedPipe, mount.TypeCluster, mount.TypeImage:
		return Mount{}, errdefs.New(errdefs.NotImplemented, "mounts of type %q are not supported yet", in.Type)
	default:
		return bad("mount type unknown")
	}
	return m, nil
}

// tmpfsFlags are the options of a tmpfs beside size=, mode=, uid=, gid=, nr_inodes=, nr_blocks= and mpol=.
var tmpfsFlags = []string{"defaults", "ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async", "dirsync", "remount", "mand",
	"nomand", "atime", "noatime", "diratime", "nodiratime", "bind", "rbind", "unbindable", "runbindable", "private", "rprivate", "shared", "rshared",
	"slave", "rslave", "relatime", "norelatime", "strictatime", "nostrictatime"}

// parseTmpfs reads a destination and its options, as --tmpfs gives them.
func parseTmpfs(destination, options string) (Mount, error) {
	if !path.IsAbs(destination) {
		return Mount{}, fmt.Errorf("invalid mount path: '%s' mount path must be absolute", destination)
	}
	if path.Clean(destination) == "/" {
		return Mount{}, fmt.Errorf("invalid specification: destination can't be '/'")
	}
	rw := true
	for option := range strings.SplitSeq(options, ",") {
		key, _, valued := strings.Cut(option, "=")
		switch {
		case option == "":
		case valued && slices.Contains([]string{"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol", "huge"}, key):
		case !valued && slices.Contains(tmpfsFlags, key):
			if key == "ro" {
				rw = false
			}
		default:
			return Mount{}, fmt.Errorf("invalid tmpfs option %q", option)
		}
	}
	return Mount{Options: options, FromLegacy: true, MountPoint: container.MountPoint{
		Type: mount.TypeTmpfs, Destination: path.Clean(destination), RW: rw,
	}}, nil
}

// prepareSources makes the bind sources that are to be made, just before a start.
func prepareSources(mounts []Mount) error {
	for i := range mounts {
		m := &mounts[i]
		if m.Type != mount.TypeBind {
			continue
		}
		_, err := os.Stat(m.Source)
		if errors.Is(err, os.ErrNotExist) && m.Create {
			err = os.MkdirAll(m.Source, 0o755)
		}
		if err != nil {
			return errdefs.New(errdefs.InvalidParameter, "error while creating mount source path '%s': %w", m.Source, err)
		}
		if err := checkPropagation(m); err != nil {
			return err
		}
	}
	return nil
}

// checkPropagation refuses a bind that is to spread mounts in a direction in which its source spreads none.
func checkPropagation(m *Mount) error {
	shared := m.Propagation == mount.PropagationShared || m.Propagation == mount.PropagationRShared
	slave := m.Propagation == mount.PropagationSlave || m.Propagation == mount.PropagationRSlave
	if !shared && !slave {
		return nil
	}
	source, err := filepath.EvalSymlinks(m.Source) // a path of the host
	if err != nil {
		return errdefs.With(errdefs.InvalidParameter, err)
	}
	place, fields, err := mountOf(source)
	switch {
	case err != nil:
		return err
	case shared && !strings.Contains(fields, " shared:"):
		return errdefs.New(errdefs.InvalidParameter, "path %s is mounted on %s but it is not a shared mount", m.Source, place)
	case slave && !strings.Contains(fields, " shared:") && !strings.Contains(fields, " master:"):
		return errdefs.New(errdefs.InvalidParameter, "path %s is mounted on %s but it is not a shared or slave mount", m.Source, place)
	}
	return nil
}
