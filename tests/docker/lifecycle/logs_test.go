package lifecycle

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/tests/harness"
)

func TestLogs(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.OK("run", "-d", image, "sh", "-c", "for i in 1 2 3 4 5; do echo out $i; done; sleep 0.05; echo err >&2; printf unfinished")
	e.OK("wait", id)
	r := e.Do("logs", id)
	if r.Stdout != "out 1\nout 2\nout 3\nout 4\nout 5\nunfinished" || r.Stderr != "err\n" {
		t.Error(r)
	}
	r = e.Do("logs", "--tail", "2", id)
	if r.Stdout != "unfinished" || r.Stderr != "err\n" {
		t.Error(r)
	}
	r = e.Do("logs", "-n", "0", id)
	if r.Stdout+r.Stderr != "" {
		t.Error(r)
	}
	e.Match(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z out 1\n`, "logs", "-t", id)
	r = e.Do("logs", "-f", id) // ends at once, as the container has
	if !strings.HasPrefix(r.Stdout, "out 1\n") {
		t.Error(r)
	}
	e.Fails(1, `invalid value for "since"`, "logs", "--since", "nonsense", "--tail", "x", id)
}

func TestLogTimes(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.OK("run", "-d", image, "sh", "-c", "echo first; sleep 1.2; echo second")
	e.OK("wait", id)
	stamp := strings.Fields(e.OK("logs", "-t", "--tail", "1", id))[0]
	e.Is("second", "logs", "--since", stamp, id)
	at, err := time.Parse(time.RFC3339Nano, stamp)
	if err != nil {
		t.Fatal(err)
	}
	e.Is("first", "logs", "--until", at.Add(-600*time.Millisecond).Format(time.RFC3339Nano), id)
	e.Is("first\nsecond", "logs", "--since", "10m", id)
	e.Is("", "logs", "--until", "10m", id)
}

func TestFollow(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.OK("run", "-d", image, "sh", "-c", "echo 0; while ! test -e /go; do sleep 0.05; done; echo 1; exit 0")
	s := e.Go("logs", "-f", id)
	s.Expect("^0\n$")
	e.OK("exec", id, "touch", "/go")
	s.Expect("^0\n1\n$")
	if code := s.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	// Follow over a restart ends with the container; with --since now only what is new comes.
	e.OK("start", id)
	e.OK("wait", id)
	e.Is("0\n1\n0\n1", "logs", id)
}

func TestLongLines(t *testing.T) {
	e := harness.New(t, daemon)
	// 16 KiB is where json-file cuts a line in two; the client must not see it.
	for _, n := range []int{16383, 16384, 16385, 100000, 1 << 20} {
		id := e.OK("run", "-d", image, "sh", "-c", fmt.Sprintf("head -c %d /dev/zero | tr '\\0' x; echo; echo end", n))
		e.OK("wait", id)
		got := e.OK("logs", id)
		if got != strings.Repeat("x", n)+"\nend" {
			t.Errorf("line of %d: %d bytes came", n, len(got))
		}
	}
	id := e.OK("run", "-d", image, "printf", `\xff\x00\x01"\\ \xc3\xa4 \xe2\x80\xa8 <&>\n`)
	e.OK("wait", id)
	if r := e.Do("logs", id); r.Stdout != "\ufffd\x00\x01\"\\ ä \u2028 <&>\n" && r.Stdout != "\xff\x00\x01\"\\ ä \u2028 <&>\n" {
		t.Errorf("%q", r.Stdout)
	}
}

func TestLogDrivers(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.OK("run", "-d", "--log-driver", "none", image, "echo", "x")
	e.OK("wait", id)
	e.Fails(1, "configured logging driver does not support reading", "logs", id)
	id = e.OK("run", "-d", "--log-driver", "local", image, "sh", "-c", "echo x; echo y >&2")
	e.OK("wait", id)
	if r := e.Do("logs", id); r.Stdout != "x\n" || r.Stderr != "y\n" {
		t.Error(r)
	}
	id = e.OK("run", "-d", "--log-driver", "json-file", "--log-opt", "max-size=20k", "--log-opt", "max-file=2", "--log-opt", "labels=a", "-l", "a=b", image, "sh", "-c", "for i in $(seq 2000); do echo line $i; done")
	e.OK("wait", id)
	e.Is("line 2000", "logs", "--tail", "1", id)
	path := e.Inspect(id, "{{.LogPath}}")
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) != 2 {
		t.Errorf("rotated files: %v, %v", files, err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(data), "\n")
	if !strings.HasPrefix(first, `{"log":"line `) || !strings.Contains(first, `"stream":"stdout"`) || !strings.Contains(first, `"attrs":{"a":"b"}`) || !strings.Contains(first, `"time":"`) {
		t.Errorf("first line %s", first)
	}
	e.Fails(125, `unknown log opt 'nosuch' for json-file log driver`, "run", "--log-opt", "nosuch=1", image, "true")
	e.Fails(125, "logger: no log driver named 'nosuch' is registered|error looking up logging plugin nosuch", "run", "--log-driver", "nosuch", image, "true")
	e.Fails(125, "max-size|invalid size", "run", "--log-opt", "max-size=lots", image, "true")
}
