package docker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"gantry/engine"
	"gantry/errdefs"
	"gantry/event"
)

// serve starts a server with events only and the given further routes.
func serve(t *testing.T, more func(add func(method, pattern string, h Handler))) (*httptest.Server, *engine.Engine) {
	t.Helper()
	e := &engine.Engine{Events: &event.Bus{}}
	s := New(e, Options{ServerVersion: "9.9"})
	if more != nil {
		more(s.routes.add)
	}
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	return h, e
}

func request(t *testing.T, method, url, contentType, body string) (int, string, http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, strings.TrimSpace(string(data)), response.Header
}

func TestRoutesAndVersions(t *testing.T) {
	h, _ := serve(t, func(add func(method, pattern string, h Handler)) {
		add("GET", "/things/{name...}/json", func(w http.ResponseWriter, r *http.Request) error {
			_, err := fmt.Fprintf(w, "%s %s %s", VersionOf(r), r.PathValue("name"), r.Form.Get("q"))
			return err
		})
	})
	for path, want := range map[string]string{
		"/v1.41/things/a/b/c/json?q=1": "200 1.41 a/b/c 1",
		"/things/a%2Fb/json":           "200 1.56 a/b ",
		"/v1.24/things/json/json":      "200 1.24 json ",
		"/v1.24/things//json":          `404 {"message":"page not found"}`,
		"/v1.23/things/a/json":         `400 {"message":"client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"}`,
		"/v1.57/things/a/json":         `400 {"message":"client version 1.57 is too new. Maximum supported API version is 1.56"}`,
		"/v2/things/a/json":            `400 {"message":"client version 2 is too new. Maximum supported API version is 1.56"}`,
		"/v99999999999999999999/x":     `400 {"message":"invalid API version \"99999999999999999999\""}`,
		"/nowhere":                     `404 {"message":"page not found"}`,
		"/v1.41":                       `404 {"message":"page not found"}`,
		"/_ping":                       "200 OK",
		"/v1.30/_ping":                 "200 OK",
		"/swarm":                       `501 {"message":"swarm mode is not supported by this daemon"}`,
		"/v1.41/services/x/logs":       `501 {"message":"swarm mode is not supported by this daemon"}`,
	} {
		status, body, header := request(t, "GET", h.URL+path, "", "")
		if got := fmt.Sprintf("%d %s", status, body); got != want && strings.TrimSpace(want) != strings.TrimSpace(got) {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
		if header.Get("Api-Version") != "1.56" || header.Get("Ostype") != "linux" || header.Get("Server") != "Docker/9.9 (linux)" {
			t.Errorf("%s: headers %v", path, header)
		}
	}
	if status, _, _ := request(t, "DELETE", h.URL+"/_ping", "", ""); status != http.StatusNotFound {
		t.Errorf("wrong method: %d", status)
	}
	if status, _, header := request(t, "HEAD", h.URL+"/_ping", "", ""); status != 200 || header.Get("Builder-Version") == "" {
		t.Errorf("HEAD _ping: %d %v", status, header)
	}
}

func TestErrorStatuses(t *testing.T) {
	for err, want := range map[error]int{
		errdefs.New(errdefs.InvalidParameter, "x"):                              400,
		errdefs.New(errdefs.Unauthorized, "x"):                                  401,
		errdefs.New(errdefs.Forbidden, "x"):                                     403,
		fmt.Errorf("get y: %w", errdefs.New(errdefs.NotFound, "x")):             404,
		errdefs.New(errdefs.Conflict, "x"):                                      409,
		errdefs.New(errdefs.NotModified, "x"):                                   304,
		errdefs.New(errdefs.NotImplemented, "x"):                                501,
		errdefs.New(errdefs.Unavailable, "x"):                                   503,
		errdefs.New(errdefs.Exhausted, "x"):                                     500,
		errors.New("x"):                                                         500,
		context.Canceled:                                                        499,
		errdefs.New(errdefs.Conflict, "%w", errdefs.New(errdefs.NotFound, "x")): 409,
	} {
		if got := statusOf(err); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
}

func TestPanicsAndLateErrors(t *testing.T) {
	h, _ := serve(t, func(add func(method, pattern string, h Handler)) {
		add("GET", "/panic", func(http.ResponseWriter, *http.Request) error { panic("oops") })
		add("GET", "/late", func(w http.ResponseWriter, _ *http.Request) error {
			_, _ = w.Write([]byte("begun"))
			return errors.New("too late")
		})
		add("GET", "/same", func(http.ResponseWriter, *http.Request) error { return errdefs.New(errdefs.NotModified, "same") })
	})
	if status, body, _ := request(t, "GET", h.URL+"/panic", "", ""); status != 500 || !strings.Contains(body, "internal error in GET /panic") {
		t.Errorf("panic: %d %s", status, body)
	}
	if status, body, _ := request(t, "GET", h.URL+"/late", "", ""); status != 200 || body != "begun" {
		t.Errorf("late: %d %s", status, body)
	}
	if status, body, _ := request(t, "GET", h.URL+"/same", "", ""); status != 304 || body != "" {
		t.Errorf("not modified: %d %s", status, body)
	}
}

func TestReadJSON(t *testing.T) {
	h, _ := serve(t, func(add func(method, pattern string, h Handler)) {
		add("POST", "/echo", func(w http.ResponseWriter, r *http.Request) error {
			v := struct{ Name string }{"unset"}
			if err := ReadJSON(w, r, &v); err != nil {
				return err
			}
			return WriteJSON(w, 201, v)
		})
	})
	for _, c := range []struct{ contentType, body, want string }{
		{"application/json", `{"Name":"a<b"}`, `201 {"Name":"a<b"}`},
		{"application/json; charset=utf-8", `{"name":"x"}`, `201 {"Name":"x"}`},
		{"", "", `201 {"Name":"unset"}`},
		{"application/json", "", `201 {"Name":"unset"}`},
		{"text/plain", "", `400 {"message":"unsupported Content-Type header (text/plain): must be 'application/json'"}`},
		{"text/plain", "{}", `400 {"message":"unsupported Content-Type header (text/plain): must be 'application/json'"}`},
		{"", "{}", `400 {"message":"malformed Content-Type header (): mime: no media type"}`},
		{"application/json", " ", `400 {"message":"invalid JSON: got EOF while reading request body"}`},
		{"application/json", "{}{}", `400 {"message":"unexpected content after JSON"}`},
		{"application/json", "{", `400 {"message":"invalid JSON: unexpected EOF"}`},
		{"application/json", `{"Name":"` + strings.Repeat("x", maxBody) + `"}`, `400 {"message":"invalid JSON: the request body is larger than 4194304 bytes"}`},
	} {
		status, body, _ := request(t, "POST", h.URL+"/echo", c.contentType, c.body)
		if got := fmt.Sprintf("%d %s", status, body); got != c.want {
			t.Errorf("%.40q: got %.200s, want %s", c.body, got, c.want)
		}
	}
}

func TestHijack(t *testing.T) {
	h, _ := serve(t, func(add func(method, pattern string, h Handler)) {
		add("POST", "/attach", func(w http.ResponseWriter, r *http.Request) error {
			conn, prefix, upgraded, err := Hijack(w, r, true)
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }()
			rest, err := io.ReadAll(conn) // until the client half-closes
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(conn, "%v[%s][%s]", upgraded, prefix, rest)
			return err
		})
	})
	for _, c := range []struct{ path, header, want string }{
		{"/v1.42/attach", "Connection: Upgrade\r\nUpgrade: tcp\r\n", "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\ntrue"},
		{"/v1.41/attach", "Connection: Upgrade\r\nUpgrade: tcp\r\n", "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\ntrue"},
		{"/v1.42/attach", "", "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\nfalse"},
	} {
		conn, err := net.Dial("tcp", h.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: d\r\n%sContent-Length: 0\r\n\r\nearly", c.path, c.header); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
		if _, err := io.WriteString(conn, " late"); err != nil {
			t.Fatal(err)
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(conn)
		if err != nil {
			t.Fatal(err)
		}
		answer, ok := strings.CutPrefix(string(got), c.want)
		if !ok || strings.NewReplacer("[", "", "]", "").Replace(answer) != "early late" {
			t.Errorf("%s: got %q", c.path, got)
		}
		_ = conn.Close()
	}
}

func TestRelay(t *testing.T) {
	client, server := net.Pipe()
	local, err := relayed(server)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = client.Write([]byte("to the shim")) }()
	buf := make([]byte, 11)
	if _, err := io.ReadFull(local, buf); err != nil || string(buf) != "to the shim" {
		t.Errorf("%q %v", buf, err)
	}
	go func() { _, _ = local.Write([]byte("to the user")); _ = local.Close() }()
	if got, err := io.ReadAll(client); err != nil || string(got) != "to the user" {
		t.Errorf("%q %v", got, err)
	}
}

func TestEvents(t *testing.T) {
	h, e := serve(t, nil)
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	e.Events.Publish(event.Event{Type: event.Container, Action: "start", ID: "c1", Time: at(-50), Attributes: map[string]string{"image": "busybox:1", "name": "one", "tier": "a"}})
	e.Events.Publish(event.Event{Type: event.Image, Action: "create", ID: "sha256:1", Time: at(-40)})
	e.Events.Publish(event.Event{Type: event.Network, Action: "connect", ID: "n1", Time: at(-30)})
	since := fmt.Sprintf("since=%d&until=%d.%09d", start.Unix()-10, start.Unix(), start.Nanosecond())

	status, body, header := request(t, "GET", h.URL+"/v1.41/events?"+since, "", "")
	want := fmt.Sprintf(`{"status":"start","id":"c1","from":"busybox:1","Type":"container","Action":"start","Actor":{"ID":"c1","Attributes":{"image":"busybox:1","name":"one","tier":"a"}},"scope":"local","time":%d,"timeNano":%d}`, at(-50).Unix(), at(-50).UnixNano())
	if lines := strings.Split(body, "\n"); status != 200 || len(lines) != 2 || lines[0] != want || header.Get("Content-Type") != "application/json" {
		t.Errorf("%d %v\n%s\n%s", status, header, body, want)
	}
	for query, n := range map[string]int{
		`{"type":{"container":true}}`: 1, `{"container":["one"]}`: 1, `{"container":["c"]}`: 1, `{"container":["x"]}`: 0,
		`{"image":["busybox"]}`: 1, `{"label":["tier=a"]}`: 1, `{"label":["tier=b"]}`: 0, `{"event":["connect","start"]}`: 2, `{"scope":["swarm"]}`: 0,
	} {
		_, body, header := request(t, "GET", h.URL+"/events?"+since+"&filters="+query, "", "")
		if got := strings.Count(body, `"timeNano"`); got != n || header.Get("Content-Type") != "application/jsonl" {
			t.Errorf("%s: %d events, want %d", query, got, n)
		}
	}
	if status, body, _ := request(t, "GET", h.URL+"/events?since=x", "", ""); status != 400 || !strings.Contains(body, "invalid value for 'since'") {
		t.Errorf("%d %s", status, body)
	}

	// A listener gets what happens later.
	response, err := http.Get(h.URL + "/events") //nolint:noctx // ended by Close
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	e.Events.Publish(event.Event{Type: event.Volume, Action: "create", ID: "v1"})
	line, err := bufio.NewReader(response.Body).ReadString('\n')
	if err != nil || !strings.Contains(line, `"Type":"volume"`) {
		t.Errorf("%q %v", line, err)
	}
}

func TestStream(t *testing.T) {
	h, _ := serve(t, func(add func(method, pattern string, h Handler)) {
		add("POST", "/early", func(w http.ResponseWriter, r *http.Request) error {
			return NewStream(w, r).End(errdefs.New(errdefs.NotFound, "no such thing"))
		})
		add("POST", "/late", func(w http.ResponseWriter, r *http.Request) error {
			s := NewStream(w, r)
			_ = s.Send(Message{ID: "a1", Status: "Downloading", Progress: &Progress{Current: 512, Total: 2048}})
			return s.End(errdefs.New(errdefs.NotFound, "no such <thing>"))
		})
	})
	if status, body, _ := request(t, "POST", h.URL+"/early", "", ""); status != 404 || body != `{"message":"no such thing"}` {
		t.Errorf("%d %s", status, body)
	}
	want := `{"status":"Downloading","progressDetail":{"current":512,"total":2048},"progress":"[============\u003e                                      ]     512B/2.048kB","id":"a1"}` + "\r\n" +
		`{"errorDetail":{"message":"no such \u003cthing\u003e"},"error":"no such \u003cthing\u003e"}`
	if status, body, _ := request(t, "POST", h.URL+"/v1.41/late", "", ""); status != 200 || body != want {
		t.Errorf("%d\n%s\n%s", status, body, want)
	}
}
