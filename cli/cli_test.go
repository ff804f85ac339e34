package cli

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
)

// TestWords checks what is printed when the command line is wrong; the words are docker's.
func TestWords(t *testing.T) {
	for _, c := range []struct {
		args   string
		code   int
		stderr string
	}{
		{"foo", 1, "docker: unknown command: docker foo\n\nRun 'docker --help' for more information\n"},
		{"system foo", 1, "docker: unknown command: docker system foo\n\nUsage:  docker system\n\nRun 'docker system --help' for more information\n"},
		{"--foo", 125, "unknown flag: --foo\n\nUsage:  docker [OPTIONS] COMMAND [ARG...]\n\nRun 'docker --help' for more information\n"},
		{"ps --foo", 125, "unknown flag: --foo\n\nUsage:  docker ps [OPTIONS]\n\nRun 'docker ps --help' for more information\n"},
		{"ps -y", 125, "unknown shorthand flag: 'y' in -y\n\nUsage:  docker ps [OPTIONS]\n\nRun 'docker ps --help' for more information\n"},
		{"rm", 1, "docker: 'docker rm' requires at least 1 argument\n\nUsage:  docker rm [OPTIONS] CONTAINER [CONTAINER...]\n\nSee 'docker rm --help' for more information\n"},
		{"ps a", 1, "docker: 'docker ps' accepts no arguments\n\nUsage:  docker ps [OPTIONS]\n\nRun 'docker ps --help' for more information\n"},
		{"tag a", 1, "docker: 'docker tag' requires 2 arguments\n\nUsage:  docker tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]\n\nRun 'docker tag --help' for more information\n"},
		{"--log-level x ps", 1, "Unable to parse logging level: x\n"},
		{"-H bad://x ps", 1, "Failed to initialize: unable to resolve docker endpoint: invalid bind address format: bad://x\n"},
		{"-H unix:///nope ps", 1, "Cannot connect to the Docker daemon at unix:///nope. Is the docker daemon running?\n"},
		{"-H x -H y ps", 1, "Specify only one -H\n"},
		{"-c other ps", 1, "Failed to initialize: unable to resolve docker endpoint: context \"other\": context not found: only \"default\" exists, use --host for other daemons\n"},
		{"cp a b", 1, "must specify at least one container source\n"},
		{"compose up", 1, "docker: 'docker compose' is not available yet: it comes later; docker's own compose plugin works against gantryd's socket.\n"},
		{"swarm init", 1, "docker: 'docker swarm' is not available yet: this engine runs containers on one machine; it has no swarm mode.\n"},
		{"run -it img", 1, "the input device is not a TTY\n"},
		{"inspect --type foo x", 1, "unknown type: \"foo\": must be one of \"config\", \"container\", \"image\", \"network\", \"node\", \"plugin\", \"secret\", \"service\", \"task\", \"volume\"\n"},
	} {
		if got := run(t, nil, strings.Fields(c.args)...); got.code != c.code || got.stderr != c.stderr {
			t.Errorf("%s: %+v", c.args, got)
		}
	}
}

// TestHelp checks that every command has help, and that no command's flags contradict each other.
func TestHelp(t *testing.T) {
	var walk func(path []string, cmds []*command)
	walk = func(path []string, cmds []*command) {
		for _, c := range cmds {
			p := append(path[:len(path):len(path)], c.name)
			if c.absent != "" {
				continue
			}
			got := run(t, nil, append(p, "--help")...)
			if got.code != 0 || !strings.HasPrefix(got.stdout, "Usage:  docker "+strings.Join(p, " ")) || !strings.Contains(got.stdout, c.short) {
				t.Errorf("%v: %+v", p, got)
			}
			if help := run(t, nil, append([]string{"help"}, p...)...); help.stdout != got.stdout {
				t.Errorf("help %v differs from --help", p)
			}
			if c.subs != nil {
				walk(p, c.subs())
			}
		}
	}
	walk(nil, topCommands())
	golden(t, "help.golden", run(t, nil, "--help").stdout)
}

func TestPs(t *testing.T) {
	created := time.Now().Add(-3 * time.Hour).Unix()
	list, err := json.Marshal([]map[string]any{{
		"Id": strings.Repeat("a", 64), "Names": []string{"/web", "/other/web"}, "Image": "busybox:1@sha256:" + strings.Repeat("b", 64), "ImageID": "sha256:" + strings.Repeat("c", 64),
		"Command": "sleep a very long time", "Created": created, "State": "running", "Status": "Up 3 hours", "Labels": map[string]string{"b": "2", "a": "1"},
		"Ports":           []map[string]any{{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}, {"PrivatePort": 90, "Type": "tcp"}, {"PrivatePort": 91, "Type": "tcp"}},
		"NetworkSettings": map[string]any{"Networks": map[string]any{"n2": map[string]any{}, "n1": map[string]any{}}},
		"Mounts":          []map[string]any{{"Type": "volume", "Name": "avolumewithalongname", "Driver": "local"}}, "SizeRw": 1500, "SizeRootFs": 2000000,
	}})
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t, map[string]http.HandlerFunc{"GET /containers/json": answer(200, string(list))})
	for _, c := range []struct{ args, want string }{
		{"ps", "CONTAINER ID   IMAGE       COMMAND                  CREATED       STATUS       PORTS                                  NAMES\naaaaaaaaaaaa   busybox:1   \"sleep a very long t…\"   3 hours ago   Up 3 hours   90-91/tcp, 0.0.0.0:8080->80/tcp   web\n"},
		{"ps -q", "aaaaaaaaaaaa\n"},
		{"ps -q --no-trunc", strings.Repeat("a", 64) + "\n"},
		{"ps --format {{.Names}}|{{.Labels}}|{{.Label~\"a\"}}|{{.Networks}}|{{.Mounts}}|{{.LocalVolumes}}|{{.Size}}", "web|a=1,b=2|1|n1,n2|avolumewithalo…|1|1.5kB (virtual 2MB)\n"},
		{"ps --format table~{{.Names}}\\t{{.Label~\"x.my-label\"}}", "NAMES     my label\nweb       \n"},
		{"ps --no-trunc --format {{.Command}}~{{upper~.State}}~{{json~.Names}}", "\"sleep a very long time\" RUNNING \"web,other/web\"\n"},
	} {
		args := strings.Fields(c.args)
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "~", " ")
		}
		got := run(t, s, args...)
		want := strings.Replace(c.want, "PORTS                                  NAMES", "PORTS                             NAMES", 1)
		if got.stdout != want || got.code != 0 {
			t.Errorf("%s:\n%s%s\nwant\n%s", c.args, got.stdout, got.stderr, want)
		}
	}
	run(t, s, "ps", "-a", "-s", "-n", "3", "-f", "name=x", "-f", "name=y")
	if q := s.last().query; q != "all=1&brief=1&filters=%7B%22name%22%3A%7B%22x%22%3Atrue%2C%22y%22%3Atrue%7D%7D&limit=3&size=1" {
		t.Errorf("query %s", q)
	}
	got := run(t, s, "ps", "--format", "{{.Foo}}")
	if got.code != 1 || !strings.HasPrefix(got.stderr, "failed to execute template: template: :1:2: executing \"\" at <.Foo>: can't evaluate field Foo") {
		t.Errorf("%+v", got)
	}
	if got := run(t, s, "ps", "--format", "{{"); got.code != 1 || got.stderr != "failed to parse template: template: :1: unclosed action\n" {
		t.Errorf("%+v", got)
	}
}

func TestPorts(t *testing.T) {
	any4, any6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	for want, in := range map[string][]container.PortSummary{
		"":                  nil,
		"80/tcp":            {{PrivatePort: 80, Type: "tcp"}},
		"80-81/tcp, 80/udp": {{PrivatePort: 81, Type: "tcp"}, {PrivatePort: 80, Type: "tcp"}, {PrivatePort: 80, Type: "udp"}},
		"80/tcp, 82/tcp":    {{PrivatePort: 80, Type: "tcp"}, {PrivatePort: 82, Type: "tcp"}},
		"0.0.0.0:80-81->80-81/tcp, [::]:80-81->80-81/tcp": {
			{IP: any4, PrivatePort: 80, PublicPort: 80, Type: "tcp"}, {IP: any6, PrivatePort: 80, PublicPort: 80, Type: "tcp"},
			{IP: any4, PrivatePort: 81, PublicPort: 81, Type: "tcp"}, {IP: any6, PrivatePort: 81, PublicPort: 81, Type: "tcp"},
		},
		"90/tcp, 0.0.0.0:1->80/tcp": {{IP: any4, PrivatePort: 80, PublicPort: 1, Type: "tcp"}, {PrivatePort: 90, Type: "tcp"}},
	} {
		if got := portsText(in); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestInspect(t *testing.T) {
	const raw = `{"Id":"abc","Config":{"Cmd":null,"Labels":{"z":"1","a":"2"},"Env":["A=b"]},"State":{"Running":true,"ExitCode":5},"NetworkSettings":{"IPAddress":"1.2.3.4","Networks":{"bridge":{"IPAddress":""}}},"Mounts":[],"HostConfig":{"PortBindings":{"80/tcp":null}}}`
	s := newServer(t, map[string]http.HandlerFunc{"GET /containers/abc/json": answer(200, raw), "GET /volumes/v": answer(200, `{"Name":"v"}`)})
	for text, want := range map[string]string{
		"{{.Id}} {{.ID}} {{.State.Running}}":                                               "abc abc true",
		"{{.NetworkSettings.IPAddress}}":                                                   "1.2.3.4",
		"{{range .NetworkSettings.Networks}}[{{.IPAddress}}{{.GlobalIPv6Address}}]{{end}}": "[]",
		"{{.Config.Cmd}} {{.State.Health}} {{if .State.Health}}x{{end}}":                   "[] <nil> ",
		"{{json .Config}}":         `{"Cmd":null,"Labels":{"z":"1","a":"2"},"Env":["A=b"]}`,
		"{{json .Config.Env}}":     `["A=b"]`,
		"{{eq .State.ExitCode 5}}": "true",
		`{{index .Config.Labels "z"}} {{.Config.Labels.a}} {{len .Mounts}}`: "1 2 0",
		"json":                         "[" + raw + "]",
		"{{.State}}":                   "{ true false false false false 0 5    <nil>}",
		"{{.Config.Labels}}":           "map[a:2 z:1]",
		"{{json .Mounts}} {{.Mounts}}": "[] []",
		"{{range $p, $b := .HostConfig.PortBindings}}{{$p}} {{$b}}{{end}}": "80/tcp []",
	} {
		if got := run(t, s, "inspect", "-f", text, "abc"); got.stdout != want+"\n" {
			t.Errorf("%s: %q %s, want %q", text, got.stdout, got.stderr, want)
		}
	}
	got := run(t, s, "inspect", "abc", "nosuch", "v")
	if got.code != 1 || got.stderr != "Error: No such object: nosuch\n" || !strings.HasPrefix(got.stdout, "[\n    {\n        \"Id\": \"abc\",\n") || !strings.HasSuffix(got.stdout, "    {\n        \"Name\": \"v\"\n    }\n]\n") {
		t.Errorf("%+v", got)
	}
	if got := run(t, s, "inspect", "-f", "{{.Foo}}", "abc"); got != (result{"\n", "template parsing error: template: :1:2: executing \"\" at <.Foo>: map has no entry for key \"Foo\"\n", 1}) {
		t.Errorf("%+v", got)
	}
	if got := run(t, s, "inspect", "nosuch"); got != (result{"[]\n", "Error: No such object: nosuch\n", 1}) {
		t.Errorf("%+v", got)
	}
}

func TestSeveralArguments(t *testing.T) {
	s := newServer(t, map[string]http.HandlerFunc{
		"POST /containers/a/stop": answer(204, ""), "POST /containers/c/stop": answer(304, ""), "DELETE /containers/a": answer(204, ""),
	})
	if got := run(t, s, "stop", "-t", "3", "a", "b", "c"); got != (result{"a\nc\n", "Error response from daemon: no route POST /containers/b/stop\n", 1}) {
		t.Errorf("%+v", got)
	}
	if got := run(t, s, "rm", "-f", "a", "b"); got != (result{"a\n", "Error response from daemon: no route DELETE /containers/b\n", 0}) {
		t.Errorf("%+v", got)
	}
	if got := run(t, s, "start", "x"); got.code != 1 || !strings.HasSuffix(got.stderr, "\nError: failed to start containers: x\n") {
		t.Errorf("%+v", got)
	}
}

func TestLogin(t *testing.T) {
	s := newServer(t, map[string]http.HandlerFunc{
		"POST /auth": func(w http.ResponseWriter, r *http.Request) { answer(200, `{"Status":"Login Succeeded"}`)(w, r) },
		"POST /images/create": func(w http.ResponseWriter, r *http.Request) {
			b, _ := base64.URLEncoding.DecodeString(r.Header.Get("X-Registry-Auth"))
			answer(200, `{"status":"`+base64.StdEncoding.EncodeToString(b)+`"}`)(w, r)
		},
	})
	dir := t.TempDir()
	path := filepath.Join(dir, "config.json")
	if err := os.WriteFile(path, []byte(`{"psFormat":"x","other":{"a":1}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := run(t, s, "--config", dir, "login", "-u", "me", "-p", "pw", "localhost:5000"); got.code != 0 || !strings.Contains(got.stdout, "Login Succeeded") {
		t.Fatalf("%+v", got)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var cfg map[string]json.RawMessage
	if err := json.Unmarshal(b, &cfg); err != nil || string(cfg["psFormat"]) != `"x"` || !strings.Contains(string(cfg["auths"]), base64.StdEncoding.EncodeToString([]byte("me:pw"))) {
		t.Errorf("config.json is %s", b)
	}
	got := run(t, s, "--config", dir, "pull", "localhost:5000/a/b")
	line, _, _ := strings.Cut(strings.TrimPrefix(got.stdout, "Using default tag: latest\n"), "\n")
	auth, _ := base64.StdEncoding.DecodeString(line)
	if !strings.Contains(string(auth), `"username":"me","password":"pw"`) || !strings.HasSuffix(got.stdout, "\nlocalhost:5000/a/b:latest\n") {
		t.Errorf("%+v: auth %s", got, auth)
	}
	if got := run(t, s, "--config", dir, "logout", "localhost:5000"); got != (result{"Removing login credentials for localhost:5000\n", "", 0}) {
		t.Errorf("%+v", got)
	}
	if b, err := os.ReadFile(path); err != nil || strings.Contains(string(b), "localhost") || !strings.Contains(string(b), `"other"`) {
		t.Errorf("config.json is %s, %v", b, err)
	}
}

func TestFsck(t *testing.T) {
	diffs := `[{"Area":"network","Object":"veth1","Problem":"link without a sandbox","Repaired":false}]`
	s := newServer(t, map[string]http.HandlerFunc{"GET /gantry/fsck": func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("repair") == "1" {
			answer(200, "[]")(w, r)
			return
		}
		answer(200, diffs)(w, r)
	}})
	if got := run(t, s, "system", "fsck"); got != (result{"AREA      OBJECT    PROBLEM                  REPAIRED\nnetwork   veth1     link without a sandbox   false\n", "", 1}) {
		t.Errorf("%+v", got)
	}
	if got := run(t, s, "system", "fsck", "--format", "json"); got != (result{diffs + "\n", "", 1}) {
		t.Errorf("%+v", got)
	}
	if got := run(t, s, "system", "fsck", "--repair"); got != (result{"clean: records, kernel and disk agree\n", "", 0}) {
		t.Errorf("%+v", got)
	}
	if got := run(t, s, "system", "fsck", "--repair", "--format", "json"); got != (result{"[]\n", "", 0}) {
		t.Errorf("%+v", got)
	}
	failing := newServer(t, map[string]http.HandlerFunc{"GET /gantry/fsck": func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `[{"Area":"blob","Object":"b","Problem":"is gone","Error":"no registry has it"}]`)
	}})
	if got := run(t, failing, "system", "fsck", "--repair"); got != (result{"AREA      OBJECT    PROBLEM   REPAIRED\nblob      b         is gone   false\n", "cannot repair blob b: no registry has it\n", 1}) {
		t.Errorf("%+v", got)
	}
	if got := run(t, newServer(t, nil), "system", "fsck"); got.code != 1 || !strings.Contains(got.stderr, "is not gantryd") {
		t.Errorf("%+v", got)
	}
}

// TestArchive copies a tree out and in again, and checks that a hostile archive cannot leave its directory.
func TestArchive(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(src, "d/e"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(src, "d/e/f"), []byte("data"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("e/f", filepath.Join(src, "d/l")); err != nil {
		t.Fatal(err)
	}
	copyTree := func(name, as string, bare bool) {
		t.Helper()
		r, w := io.Pipe()
		go func() { w.CloseWithError(archiveTree(w, filepath.Join(src, "d"), name)) }()
		if err := extract(dst, as, bare, false, r); err != nil {
			t.Fatal(err)
		}
	}
	copyTree("d", "new", false)
	copyTree("d", "new", false) // again, over what is there
	copyTree(".", ".", true)
	for _, p := range []string{"new/l", "l"} {
		if b, err := os.ReadFile(filepath.Join(dst, p)); err != nil || string(b) != "data" {
			t.Errorf("%s: %q, %v", p, b, err)
		}
	}
	if st, err := os.Stat(filepath.Join(dst, "new/e")); err != nil || st.Mode().Perm() != 0o750 {
		t.Errorf("%v, %v", st, err)
	}
	for _, name := range []string{"a/../../x", "../x", "/x/../../y"} {
		if p, err := renamed(name, "n", false); err == nil && (strings.HasPrefix(p, "..") || filepath.IsAbs(p)) {
			t.Errorf("%s becomes %s", name, p)
		}
	}
	outside := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dst, "hole")); err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(archiveTree(w, filepath.Join(src, "d"), "hole/x")) }()
	err := extract(dst, "hole", false, false, r)
	if files, _ := os.ReadDir(outside); err == nil || len(files) > 0 {
		t.Errorf("an archive wrote through a link: %v, %v", err, files)
	}
}

func TestEventLine(t *testing.T) {
	s := newServer(t, map[string]http.HandlerFunc{"GET /events": answer(200, `{"Type":"container","Action":"start","Actor":{"ID":"abc","Attributes":{"name":"n","image":"i"}},"time":5,"timeNano":5000000006}`)})
	got := run(t, s, "events", "--until", "1s")
	if !strings.HasSuffix(got.stdout, "container start abc (image=i, name=n)\n") || !strings.Contains(got.stdout, ":05.000000006") {
		t.Errorf("%+v", got)
	}
}

func TestNaturalOrder(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{{"net2", "net10", true}, {"net10", "net2", false}, {"a", "b", true}, {"a", "a1", true}, {"a01", "a1", false}, {"", "a", true}, {"x", "x", false}} {
		if got := naturalLess(c.a, c.b); got != c.want {
			t.Errorf("%s < %s: %v", c.a, c.b, got)
		}
	}
}
