package oci

import (
	"path"
	"strings"
)

// cgroupPath returns where a container's cgroup goes: the specification's absolute path; below /gantry without one. The form of
// runc's systemd driver, "slice:prefix:name", is taken for the path that systemd would give it.
func cgroupPath(id, spec string) string {
	if parts := strings.Split(spec, ":"); len(parts) == 3 {
		slice, prefix, name := parts[0], parts[1], parts[2]
		if slice == "" {
			slice = "system.slice"
		}
		if prefix != "" {
			name = prefix + "-" + name
		}
		return path.Join("/", slice, name+".scope")
	}
	if spec == "" {
		return path.Join("/gantry", id)
	}
	return path.Join("/", spec)
}
