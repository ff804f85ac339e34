package oci

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/linux/clone"
	"gantry/linux/cred"
	"gantry/oci/initproc"
)

// FuzzConfig takes the text of a config.json as far as create goes before it touches anything: each is refused in one line, or is one
// that a script can be made of.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"ociVersion":"1.3.0","root":{"path":"rootfs"},"process":{"args":["sh"],"cwd":"/"},"linux":{"namespaces":[{"type":"mount"}]}}`))
	f.Add([]byte(`{"root":{"path":"x"},"process":{"args":["sh"],"cwd":"/","terminal":true,"consoleSize":{"height":-1}},"linux":{"resources":{"memory":{"limit":-5}}}}`))
	f.Add([]byte(`{"process":{"user":{"uid":1e99}}}`))
	f.Add([]byte("{\n\"a\":\n"))
	f.Add([]byte(strings.Repeat("[", 20000)))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseSpec(data)
		if err != nil {
			if text := err.Error(); text == "" || strings.ContainsRune(text, '\n') {
				t.Errorf("%q", text)
			}
			return
		}
		p := initproc.Process{}
		host{own: cred.Own{Last: 40}, hard: map[int]uint64{}}.fill(&p, s.Process)
		in := initproc.Exec{Process: p}
		for i := range in.Stdio {
			in.Stdio[i] = clone.FD{Name: "x"}
		}
		if in.Script().String() == "" {
			t.Error("an empty script")
		}
	})
}

func TestMountLabel(t *testing.T) {
	const label = "system_u:object_r:container_file_t:s0:c1,c2"
	for kind, want := range map[string]int{"tmpfs": 2, "devpts": 2, "proc": 1, "bind": 1} {
		m := specs.Mount{Type: kind, Options: []string{"nosuid"}}
		if got := labelled(m, label); len(got.Options) != want || want == 2 && got.Options[1] != "context="+label || len(m.Options) != 1 {
			t.Errorf("%s: %q", kind, got.Options)
		}
		if got := labelled(m, ""); len(got.Options) != 1 {
			t.Errorf("%s without a label: %q", kind, got.Options)
		}
	}
}
