package cli

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
)

// isCDI reports whether s is a Container Device Interface name, vendor.com/class=name, and not a path.
func isCDI(s string) bool {
	kind, name, ok := strings.Cut(s, "=")
	vendor, class, okKind := strings.Cut(kind, "/")
	return ok && okKind && vendor != "" && class != "" && name != "" && !strings.HasPrefix(s, "/") && !strings.ContainsAny(kind, ": ")
}

// parseDevice parses /dev/host[:/dev/container][:rwm].
func parseDevice(s string) (container.DeviceMapping, error) {
	parts := strings.Split(s, ":")
	d := container.DeviceMapping{PathOnHost: parts[0], CgroupPermissions: "rwm"}
	switch len(parts) {
	case 1:
	case 2:
		if validDeviceMode(parts[1]) {
			d.CgroupPermissions = parts[1]
		} else {
			d.PathInContainer = parts[1]
		}
	case 3:
		d.PathInContainer, d.CgroupPermissions = parts[1], parts[2]
		if !validDeviceMode(d.CgroupPermissions) {
			return d, fmt.Errorf("bad mode specified: %s", d.CgroupPermissions)
		}
	default:
		return d, fmt.Errorf("bad format for path: %s", s)
	}
	if d.PathInContainer == "" {
		d.PathInContainer = d.PathOnHost
	}
	if !filepath.IsAbs(d.PathOnHost) || !filepath.IsAbs(d.PathInContainer) {
		return d, fmt.Errorf("%s is not an absolute path", s)
	}
	return d, nil
}

// validDeviceMode reports whether s has only r, w and m, each at most once.
func validDeviceMode(s string) bool {
	for _, c := range "rwm" {
		s = strings.Replace(s, string(c), "", 1)
	}
	return s == ""
}

// checkDeviceRule checks "c 1:3 rwm".
func checkDeviceRule(s string) (string, error) {
	f := strings.Fields(s)
	ok := len(f) == 3 && len(f[0]) == 1 && strings.Contains("abc", f[0]) && f[2] != "" && len(f[2]) <= 3 && strings.Trim(f[2], "rwm") == ""
	if ok {
		major, minor, cut := strings.Cut(f[1], ":")
		ok = cut
		for _, n := range []string{major, minor} {
			ok = ok && n != "" && (n == "*" || strings.Trim(n, "0123456789") == "")
		}
	}
	if !ok {
		return "", fmt.Errorf("invalid device cgroup format '%s'", s)
	}
	return s, nil
}

// checkWith makes a flag's check of a parser; the value is parsed again when it is used.
func checkWith[T any](parse func(string) (T, error)) func(string) (string, error) {
	return func(s string) (string, error) {
		_, err := parse(s)
		return s, err
	}
}

func splitDevice(s string) (path, value string, err error) {
	path, value, ok := strings.Cut(s, ":")
	if !ok || path == "" {
		return "", "", fmt.Errorf("bad format: %s", s)
	}
	if !strings.HasPrefix(path, "/dev/") {
		return "", "", fmt.Errorf("bad format for device path: %s", s)
	}
	return path, value, nil
}

func parseWeightDevice(s string) (*blkiodev.WeightDevice, error) {
	path, value, err := splitDevice(s)
	if err != nil {
		return nil, err
	}
	w, err := strconv.ParseUint(value, 10, 16)
	if err != nil || w > 0 && (w < 10 || w > 1000) {
		return nil, fmt.Errorf("invalid weight for device: %s", s)
	}
	return &blkiodev.WeightDevice{Path: path, Weight: uint16(w)}, nil
}

func parseBpsDevice(s string) (*blkiodev.ThrottleDevice, error) {
	path, value, err := splitDevice(s)
	if err != nil {
		return nil, err
	}
	n, err := units.RAMInBytes(value)
	if err != nil || n < 0 {
		return nil, fmt.Errorf("invalid rate for device: %s. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb", s)
	}
	return &blkiodev.ThrottleDevice{Path: path, Rate: uint64(n)}, nil
}

func parseIOpsDevice(s string) (*blkiodev.ThrottleDevice, error) {
	path, value, err := splitDevice(s)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("invalid rate for device: %s. The correct format is <device-path>:<number>. Number must be a positive integer", s)
	}
	return &blkiodev.ThrottleDevice{Path: path, Rate: n}, nil
}

// gpusValue is --gpus: all, a number, or device=..., capabilities=... as CSV.
type gpusValue struct{ requests *[]container.DeviceRequest }

func (g *gpusValue) Type() string   { return "gpu-request" }
func (g *gpusValue) String() string { return "" }

func (g *gpusValue) Set(v string) error {
	fields, err := readCSV(v)
	if err != nil {
		return err
	}
	req := container.DeviceRequest{Capabilities: [][]string{{"gpu"}}, Options: map[string]string{}}
	for _, field := range fields {
		k, val, ok := strings.Cut(field, "=")
		if !ok {
			k, val = "count", k
		}
		switch k {
		case "driver":
			req.Driver = val
		case "count":
			if val == "all" {
				req.Count = -1
				continue
			}
			if req.Count, err = strconv.Atoi(val); err != nil {
				return fmt.Errorf(`invalid count (%s): value must be either "all" or an integer: invalid syntax`, val)
			}
		case "device":
			req.DeviceIDs = strings.Split(val, ",")
		case "capabilities":
			req.Capabilities = [][]string{append(strings.Split(val, ","), "gpu")}
		case "options":
			opts, err := readCSV(val)
			if err != nil {
				return fmt.Errorf("failed to read gpu options: %w", err)
			}
			req.Options = keyValues(opts)
		default:
			return fmt.Errorf("unexpected key '%s' in '%s'", k, field)
		}
	}
	if req.Count == 0 && req.DeviceIDs == nil {
		req.Count = 1
	}
	*g.requests = append(*g.requests, req)
	return nil
}
