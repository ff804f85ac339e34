package systemd

import (
	"strings"

	"gantry/errdefs"
)

// Unit is a container's scope.
type Unit struct {
	Name string `json:"name"`
	User bool   `json:"user,omitempty"` // of the user's own systemd
}

// UnitOf returns the unit that Create makes for a request.
func UnitOf(q Request) (Unit, error) {
	name, _, err := unitOf(q.Path, q.ID)
	return Unit{Name: name, User: q.Rootless}, err
}

// unitOf reads a cgroupsPath for systemd, "slice:prefix:name": the name of the unit, and its slice, "" for the default. Without a path
// the container's ID is the name.
func unitOf(path, id string) (name, slice string, err error) {
	if path == "" {
		return check("gantry-"+id+".scope", "", path)
	}
	parts := strings.Split(path, ":")
	if len(parts) != 3 {
		return "", "", errdefs.New(errdefs.InvalidParameter, "linux.cgroupsPath: expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got %q instead", path)
	}
	slice = parts[0]
	if parts[2] == "" {
		return "", "", errdefs.New(errdefs.InvalidParameter, "linux.cgroupsPath: %q has no name", path)
	}
	if strings.HasSuffix(parts[2], ".slice") {
		return "", "", errdefs.New(errdefs.InvalidParameter, "linux.cgroupsPath: %q names a slice, in which there are no processes", path)
	}
	return check(parts[1]+"-"+parts[2]+".scope", slice, path)
}

// check holds names against systemd's rules, so that the error names the field.
func check(name, slice, path string) (string, string, error) {
	legal := func(s string) bool {
		return len(s) < 256 && !strings.ContainsFunc(s, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(":-_.\\@", r))
		})
	}
	if !legal(name) {
		return "", "", errdefs.New(errdefs.InvalidParameter, "linux.cgroupsPath: %q makes %q, which is no name of a unit", path, name)
	}
	if slice == "" {
		return name, "", nil
	}
	stem, ok := strings.CutSuffix(slice, ".slice")
	if !ok || !legal(slice) || stem == "" || stem != "-" && (strings.HasPrefix(stem, "-") || strings.HasSuffix(stem, "-") || strings.Contains(stem, "--")) {
		return "", "", errdefs.New(errdefs.InvalidParameter, "linux.cgroupsPath: invalid slice name: %s", slice)
	}
	return name, slice, nil
}
