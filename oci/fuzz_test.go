package oci

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/linux/clone"
	"gantry/linux/cred"
	"gantry/linux/mount"
	"gantry/oci/initproc"
)

// FuzzSpec takes specifications through everything that is pure: validation, and the making of scripts.
func FuzzSpec(f *testing.F) {
	f.Add([]byte(`{"process":{"args":["sh"],"cwd":"/","env":["PATH=/bin::x"],"capabilities":{"bounding":["CAP_CHOWN","X"]},"rlimits":[{"type":"RLIMIT_CORE","soft":1,"hard":2}]},"linux":{"maskedPaths":["/a","b/../c",""],"readonlyPaths":["/x"],"sysctl":{"a.b":"1","c/d":"2"},"cgroupsPath":"a:b:c"},"mounts":[{"destination":"/p/./q","options":["rro","size=1","rbind","rslave"]}]}`))
	f.Add([]byte(`{"process":{"args":["/bin/x"],"cwd":"/a//b/../c","user":{"uid":1,"additionalGids":[1,2]},"ioPriority":{"class":"x","priority":9}},"linux":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var s specs.Spec
		if json.Unmarshal(data, &s) != nil || validate(&s) != nil {
			return
		}
		h := host{own: cred.Own{Bounding: 1 << 21, Permitted: 1 << 21, Last: 40}, hard: map[int]uint64{}}
		file := clone.FD{Name: "x", File: os.Stdin}
		in := initproc.Init{Root: file, Null: file, Empty: file, Sysctl: sortedSysctl(s.Linux.Sysctl), ReadOnlyPaths: s.Linux.ReadonlyPaths, Hostname: s.Hostname}
		h.fill(&in.Process, s.Process)
		for i := range in.Stdio {
			in.Stdio[i] = file
		}
		for _, p := range s.Linux.MaskedPaths {
			in.Masked = append(in.Masked, initproc.Masked{Path: p})
		}
		for _, m := range s.Mounts {
			if _, err := mount.Parse(m.Options); err == nil && !strings.ContainsRune(m.Destination, 0) {
				in.Mounts = append(in.Mounts, initproc.Mount{Destination: m.Destination, FD: file})
			}
		}
		if in.Script().String() == "" {
			t.Error("an empty script")
		}
	})
}

func TestHome(t *testing.T) {
	passwd := "root:x:0:0:root:/root:/bin/sh\nbad\nweb:x:33:33::relative:/bin/sh\nweb2:x:33:33::/var/www:/bin/sh\n"
	for uid, want := range map[uint32]string{0: "/root", 33: "/var/www", 99: "/"} {
		if got := homeIn(strings.NewReader(passwd), uid); got != want {
			t.Errorf("%d: %q, want %q", uid, got, want)
		}
	}
}

func TestCandidates(t *testing.T) {
	for _, c := range []struct{ name, env, want string }{
		{"sh", "PATH=/a:/b", "/a/sh /b/sh"}, {"/x/sh", "PATH=/a", "/x/sh"}, {"./sh", "PATH=/a", "./sh"}, {"sh", "PATH=:rel", "/sh /rel/sh"},
	} {
		if got := strings.Join(candidates(c.name, []string{"PATH=/old", c.env}), " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
