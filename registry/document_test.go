package registry_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"gantry/errdefs"
	"gantry/registry"
	"gantry/registry/registrytest"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Whatever breaks off a manifest, a list or a token once, it is asked for again; what never comes is given up in bounded time.
func TestHostileDocuments(t *testing.T) {
	once := func(do registrytest.Behaviour) registrytest.Fault { return registrytest.Fault{Times: 1, Do: do} }
	for _, path := range []string{"/manifests/latest", "/tags/list", "/referrers/", "/token"} {
		for name, c := range map[string]struct {
			fault registrytest.Fault
			fails errdefs.Kind // Internal: it does not
		}{
			"reset in the middle": {fault: once(registrytest.Cut(10))},
			"stalls":              {fault: once(registrytest.Stall(10))},
			"500 at first":        {fault: once(registrytest.Status(500, ""))},
			"429 at first":        {fault: once(registrytest.Status(429, "0"))},
			"reset each time":     {fault: registrytest.Fault{Do: registrytest.Cut(10)}, fails: errdefs.Unavailable},
			"stalls each time":    {fault: registrytest.Fault{Do: registrytest.Stall(10)}, fails: errdefs.Unavailable},
			"drips":               {fault: registrytest.Fault{Do: registrytest.Drip(1, 100*time.Millisecond)}, fails: errdefs.Unavailable},
			"endless":             {fault: registrytest.Fault{Do: registrytest.Endless()}, fails: errdefs.InvalidParameter},
		} {
			t.Run(strings.Trim(path, "/")+" "+name, func(t *testing.T) {
				t.Parallel()
				reg := registrytest.New()
				defer reg.Close()
				d := reg.AddManifest("team/app", "latest", ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"config":{}}`))
				fault, do := c.fault, c.fault.Do
				fault.Path = path
				var right registrytest.Behaviour // what the registry does not serve by itself
				switch path {
				case "/token":
					right = registrytest.Token("t1", "")
					reg.Break(registrytest.Fault{Path: "/v2/", Do: registrytest.RequireBearer(reg.URL+path, "t1")})
				case "/referrers/":
					right = func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
						_, _ = w.Write([]byte(`{"schemaVersion":2,"manifests":[]}`))
					}
				}
				if right != nil {
					fault.Do = func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
						do(w, r, func(w http.ResponseWriter, r *http.Request) { right(w, r, nil) })
					}
					reg.Break(fault, registrytest.Fault{Path: path, Do: right})
				} else {
					reg.Break(fault)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
				defer cancel()
				config := quick()
				config.Stall = 300 * time.Millisecond
				r := repository(t, reg.Host(), registry.Auth{}, config)
				var err error
				switch path {
				case "/tags/list":
					_, err = r.Tags(ctx)
				case "/referrers/":
					_, err = r.Referrers(ctx, d.Digest)
				default:
					_, _, err = r.Manifest(ctx, "latest")
				}
				if c.fails == errdefs.Internal && err != nil || c.fails != errdefs.Internal && !errdefs.Is(err, c.fails) {
					t.Error(err)
				}
				if ctx.Err() != nil {
					t.Error("it takes too long")
				}
			})
		}
	}
}

// Mirrors list tags and referrers, too: the registry itself may be out of reach.
func TestMirrorLists(t *testing.T) {
	mirror := registrytest.New()
	defer mirror.Close()
	d := mirror.AddManifest("library/busybox", "1", ocispec.MediaTypeImageManifest, []byte("{}"))
	mirror.AddManifest("library/busybox", strings.Replace(d.Digest.String(), ":", "-", 1), ocispec.MediaTypeImageIndex, []byte(`{"manifests":[]}`))
	config := quick()
	config.Mirrors = []string{"http://127.0.0.1:1", mirror.URL}
	client, err := registry.New(config)
	if err != nil {
		t.Fatal(err)
	}
	name, _ := reference.ParseNormalizedNamed("busybox")
	hub, err := client.Repository(name, registry.Auth{}, false)
	if err != nil {
		t.Fatal(err)
	}
	if tags, err := hub.Tags(t.Context()); err != nil || !slices.Contains(tags, "1") {
		t.Error(tags, err)
	}
	if data, err := hub.Referrers(t.Context(), d.Digest); err != nil || string(data) != `{"manifests":[]}` {
		t.Error(string(data), err)
	}
}

// A mirror may keep repositories under other names, and then says with its demand which token it wants: no more than reading is asked for.
func TestChallengedScope(t *testing.T) {
	content := registrytest.New()
	defer content.Close()
	content.AddManifest("library/busybox", "latest", ocispec.MediaTypeImageManifest, []byte("{}"))
	var scopes []string
	var mirror *httptest.Server
	mirror = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		const wanted = "repository:proxy/library/busybox:pull"
		path, ok := strings.CutPrefix(r.URL.Path, "/v2/proxy")
		switch {
		case r.URL.Path == "/token":
			scopes = append(scopes, strings.Join(r.URL.Query()["scope"], " "))
			token := "useless"
			if slices.Contains(r.URL.Query()["scope"], wanted) {
				token = "useful"
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "issued_at": ""})
		case r.Header.Get("Authorization") != "Bearer useful":
			scope := ""
			if path != "/" {
				scope = `,scope="repository:proxy/library/busybox:pull,push,delete registry:catalog:*"`
			}
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="s"%s`, mirror.URL, scope))
			w.WriteHeader(http.StatusUnauthorized)
		case ok:
			r.URL.Path = "/v2" + path
			content.ServeHTTP(w, r)
		}
	}))
	defer mirror.Close()
	dir := t.TempDir()
	write(t, dir+"/docker.io/hosts.toml", fmt.Sprintf("[host.%q]\noverride_path = true\ncapabilities = [\"pull\", \"resolve\", \"referrers\"]\n", mirror.URL+"/v2/proxy"))
	config := quick()
	config.CertsDirs = []string{dir}
	client, err := registry.New(config)
	if err != nil {
		t.Fatal(err)
	}
	name, _ := reference.ParseNormalizedNamed("busybox")
	hub, err := client.Repository(name, registry.Auth{}, false)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if data, _, err := hub.Manifest(t.Context(), "latest"); err != nil || string(data) != "{}" {
			t.Fatal(string(data), err, scopes)
		}
	}
	if len(scopes) != 2 || scopes[1] != "repository:library/busybox:pull repository:proxy/library/busybox:pull" {
		t.Errorf("tokens were asked for %q", scopes)
	}
}
