package cli

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gantry/client"
)

// container is a fake container: it echoes its input and ends with a code.
type fakeContainer struct {
	code     int
	startErr string
	started  chan struct{}
	ended    chan struct{}
}

func (c *fakeContainer) routes() map[string]http.HandlerFunc {
	c.started, c.ended = make(chan struct{}), make(chan struct{})
	return map[string]http.HandlerFunc{
		"POST /containers/create": answer(201, `{"Id":"abc","Warnings":["careful"]}`),
		"POST /containers/abc/attach": func(w http.ResponseWriter, r *http.Request) {
			nc, rw, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			defer nc.Close()
			fmt.Fprintf(nc, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nApi-Version: %s\r\n\r\n", client.MaxAPIVersion)
			if c.startErr != "" {
				return
			}
			<-c.started
			var in []byte
			if r.URL.Query().Get("stdin") == "1" {
				in, _ = io.ReadAll(rw)
			}
			for stream, s := range []string{1: "out " + string(in), 2: "err"} {
				if stream > 0 {
					var h [8]byte
					h[0] = byte(stream)
					binary.BigEndian.PutUint32(h[4:], uint32(len(s)))
					_, _ = nc.Write(append(h[:], s...))
				}
			}
			close(c.ended)
		},
		"POST /containers/abc/wait": func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			if c.startErr == "" {
				<-c.ended
			}
			fmt.Fprintf(w, `{"StatusCode":%d}`, c.code)
		},
		"POST /containers/abc/start": func(w http.ResponseWriter, _ *http.Request) {
			if c.startErr != "" {
				answer(400, `{"message":"`+c.startErr+`"}`)(w, nil)
				return
			}
			close(c.started)
			w.WriteHeader(204)
		},
	}
}

func TestRun(t *testing.T) {
	c := fakeContainer{code: 7}
	s := newServer(t, c.routes())
	got := execute(t, s, "hello", "run", "-i", "--rm", "img", "cmd")
	if want := (result{"out hello", "WARNING: careful\nerr", 7}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	want := "POST /containers/create, POST /containers/abc/attach, POST /containers/abc/wait, POST /containers/abc/start"
	asked := s.asked()
	if len(asked) == 4 { // attach and wait go at the same time
		slices.Sort(asked[1:3])
	}
	if asked := strings.Join(asked, ", "); asked != want {
		t.Errorf("requests %s, want %s", asked, want)
	}
}

func TestRunDetached(t *testing.T) {
	c := fakeContainer{}
	s := newServer(t, c.routes())
	cid := filepath.Join(t.TempDir(), "cid")
	got := execute(t, s, "", "run", "-d", "--cidfile", cid, "img")
	if got.stdout != "abc\n" || got.code != 0 {
		t.Errorf("%+v", got)
	}
	if b, err := os.ReadFile(cid); err != nil || string(b) != "abc" {
		t.Errorf("cidfile %q, %v", b, err)
	}
	got = execute(t, s, "", "run", "--cidfile", cid, "img")
	if got.code != 125 || !strings.Contains(got.stderr, "container ID file found") {
		t.Errorf("%+v", got)
	}
}

func TestRunFailures(t *testing.T) {
	for msg, code := range map[string]int{
		"exec: x: executable file not found in $PATH": 127, "stat /x: no such file or directory": 127, "exec /x: permission denied": 126,
		"exec /etc: is a directory": 126, "port is already allocated": 125,
	} {
		c := fakeContainer{startErr: msg, code: 1}
		got := execute(t, newServer(t, c.routes()), "", "run", "img", "x")
		want := "WARNING: careful\ngantry: Error response from daemon: " + msg + "\n\nRun 'gantry run --help' for more information\n"
		if got.code != code || got.stderr != want {
			t.Errorf("%s: %+v", msg, got)
		}
	}
}

func TestRunPullsMissingImage(t *testing.T) {
	c := fakeContainer{}
	routes := c.routes()
	create := routes["POST /containers/create"]
	tries := 0
	routes["POST /containers/create"] = func(w http.ResponseWriter, r *http.Request) {
		if tries++; tries == 1 {
			answer(404, `{"message":"No such image: img:latest"}`)(w, r)
			return
		}
		create(w, r)
	}
	routes["POST /images/create"] = answer(200, `{"status":"Pulling from library/img","id":"latest"}
{"status":"Downloading","progressDetail":{"current":1,"total":2},"id":"aa"}
{"status":"Pull complete","progressDetail":{},"id":"aa"}
{"status":"Status: Downloaded newer image for img:latest"}
`)
	s := newServer(t, routes)
	got := run(t, s, "create", "img")
	want := "Unable to find image 'img:latest' locally\nlatest: Pulling from library/img\naa: Pull complete\nStatus: Downloaded newer image for img:latest\nWARNING: careful\n"
	if got.stdout != "abc\n" || got.stderr != want || got.code != 0 {
		t.Errorf("%+v", got)
	}
	tries = 0
	got = run(t, s, "create", "--pull", "never", "img")
	if got.code != 1 || got.stderr != "Error response from daemon: No such image: img:latest\n" {
		t.Errorf("%+v", got)
	}
}

func TestExec(t *testing.T) {
	c := fakeContainer{}
	routes := c.routes()
	close(c.started)
	routes["POST /containers/x/exec"] = answer(201, `{"Id":"e"}`)
	routes["POST /exec/e/start"] = routes["POST /containers/abc/attach"]
	routes["GET /exec/e/json"] = answer(200, `{"ExitCode":3}`)
	got := run(t, newServer(t, routes), "exec", "x", "cmd", "-a")
	if want := (result{"out ", "err", 3}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
