package container

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/errdefs"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

func TestParseBind(t *testing.T) {
	for text, want := range map[string]struct {
		kind                 mount.Type
		source, name, target string
		rw, anonymous        bool
	}{
		"/host:/in":                 {mount.TypeBind, "/host", "", "/in", true, false},
		"/host:/in:ro":              {mount.TypeBind, "/host", "", "/in", false, false},
		"/host/../x:/in/:ro,z":      {mount.TypeBind, "/x", "", "/in", false, false},
		"/host:/in:rw,rslave":       {mount.TypeBind, "/host", "", "/in", true, false},
		"data:/in":                  {mount.TypeVolume, "", "data", "/in", true, false},
		"data:/in:ro,nocopy":        {mount.TypeVolume, "", "data", "/in", false, false},
		"/in":                       {mount.TypeVolume, "", "", "/in", true, true},
		"my.vol_1-x:/in:consistent": {mount.TypeVolume, "", "my.vol_1-x", "/in", true, false},
	} {
		m, err := ParseBind(text, "")
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if m.Type != want.kind || m.Source != want.source || m.Name != want.name || m.Destination != want.target || m.RW != want.rw || m.Anonymous != want.anonymous {
			t.Errorf("%s: got %+v, want %+v", text, m, want)
		}
	}
	for _, bad := range []string{"", ":", "a:b", "/a:/", "/a:b:ro", "/a:/b:bogus", "a b:/c", "/a:/b:ro:x", "data:/in:rslave", "../x:/y"} {
		if m, err := ParseBind(bad, ""); err == nil {
			t.Errorf("%q was read as %+v", bad, m)
		}
	}
}

func FuzzParseBind(f *testing.F) {
	for _, seed := range []string{"/a:/b:ro", "v:/x", "/x", "a:b:c:d", ":::"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ParseBind(text, "")
		if err == nil && (!filepath.IsAbs(m.Destination) || m.Destination == "/") {
			t.Errorf("%q: destination %q", text, m.Destination)
		}
	})
}

func TestCapabilities(t *testing.T) {
	has := func(add, drop []string, privileged bool, name string) bool {
		caps, err := capabilities(add, drop, privileged)
		if err != nil {
			t.Fatal(err)
		}
		return slices.Contains(caps, name)
	}
	switch {
	case !has(nil, nil, false, "CAP_CHOWN"), has(nil, nil, false, "CAP_SYS_ADMIN"):
		t.Error("the default set is wrong")
	case !has([]string{"sys_admin"}, nil, false, "CAP_SYS_ADMIN"), has(nil, []string{"CHOWN"}, false, "CAP_CHOWN"):
		t.Error("add and drop do not work")
	case has(nil, []string{"all"}, false, "CAP_CHOWN"), !has([]string{"CAP_KILL"}, []string{"ALL"}, false, "CAP_KILL"):
		t.Error("dropping all does not work")
	case has([]string{"ALL"}, []string{"SYS_ADMIN"}, false, "CAP_SYS_ADMIN"):
		t.Error("dropping one of all does not work")
	case !has(nil, []string{"ALL"}, true, "CAP_SYS_ADMIN"):
		t.Error("a privileged container keeps all")
	}
	if _, err := capabilities([]string{"CAP_BOGUS"}, nil, false); err == nil {
		t.Error("an unknown capability was accepted")
	}
}

func TestParseSecurity(t *testing.T) {
	sec, err := parseSecurity([]string{"no-new-privileges", "seccomp=unconfined", "apparmor=unconfined", "label=disable", "systempaths=unconfined"})
	if err != nil || !sec.noNewPrivs || sec.seccomp != "unconfined" || !sec.unmaskSystem {
		t.Errorf("got %+v, %v", sec, err)
	}
	for _, bad := range []string{"bogus", "bogus=1", "no-new-privileges=maybe", "seccomp={", "systempaths=x"} {
		if _, err := parseSecurity([]string{bad}); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func FuzzParseSecurity(f *testing.F) {
	f.Add("seccomp={}")
	f.Add("no-new-privileges:true")
	f.Fuzz(func(_ *testing.T, text string) { _, _ = parseSecurity([]string{text}) })
}

func TestLookupUser(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(dir, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "etc", name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if u, err := lookupUser(root, "7:8", []string{"9"}); err != nil || u.UID != 7 || u.GID != 8 || !slices.Equal(u.Groups, []uint32{8, 9}) {
		t.Errorf("without files: got %+v, %v", u, err)
	}
	write("passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n1234:x:5:5::/:\nbroken\nbig:x:4294967295:0::/:\n")
	write("group", "root:x:0:\nstaff:x:50:app,other\napp:x:1001:app\nwheel:x:10:app\n")
	for name, want := range map[string]User{
		"":          {UID: 0, GID: 0, Groups: []uint32{0}},
		"app":       {UID: 1000, GID: 1001, Groups: []uint32{1001, 50, 10}},
		"1000":      {UID: 1000, GID: 1001, Groups: []uint32{1001, 50, 10}},
		"app:staff": {UID: 1000, GID: 50, Groups: []uint32{50}},
		"app:77":    {UID: 1000, GID: 77, Groups: []uint32{77}},
		"4321":      {UID: 4321, GID: 0, Groups: []uint32{0}},
		"1234":      {UID: 1234, GID: 0, Groups: []uint32{0}}, // a number, not the user who is named so
	} {
		u, err := lookupUser(root, name, nil)
		if err != nil || u.UID != want.UID || u.GID != want.GID || !slices.Equal(u.Groups, want.Groups) {
			t.Errorf("%q: got %+v, %v; want %+v", name, u, err, want)
		}
	}
	for _, bad := range []string{"nobody", "app:nogroup", "big", "4294967296"} {
		if u, err := lookupUser(root, bad, nil); !errdefs.Is(err, errdefs.InvalidParameter) {
			t.Errorf("%q: got %+v, %v", bad, u, err)
		}
	}
	t.Run("hostile files", func(t *testing.T) {
		passwd := filepath.Join(dir, "etc/passwd")
		replace := func(make func() error) {
			t.Helper()
			if err := os.Remove(passwd); err != nil {
				t.Fatal(err)
			}
			if err := make(); err != nil {
				t.Fatal(err)
			}
		}
		replace(func() error { return syscall.Mkfifo(passwd, 0o644) })
		if _, err := lookupUser(root, "app", nil); err == nil {
			t.Error("a FIFO was read")
		}
		replace(func() error { return os.Symlink("/../../../../etc/passwd", passwd) })
		if _, err := lookupUser(root, "daemon", nil); err == nil {
			t.Error("the host's passwd was read through a link")
		}
		replace(func() error { return os.WriteFile(passwd, []byte(strings.Repeat("x", 10<<20)), 0o644) })
		if _, err := lookupUser(root, "app", nil); err == nil {
			t.Error("a giant line was read")
		}
	})
}

func FuzzLookupUser(f *testing.F) {
	f.Add("app", "app:x:1:1::/:\n", "g:x:5:app\n")
	f.Fuzz(func(t *testing.T, name, passwd, group string) {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		for file, content := range map[string]string{"passwd": passwd, "group": group} {
			if err := os.WriteFile(filepath.Join(dir, "etc", file), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		root, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		if u, err := lookupUser(root, name, nil); err == nil && (u.UID > maxID || u.GID > maxID) {
			t.Errorf("%+v", u)
		}
	})
}

func TestNormalize(t *testing.T) {
	s := &Service{}
	img := &dockerspec.DockerOCIImageConfig{}
	img.Env, img.Entrypoint, img.Cmd, img.WorkingDir = []string{"PATH=/x", "A=1"}, []string{"/entry"}, []string{"default"}, "/w"
	img.Labels = map[string]string{"a": "image", "b": "image"}
	img.Healthcheck = &dockerspec.HealthcheckConfig{Test: []string{"CMD", "true"}, Interval: time.Second, Retries: 5}
	cfg := Config{Config: &container.Config{Env: []string{"A=2"}, Cmd: []string{"own"}, Labels: map[string]string{"a": "own"}, Healthcheck: &container.HealthConfig{Retries: 2}}}
	if err := s.normalize(&cfg, img); err != nil {
		t.Fatal(err)
	}
	c := cfg.Config
	if !slices.Equal(c.Env, []string{"A=2", "PATH=/x"}) || !slices.Equal(c.Entrypoint, []string{"/entry"}) || !slices.Equal(c.Cmd, []string{"own"}) ||
		c.WorkingDir != "/w" || c.Labels["a"] != "own" || c.Labels["b"] != "image" || c.Healthcheck.Retries != 2 || c.Healthcheck.Interval != time.Second {
		t.Errorf("got %+v", c)
	}
	own := Config{Config: &container.Config{Entrypoint: []string{"/other"}}}
	if err := s.normalize(&own, img); err != nil || len(own.Config.Cmd) != 0 {
		t.Errorf("an entry point of one's own keeps the image's command: %q, %v", own.Config.Cmd, err)
	}
	for name, bad := range map[string]*container.HostConfig{
		"auto remove with policy": {AutoRemove: true, RestartPolicy: container.RestartPolicy{Name: "always"}},
		"unknown policy":          {RestartPolicy: container.RestartPolicy{Name: "sometimes"}},
		"little memory":           {Resources: container.Resources{Memory: 1024}},
		"swap below memory":       {Resources: container.Resources{Memory: 64 << 20, MemorySwap: 32 << 20}},
		"cpu set":                 {Resources: container.Resources{CpusetCpus: "1-0"}},
		"sysctl":                  {Sysctls: map[string]string{"kernel.core_pattern": "|/x"}},
		"sysctl of the host":      {NetworkMode: "host", Sysctls: map[string]string{"net.core.somaxconn": "1"}},
		"extra host":              {ExtraHosts: []string{"x:notanip"}},
		"oom score":               {OomScoreAdj: 2000},
		"runtime":                 {Runtime: "bogus"},
		"log driver":              {LogConfig: container.LogConfig{Type: "bogus"}},
	} {
		cfg := Config{Config: &container.Config{Cmd: []string{"x"}}, Host: bad}
		if err := s.normalize(&cfg, nil); !errdefs.Is(err, errdefs.InvalidParameter) && !errdefs.Is(err, errdefs.NotImplemented) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestStates(t *testing.T) {
	for _, c := range []struct {
		from State
		on   verb
		to   State
		kind errdefs.Kind
	}{
		{Created, onStart, Running, 0}, {Running, onStart, "", errdefs.NotModified}, {Paused, onStart, "", errdefs.Conflict},
		{Running, onPause, Paused, 0}, {Exited, onPause, "", errdefs.Conflict}, {Running, onUnpause, "", errdefs.Conflict},
		{Running, onRemove, "", errdefs.Conflict}, {Exited, onRemove, Removing, 0}, {Removing, onStart, "", errdefs.Conflict},
	} {
		to, err := c.from.on(c.on, "id")
		if c.to != "" && (err != nil || to != c.to) || c.to == "" && !errdefs.Is(err, c.kind) {
			t.Errorf("%s on %s: got %s, %v", c.from, c.on, to, err)
		}
	}
}

func TestDeviceRule(t *testing.T) {
	r, err := parseDeviceRule("c 42:* rw")
	if err != nil || r.Type != "c" || *r.Major != 42 || r.Minor != nil || r.Access != "rw" {
		t.Errorf("got %+v, %v", r, err)
	}
	for _, bad := range []string{"", "x 1:2 r", "c 1 r", "c 1:2 q", "c a:b r", "c -1:2 r"} {
		if _, err := parseDeviceRule(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}
