// Package build tests the classic builder with docker's command line, which sends a context as docker build without BuildKit does, and with our own.
package build

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gantry/tests/harness"
)

var daemon *harness.Daemon

func TestMain(m *testing.M) { harness.Main(m, &daemon) }

const image = harness.Image

// context writes a context; the file Dockerfile is what builds it. A name that ends with a slash is an empty folder, contents that begin with "-> " are a symbolic link.
func context(e *harness.Env, files map[string]string) string {
	e.Helper()
	dir, err := os.MkdirTemp(e.Config, "context-")
	if err != nil {
		e.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path, body := filepath.Join(dir, name), files[name]
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		target, link := strings.CutPrefix(body, "-> ")
		switch {
		case err != nil:
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(path, 0o755)
		case link:
			err = os.Symlink(target, path)
		default:
			err = os.WriteFile(path, []byte(body), 0o644)
		}
		if err != nil {
			e.Fatal(err)
		}
	}
	return dir
}

// lines makes a Dockerfile.
func lines(text ...string) string { return strings.Join(text, "\n") + "\n" }

// build builds a context that must succeed, and returns what was said.
func build(e *harness.Env, files map[string]string, flags ...string) string {
	e.Helper()
	return e.OK(append(append([]string{"build"}, flags...), context(e, files))...)
}

// one builds a Dockerfile without other files under the name "built".
func one(e *harness.Env, text ...string) string {
	e.Helper()
	return build(e, map[string]string{"Dockerfile": lines(text...)}, "-t", "built")
}

// refused builds what must not succeed.
func refused(e *harness.Env, code int, pattern string, files map[string]string, flags ...string) harness.Result {
	e.Helper()
	return e.Fails(code, pattern, append(append([]string{"build"}, flags...), context(e, files))...)
}

// matches fails the test unless text matches.
func matches(e *harness.Env, pattern, text string) {
	e.Helper()
	if !regexp.MustCompile("(?s)" + pattern).MatchString(text) {
		e.Fatalf("got %q, want %q", text, pattern)
	}
}
