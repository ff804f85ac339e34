package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"gantry/client"
)

// updateGolden rewrites the files in testdata instead of comparing with them.
func updateGolden() bool { return *update }

//nolint:gochecknoglobals // how package flag works
var update = flag.Bool("update", false, "rewrite the files in testdata")

// TestMain lets the test binary be the program: with GANTRY_AS_PROGRAM set it runs the command line on its arguments.
func TestMain(m *testing.M) {
	if name := os.Getenv("GANTRY_AS_PROGRAM"); name != "" {
		os.Exit(Main(context.Background(), Env{Args: append([]string{name}, os.Args[1:]...), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv}))
	}
	os.Exit(m.Run())
}

// server is a daemon that answers what the test says and records what it was asked.
type server struct {
	sock string

	mu       sync.Mutex // guards requests
	requests []request
}

type request struct{ method, path, query, body string }

// newServer starts a server whose handlers are found by method and path below the version.
func newServer(t *testing.T, routes map[string]http.HandlerFunc) *server {
	t.Helper()
	s := &server{sock: filepath.Join(t.TempDir(), "s")}
	l, err := net.Listen("unix", s.sock)
	if err != nil {
		t.Fatal(err)
	}
	h := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimPrefix(r.URL.Path, "/v"+client.MaxAPIVersion)
		w.Header().Set("Api-Version", client.MaxAPIVersion)
		rec := request{method: r.Method, path: path, query: r.URL.RawQuery}
		f, ok := routes[r.Method+" "+path]
		if r.Header.Get("Upgrade") == "" {
			b, _ := io.ReadAll(r.Body)
			rec.body = string(b)
		}
		s.mu.Lock()
		s.requests = append(s.requests, rec)
		s.mu.Unlock()
		if !ok {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(404)
			fmt.Fprintf(w, `{"message":"no route %s %s"}`, r.Method, path)
			return
		}
		f(w, r)
	})}
	go func() { _ = h.Serve(l) }()
	t.Cleanup(func() { _ = h.Close() })
	return s
}

// asked lists the requests so far.
func (s *server) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, r := range s.requests {
		out = append(out, r.method+" "+r.path)
	}
	return out
}

func (s *server) last() request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[len(s.requests)-1]
}

// answer gives a fixed JSON answer.
func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

// result is what a run of the program gave.
type result struct {
	stdout, stderr string
	code           int
}

// run runs the command line in this process, with a home that does not exist.
func run(t *testing.T, s *server, args ...string) result {
	t.Helper()
	env := map[string]string{"HOME": "/nobody"}
	if s != nil {
		env["DOCKER_HOST"] = "unix://" + s.sock
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	var out, errw bytes.Buffer
	code := Main(context.Background(), Env{Args: append([]string{"docker"}, args...), Stdin: null, Stdout: &out, Stderr: &errw, Getenv: func(k string) string { return env[k] }})
	return result{out.String(), errw.String(), code}
}

// execute runs the program as a process of its own.
func execute(t *testing.T, s *server, stdin string, args ...string) result {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = []string{"GANTRY_AS_PROGRAM=gantry", "HOME=" + t.TempDir(), "DOCKER_HOST=unix://" + s.sock}
	cmd.Stdin = strings.NewReader(stdin)
	var out, errw bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errw
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{out.String(), errw.String(), cmd.ProcessState.ExitCode()}
}

// golden compares got with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if updateGolden() {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got == string(want) {
		return
	}
	g, w := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	for i := 0; i < len(g) || i < len(w); i++ {
		switch {
		case i >= len(g):
			t.Fatalf("%s:%d: missing %q", path, i+1, w[i])
		case i >= len(w):
			t.Fatalf("%s:%d: more than wanted: %q", path, i+1, g[i])
		case g[i] != w[i]:
			t.Fatalf("%s:%d:\n got %s\nwant %s", path, i+1, g[i], w[i])
		}
	}
}
