package oci_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/oci"
)

func sh(script string) specs.Hook {
	return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}}
}

// TestHooksMount has hooks that mount something in the root file system before it becomes the root: one that enters the mount namespace
// by itself, as those of the runtime's do, and one that is in it.
func TestHooksMount(t *testing.T) {
	for _, user := range []bool{false, true} {
		root, dir := rootfs(t), t.TempDir()
		s := dockerSpec(t, root, "sh", "-c", "cat /mnt/by /tmp/by; ls /proc | grep -c '^self'")
		if user {
			s = userSpec(t, root, s.Process.Args...)
		}
		if err := errors.Join(os.Mkdir(root+"/mnt", 0o755), os.WriteFile(dir+"/by", []byte("a hook\n"), 0o644), os.Chmod(dir, 0o755)); err != nil {
			t.Fatal(err)
		}
		s.Hooks = &specs.Hooks{
			CreateRuntime:   []specs.Hook{sh(fmt.Sprintf(`pid=$(sed 's/.*"pid":\([0-9]*\).*/\1/'); nsenter -t $pid -m mount --bind %s %s/mnt && nsenter -t $pid -m test -d %[2]s/proc/sys`, dir, root))},
			CreateContainer: []specs.Hook{sh(fmt.Sprintf(`mount --bind %s %s/tmp && test -d %[2]s/proc/self && test -e %[1]s/by`, dir, root))},
		}
		if out, _ := run(t, s); out != "a hook\na hook\n1\n" {
			t.Errorf("user %v: %q", user, out)
		}
		if left, err := os.ReadDir(root + "/mnt"); err != nil || len(left) != 0 {
			t.Errorf("on the host: %v, %v", left, err)
		}
	}
}

// TestEndlessHooks has hooks that never end, and leave something behind that holds their output open.
func TestEndlessHooks(t *testing.T) {
	second := 1
	endless := sh("sleep 10 & exec sleep 1000")
	endless.Timeout = &second
	inside := endless
	inside.Env = []string{"PATH=/bin"}
	for name, h := range map[string]*specs.Hooks{
		"createRuntime": {CreateRuntime: []specs.Hook{endless}}, "createContainer": {CreateContainer: []specs.Hook{endless}}, "startContainer": {StartContainer: []specs.Hook{inside}},
	} {
		s := dockerSpec(t, rootfs(t), "true")
		s.Hooks = h
		began := time.Now()
		_, _, err := tryRun(s)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s took %v", name, took)
		}
	}
}

// TestLateHooks has poststart and poststop hooks that fail: the life of the container goes on, and so do further hooks.
func TestLateHooks(t *testing.T) {
	dir := t.TempDir()
	s := dockerSpec(t, rootfs(t), "sleep", "1000")
	s.Hooks = &specs.Hooks{Poststart: []specs.Hook{sh("echo wrong >&2; exit 1"), sh("cat > " + dir + "/poststart")}, Poststop: []specs.Hook{sh("exit 2"), sh("cat > " + dir + "/poststop")}}
	ctx := context.Background()
	c, err := oci.Create(ctx, oci.Bundle{ID: "c1", Dir: "/", Spec: s}, oci.Stdio{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(ctx); err != nil {
		t.Error(err)
	}
	if w := c.Warnings(); len(w) != 1 || !strings.Contains(w[0], "poststart hook #0") || !strings.Contains(w[0], "wrong") {
		t.Errorf("warnings %q", w)
	}
	if err := c.Delete(ctx); err != nil {
		t.Error(err)
	}
	if w := c.Warnings(); len(w) != 2 || !strings.Contains(w[1], "poststop hook #0") {
		t.Errorf("warnings %q", w)
	}
	for point, want := range map[string]string{"poststart": `"status":"running"`, "poststop": `"status":"stopped"`} {
		if data, err := os.ReadFile(dir + "/" + point); err != nil || !strings.Contains(string(data), want) {
			t.Errorf("%s: %q, %v", point, data, err)
		}
	}
}

// TestFailedCreateRunsPoststop has a hook that fails before there is a container.
func TestFailedCreateRunsPoststop(t *testing.T) {
	dir := t.TempDir()
	s := dockerSpec(t, rootfs(t), "true")
	s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{sh("exit 1")}, CreateContainer: []specs.Hook{sh("touch " + dir + "/too-late")}, Poststop: []specs.Hook{sh("touch " + dir + "/stopped")}}
	if _, _, err := tryRun(s); err == nil || !strings.Contains(err.Error(), "createRuntime hook #0") {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 || left[0].Name() != "stopped" {
		t.Errorf("%v, %v", left, err)
	}
}

// TestFields has one wrong field each, which the error must name.
func TestFields(t *testing.T) {
	ids := func(l ...uint32) []specs.LinuxIDMapping {
		var list []specs.LinuxIDMapping
		for i := 0; i < len(l); i += 3 {
			list = append(list, specs.LinuxIDMapping{ContainerID: l[i], HostID: l[i+1], Size: l[i+2]})
		}
		return list
	}
	add := func(s *specs.Spec, kinds ...specs.LinuxNamespaceType) {
		for _, k := range kinds {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: k})
		}
	}
	without := func(s *specs.Spec, kind specs.LinuxNamespaceType) {
		var list []specs.LinuxNamespace
		for _, n := range s.Linux.Namespaces {
			if n.Type != kind {
				list = append(list, n)
			}
		}
		s.Linux.Namespaces = list
	}
	user := func(s *specs.Spec, uids, gids []specs.LinuxIDMapping) {
		add(s, "user")
		s.Linux.UIDMappings, s.Linux.GIDMappings = uids, gids
	}
	sysctl := func(key string) func(*specs.Spec) {
		return func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{key: "1"} }
	}
	root := rootfs(t)
	zero := 0
	for _, c := range []struct {
		field  string
		change func(*specs.Spec)
	}{
		{"linux.namespaces[6].type", func(s *specs.Spec) { add(s, "nosuch") }},
		{"linux.namespaces[6].type", func(s *specs.Spec) { add(s, "pid") }},
		{"linux.namespaces[1].path", func(s *specs.Spec) { s.Linux.Namespaces[1].Path = "proc/self/ns/net" }},
		{"linux.uidMappings", func(s *specs.Spec) { user(s, nil, nil) }},
		{"linux.uidMappings", func(s *specs.Spec) { s.Linux.UIDMappings = ids(0, 1000, 1) }},
		{"linux.uidMappings", func(s *specs.Spec) { user(s, ids(0, 1000, 10, 5, 2000, 10), ids(0, 1000, 20)) }},
		{"linux.gidMappings", func(s *specs.Spec) { user(s, ids(0, 1000, 20), ids(0, 1000, 10, 10, 1009, 10)) }},
		{"linux.gidMappings", func(s *specs.Spec) { user(s, ids(0, 1000, 20), ids(0, 4294967290, 10)) }},
		{"linux.gidMappings", func(s *specs.Spec) { user(s, ids(0, 1000, 20), ids(0, 1000, 0)) }},
		{"linux.uidMappings", func(s *specs.Spec) { user(s, ids(1, 1000, 20), ids(0, 1000, 10)) }},
		{"process.user", func(s *specs.Spec) { user(s, ids(0, 1000, 20), ids(0, 1000, 20)); s.Process.User.UID = 33 }},
		{"process.user.additionalGids", func(s *specs.Spec) {
			user(s, ids(0, 1000, 20), ids(0, 1000, 20))
			s.Process.User.AdditionalGids = []uint32{33}
		}},
		{"linux.timeOffsets", func(s *specs.Spec) { s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1}} }},
		{"linux.timeOffsets", func(s *specs.Spec) {
			add(s, "time")
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"realtime": {Secs: 1}}
		}},
		{"hostname", func(s *specs.Spec) { without(s, "uts") }},
		{"domainname", func(s *specs.Spec) { s.Domainname = strings.Repeat("x", 65) }},
		{"linux.sysctl", sysctl("kernel.panic")},
		{"linux.sysctl", sysctl("vm/overcommit_memory")},
		{"linux.sysctl", sysctl("kernel.hostname")},
		{"linux.sysctl", sysctl("net/../kernel/panic")},
		{"linux.sysctl", func(s *specs.Spec) { without(s, "network"); sysctl("net.ipv4.ip_forward")(s) }},
		{"linux.sysctl", func(s *specs.Spec) {
			s.Linux.Namespaces[1].Path = "/proc/self/ns/net"
			sysctl("net.ipv4.ip_forward")(s)
		}},
		{"linux.sysctl", func(s *specs.Spec) { without(s, "ipc"); sysctl("kernel.shmmax")(s) }},
		{"mounts[7].destination", func(s *specs.Spec) { s.Mounts = append(s.Mounts, specs.Mount{Type: "tmpfs"}) }},
		{"mounts[7].uidMappings", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "bind", Source: "/tmp", UIDMappings: ids(0, 1, 1)})
		}},
		{"linux.devices[0].path", func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "x", Type: "c", Major: 1, Minor: 3}} }},
		{"linux.devices[0].type", func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Major: 1, Minor: 3}} }},
		{"linux.devices[0].major", func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "b"}} }},
		{"hooks.poststop[0].path", func(s *specs.Spec) { s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "sh"}}} }},
		{"hooks.createRuntime[0].timeout", func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Timeout: &zero}}}
		}},
		{"root", func(s *specs.Spec) { s.Root = nil }},
	} {
		s := dockerSpec(t, root, "true")
		c.change(s)
		if _, _, err := tryRun(s); errdefs.KindOf(err) != errdefs.InvalidParameter || !strings.Contains(err.Error(), c.field) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", c.field, err)
		}
	}
}
