package landlock_test

import (
	"reflect"
	"strings"
	"testing"

	"gantry/errdefs"
	"gantry/linux/landlock"
)

const example = `{
	"ruleset": {"handledAccessFS": ["read_file", "read_dir", "execute", "truncate", "ioctl_dev"], "handledAccessNet": ["bind_tcp"], "scoped": ["signal"]},
	"rules": {
		"pathBeneath": [{"allowedAccess": ["read_file", "read_dir", "execute", "write_file"], "paths": ["/usr", "/etc/hosts"]}, {"allowedAccess": ["write_file"], "paths": ["/tmp"]}],
		"netPort": [{"allowedAccess": ["bind_tcp", "connect_tcp"], "ports": [80, 443]}]
	}
}`

func TestCompile(t *testing.T) {
	p, err := landlock.Parse(example)
	if err != nil {
		t.Fatal(err)
	}
	for abi, want := range map[int]struct {
		r    *landlock.Restriction
		lost string
	}{
		0: {nil, "read_file read_dir execute truncate ioctl_dev bind_tcp signal"},
		1: {&landlock.Restriction{FS: 0b1101, Paths: []landlock.PathRule{{"/usr", 0b1101, 0b101}, {"/etc/hosts", 0b1101, 0b101}}}, "truncate ioctl_dev bind_tcp signal"},
		7: {&landlock.Restriction{
			FS: 0b1101 | 1<<14 | 1<<15, Net: 1, Scoped: 2, Paths: []landlock.PathRule{{"/usr", 0b1101, 0b101}, {"/etc/hosts", 0b1101, 0b101}},
			Ports: []landlock.PortRule{{80, 1}, {443, 1}},
		}, ""},
	} {
		r, lost, err := p.Compile(abi)
		if err != nil || !reflect.DeepEqual(r, want.r) || strings.Join(lost, " ") != want.lost {
			t.Errorf("ABI %d: %+v, lost %q, %v, want %+v", abi, r, lost, err, want.r)
		}
	}
	p.DisableBestEffort = true
	if _, _, err := p.Compile(5); errdefs.KindOf(err) != errdefs.NotImplemented || !strings.Contains(err.Error(), "signal") {
		t.Errorf("strict: %v", err)
	}
	if p, err = landlock.Parse(`{"disableBestEffort": true}`); err != nil {
		t.Fatal(err)
	}
	for abi, want := range map[int]landlock.Restriction{1: {FS: 1<<13 - 1}, 2: {FS: 1<<14 - 1}, 4: {FS: 1<<15 - 1, Net: 3}, 6: {FS: 1<<16 - 1, Net: 3, Scoped: 3}, 9: {FS: 1<<16 - 1, Net: 3, Scoped: 3}} {
		want.Strict = true
		if r, _, err := p.Compile(abi); err != nil || !reflect.DeepEqual(*r, want) {
			t.Errorf("everything of ABI %d: %+v, %v", abi, r, err)
		}
	}
	if _, _, err := p.Compile(0); err == nil {
		t.Error("a kernel without Landlock has everything")
	}
}

func TestRefusals(t *testing.T) {
	for _, text := range []string{
		"", "null", "[]", "{} {}", `{"x": 1}`, `{"ruleset": {"handledAccessFs": ["reed_file"]}}`, `{"ruleset": {"scoped": ["x"]}}`, `{"ruleset": {"handledAccessNet": ["udp"]}}`,
		`{"rules": {"pathBeneath": [{"allowedAccess": ["read_file"], "paths": ["usr"]}]}}`, `{"rules": {"pathBeneath": [{"allowedAccess": ["x"], "paths": []}]}}`,
		`{"rules": {"netPort": [{"allowedAccess": ["bind_tcp"], "ports": [65536]}]}}`, strings.Repeat(" ", 1<<20) + "{}",
	} {
		if p, err := landlock.Parse(text); errdefs.KindOf(err) != errdefs.InvalidParameter {
			t.Errorf("%.60q: %+v, %v", text, p, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(example)
	f.Fuzz(func(t *testing.T, text string) {
		p, err := landlock.Parse(text)
		if err != nil {
			return
		}
		for abi := range 8 {
			r, _, err := p.Compile(abi)
			if err != nil || r == nil {
				continue
			}
			for _, rule := range r.Paths {
				if rule.Access&^r.FS != 0 || rule.File&^rule.Access != 0 {
					t.Errorf("%+v of %#x", rule, r.FS)
				}
			}
		}
	})
}
