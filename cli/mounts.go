package cli

import (
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

// volumes sets what --volume and --tmpfs say.
func (f *containerFlags) volumes(c *container.Config, h *container.HostConfig) error {
	c.Volumes = map[string]struct{}{}
	for _, spec := range f.volume {
		bind, anonymous, err := parseVolume(spec)
		if err != nil {
			return err
		}
		if anonymous {
			c.Volumes[bind] = struct{}{}
			continue
		}
		h.Binds = append(h.Binds, bind)
	}
	for _, t := range f.tmpfs {
		if h.Tmpfs == nil {
			h.Tmpfs = map[string]string{}
		}
		path, opts, _ := strings.Cut(t, ":")
		h.Tmpfs[path] = opts
	}
	return nil
}

// parseVolume parses the value of --volume. A lone path is an anonymous volume; a source that starts with a dot is made absolute.
func parseVolume(spec string) (bind string, anonymous bool, err error) {
	if spec == "" {
		return "", false, errors.New("invalid empty volume spec")
	}
	source, rest, ok := strings.Cut(spec, ":")
	if !ok {
		return spec, true, nil
	}
	if sections := strings.Split(spec, ":"); slices.Contains(sections[:len(sections)-1], "") {
		return "", false, fmt.Errorf("invalid spec: %s: empty section between colons", spec)
	}
	if rest == "" {
		return spec, true, nil // the daemon says what is wrong
	}
	if strings.HasPrefix(source, ".") || strings.HasPrefix(source, "~/") {
		if strings.HasPrefix(source, "~/") {
			home, err := os.UserHomeDir()
			if err != nil {
				return "", false, fmt.Errorf("volume %s: %w", spec, err)
			}
			source = filepath.Join(home, source[2:])
		}
		if source, err = filepath.Abs(source); err != nil {
			return "", false, fmt.Errorf("volume %s: %w", spec, err)
		}
		return source + ":" + rest, false, nil
	}
	return spec, false, nil
}

// readCSV reads the fields of one line of comma separated values.
func readCSV(s string) ([]string, error) {
	return csv.NewReader(strings.NewReader(s)).Read()
}

// mountValue is --mount.
type mountValue struct{ mounts *[]mount.Mount }

func (m *mountValue) Type() string   { return "mount" }
func (m *mountValue) String() string { return "" }
func (m *mountValue) Set(v string) error {
	parsed, err := parseMount(v)
	if err != nil {
		return err
	}
	*m.mounts = append(*m.mounts, parsed)
	return nil
}

// parseMount parses type=bind,source=/a,target=/b,readonly and the like.
func parseMount(spec string) (mount.Mount, error) {
	var m mount.Mount
	fields, err := readCSV(spec)
	if err != nil {
		return m, err
	}
	m.Type = mount.TypeVolume
	for _, field := range fields {
		key, value, hasValue := strings.Cut(field, "=")
		key = strings.ToLower(key)
		if !hasValue {
			switch key {
			case "readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src":
				value = "true"
			default:
				return m, fmt.Errorf("invalid field '%s' must be a key=value pair", field)
			}
		}
		if err := setMount(&m, key, value, field); err != nil {
			return m, err
		}
	}
	return m, checkMount(m)
}

// setMount sets one field of a mount.
func setMount(m *mount.Mount, key, value, field string) error {
	flag := func() (bool, error) {
		b, err := strconv.ParseBool(value)
		if err != nil {
			return false, fmt.Errorf("invalid value for %s: %s", key, value)
		}
		return b, nil
	}
	var err error
	switch key {
	case "type":
		m.Type = mount.Type(strings.ToLower(value))
	case "source", "src":
		m.Source = value
		if strings.HasPrefix(value, "."+string(filepath.Separator)) || value == "." {
			if m.Source, err = filepath.Abs(value); err != nil {
				return fmt.Errorf("mount source %s: %w", value, err)
			}
		}
	case "target", "dst", "destination":
		m.Target = value
	case "readonly", "ro":
		m.ReadOnly, err = flag()
	case "consistency":
		m.Consistency = mount.Consistency(strings.ToLower(value))
	case "bind-propagation":
		bindOptions(m).Propagation = mount.Propagation(strings.ToLower(value))
	case "bind-nonrecursive":
		bindOptions(m).NonRecursive, err = flag()
	case "bind-create-src":
		bindOptions(m).CreateMountpoint, err = flag()
	case "bind-recursive":
		switch value {
		case "enabled":
		case "disabled":
			bindOptions(m).NonRecursive = true
		case "writable":
			bindOptions(m).ReadOnlyNonRecursive = true
		case "readonly":
			bindOptions(m).ReadOnlyForceRecursive = true
		default:
			return fmt.Errorf(`invalid value for %s: %s (must be "enabled", "disabled", "writable", or "readonly")`, key, value)
		}
	case "volume-subpath":
		volumeOptions(m).Subpath = value
	case "volume-nocopy":
		volumeOptions(m).NoCopy, err = flag()
	case "volume-label":
		k, v, _ := strings.Cut(value, "=")
		o := volumeOptions(m)
		if o.Labels == nil {
			o.Labels = map[string]string{}
		}
		o.Labels[k] = v
	case "volume-driver":
		volumeDriver(m).Name = value
	case "volume-opt":
		k, v, _ := strings.Cut(value, "=")
		d := volumeDriver(m)
		if d.Options == nil {
			d.Options = map[string]string{}
		}
		d.Options[k] = v
	case "image-subpath":
		if m.ImageOptions == nil {
			m.ImageOptions = &mount.ImageOptions{}
		}
		m.ImageOptions.Subpath = value
	case "tmpfs-size":
		n, err := units.RAMInBytes(value)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %s", key, value)
		}
		tmpfsOptions(m).SizeBytes = n
	case "tmpfs-mode":
		n, err := strconv.ParseUint(value, 8, 32)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %s", key, value)
		}
		tmpfsOptions(m).Mode = os.FileMode(n)
	default:
		return fmt.Errorf("unexpected key '%s' in '%s'", key, field)
	}
	return err
}

func bindOptions(m *mount.Mount) *mount.BindOptions {
	if m.BindOptions == nil {
		m.BindOptions = &mount.BindOptions{}
	}
	return m.BindOptions
}

func volumeOptions(m *mount.Mount) *mount.VolumeOptions {
	if m.VolumeOptions == nil {
		m.VolumeOptions = &mount.VolumeOptions{}
	}
	return m.VolumeOptions
}

func volumeDriver(m *mount.Mount) *mount.Driver {
	o := volumeOptions(m)
	if o.DriverConfig == nil {
		o.DriverConfig = &mount.Driver{}
	}
	return o.DriverConfig
}

func tmpfsOptions(m *mount.Mount) *mount.TmpfsOptions {
	if m.TmpfsOptions == nil {
		m.TmpfsOptions = &mount.TmpfsOptions{}
	}
	return m.TmpfsOptions
}

// checkMount checks that the fields of a mount go together.
func checkMount(m mount.Mount) error {
	if m.Type == "" {
		return errors.New("type is required")
	}
	if m.Target == "" {
		return errors.New("target is required")
	}
	if m.VolumeOptions != nil && m.Type != mount.TypeVolume {
		return fmt.Errorf("cannot mix 'volume-*' options with mount type '%s'", m.Type)
	}
	if m.ImageOptions != nil && m.Type != mount.TypeImage {
		return fmt.Errorf("cannot mix 'image-*' options with mount type '%s'", m.Type)
	}
	if m.BindOptions != nil && m.Type != mount.TypeBind {
		return fmt.Errorf("cannot mix 'bind-*' options with mount type '%s'", m.Type)
	}
	if m.TmpfsOptions != nil && m.Type != mount.TypeTmpfs {
		return fmt.Errorf("cannot mix 'tmpfs-*' options with mount type '%s'", m.Type)
	}
	if o := m.BindOptions; o != nil && !m.ReadOnly {
		if o.ReadOnlyNonRecursive {
			return errors.New("option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction")
		}
		if o.ReadOnlyForceRecursive {
			return errors.New("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction")
		}
	}
	if o := m.BindOptions; o != nil && o.ReadOnlyForceRecursive && o.Propagation != mount.PropagationRPrivate {
		return errors.New("option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction")
	}
	return nil
}
