package cli

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
)

func TestReference(t *testing.T) {
	sum := "sha256:" + strings.Repeat("a", 64)
	for in, want := range map[string]string{
		"busybox":                       "docker.io/library/busybox",
		"busybox:1.2":                   "docker.io/library/busybox:1.2",
		"a/b":                           "docker.io/a/b",
		"docker.io/a":                   "docker.io/library/a",
		"index.docker.io/a/b":           "docker.io/a/b",
		"localhost/a":                   "localhost/a",
		"localhost:5000/a/b:c":          "localhost:5000/a/b:c",
		"r.example.com/a@" + sum:        "r.example.com/a@" + sum,
		"a:b@" + sum:                    "docker.io/library/a:b@" + sum,
		"[::1]:5000/a":                  "[::1]:5000/a",
		"a__b/c--d/e.f":                 "docker.io/a__b/c--d/e.f",
		"Example/a":                     "Example/a",
		"Foo":                           "error: invalid reference format: repository name (library/Foo) must be lowercase",
		"":                              "error: invalid reference format",
		"a:":                            "error: invalid reference format",
		"a@":                            "error: invalid reference format",
		"a@sha256:00":                   "error: invalid reference format",
		"a..b":                          "error: invalid reference format",
		"-a":                            "error: invalid reference format",
		"a//b":                          "error: invalid reference format",
		"a b":                           "error: invalid reference format",
		"a:" + strings.Repeat("x", 129): "error: invalid reference format",
		"-x.com/a":                      "error: invalid reference format",
		strings.Repeat("a", 64):         "error: invalid repository name (" + strings.Repeat("a", 64) + "), cannot specify 64-byte hexadecimal strings",
		strings.Repeat("x/", 130) + "x": "error: repository name must not be more than 255 characters",
	} {
		r, err := parseReference(in)
		got := r.full()
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
	r, err := parseReference("docker.io/library/a:b")
	if err != nil || r.String() != "a:b" || r.registryKey() != indexServer {
		t.Errorf("%v %v", r, err)
	}
}

func FuzzReference(f *testing.F) {
	f.Add("localhost:5000/a/b:c@sha256:" + strings.Repeat("0", 64))
	f.Fuzz(func(t *testing.T, s string) {
		r, err := parseReference(s)
		if err != nil {
			return
		}
		again, err := parseReference(r.full())
		if err != nil || again != r {
			t.Fatalf("%q: %+v is written %q, which is %+v (%v)", s, r, r.full(), again, err)
		}
	})
}

func TestPublish(t *testing.T) {
	maps, err := parsePublish("[fe80::1]:8000-8001:80-81/UDP")
	if err != nil || len(maps) != 2 || maps[1].port.String() != "81/udp" || maps[1].binding.HostPort != "8001" || maps[1].binding.HostIP.String() != "fe80::1" {
		t.Errorf("%v %v", maps, err)
	}
}

func FuzzPublish(f *testing.F) {
	f.Add("127.0.0.1:80-90:80-90/tcp")
	f.Add("target=80,published=8080")
	f.Fuzz(func(t *testing.T, s string) {
		short, err := shortPort(s)
		if err != nil {
			return
		}
		maps, err := parsePublish(short)
		if err != nil {
			return
		}
		if len(maps) == 0 || len(maps) > 1<<16 {
			t.Fatalf("%d ports", len(maps))
		}
		for _, m := range maps {
			if _, err := network.ParsePort(m.port.String()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzMount(f *testing.F) {
	f.Add("type=bind,src=/a,dst=/b,readonly")
	f.Add(`type=volume,"volume-opt=o=a,b",dst=/x`)
	f.Fuzz(func(t *testing.T, s string) {
		m, err := parseMount(s)
		if err == nil && (m.Target == "" || m.Type == "") {
			t.Fatalf("%q: %+v", s, m)
		}
	})
}

func TestMountTypes(t *testing.T) {
	m, err := parseMount("src=v,dst=/x")
	if err != nil || m.Type != mount.TypeVolume {
		t.Errorf("%+v %v", m, err)
	}
}

func TestKeyValueFile(t *testing.T) {
	env := func(k string) (string, bool) { return "here", k == "SET" }
	got, err := parseKeyValueFile("f", strings.NewReader("\xef\xbb\xbfA=1\n  # c\n\n\tB = x\nSET\nUNSET\nC=\"q\" \n"), env)
	if err == nil || !strings.Contains(err.Error(), "variable 'B ' contains whitespaces") {
		t.Errorf("%v, %v", got, err)
	}
	got, err = parseKeyValueFile("f", strings.NewReader("\xef\xbb\xbfA=1\n  # c\n\nSET\nUNSET\nC=\"q\" \n"), env)
	if err != nil || strings.Join(got, "|") != `A=1|SET=here|C="q" ` {
		t.Errorf("%q, %v", got, err)
	}
	for in, want := range map[string]string{"=x\n": "no variable name on line '=x'", "a\xff=b\n": "invalid utf8 bytes at line 1", strings.Repeat("x", 1<<17): "token too long"} {
		if _, err := parseKeyValueFile("f", strings.NewReader(in), env); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v, want %q", in, err, want)
		}
	}
}

func FuzzKeyValueFile(f *testing.F) {
	f.Add("A=1\n#c\nB\n")
	f.Fuzz(func(t *testing.T, s string) {
		kv, err := parseKeyValueFile("f", strings.NewReader(s), func(string) (string, bool) { return "", false })
		if err != nil {
			return
		}
		for _, e := range kv {
			if k, _, ok := strings.Cut(e, "="); !ok || k == "" {
				t.Fatalf("%q of %q", e, s)
			}
		}
	})
}

func TestTimestamp(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC)
	for in, want := range map[string]string{
		"": "", "10m": "1893552845.000000006", "2020-01-02T03:04:05Z": "1577934245.000000000", "2020-01-02T03:04:05.5": "1577934245.500000000",
		"2020-01-02": "1577923200.000000000", "2020-01-02T03:04": "1577934240.000000000", "1577934245": "1577934245", "1577934245.5": "1577934245.5", "0": "0",
		"2020-01-02T03:04:05+01:00": "1577930645.000000000",
	} {
		if got, err := timestamp(in, now); err != nil || got != want {
			t.Errorf("%q: %s, %v; want %s", in, got, err, want)
		}
	}
	if _, err := timestamp("foo", now); err == nil {
		t.Error("foo is no time")
	}
}

func TestParseHost(t *testing.T) {
	for in, want := range map[string]string{
		"unix:///a": "unix:///a", "tcp://": "tcp://localhost:2375", "tcp://h": "tcp://h:2375", "h:1": "tcp://h:1", ":1": "tcp://localhost:1",
		"tcp://h:1/p": "tcp://h:1/p", "tcp://[::1]": "tcp://[::1]:2375", "http://h": "http://h",
	} {
		if got, err := parseHost(in, false); err != nil || got != want {
			t.Errorf("%q: %s, %v; want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"bad://x", "tcp://h:x", "ssh://h"} {
		if _, err := parseHost(in, false); err == nil {
			t.Errorf("%q was accepted", in)
		}
	}
}

// A copy never takes the place of a device.
func TestCopyToDevice(t *testing.T) {
	if _, _, err := localDestination(os.DevNull, "f", false, false); err == nil || !strings.Contains(err.Error(), "must be a directory or a regular file") {
		t.Errorf("a copy to %s: %v", os.DevNull, err)
	}
}

func TestCopyArguments(t *testing.T) {
	for in, want := range map[string][2]string{
		"c:/x": {"c", "/x"}, "/a:b": {"", "/a:b"}, "./c:d": {"", "./c:d"}, "x": {"", "x"}, "-": {"", "-"}, "c:": {"c", ""},
	} {
		if c, p := splitCopyArg(in); c != want[0] || p != want[1] {
			t.Errorf("%q: %q %q", in, c, p)
		}
	}
	for in, want := range map[string]string{"": "/", "a": "/a", "/a/": "/a/", "/a/.": "/a/.", "/": "/", "/.": "/.", "../x": "/x", ".": "/."} {
		if got := rootedPath(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
