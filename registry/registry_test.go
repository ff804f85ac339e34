package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/errdefs"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// recorder is a server that remembers the Authorization headers it was sent.
type recorder struct {
	*httptest.Server
	mu   sync.Mutex
	auth []string
	hits int
}

func serve(t *testing.T, handler http.HandlerFunc) *recorder {
	t.Helper()
	r := &recorder{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		r.hits++
		if a := req.Header.Get("Authorization"); a != "" {
			r.auth = append(r.auth, a)
		}
		if body := req.FormValue("refresh_token"); body != "" {
			r.auth = append(r.auth, body)
		}
		r.mu.Unlock()
		handler(w, req)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *recorder) host() string { return strings.TrimPrefix(r.URL, "http://") }

func (r *recorder) heard() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.auth
}

func repository(t *testing.T, host string, auth Auth, c Config) *Repository {
	t.Helper()
	client, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	named, err := reference.ParseNormalizedNamed(host + "/team/app")
	if err != nil {
		t.Fatal(err)
	}
	r, err := client.Repository(named, auth, false)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var secret = Auth{Username: "user", Password: "secret"}

func manifestHandler(w http.ResponseWriter, data string) {
	w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
	_, _ = io.WriteString(w, data)
}

func TestBearer(t *testing.T) {
	tokens := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if u, p, ok := r.BasicAuth(); ok && (u != "user" || p != "secret") {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.FormValue("service") != "reg" || r.FormValue("scope") != "repository:team/app:pull" {
			t.Errorf("token for %v", r.Form)
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"token": "t1", "expires_in": 300})
	})
	also := false
	reg := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer t1" {
			if also {
				w.Header().Add("WWW-Authenticate", `Basic realm="reg"`)
			}
			w.Header().Add("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="reg",scope="repository:team/app:pull"`, tokens.URL))
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		manifestHandler(w, "{}")
	})
	for i, auth := range []Auth{{}, secret, {IdentityToken: "identity"}} {
		r := repository(t, reg.host(), auth, Config{})
		also = i == 0 // who has no password takes the other of two ways
		for range 2 {
			if data, d, err := r.Manifest(t.Context(), "latest"); err != nil || string(data) != "{}" || d.Digest != digest.FromString("{}") {
				t.Fatal(data, d, err)
			}
		}
	}
	if tokens.hits != 3 {
		t.Errorf("%d tokens were fetched, want one a repository", tokens.hits)
	}
	r := repository(t, reg.host(), Auth{RegistryToken: "t1"}, Config{})
	if _, _, err := r.Manifest(t.Context(), "latest"); err != nil {
		t.Error(err)
	}
	r = repository(t, reg.host(), Auth{Username: "user", Password: "wrong"}, Config{})
	if _, _, err := r.Manifest(t.Context(), "latest"); !errdefs.Is(err, errdefs.Unauthorized) {
		t.Error(err)
	}
}

func TestBasic(t *testing.T) {
	reg := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != "user" || p != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		manifestHandler(w, "{}")
	})
	if _, _, err := repository(t, reg.host(), secret, Config{}).Manifest(t.Context(), "latest"); err != nil {
		t.Error(err)
	}
	_, _, err := repository(t, reg.host(), Auth{}, Config{}).Manifest(t.Context(), "latest")
	if want := fmt.Sprintf("Get %q: no basic auth credentials", reg.URL+"/v2/team/app/manifests/latest"); !errors.Is(err, errNoCredentials) || err.Error() != want {
		t.Error(err)
	}
	client, _ := New(Config{})
	if _, err := client.Login(t.Context(), Auth{Username: "user", Password: "secret", ServerAddress: reg.host()}); err != nil {
		t.Error(err)
	}
	if _, err := client.Login(t.Context(), Auth{Username: "user", Password: "bad", ServerAddress: reg.host()}); !errdefs.Is(err, errdefs.Unauthorized) {
		t.Error(err)
	}
}

// Nobody but the registry and the token server that it names first may learn the credentials.
func TestCredentialsStay(t *testing.T) {
	thief := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/challenge" {
			w.Header().Set("WWW-Authenticate", `Basic realm="give"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"token": "t"})
	})
	var redirect string
	reg := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if _, _, ok := r.BasicAuth(); !ok {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		http.Redirect(w, r, thief.URL+redirect, http.StatusTemporaryRedirect)
	})
	ctx := t.Context()
	d := ocispec.Descriptor{Digest: digest.FromString("x"), Size: 1}
	for _, redirect = range []string{"/plain", "/challenge"} {
		r := repository(t, reg.host(), secret, Config{})
		_, _, _ = r.Manifest(ctx, "latest")
		_ = r.Blob(ctx, d, &memory{d: d})
	}
	if thief.hits == 0 {
		t.Error("no redirect was followed")
	}
	if heard := thief.heard(); len(heard) > 0 {
		t.Errorf("another host was sent %q", heard)
	}
	// A registry that changes its token server between two requests.
	first := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"token": "t"})
	})
	realm := first
	swap := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token"`, realm.URL))
		w.WriteHeader(http.StatusUnauthorized)
	})
	r := repository(t, swap.host(), secret, Config{})
	_, _, _ = r.Manifest(ctx, "latest")
	realm = thief
	if _, _, err := r.Manifest(ctx, "latest"); !errdefs.Is(err, errdefs.Unauthorized) {
		t.Error(err)
	}
	if heard := thief.heard(); len(heard) > 0 {
		t.Errorf("a swapped token server was sent %q", heard)
	}
	// A token server that leads on elsewhere.
	leading := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, thief.URL, http.StatusTemporaryRedirect)
	})
	realm = leading
	if _, _, err := repository(t, swap.host(), secret, Config{}).Manifest(ctx, "latest"); err == nil {
		t.Error("a redirected token was taken")
	}
	// An upload that is sent elsewhere.
	upload := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if _, _, ok := r.BasicAuth(); !ok {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Location", thief.URL+"/upload")
		w.WriteHeader(http.StatusAccepted)
	})
	_, _ = repository(t, upload.host(), secret, Config{}).Upload(ctx, d, "", func(int64) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("x")), nil })
	if heard := thief.heard(); len(heard) > 0 {
		t.Errorf("another host was sent %q", heard)
	}
	for _, bad := range []string{"", "ftp://x/y", "//x", "http://user:pass@x/", "::"} {
		h := &host{name: "x", base: &url.URL{Scheme: "http"}}
		if _, err := h.realmOf(challenge{params: map[string]string{"realm": bad}}); err == nil {
			t.Errorf("token server %q was taken", bad)
		}
	}
	h := &host{name: "x", base: &url.URL{Scheme: "https"}}
	if _, err := h.realmOf(challenge{params: map[string]string{"realm": "http://x/token"}}); err == nil {
		t.Error("a token server without TLS was taken for a registry with")
	}
}

func TestManifestLimits(t *testing.T) {
	reg := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/endless"):
			for {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		case strings.Contains(r.URL.Path, "sha256:"):
			manifestHandler(w, "another")
		case strings.HasSuffix(r.URL.Path, "/loop"):
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		case strings.HasSuffix(r.URL.Path, "/error"):
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"gone\u001b[31m\n"}]}`)
		}
	})
	r := repository(t, reg.host(), Auth{}, Config{})
	for ref, kind := range map[string]errdefs.Kind{"endless": errdefs.InvalidParameter, digest.FromString("x").String(): errdefs.InvalidParameter, "error": errdefs.NotFound} {
		if _, _, err := r.Manifest(t.Context(), ref); !errdefs.Is(err, kind) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if _, _, err := r.Manifest(t.Context(), "error"); Code(err) != "MANIFEST_UNKNOWN" || strings.ContainsAny(err.Error(), "\x1b\n") {
		t.Errorf("%q", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, _, err := r.Manifest(ctx, "loop"); err == nil {
		t.Error("endless redirects were followed")
	}
}

func TestCancel(t *testing.T) {
	release := make(chan struct{})
	reg := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		w.Header().Set("Content-Length", "10")
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		<-release
	})
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	d := ocispec.Descriptor{Digest: digest.FromString("x"), Size: 10}
	err := repository(t, reg.host(), Auth{}, Config{}).Blob(ctx, d, &memory{d: d})
	if err == nil || time.Since(start) > 5*time.Second {
		t.Error(err, time.Since(start))
	}
}

func TestMirror(t *testing.T) {
	broken := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	mirror := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/cache/v2/library/busybox/manifests/latest" {
			manifestHandler(w, "{}")
		}
	})
	client, err := New(Config{Mirrors: []string{broken.URL, mirror.URL + "/cache/"}})
	if err != nil {
		t.Fatal(err)
	}
	named, _ := reference.ParseNormalizedNamed("busybox")
	hub, err := client.Repository(named, secret, false)
	if err != nil {
		t.Fatal(err)
	}
	if data, _, err := hub.Manifest(t.Context(), "latest"); err != nil || string(data) != "{}" {
		t.Error(data, err)
	}
	if heard := append(broken.heard(), mirror.heard()...); len(heard) > 0 {
		t.Errorf("a mirror was sent the credentials of Docker Hub: %q", heard)
	}
	if _, err := New(Config{Mirrors: []string{"mirror.example"}}); !errdefs.Is(err, errdefs.InvalidParameter) {
		t.Error(err)
	}
}

func TestInsecure(t *testing.T) {
	client, _ := New(Config{Insecure: []string{"reg.example:5000", "other.example", "10.1.0.0/16"}})
	client.resolving = func(host string) ([]net.IP, error) {
		if host == "inside.example" {
			return []net.IP{netip.MustParseAddr("10.1.2.3").AsSlice()}, nil
		}
		return nil, errors.New("no such host")
	}
	for host, want := range map[string]bool{
		"localhost": true, "localhost:5000": true, "127.0.0.1:5000": true, "127.9.9.9": true, "[::1]:5000": true, "reg.example:5000": true, "reg.example": false,
		"other.example:1": true, "10.1.2.3:5000": true, "10.2.0.1": false, "inside.example": true, "outside.example": false, "localhost.example": false,
	} {
		if got := client.insecure(host); got != want {
			t.Errorf("%s: %v", host, got)
		}
	}
}

func TestCertificates(t *testing.T) {
	reg := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { manifestHandler(w, "{}") }))
	defer reg.Close()
	reg.Config.ErrorLog = nil
	host := strings.Replace(strings.TrimPrefix(reg.URL, "https://"), "127.0.0.1", "example.com", 1)
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, strings.TrimPrefix(reg.URL, "https://"))
	}
	for _, trusted := range []bool{false, true} {
		dir := t.TempDir()
		if trusted {
			folder := filepath.Join(dir, host)
			if err := os.Mkdir(folder, 0o700); err != nil {
				t.Fatal(err)
			}
			pem := "-----BEGIN CERTIFICATE-----\n" + base64.StdEncoding.EncodeToString(reg.Certificate().Raw) + "\n-----END CERTIFICATE-----\n"
			if err := os.WriteFile(filepath.Join(folder, "ca.crt"), []byte(pem), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		r := repository(t, host, Auth{}, Config{CertsDirs: []string{dir}})
		tr, ok := r.client.transport(host, r.hosts[0].certs).(*http.Transport)
		if !ok {
			t.Fatal("no transport")
		}
		tr.DialContext = dial
		if _, _, err := r.Manifest(t.Context(), "latest"); (err == nil) != trusted {
			t.Errorf("trusted %v: %v", trusted, err)
		}
	}
}

func TestParseChallenges(t *testing.T) {
	for _, c := range []struct {
		header string
		want   string
	}{
		{`Basic realm="x"`, `[{basic map[realm:x]}]`},
		{`Bearer realm="https://a/b?c=d",service="s", scope="a:b:c,d"`, `[{bearer map[realm:https://a/b?c=d scope:a:b:c,d service:s]}]`},
		{`Negotiate, Basic realm=x, Bearer realm="y"`, `[{negotiate map[]} {basic map[realm:x]} {bearer map[realm:y]}]`},
		{`Basic realm="a\"b\\c"`, `[{basic map[realm:a"b\c]}]`},
		{`Basic realm="open`, `[{basic map[]}]`},
		{`"`, `[]`}, {``, `[]`}, {`,,,`, `[]`}, {`=`, `[]`},
	} {
		if got := fmt.Sprint(parseChallenges(http.Header{"Www-Authenticate": {c.header}})); got != c.want {
			t.Errorf("%s: %s, want %s", c.header, got, c.want)
		}
	}
}

func FuzzParseChallenges(f *testing.F) {
	f.Add(`Bearer realm="https://a/b",service="s",scope="a:b:c,d"`)
	f.Add(`Negotiate, Basic realm=x, Bearer realm="\""`)
	f.Fuzz(func(t *testing.T, header string) {
		for _, c := range parseChallenges(http.Header{"Www-Authenticate": {header, header}}) {
			if c.scheme == "" {
				t.Error("no scheme")
			}
		}
	})
}

func FuzzRangeFits(f *testing.F) {
	f.Add("bytes 5-9/10", int64(5), int64(10), int64(10))
	f.Fuzz(func(t *testing.T, header string, start, end, size int64) {
		if rangeFits(header, start, end, size) && (!strings.HasPrefix(header, "bytes ") || start >= end) {
			t.Error(header)
		}
	})
}

func TestNarrow(t *testing.T) {
	pull, push := []string{"repository:a:pull"}, []string{"repository:a:pull,push"}
	for _, c := range []struct {
		wanted string
		scope  []string
		want   string
	}{
		{"repository:p/a:pull", pull, "repository:p/a:pull"},
		{"repository:p/a:pull,push,delete", pull, "repository:p/a:pull"},
		{"repository:p/a:pull,push,delete", push, "repository:p/a:pull,push"},
		{"repository:h:5000/a:pull", pull, "repository:h:5000/a:pull"},
		{"repository:p/a:*", push, ""},
		{"repository:p/a:push", pull, ""},
		{"repository:p/a:pull", nil, ""},
		{"registry:catalog:*", push, ""},
		{"repository:pull", pull, ""},
		{"repository:", pull, ""},
		{"", pull, ""},
		{"repository:" + strings.Repeat("x", maxScope) + ":pull", pull, ""},
	} {
		if got := narrow(c.wanted, c.scope); got != c.want {
			t.Errorf("%q for %q: %q, want %q", c.wanted, c.scope, got, c.want)
		}
	}
}

func FuzzNarrow(f *testing.F) {
	f.Add("repository:p/a:pull,push,delete")
	f.Fuzz(func(t *testing.T, wanted string) {
		got := narrow(wanted, []string{"repository:a:pull"})
		if got != "" && (!strings.HasPrefix(got, "repository:") || !strings.HasSuffix(got, ":pull") || len(got) > maxScope) {
			t.Errorf("%q: %q", wanted, got)
		}
	})
}
