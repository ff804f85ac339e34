package registry_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/errdefs"
	"gantry/registry"
	"gantry/registry/registrytest"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// named returns the repository team/app of a domain.
func named(t *testing.T, domain string, auth registry.Auth, push bool, c registry.Config) *registry.Repository {
	t.Helper()
	client, err := registry.New(c)
	if err != nil {
		t.Fatal(err)
	}
	name, err := reference.ParseNormalizedNamed(domain + "/team/app")
	if err != nil {
		t.Fatal(err)
	}
	r, err := client.Repository(name, auth, push)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var secret = registry.Auth{Username: "user", Password: "hunter2"}

func TestHostsToml(t *testing.T) {
	origin, mirror, other := registrytest.New(), registrytest.New(), registrytest.New()
	for _, r := range []*registrytest.Registry{origin, mirror, other} {
		defer r.Close()
		r.AddManifest("team/app", "latest", ocispec.MediaTypeImageManifest, []byte("{}"))
	}
	blob := noise(1000)
	d := origin.AddBlob("team/app", blob)
	mirror.AddBlob("team/app", blob)
	dir := t.TempDir()
	c := quick()
	c.CertsDirs = []string{t.TempDir(), dir}
	ctx := t.Context()
	fetch := func(t *testing.T, domain string, auth registry.Auth) error {
		t.Helper()
		r := named(t, domain, auth, false, c)
		if _, _, err := r.Manifest(ctx, "latest"); err != nil {
			return err
		}
		return r.Blob(ctx, d, newSink(d))
	}
	forget := func() {
		for _, r := range []*registrytest.Registry{origin, mirror, other} {
			r.Forget()
		}
	}
	t.Run("mirror of any registry", func(t *testing.T) {
		forget()
		write(t, filepath.Join(dir, "reg.invalid", "hosts.toml"), fmt.Sprintf("server = %q\n[host.%q]\n  [host.%q.header]\n    x-key = [\"k1\"]\n", origin.URL, mirror.URL, mirror.URL))
		origin.Break(registrytest.Fault{Path: "/v2/", Do: registrytest.RequireBasic("user", "hunter2")})
		if err := fetch(t, "reg.invalid", secret); err != nil {
			t.Error(err)
		}
		if origin.Count("", "") > 0 || mirror.Count("GET", "") < 2 {
			t.Error("the mirror was not asked first")
		}
		for _, q := range mirror.Requests() {
			if q.Query != "ns=reg.invalid" || q.Authorization != "" {
				t.Errorf("%+v", q)
			}
		}
		// containerd's name of the folder of a host with a port comes before the other.
		for name, to := range map[string]string{"reg.invalid_5000_": mirror.URL, "reg.invalid:5000": other.URL} {
			write(t, filepath.Join(dir, name, "hosts.toml"), fmt.Sprintf("server = %q\n", to))
		}
		mirror.Forget()
		if err := fetch(t, "reg.invalid:5000", registry.Auth{}); err != nil || mirror.Count("GET", "") < 2 || other.Count("", "") > 0 {
			t.Error("the folder of a host with a port was not read", err)
		}
		// The mirror fails: the registry itself has it, with the credentials, and the mirror is not asked time and again.
		mirror.Forget()
		mirror.Break(registrytest.Fault{Path: "/v2/", Do: registrytest.Status(503, "")})
		if err := fetch(t, "reg.invalid", secret); err != nil {
			t.Error(err)
		}
		if n := mirror.Count("", ""); n > 4 || len(mirror.Credentials()) > 0 || len(origin.Credentials()) == 0 {
			t.Errorf("the mirror was asked %d times and sent %q", n, mirror.Credentials())
		}
		// Pushes go to the registry itself.
		forget()
		if has, err := named(t, "reg.invalid", registry.Auth{}, true, c).Has(ctx, d.Digest); err != nil || !has || mirror.Count("", "") > 0 {
			t.Error(has, err)
		}
	})
	t.Run("the registry among its hosts", func(t *testing.T) {
		forget()
		write(t, filepath.Join(dir, "own.invalid", "hosts.toml"), fmt.Sprintf("server = %q\n[host.%q]\n[host.%q]\ncapabilities = [\"pull\", \"resolve\"]\n", origin.URL, origin.URL, mirror.URL))
		origin.Break(registrytest.Fault{Path: "/v2/", Do: registrytest.RequireBasic("user", "hunter2")})
		mirror.Break(registrytest.Fault{Path: "/v2/", Do: registrytest.RequireBasic("user", "hunter2")})
		if err := fetch(t, "own.invalid", secret); err != nil || len(mirror.Credentials()) > 0 {
			t.Error(err, mirror.Credentials())
		}
		write(t, filepath.Join(dir, "readonly.invalid", "hosts.toml"), fmt.Sprintf("server = %q\ncapabilities = [\"pull\", \"resolve\"]\n", origin.URL))
		client, err := registry.New(c)
		if err != nil {
			t.Fatal(err)
		}
		name, _ := reference.ParseNormalizedNamed("readonly.invalid/x")
		if _, err := client.Repository(name, secret, true); !errdefs.Is(err, errdefs.Forbidden) {
			t.Error(err)
		}
	})
	t.Run("capabilities", func(t *testing.T) {
		forget()
		write(t, filepath.Join(dir, "blobs.invalid", "hosts.toml"), fmt.Sprintf("server = %q\n[host.%q]\ncapabilities = [\"pull\"]\n", origin.URL, mirror.URL))
		if err := fetch(t, "blobs.invalid", registry.Auth{}); err != nil {
			t.Error(err)
		}
		if origin.Count("", "/manifests/") != 1 || origin.Count("", "/blobs/") != 0 || mirror.Count("", "/manifests/") != 0 || mirror.Count("", "/blobs/") != 1 {
			t.Error(origin.Requests(), mirror.Requests())
		}
	})
	t.Run("headers stay with their host", func(t *testing.T) {
		forget()
		var seen []http.Header
		thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			seen = append(seen, r.Header)
			_, _ = w.Write([]byte("{}"))
		}))
		defer thief.Close()
		leader := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-Key") != "k1" || r.Header.Get("Authorization") != "Custom hunter2" {
				t.Errorf("%v", r.Header)
			}
			http.Redirect(w, r, thief.URL, http.StatusTemporaryRedirect)
		}))
		defer leader.Close()
		write(t, filepath.Join(dir, "lead.invalid", "hosts.toml"), fmt.Sprintf("[host.%q]\n[host.%q.header]\nx-key = \"k1\"\nauthorization = \"Custom hunter2\"\n", leader.URL, leader.URL))
		_, _, _ = named(t, "lead.invalid", registry.Auth{}, false, c).Manifest(ctx, "latest")
		if len(seen) == 0 {
			t.Error("no redirect was followed")
		}
		for _, h := range seen {
			if h.Get("X-Key") != "" || h.Get("Authorization") != "" || h.Get("Referer") != "" {
				t.Errorf("another host was sent %v", h)
			}
		}
	})
	t.Run("path and _default", func(t *testing.T) {
		forget()
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			path, ok := strings.CutPrefix(r.URL.Path, "/cache/hub")
			if !ok {
				t.Errorf("asked for %s", r.URL.Path)
			}
			r.URL.Path = "/v2" + path
			mirror.ServeHTTP(w, r)
		}))
		defer proxy.Close()
		write(t, filepath.Join(dir, "_default", "hosts.toml"), fmt.Sprintf("[host.%q]\noverride_path = true\n", proxy.URL+"/cache/hub/"))
		if err := fetch(t, "anything.invalid", registry.Auth{}); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(filepath.Join(dir, "_default")); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("broken file", func(t *testing.T) {
		write(t, filepath.Join(dir, "broken.invalid", "hosts.toml"), "server = ")
		client, err := registry.New(c)
		if err != nil {
			t.Fatal(err)
		}
		name, _ := reference.ParseNormalizedNamed("broken.invalid/x")
		if _, err := client.Repository(name, registry.Auth{}, false); !errdefs.Is(err, errdefs.InvalidParameter) || !strings.Contains(err.Error(), "broken.invalid/hosts.toml: toml: line 1") {
			t.Error(err)
		}
	})
}

// beyondLoopback returns an address of this machine for which certificates count.
func beyondLoopback(t *testing.T) string {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	t.Skip("this machine has no address but loopback")
	return ""
}

// authority is a certificate authority of its own, with a certificate for clients.
type authority struct {
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
	certPEM string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
}

func (a *authority) issue(t *testing.T, usage x509.ExtKeyUsage, more ...net.IP) (certPEM, keyPEM string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{usage}, IPAddresses: append(more, net.IPv4(127, 0, 0, 1)), DNSNames: []string{"reg.invalid"}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}))
}

// What is trusted for a registry is trusted for its token server and where it redirects to; the client's certificate goes to the registry alone.
func TestCertificatesElsewhere(t *testing.T) {
	address := beyondLoopback(t)
	ca := newAuthority(t)
	serverCert, serverKey := ca.issue(t, x509.ExtKeyUsageServerAuth, net.ParseIP(address))
	clientCert, clientKey := ca.issue(t, x509.ExtKeyUsageClientAuth)
	pair, err := tls.X509KeyPair([]byte(serverCert), []byte(serverKey))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	shown := map[string]int{} // certificates of clients
	start := func(name string, h http.Handler) *httptest.Server {
		l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
		if err != nil {
			t.Fatal(err)
		}
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			shown[name] += len(r.TLS.PeerCertificates)
			mu.Unlock()
			h.ServeHTTP(w, r)
		}))
		_ = s.Listener.Close() // another takes its place
		s.Listener = l
		s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert}
		s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
		s.StartTLS()
		t.Cleanup(s.Close)
		return s
	}
	content := registrytest.New()
	defer content.Close()
	d := content.AddManifest("team/app", "latest", ocispec.MediaTypeImageManifest, []byte("{}"))
	storage := start("storage", content)
	tokens := start("tokens", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { registrytest.Token("t1", "")(w, r, nil) }))
	for _, own := range []bool{true, false} { // the registry is its own token server
		for _, toml := range []bool{true, false} {
			t.Run(fmt.Sprintf("own token server %v, hosts.toml %v", own, toml), func(t *testing.T) {
				clear(shown)
				var reg *httptest.Server
				reg = start("registry", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					realm := tokens.URL
					if own {
						realm = reg.URL
					}
					switch {
					case r.URL.Path == "/token":
						registrytest.Token("t1", "")(w, r, nil)
					default:
						registrytest.RequireBearer(realm+"/token", "t1")(w, r, func(w http.ResponseWriter, r *http.Request) {
							http.Redirect(w, r, storage.URL+r.URL.Path, http.StatusTemporaryRedirect)
						})
					}
				}))
				host := reg.Listener.Addr().String()
				dir, domain := t.TempDir(), host
				if toml {
					domain = "reg.invalid"
					write(t, filepath.Join(dir, domain, "hosts.toml"), fmt.Sprintf("server = %q\nca = \"my-ca.pem\"\nclient = [[\"c.pem\", \"k.pem\"]]\n", reg.URL))
				}
				for name, text := range map[string]string{"my-ca.pem": ca.certPEM, "c.pem": clientCert, "k.pem": clientKey, "ca.crt": ca.certPEM, "c.cert": clientCert, "c.key": clientKey} {
					if toml == strings.HasSuffix(name, ".pem") {
						write(t, filepath.Join(dir, domain, name), text)
					}
				}
				config := quick()
				config.CertsDirs = []string{dir}
				if _, got, err := named(t, domain, registry.Auth{}, false, config).Manifest(t.Context(), "latest"); err != nil || got.Digest != d.Digest {
					t.Error(err)
				}
				if shown["registry"] == 0 || shown["storage"] > 0 || shown["tokens"] > 0 {
					t.Errorf("certificates of the client were shown: %v", shown)
				}
			})
		}
	}
}

// A registry that wants a client's certificate, whose own is signed by an unknown authority: with docker's folder and with hosts.toml.
func TestClientCertificates(t *testing.T) {
	ca := newAuthority(t)
	serverCert, serverKey := ca.issue(t, x509.ExtKeyUsageServerAuth)
	clientCert, clientKey := ca.issue(t, x509.ExtKeyUsageClientAuth)
	pair, err := tls.X509KeyPair([]byte(serverCert), []byte(serverKey))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	content := registrytest.New()
	defer content.Close()
	content.AddManifest("team/app", "latest", ocispec.MediaTypeImageManifest, []byte("{}"))
	reg := httptest.NewUnstartedServer(content)
	reg.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	reg.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	reg.StartTLS()
	defer reg.Close()
	host := reg.Listener.Addr().String()
	for name, c := range map[string]struct {
		files map[string]string
		ok    bool
		says  string
	}{
		"nothing":               {map[string]string{}, false, ""},
		"folder":                {map[string]string{host + "/ca.crt": ca.certPEM, host + "/client.cert": clientCert, host + "/client.key": clientKey}, true, ""},
		"no key":                {map[string]string{host + "/ca.crt": ca.certPEM, host + "/client.cert": clientCert}, false, "client.key"},
		"no client certificate": {map[string]string{host + "/ca.crt": ca.certPEM, host + "/client.key": clientKey}, false, "no client certificate"},
		"no certificate in it":  {map[string]string{host + "/ca.crt": "nothing"}, false, "holds no certificate"},
		"hosts.toml": {map[string]string{
			"reg.invalid/hosts.toml": fmt.Sprintf("server = %q\n[host.%q]\nca = \"my-ca.pem\"\nclient = [[\"c.pem\", \"k.pem\"]]\n", reg.URL, reg.URL), "reg.invalid/my-ca.pem": ca.certPEM,
			"reg.invalid/c.pem": clientCert, "reg.invalid/k.pem": clientKey,
		}, true, ""},
		"hosts.toml, one file": {map[string]string{
			"reg.invalid/hosts.toml": fmt.Sprintf("server = %q\nca = [\"my-ca.pem\"]\nclient = \"both.pem\"\n", reg.URL), "reg.invalid/my-ca.pem": ca.certPEM,
			"reg.invalid/both.pem": clientCert + clientKey,
		}, true, ""},
		"hosts.toml, unverified": {map[string]string{
			"reg.invalid/hosts.toml": fmt.Sprintf("server = %q\nskip_verify = true\nclient = [\"both.pem\"]\n", reg.URL), "reg.invalid/both.pem": clientCert + clientKey,
		}, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			domain := host
			for path, text := range c.files {
				write(t, filepath.Join(dir, path), text)
				if strings.HasPrefix(path, "reg.invalid") {
					domain = "reg.invalid"
				}
			}
			config := quick()
			config.CertsDirs = []string{dir}
			_, _, err := named(t, domain, registry.Auth{}, false, config).Manifest(t.Context(), "latest")
			if (err == nil) != c.ok || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Error(err)
			}
			client, err := registry.New(config)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := client.Login(t.Context(), registry.Auth{Username: "user", Password: "hunter2", ServerAddress: domain}); (err == nil) != c.ok {
				t.Errorf("login: %v", err)
			}
		})
	}
}

// A certificate that is put there later counts without a restart.
func TestCertificatesChange(t *testing.T) {
	reg := registrytest.NewTLS()
	defer reg.Close()
	reg.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	reg.AddManifest("team/app", "latest", ocispec.MediaTypeImageManifest, []byte("{}"))
	dir := t.TempDir()
	write(t, filepath.Join(dir, "reg.invalid", "hosts.toml"), fmt.Sprintf("server = %q\nca = %q\n", strings.Replace(reg.URL, "127.0.0.1", "localhost.localdomain", 1), "ca.pem"))
	client, err := registry.New(registry.Config{CertsDirs: []string{dir}, Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	name, _ := reference.ParseNormalizedNamed("reg.invalid/team/app")
	try := func() error {
		r, err := client.Repository(name, registry.Auth{}, false)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = r.Manifest(t.Context(), "latest")
		return err
	}
	if err := try(); err == nil || !strings.Contains(err.Error(), "ca.pem: no such file") {
		t.Error(err)
	}
	write(t, filepath.Join(dir, "reg.invalid", "ca.pem"), "-----BEGIN CERTIFICATE-----\n")
	if err := try(); err == nil || !strings.Contains(err.Error(), "holds no certificate") {
		t.Error(err)
	}
}

const proxyChild = "GANTRY_TEST_PROXY_CHILD"

// TestProxyChild runs with a proxy in its environment.
func TestProxyChild(t *testing.T) {
	if os.Getenv(proxyChild) == "" {
		t.Skip("only as a child of TestProxy")
	}
	c := quick()
	c.Insecure = []string{"reg.invalid", "direct.invalid"}
	if _, _, err := named(t, "reg.invalid", secret, false, c).Manifest(t.Context(), "latest"); err != nil {
		t.Error(err)
	}
	if _, _, err := named(t, "direct.invalid", registry.Auth{}, false, c).Manifest(t.Context(), "latest"); err == nil || !strings.Contains(err.Error(), "lookup direct.invalid") {
		t.Error("NO_PROXY does not count:", err)
	}
}

func TestProxy(t *testing.T) {
	reg := registrytest.New()
	defer reg.Close()
	reg.AddManifest("team/app", "latest", ocispec.MediaTypeImageManifest, []byte("{}"))
	var asked []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodConnect {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		asked = append(asked, r.URL.Host)
		if u, p, _ := (&http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}).BasicAuth(); u != "pu" || p != "pp" {
			t.Errorf("%v", r.Header)
		}
		reg.ServeHTTP(w, r)
	}))
	defer proxy.Close()
	u, _ := url.Parse(proxy.URL)
	u.User = url.UserPassword("pu", "pp")
	cmd := exec.Command(os.Args[0], "-test.run=^TestProxyChild$")
	cmd.Env = append(os.Environ(), proxyChild+"=1", "HTTP_PROXY="+u.String(), "HTTPS_PROXY="+u.String(), "NO_PROXY=direct.invalid")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if len(asked) < 2 || asked[0] != "reg.invalid" {
		t.Error(asked)
	}
	for _, sent := range reg.Credentials() {
		t.Errorf("the registry never asked, and was sent %q", sent)
	}
}

// What lets somebody in is in no error and no line of the log, and reaches nobody it is not for.
func TestSecretsStay(t *testing.T) {
	blob := noise(2000)
	for name, c := range map[string]struct {
		auth  registry.Auth
		setUp func(reg, thief *registrytest.Registry)
	}{
		"basic, fails": {secret, func(reg, _ *registrytest.Registry) {
			reg.Break(registrytest.Fault{Path: "/team/", Do: registrytest.Status(500, "")})
		}},
		"basic, refused": {secret, func(reg, _ *registrytest.Registry) {
			reg.Break(registrytest.Fault{Do: registrytest.RequireBasic("user", "other")})
		}},
		"basic, redirected": {secret, func(reg, thief *registrytest.Registry) { reg.Break(basicThen(registrytest.Redirect(thief.URL))) }},
		"basic, reset":      {secret, func(reg, _ *registrytest.Registry) { reg.Break(basicThen(registrytest.Cut(0))) }},
		"signed location": {registry.Auth{}, func(reg, thief *registrytest.Registry) {
			reg.Break(signed(thief))
			thief.Break(registrytest.Fault{Do: registrytest.Cut(0)})
		}},
		"signed and refused": {registry.Auth{}, func(reg, thief *registrytest.Registry) {
			reg.Break(signed(thief))
			thief.Break(registrytest.Fault{Do: registrytest.Status(403, "")})
		}},
		"bearer, swapped": {secret, func(reg, thief *registrytest.Registry) { swap(reg, thief) }},
		"token, swapped":  {registry.Auth{IdentityToken: "hunter2"}, func(reg, thief *registrytest.Registry) { swap(reg, thief) }},
		"registry token": {registry.Auth{RegistryToken: "hunter2"}, func(reg, thief *registrytest.Registry) {
			reg.Break(registrytest.Fault{Path: "/team/", Do: registrytest.Redirect(thief.URL)})
		}},
		"realm with password": {secret, func(reg, _ *registrytest.Registry) {
			reg.Break(registrytest.Fault{Do: registrytest.RequireBearer("http://u:hunter2@x/", "t")})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			reg, thief := registrytest.New(), registrytest.New()
			defer reg.Close()
			defer thief.Close()
			d := reg.AddBlob("team/app", blob)
			c.setUp(reg, thief)
			var log bytes.Buffer
			config := quick()
			config.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			r := named(t, reg.Host(), c.auth, true, config)
			var said strings.Builder
			for range 2 {
				_, _, err := r.Manifest(t.Context(), "latest")
				fmt.Fprintln(&said, err)
				fmt.Fprintln(&said, r.Blob(t.Context(), d, newSink(d)))
				_, err = r.Upload(t.Context(), d, "", func(int64) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(blob)), nil })
				fmt.Fprintln(&said, err)
			}
			if !strings.Contains(name, "swapped") { // a login takes the registry's word for its token server anew
				client, _ := registry.New(config)
				auth := c.auth
				auth.ServerAddress = reg.Host()
				_, err := client.Login(t.Context(), auth)
				fmt.Fprintln(&said, err)
			}
			for _, word := range []string{"hunter2", "dXNlcjpodW50ZXIy", "SIGNATURE"} {
				if strings.Contains(said.String()+log.String(), word) {
					t.Errorf("%s is told:\n%s%s", word, said.String(), log.String())
				}
			}
			for _, sent := range thief.Credentials() {
				t.Errorf("another host was sent %q", sent)
			}
			for _, q := range thief.Requests() {
				if q.Referer != "" {
					t.Errorf("another host was told %q", q.Referer)
				}
			}
		})
	}
	if _, err := registry.New(registry.Config{Mirrors: []string{"ftp://user:hunter2@mirror"}}); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Error(err)
	}
}

// basicThen misbehaves once it was given a name and a password.
func basicThen(do registrytest.Behaviour) registrytest.Fault {
	return registrytest.Fault{Do: func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		registrytest.RequireBasic("user", "hunter2")(w, r, func(w http.ResponseWriter, r *http.Request) { do(w, r, serve) })
	}}
}

// signed leads to a storage service, with a signature in the query.
func signed(to *registrytest.Registry) registrytest.Fault {
	return registrytest.Fault{Path: "/team/", Do: func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		http.Redirect(w, r, to.URL+"/x?X-Amz-Signature=SIGNATURE", http.StatusTemporaryRedirect)
	}}
}

// swap names a right token server first, and then the thief.
func swap(reg, thief *registrytest.Registry) {
	right := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { registrytest.Token("t", "")(w, r, nil) }))
	reg.Break(registrytest.Fault{Times: 2, Do: registrytest.RequireBearer(right.URL, "x")}, registrytest.Fault{Do: registrytest.RequireBearer(thief.URL, "x")})
}

// An identity token goes to the token server in the body of a POST, never in a URL, and what comes lets the client in.
func TestRefreshToken(t *testing.T) {
	tokens, reg := registrytest.New(), registrytest.New()
	defer tokens.Close()
	defer reg.Close()
	reg.AddManifest("team/app", "latest", ocispec.MediaTypeImageManifest, []byte("{}"))
	reg.Break(registrytest.Fault{Do: registrytest.RequireBearer(tokens.URL+"/token", "access")})
	tokens.Break(registrytest.Fault{Do: registrytest.Token("access", "refresh")})
	r := named(t, reg.Host(), registry.Auth{IdentityToken: "identity"}, false, quick())
	if _, _, err := r.Manifest(t.Context(), "latest"); err != nil {
		t.Error(err)
	}
	asked := tokens.Requests()
	if len(asked) != 1 || asked[0].Method != "POST" || asked[0].Query != "" {
		t.Fatalf("%+v", asked)
	}
	form, err := url.ParseQuery(asked[0].Body)
	if err != nil || form.Get("grant_type") != "refresh_token" || form.Get("refresh_token") != "identity" || form.Get("service") != "registry" || form.Get("scope") != "repository:team/app:pull" {
		t.Error(form, err)
	}
	// A login gives the token that stands for the password from then on.
	client, err := registry.New(quick())
	if err != nil {
		t.Fatal(err)
	}
	if identity, err := client.Login(t.Context(), registry.Auth{Username: "user", Password: "hunter2", ServerAddress: reg.Host()}); err != nil || identity != "refresh" {
		t.Error(identity, err)
	}
}
