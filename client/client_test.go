package client

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/moby/moby/api/types/container"
)

// serve runs a server on a unix socket of the test's own and returns a client of it.
func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	sock := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	c, err := New(Options{Host: "unix://" + sock, Headers: map[string]string{"X-Meta": "m"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestNegotiation(t *testing.T) {
	var paths []string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.Method+" "+r.URL.Path)
		w.Header().Set("Api-Version", "1.41")
		if strings.HasPrefix(r.URL.Path, "/v"+MaxAPIVersion) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(400)
			fmt.Fprint(w, `{"message":"client version is too new. Maximum supported API version is 1.41"}`)
			return
		}
		fmt.Fprint(w, "[]")
	})
	for range 2 {
		if _, err := c.ContainerList(context.Background(), ContainerListOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	want := "GET /v" + MaxAPIVersion + "/containers/json, GET /v1.41/containers/json, GET /v1.41/containers/json"
	if got := strings.Join(paths, ", "); got != want {
		t.Errorf("requests %s, want %s", got, want)
	}
	if c.Version() != "1.41" || !c.LessVersion("1.42") || c.LessVersion("1.9") {
		t.Errorf("version %s", c.Version())
	}
}

// TestNegotiationBeforeStream checks that a body that cannot be sent twice is not sent before the version is settled.
func TestNegotiationBeforeStream(t *testing.T) {
	var paths []string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.Method+" "+r.URL.Path)
		w.Header().Set("Api-Version", "1.40")
		b, _ := io.ReadAll(r.Body)
		fmt.Fprint(w, len(b))
	})
	resp, err := c.ImageLoad(context.Background(), strings.NewReader(strings.Repeat("x", 300<<10)), true, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if string(b) != fmt.Sprint(300<<10) || strings.Join(paths, ", ") != "HEAD /_ping, POST /v1.40/images/load" {
		t.Errorf("%s bytes arrived; requests %v", b, paths)
	}
}

// TestRefusedPing checks that a server that refuses even a ping is asked why.
func TestRefusedPing(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, `{"message": "too many open files"}`)
	})
	_, err := c.ImageLoad(context.Background(), strings.NewReader("x"), true, nil)
	if err == nil || !strings.Contains(err.Error(), "too many open files") {
		t.Errorf("it said %v", err)
	}
}

func TestErrors(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", MaxAPIVersion)
		if r.Header.Get("X-Meta") != "m" {
			t.Error("a configured header is missing")
		}
		switch {
		case strings.Contains(r.URL.Path, "json-error"):
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(409)
			fmt.Fprint(w, `{"message":"taken\n"}`)
		case strings.Contains(r.URL.Path, "text-error"):
			w.WriteHeader(500)
			fmt.Fprint(w, "plain words\n")
		default:
			w.WriteHeader(404)
		}
	})
	for name, want := range map[string]string{
		"json-error": "Error response from daemon: taken",
		"text-error": "Error response from daemon: plain words",
		"no-error":   "Error response from daemon: request returned 404 for API route",
	} {
		err := c.ContainerPause(context.Background(), name)
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	if err := c.ContainerPause(context.Background(), "x"); !IsStatus(err, StatusNotFound) {
		t.Errorf("status of %v", err)
	}
}

func TestNoServer(t *testing.T) {
	host := "unix://" + filepath.Join(t.TempDir(), "none")
	started := 0
	c, err := New(Options{Host: host, Start: func(context.Context) error { started++; return errors.New("cannot start") }})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err = c.Info(context.Background())
		var ce *ConnectionError
		if !errors.As(err, &ce) || !strings.HasPrefix(err.Error(), "Cannot connect to the Docker daemon at "+host+". Is the docker daemon running?") {
			t.Errorf("error %v", err)
		}
	}
	if started != 1 {
		t.Errorf("Start was called %d times, want once", started)
	}
}

// TestClosedConnection checks that a request is sent again when the server closed the kept connection.
func TestClosedConnection(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var conns atomic.Int32
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			conns.Add(1)
			if r, err := http.ReadRequest(bufio.NewReader(nc)); err == nil {
				_, _ = io.Copy(io.Discard, r.Body)
				fmt.Fprintf(nc, "HTTP/1.1 200 OK\r\nApi-Version: %s\r\nContent-Length: 2\r\n\r\n[]", MaxAPIVersion)
			}
			_ = nc.Close() // although it did not say so
		}
	}()
	c, err := New(Options{Host: "unix://" + sock})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := c.ContainerList(context.Background(), ContainerListOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if conns.Load() != 3 {
		t.Errorf("%d connections, want 3", conns.Load())
	}
}

func TestKeepsConnection(t *testing.T) {
	seen := map[string]bool{}
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		seen[fmt.Sprint(r.Context().Value(http.LocalAddrContextKey), r.RemoteAddr)] = true
		w.Header().Set("Api-Version", MaxAPIVersion)
		w.(http.Flusher).Flush() // chunked
		fmt.Fprint(w, "{}")
	})
	for range 3 {
		if _, err := c.ContainerInspect(context.Background(), "x"); err != nil {
			t.Fatal(err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle == nil || !c.idle.reused {
		t.Error("no connection is kept")
	}
}

func TestHijack(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "tcp" {
			t.Errorf("Upgrade header %q", r.Header.Get("Upgrade"))
		}
		nc, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer nc.Close()
		fmt.Fprintf(nc, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nApi-Version: %s\r\n\r\nfirst ", MaxAPIVersion)
		in, _ := io.ReadAll(rw) // until the client's half is closed
		fmt.Fprintf(nc, "got %s", in)
	})
	s, err := c.ContainerAttach(context.Background(), "x", AttachOptions{Stream: true, Stdin: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !s.Mux {
		t.Error("the stream's kind was not seen")
	}
	if _, err := io.WriteString(s.Conn, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(s); err != nil || string(b) != "first got hello" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestCancel(t *testing.T) {
	block := make(chan struct{})
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Api-Version", MaxAPIVersion)
		w.(http.Flusher).Flush()
		<-block
	})
	defer close(block)
	ctx, cancel := context.WithCancel(context.Background())
	wait, err := c.ContainerWait(ctx, "x", container.WaitConditionNextExit)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := wait(); err == nil {
		t.Error("the wait goes on after its context ended")
	}
}

func TestEarlyRefusal(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", MaxAPIVersion)
		if r.Method == "PUT" {
			w.Header().Set("Connection", "close")
			w.WriteHeader(400)
			fmt.Fprint(w, "no room")
		}
	})
	err := c.CopyToContainer(context.Background(), "x", "/", io.LimitReader(zeros{}, 64<<20), false, false)
	if !IsStatus(err, 400) && !strings.Contains(fmt.Sprint(err), "broken pipe") && !strings.Contains(fmt.Sprint(err), "reset") {
		t.Errorf("error %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestNewHosts(t *testing.T) {
	for host, want := range map[string]string{
		"": "unix /run/gantry.sock", "unix:///a/b": "unix /a/b", "tcp://h:1": "tcp h:1", "tcp://h": "tcp h:2375", "http://h:5/p/": "tcp h:5/p",
		"https://h": "tcp h:2376", "tcp://[::1]:7": "tcp [::1]:7",
	} {
		c, err := New(Options{Host: host})
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		if got := c.network + " " + c.address + c.prefix; got != want {
			t.Errorf("%s: %s, want %s", host, got, want)
		}
	}
	for _, host := range []string{"foo", "unix://", "ssh://h", "tcp://"} {
		if _, err := New(Options{Host: host}); err == nil {
			t.Errorf("%s was accepted", host)
		}
	}
}

func TestFilters(t *testing.T) {
	f := Filters{}
	f.Add("name", "a")
	f.Add("name", "b")
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var got Filters
		if err := json.Unmarshal([]byte(r.URL.Query().Get("filters")), &got); err != nil || !got["name"]["a"] || !got["name"]["b"] {
			t.Errorf("filters %q", r.URL.Query().Get("filters"))
		}
		w.Header().Set("Api-Version", MaxAPIVersion)
		fmt.Fprint(w, "[]")
	})
	if _, err := c.NetworkList(context.Background(), f); err != nil {
		t.Fatal(err)
	}
}

func TestObject(t *testing.T) {
	for want, elem := range map[string][]string{
		"/images/localhost:5000/a/b:1@sha256:00/json": {"images", "localhost:5000/a/b:1@sha256:00", "json"},
		"/containers/a%20b%3Fc/start":                 {"containers", "a b?c", "start"},
		"/containers/..":                              {"containers", ".."},
	} {
		if got := object(elem...); got != want {
			t.Errorf("%v: %s, want %s", elem, got, want)
		}
	}
}

func TestTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", MaxAPIVersion)
		fmt.Fprintf(w, `[{"Id":"%d"}]`, len(r.TLS.PeerCertificates))
	}))
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // the handshakes that must fail
	s.StartTLS()
	defer s.Close()
	dir := t.TempDir()
	ca, cert, key := filepath.Join(dir, "ca"), filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	pair := s.TLS.Certificates[0]
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		ca: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, cert: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	host := "tcp://" + s.Listener.Addr().String()
	for _, c := range []struct {
		name string
		tls  *TLSOptions
		want string // ID, which is the number of client certificates, or "error: " and part of its words
	}{
		{"verified", &TLSOptions{CA: ca, Cert: cert, Key: key, Verify: true}, "1"},
		{"no client certificate", &TLSOptions{CA: ca, Verify: true}, "0"},
		{"not verified", &TLSOptions{}, "0"},
		{"unknown authority", &TLSOptions{Verify: true}, "error: certificate"},
		{"no such CA", &TLSOptions{CA: ca + "x", Verify: true}, "error: could not read CA certificate"},
		{"no such key", &TLSOptions{Cert: cert, Key: key + "x"}, "error: could not load X509 key pair"},
		{"plain", nil, "error: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl, err := New(Options{Host: host, TLS: c.tls})
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			list, err := cl.ContainerList(context.Background(), ContainerListOptions{})
			if words, ok := strings.CutPrefix(c.want, "error: "); ok {
				if err == nil || !strings.Contains(err.Error(), words) {
					t.Errorf("error %v, want %q", err, words)
				}
				return
			}
			if err != nil || len(list) != 1 || list[0].ID != c.want {
				t.Errorf("%v, %v; want %s", list, err, c.want)
			}
		})
	}
}
