package container

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"gantry/errdefs"

	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// device is a node in the container and what may be done with it: r, w, m.
type device struct {
	specs.LinuxDevice
	access string
}

// nodes returns the devices in the words of the runtime specification.
func nodes(devices []device) []specs.LinuxDevice {
	var out []specs.LinuxDevice
	for _, d := range devices {
		out = append(out, d.LinuxDevice)
	}
	return out
}

// devices returns the device nodes of --device, or all of the host's for a privileged container.
func devices(h *container.HostConfig) ([]device, error) {
	var found []device
	if h.Privileged {
		all, err := allDevices()
		if err != nil {
			return nil, fmt.Errorf("list the host's devices: %w", err)
		}
		for _, d := range all {
			found = append(found, device{d, "rwm"})
		}
	}
	for _, d := range h.Devices {
		if d.CgroupPermissions != "" && strings.Trim(d.CgroupPermissions, "rwm") != "" {
			return nil, errdefs.New(errdefs.InvalidParameter, "invalid device mode: %s", d.CgroupPermissions)
		}
		access := cmp.Or(d.CgroupPermissions, "rwm")
		target := d.PathInContainer
		if target == "" {
			target = d.PathOnHost
		}
		fi, err := os.Stat(d.PathOnHost)
		if err != nil {
			var failed *fs.PathError
			if errors.As(err, &failed) {
				err = failed.Err // the path is in the sentence
			}
			return nil, errdefs.New(errdefs.InvalidParameter, "error gathering device information while adding custom device %q: %w", d.PathOnHost, err)
		}
		if !fi.IsDir() {
			dev, err := deviceFrom(fi, target)
			if err != nil {
				return nil, errdefs.New(errdefs.InvalidParameter, "error gathering device information while adding custom device %q: %w", d.PathOnHost, err)
			}
			found = append(found, device{dev, access})
			continue
		}
		err = filepath.WalkDir(d.PathOnHost, func(p string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			rel, err := filepath.Rel(d.PathOnHost, p)
			if err != nil {
				return err
			}
			if dev, err := hostDevice(p, path.Join(target, rel)); err == nil {
				found = append(found, device{dev, access})
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("list devices in %s: %w", d.PathOnHost, err)
		}
	}
	return found, nil
}

// allDevices returns the devices in the host's /dev, without terminals, shared memory and message queues.
func allDevices() ([]specs.LinuxDevice, error) {
	var found []specs.LinuxDevice
	err := filepath.WalkDir("/dev", func(p string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil // a device that went away meanwhile
		}
		if entry.IsDir() {
			switch entry.Name() {
			case "pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev":
				return fs.SkipDir
			}
			return nil
		}
		if entry.Name() == "console" || entry.Type()&fs.ModeDevice == 0 {
			return nil
		}
		fi, err := entry.Info()
		if err != nil {
			return nil
		}
		if dev, err := deviceFrom(fi, p); err == nil {
			found = append(found, dev)
		}
		return nil
	})
	return found, err
}

func deviceFrom(fi fs.FileInfo, target string) (specs.LinuxDevice, error) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || fi.Mode()&fs.ModeDevice == 0 {
		return specs.LinuxDevice{}, fmt.Errorf("not a device node")
	}
	d := specs.LinuxDevice{Path: target, Type: "b", Major: major(st.Rdev), Minor: minor(st.Rdev)}
	if fi.Mode()&fs.ModeCharDevice != 0 {
		d.Type = "c"
	}
	mode := fi.Mode().Perm()
	d.FileMode, d.UID, d.GID = &mode, &st.Uid, &st.Gid
	return d, nil
}

// major and minor take a device number apart (makedev(3)).
func major(dev uint64) int64 { return int64(dev>>8&0xfff | dev>>32&^0xfff) }
func minor(dev uint64) int64 { return int64(dev&0xff | dev>>12&^0xff) }

// deviceNumber returns the numbers of a block device.
func deviceNumber(p string) (maj, min int64, err error) {
	fi, err := os.Stat(p)
	if err != nil {
		return 0, 0, err // as Docker says it: stat and the path
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, fmt.Errorf("%s has no device number", p)
	}
	return major(st.Rdev), minor(st.Rdev), nil
}

// deviceRules returns the access rules: nothing but what every container needs, the user's devices and rules.
func deviceRules(h *container.HostConfig, found []device) []specs.LinuxDeviceCgroup {
	if h.Privileged {
		return []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
	}
	number := func(n int64) *int64 { return &n }
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	allow := func(kind string, maj, min *int64, access string) {
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: kind, Major: maj, Minor: min, Access: access})
	}
	allow("c", nil, nil, "m") // making any node is harmless, opening it is what counts
	allow("b", nil, nil, "m")
	for _, d := range [][2]int64{{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 2}} {
		allow("c", number(d[0]), number(d[1]), "rwm")
	}
	allow("c", number(136), nil, "rwm") // pseudo terminals
	for _, d := range found {
		allow(d.Type, number(d.Major), number(d.Minor), d.access)
	}
	for _, rule := range h.DeviceCgroupRules {
		if r, err := parseDeviceRule(rule); err == nil {
			rules = append(rules, r)
		}
	}
	return rules
}

// parseDeviceRule reads a rule such as "c 42:* rmw".
func parseDeviceRule(rule string) (specs.LinuxDeviceCgroup, error) {
	bad := errdefs.New(errdefs.InvalidParameter, "invalid device cgroup rule format: '%s'", rule)
	fields := strings.Fields(rule)
	if len(fields) != 3 || !strings.Contains("abc", fields[0]) || len(fields[0]) != 1 || strings.Trim(fields[2], "rwm") != "" {
		return specs.LinuxDeviceCgroup{}, bad
	}
	r := specs.LinuxDeviceCgroup{Allow: true, Type: fields[0], Access: fields[2]}
	maj, min, ok := strings.Cut(fields[1], ":")
	if !ok {
		return r, bad
	}
	for _, f := range []struct {
		text string
		to   **int64
	}{{maj, &r.Major}, {min, &r.Minor}} {
		if f.text == "*" {
			continue
		}
		n, err := strconv.ParseInt(f.text, 10, 32)
		if err != nil || n < 0 {
			return r, bad
		}
		*f.to = &n
	}
	return r, nil
}
