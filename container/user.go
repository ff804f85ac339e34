package container

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"gantry/errdefs"
	"gantry/linux/safepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// User is the identity of a process in a container.
type User struct {
	UID, GID uint32
	Groups   []uint32 // supplementary, without GID's double
	Home     string   // empty when the user has no entry
}

// Spec returns the user in the words of the runtime specification.
func (u User) Spec() specs.User {
	return specs.User{UID: u.UID, GID: u.GID, AdditionalGids: u.Groups}
}

// The limits on what is read of a container's passwd and group files, which are the image's to write (CVE-2022-4318, CVE-2024-9676).
const (
	maxAccounts = 1 << 20 // bytes of a file
	maxLine     = 64 << 10
	maxID       = 1<<31 - 1
)

// lookupUser resolves "user[:group]" and the names or numbers of further groups in the container's own files.
func lookupUser(root *os.File, name string, extra []string) (User, error) {
	userName, groupName, hasGroup := strings.Cut(name, ":")
	u := User{}
	for _, text := range []string{userName, groupName} {
		if n, err := strconv.ParseUint(text, 10, 64); err == nil && n > maxID {
			return u, errdefs.New(errdefs.InvalidParameter, "uids and gids must be in range 0-%d", maxID)
		}
	}
	found := userName == "" || userName == "0"
	uid, numeric := parseID(userName)
	if numeric {
		u.UID, found = uid, true
	}
	login := ""
	err := scanAccounts(root, "/etc/passwd", func(f []string) bool {
		if len(f) < 4 {
			return true
		}
		id, ok1 := parseID(f[2])
		gid, ok2 := parseID(f[3])
		if !ok1 || !ok2 {
			return true
		}
		if f[0] != userName && !(userName == "" && id == 0) && !(numeric && id == uid) {
			return true
		}
		if numeric && id != uid { // a name made of digits is the number
			return true
		}
		u.UID, u.GID, login, found = id, gid, f[0], true
		if len(f) > 5 {
			u.Home = f[5]
		}
		return false
	})
	if err != nil {
		return u, err
	}
	if !found {
		return u, errdefs.New(errdefs.InvalidParameter, "unable to find user %s: no matching entries in passwd file", userName)
	}
	gid, groupNumeric := parseID(groupName)
	groupFound := !hasGroup || groupNumeric
	if hasGroup && groupNumeric {
		u.GID = gid
	}
	wanted := map[string]bool{}
	for _, g := range extra {
		if id, ok := parseID(g); ok {
			u.Groups = append(u.Groups, id)
		} else {
			wanted[g] = true
		}
	}
	err = scanAccounts(root, "/etc/group", func(f []string) bool {
		if len(f) < 3 {
			return true
		}
		id, ok := parseID(f[2])
		if !ok {
			return true
		}
		if hasGroup && !groupNumeric && f[0] == groupName {
			u.GID, groupFound = id, true
		}
		if wanted[f[0]] {
			delete(wanted, f[0])
			u.Groups = append(u.Groups, id)
		}
		if !hasGroup && login != "" && len(f) > 3 {
			for member := range strings.SplitSeq(f[3], ",") {
				if member == login {
					u.Groups = append(u.Groups, id)
				}
			}
		}
		return true
	})
	if err != nil {
		return u, err
	}
	if !groupFound {
		return u, errdefs.New(errdefs.InvalidParameter, "unable to find group %s: no matching entries in group file", groupName)
	}
	for g := range wanted {
		return u, errdefs.New(errdefs.InvalidParameter, "Unable to find group %s: no matching entries in group file", g)
	}
	u.Groups = uniqueGroups(u.GID, u.Groups)
	return u, nil
}

// uniqueGroups puts the primary group first, so that negative permissions by group hold (CVE-2022-36109), and drops
// doubles.
func uniqueGroups(gid uint32, groups []uint32) []uint32 {
	out := []uint32{gid}
	seen := map[uint32]bool{gid: true}
	for _, g := range groups {
		if !seen[g] {
			seen[g] = true
			out = append(out, g)
		}
	}
	return out
}

// parseID reads a numeric user or group ID from 0 to 2^31-1; larger ones would wrap (CVE-2024-40635).
func parseID(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n > maxID {
		return 0, false
	}
	return uint32(n), true
}

// scanAccounts calls f with the colon separated fields of each line until it returns false. A missing file has none.
func scanAccounts(root *os.File, name string, f func([]string) bool) error {
	file, err := safepath.Open(root, name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s of the container: %w", name, err)
	}
	defer func() { _ = file.Close() }() // read only
	if fi, err := file.Stat(); err != nil || !fi.Mode().IsRegular() {
		return errdefs.New(errdefs.InvalidParameter, "%s of the container is not a regular file", name)
	}
	lines := bufio.NewScanner(io.LimitReader(file, maxAccounts))
	lines.Buffer(make([]byte, 4096), maxLine)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if !f(strings.Split(line, ":")) {
			return nil
		}
	}
	if err := lines.Err(); err != nil {
		return errdefs.New(errdefs.InvalidParameter, "read %s of the container: %w", name, err)
	}
	return nil
}
