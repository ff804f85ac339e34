package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gantry/fsck"
	"gantry/linux/dir"
	"gantry/linux/mount"
)

// The options of the local driver, those of mount(8).
const (
	optionType   = "type"
	optionFlags  = "o"
	optionDevice = "device"
)

func checkOptions(options map[string]string) error {
	for name := range options {
		switch name {
		case optionType, optionFlags, optionDevice:
		case "size":
			return errors.New("quota size requested but no quota support")
		default:
			return fmt.Errorf("invalid option: %q", name)
		}
	}
	if len(options) == 0 {
		return nil
	}
	for _, required := range []string{optionDevice, optionType} {
		if options[required] == "" {
			return fmt.Errorf("missing required option: %q", required)
		}
	}
	return nil
}

// Mount makes the volume's content available for a start of the container and returns its path; only volumes with
// type/device options need a mount. Every Mount is followed by an Unmount when the container ended, if need be by the
// next daemon.
func (s *Service) Mount(ctx context.Context, name, containerID string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.get(name)
	if err != nil {
		return "", err
	}
	if len(r.Options) == 0 || slices.Contains(r.Mounts, containerID) {
		return s.data(name), nil
	}
	next := *r
	next.Mounts = append(slices.Clone(r.Mounts), containerID)
	if err := s.save(name, &next); err != nil {
		return "", fmt.Errorf("mount volume %s: %w", name, err)
	}
	first := len(r.Mounts) == 0
	*r = next
	if !first {
		return s.data(name), nil
	}
	if err := mountData(r.Options, s.data(name)); err != nil {
		err = fmt.Errorf("error while mounting volume '%s': failed to mount local volume: %w", s.data(name), err)
		return "", errors.Join(err, s.unmount(name, r, containerID))
	}
	return s.data(name), nil
}

// Unmount ends what Mount began; it is idempotent.
func (s *Service) Unmount(ctx context.Context, name, containerID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.volumes[name]
	if r == nil || !slices.Contains(r.Mounts, containerID) {
		return nil
	}
	return s.unmount(name, r, containerID)
}

func (s *Service) unmount(name string, r *record, containerID string) error {
	next := *r
	next.Mounts = slices.DeleteFunc(slices.Clone(r.Mounts), func(id string) bool { return id == containerID })
	if len(next.Mounts) == 0 {
		if err := unmountData(s.data(name)); err != nil {
			return fmt.Errorf("unmount volume %s: %w", name, err)
		}
	}
	if err := s.save(name, &next); err != nil {
		return fmt.Errorf("unmount volume %s: %w", name, err)
	}
	*r = next
	return nil
}

func mountData(options map[string]string, path string) error {
	var flags []string
	bind, recursive := false, false
	for _, f := range strings.Split(options[optionFlags], ",") {
		switch f {
		case "":
		case "bind":
			bind = true
		case "rbind":
			bind, recursive = true, true
		default:
			flags = append(flags, f)
		}
	}
	var m *os.File
	var err error
	if bind {
		if m, err = mount.Bind(options[optionDevice], recursive); err == nil {
			err = restrict(m, flags, recursive)
		}
	} else {
		m, err = mount.FS(options[optionType], options[optionDevice], flags)
	}
	if m != nil {
		defer m.Close()
	}
	if err != nil {
		return err
	}
	return mount.MoveTo(m, path)
}

// restrict applies flags such as "ro" to a bind mount.
func restrict(m *os.File, flags []string, recursive bool) error {
	o, err := mount.Parse(flags)
	if err != nil {
		return err
	}
	if o.Set == 0 && o.Clear == 0 {
		return nil
	}
	return mount.SetAttr(m, o.Set, o.Clear, 0, recursive)
}

func unmountData(path string) error { return mount.Unmount(path) }

// Usage measures a volume.
func (s *Service) Usage(ctx context.Context, name string) (Usage, error) {
	path, err := s.Path(name)
	if err != nil {
		return Usage{}, err
	}
	u := Usage{RefCount: len(s.Users(name))}
	if u.Size, err = dir.Usage(ctx, filepath.Dir(path)); err != nil {
		return u, fmt.Errorf("measure volume %s: %w", name, err)
	}
	return u, nil
}

// Check compares the records with the directories.
func (s *Service) Check(ctx context.Context) ([]fsck.Difference, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []fsck.Difference
	for name := range s.volumes {
		path := s.data(name)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			found = append(found, fsck.Difference{
				Area: "volume", Object: name, Problem: "its directory " + path + " is missing: repair makes an empty one",
				Repair: func(context.Context) error { return os.MkdirAll(path, 0o755) },
			})
		}
	}
	entries, err := os.ReadDir(s.o.Root)
	if err != nil {
		return nil, fmt.Errorf("check volumes: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(s.o.Root, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), trashPrefix):
			found = append(found, fsck.Difference{
				Area: "volume", Object: path, Problem: "what is left of a removed volume",
				Repair: func(context.Context) error { return os.RemoveAll(path) },
			})
		case s.volumes[e.Name()] == nil:
			found = append(found, fsck.Difference{Area: "volume", Object: path, Problem: "is no volume on record; after a restart of the daemon it is one again, if it has a " + dataDir + " directory"})
		}
	}
	return found, nil
}
