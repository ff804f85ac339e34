package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// requestOf parses the arguments of create and returns the API's request.
func requestOf(t *testing.T, args []string) (string, error) {
	t.Helper()
	env := map[string]string{"HOME": "/home/u", "SET": "from env"}
	a := &app{name: "docker", out: io.Discard, err: io.Discard, getenv: func(k string) string { return env[k] }}
	fs := pflag.NewFlagSet("create", pflag.ContinueOnError)
	fs.SetInterspersed(false)
	var f containerFlags
	f.add(a, fs)
	if err := fs.Parse(args); err != nil {
		return "", err
	}
	lookup := func(k string) (string, bool) { v, ok := env[k]; return v, ok }
	req, err := f.request(fs, fs.Args(), lookup)
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), nil
}

// TestCreateRequests compares the requests of many flags with testdata/create.golden. They were compared once with those of the
// docker command line. Only what differs from the request of no flags is kept.
func TestCreateRequests(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"sec.json": "{ \"defaultAction\": \"SCMP_ACT_ALLOW\" }\n", "env": "A=1\n# comment\n\nSET\nUNSET\n B=x y \"z\"\n", "labels": "l1=v\nl2\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lines, err := os.ReadFile("testdata/create.args")
	if err != nil {
		t.Fatal(err)
	}
	base, err := requestOf(t, []string{"img"})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, line := range strings.Split(strings.TrimSpace(string(lines)), "\n") {
		args := strings.Fields(strings.ReplaceAll(line, "DIR", dir))
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "~", " ")
		}
		out.WriteString("# " + line + "\n")
		got, err := requestOf(t, args)
		if err != nil {
			out.WriteString("error: " + strings.ReplaceAll(err.Error(), dir, "DIR") + "\n\n")
			continue
		}
		for _, d := range difference(t, base, got) {
			out.WriteString(strings.ReplaceAll(d, dir, "DIR") + "\n")
		}
		out.WriteString("\n")
	}
	golden(t, "create.golden", out.String())
}

// difference lists the fields of got that are not as in base, as path = JSON.
func difference(t *testing.T, base, got string) []string {
	t.Helper()
	decode := func(s string) map[string]json.RawMessage {
		var m map[string]json.RawMessage
		if err := json.Unmarshal([]byte(s), &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	var out []string
	var walk func(path string, a, b map[string]json.RawMessage)
	walk = func(path string, a, b map[string]json.RawMessage) {
		keys := make(map[string]bool)
		for k := range a {
			keys[k] = true
		}
		for k := range b {
			keys[k] = true
		}
		for _, k := range sortedKeys(keys) {
			if bytes.Equal(a[k], b[k]) {
				continue
			}
			if k == "HostConfig" || k == "NetworkingConfig" {
				walk(k+".", decode(string(a[k])), decode(string(b[k])))
				continue
			}
			v := string(b[k])
			if v == "" {
				v = "absent"
			}
			out = append(out, path+k+" = "+v)
		}
	}
	walk("", decode(base), decode(got))
	return out
}

func sortedKeys(m map[string]bool) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	for i := range out {
		for j := i; j > 0 && out[j] < out[j-1]; j-- {
			out[j], out[j-1] = out[j-1], out[j]
		}
	}
	return out
}
