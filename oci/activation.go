package oci

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Activation returns how many sockets systemd has passed to this process, from descriptor 3 on (sd_listen_fds(3)), and the variables by
// which the container's first process, which is to get them, knows them. getenv is os.Getenv.
func Activation(getenv func(string) string) (sockets int, env []string) {
	if pid, err := strconv.Atoi(getenv("LISTEN_PID")); err != nil || pid != os.Getpid() {
		return 0, nil
	}
	n, err := strconv.Atoi(getenv("LISTEN_FDS"))
	if err != nil || n <= 0 || n > maxSockets {
		return 0, nil
	}
	env = []string{fmt.Sprintf("LISTEN_FDS=%d", n), "LISTEN_PID=1"}
	if names := getenv("LISTEN_FDNAMES"); names != "" && !strings.ContainsRune(names, 0) {
		env = append(env, "LISTEN_FDNAMES="+names)
	}
	return n, env
}

// maxSockets is how many sockets are passed on at most.
const maxSockets = 1024
