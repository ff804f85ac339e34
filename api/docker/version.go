package docker

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"gantry/errdefs"
)

// Version is the minor number of a version of the Docker Engine API: 41 for 1.41. All versions have major number 1.
type Version int

// The versions that are served. Clients without a version prefix get the newest.
const (
	MinVersion Version = 24
	MaxVersion Version = 56
)

func (v Version) String() string { return fmt.Sprintf("1.%d", int(v)) }

type versionKey struct{}

// VersionOf returns the API version that the request asked for.
func VersionOf(r *http.Request) Version {
	if v, ok := r.Context().Value(versionKey{}).(Version); ok {
		return v
	}
	return MaxVersion
}

// splitVersion takes "/v1.41" off a path and refuses versions that are not served, in docker's words.
func splitVersion(path string, oldest Version) (Version, string, error) {
	rest, ok := strings.CutPrefix(path, "/v")
	if !ok {
		return MaxVersion, path, nil
	}
	text, rest, _ := strings.Cut(rest, "/")
	if text == "" || strings.Trim(text, "0123456789.") != "" {
		return MaxVersion, path, nil // "/volumes", "/version"
	}
	rest = "/" + rest
	majorText, minorText, _ := strings.Cut(text, ".")
	major, err := strconv.Atoi(majorText)
	if err != nil {
		return 0, "", errdefs.New(errdefs.InvalidParameter, "invalid API version %q", text)
	}
	minorText, _, _ = strings.Cut(minorText, ".")
	minor := 0
	if minorText != "" {
		if minor, err = strconv.Atoi(minorText); err != nil {
			return 0, "", errdefs.New(errdefs.InvalidParameter, "invalid API version %q", text)
		}
	}
	switch {
	case major < 1 || major == 1 && Version(minor) < oldest:
		return 0, "", errdefs.New(errdefs.InvalidParameter, "client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", text, oldest)
	case major > 1 || Version(minor) > MaxVersion:
		return 0, "", errdefs.New(errdefs.InvalidParameter, "client version %s is too new. Maximum supported API version is %s", text, MaxVersion)
	default:
		return Version(minor), rest, nil
	}
}
