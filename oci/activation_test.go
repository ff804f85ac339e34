package oci_test

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"gantry/oci"
)

func TestActivation(t *testing.T) {
	own := fmt.Sprint(os.Getpid())
	for _, c := range []struct {
		pid, fds, names string
		want            int
		env             []string
	}{
		{own, "2", "", 2, []string{"LISTEN_FDS=2", "LISTEN_PID=1"}}, {own, "1", "web", 1, []string{"LISTEN_FDS=1", "LISTEN_PID=1", "LISTEN_FDNAMES=web"}},
		{"1", "2", "", 0, nil}, {"", "2", "", 0, nil}, {own, "x", "", 0, nil}, {own, "-1", "", 0, nil}, {own, "9999999", "", 0, nil},
	} {
		vars := map[string]string{"LISTEN_PID": c.pid, "LISTEN_FDS": c.fds, "LISTEN_FDNAMES": c.names}
		n, env := oci.Activation(func(key string) string { return vars[key] })
		if n != c.want || !slices.Equal(env, c.env) {
			t.Errorf("%+v: %d, %q", c, n, env)
		}
	}
}
