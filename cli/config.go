package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"gantry/client"
)

// configFile is what the command line uses of docker's config.json.
type configFile struct {
	Auths          map[string]authEntry         `json:"auths,omitempty"`
	CredsStore     string                       `json:"credsStore,omitempty"`
	CredHelpers    map[string]string            `json:"credHelpers,omitempty"`
	HTTPHeaders    map[string]string            `json:"HttpHeaders,omitempty"`
	PsFormat       string                       `json:"psFormat,omitempty"`
	ImagesFormat   string                       `json:"imagesFormat,omitempty"`
	NetworksFormat string                       `json:"networksFormat,omitempty"`
	VolumesFormat  string                       `json:"volumesFormat,omitempty"`
	StatsFormat    string                       `json:"statsFormat,omitempty"`
	DetachKeys     string                       `json:"detachKeys,omitempty"`
	PruneFilters   []string                     `json:"pruneFilters,omitempty"`
	Proxies        map[string]map[string]string `json:"proxies,omitempty"`
	CurrentContext string                       `json:"currentContext,omitempty"`
	path           string
	other          map[string]json.RawMessage // everything in the file, to write it back unharmed
}

// authEntry is one registry's credentials in config.json; Auth is base64 of user:password.
type authEntry struct {
	Auth          string `json:"auth,omitempty"`
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
}

func (a *app) defaultConfigDir() string {
	if d := a.getenv("DOCKER_CONFIG"); d != "" {
		return d
	}
	return filepath.Join(a.getenv("HOME"), ".docker")
}

// readEnv takes what flags did not set from the environment.
func (a *app) readEnv(fs *pflag.FlagSet) {
	g := &a.global
	g.tlsVerifySet = fs.Changed("tlsverify")
	g.tlsCASet, g.certSet, g.tlsKeySet = fs.Changed("tlscacert"), fs.Changed("tlscert"), fs.Changed("tlskey")
	if !g.tlsVerifySet && a.getenv("DOCKER_TLS_VERIFY") != "" {
		g.tlsVerify = true
	}
	if a.getenv("DOCKER_TLS") != "" {
		g.tls = true
	}
	if dir := a.getenv("DOCKER_CERT_PATH"); dir != "" {
		for _, f := range []struct {
			set  bool
			path *string
			name string
		}{{g.tlsCASet, &g.tlsCA, "ca.pem"}, {g.certSet, &g.tlsCert, "cert.pem"}, {g.tlsKeySet, &g.tlsKey, "key.pem"}} {
			if !f.set {
				*f.path = filepath.Join(dir, f.name)
			}
		}
	}
}

// config reads config.json once. A missing file is an empty one.
func (a *app) config() *configFile {
	if a.cfg != nil {
		return a.cfg
	}
	path := filepath.Join(a.global.config, "config.json")
	cfg, err := readConfig(path)
	if err != nil {
		fmt.Fprintf(a.err, "WARNING: Error loading config file: %v\n", err)
		cfg = &configFile{path: path}
	}
	a.cfg = cfg
	return cfg
}

func readConfig(path string) (*configFile, error) {
	cfg := &configFile{path: path}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return cfg, nil
	}
	if err != nil {
		return nil, err
	}
	if len(strings.TrimSpace(string(b))) == 0 {
		return cfg, nil
	}
	if err := json.Unmarshal(b, cfg); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := json.Unmarshal(b, &cfg.other); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return cfg, nil
}

// save writes the credentials back; all other keys of the file stay as they were. The file appears whole or not at all.
func (c *configFile) save() error {
	out := map[string]json.RawMessage{}
	for k, v := range c.other {
		out[k] = v
	}
	auths, err := json.Marshal(c.Auths)
	if err != nil {
		return fmt.Errorf("encode %s: %w", c.path, err)
	}
	out["auths"] = auths
	if len(c.Auths) == 0 {
		out["auths"] = json.RawMessage("{}")
	}
	b, err := json.MarshalIndent(out, "", "\t")
	if err != nil {
		return fmt.Errorf("encode %s: %w", c.path, err)
	}
	path := c.path
	if p, err := filepath.EvalSymlinks(path); err == nil { // a linked config.json stays a link
		path = p
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "config.json")
	if err != nil {
		return err
	}
	_, err = tmp.Write(b)
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// client returns the client of the API; it connects with the first request.
func (a *app) client() (*client.Client, error) {
	if a.api != nil {
		return a.api, nil
	}
	host, explicit, err := a.host()
	if err != nil {
		return nil, err
	}
	o := client.Options{Host: host, Version: a.getenv("DOCKER_API_VERSION"), Headers: a.config().HTTPHeaders, Agent: "Gantry-Client/" + Version + " (linux)"}
	g := &a.global
	if g.tls || g.tlsVerify || g.tlsVerifySet {
		o.TLS = &client.TLSOptions{CA: g.tlsCA, Cert: g.tlsCert, Key: g.tlsKey, Verify: g.tlsVerify}
		o.TLS.Cert = existing(o.TLS.Cert, g.certSet)
		o.TLS.Key = existing(o.TLS.Key, g.tlsKeySet)
		o.TLS.CA = existing(o.TLS.CA, g.tlsCASet)
	}
	if !explicit {
		o.Start = a.startDaemon
	}
	a.api, err = client.New(o)
	if err != nil {
		return nil, fmt.Errorf("Failed to initialize: unable to resolve docker endpoint: %w", err) //nolint:staticcheck // docker's words
	}
	return a.api, nil
}

// existing returns path unless it is a default that does not exist.
func existing(path string, explicit bool) string {
	if _, err := os.Stat(path); err != nil && !explicit {
		return ""
	}
	return path
}

// host returns the address of the daemon, and whether it is another than that of the daemon we may start.
func (a *app) host() (host string, explicit bool, err error) {
	switch {
	case len(a.global.hosts) > 1:
		return "", false, errors.New("Specify only one -H") //nolint:staticcheck // docker's words
	case len(a.global.hosts) == 1:
		host = a.global.hosts[0]
	case a.global.context != "" && a.global.context != "default":
		return "", false, errContext(a.global.context)
	case a.global.context == "":
		host = a.getenv("DOCKER_HOST")
		if name := a.getenv("DOCKER_CONTEXT"); host == "" && name != "" && name != "default" {
			return "", false, errContext(name)
		}
	}
	if host == "" && a.name == "docker" { // called so, it looks where dockerd listens, and where gantryd does when called dockerd
		return "unix:///var/run/docker.sock", true, nil
	}
	if host == "" {
		return client.DefaultHost, false, nil
	}
	host, err = parseHost(host, a.global.tls || a.global.tlsVerify)
	if err != nil {
		return "", false, fmt.Errorf("Failed to initialize: unable to resolve docker endpoint: %w", err) //nolint:staticcheck // docker's words
	}
	return host, true, nil
}

func errContext(name string) error {
	return fmt.Errorf("Failed to initialize: unable to resolve docker endpoint: context %q: context not found: only \"default\" exists, use --host for other daemons", name) //nolint:staticcheck // docker's words
}

// parseHost completes an address as docker does: a bare host:port is TCP, a missing host is localhost.
func parseHost(h string, tls bool) (string, error) {
	scheme, rest, ok := strings.Cut(h, "://")
	if !ok {
		scheme, rest = "tcp", h
	}
	switch scheme {
	case "unix":
		if rest == "" {
			return client.DefaultHost, nil
		}
		return h, nil
	case "http", "https":
		return h, nil
	case "tcp":
		port := 2375
		if tls {
			port = 2376
		}
		addr, path, _ := strings.Cut(rest, "/")
		host, p, err := net.SplitHostPort(addr)
		if err != nil {
			host, p = strings.Trim(addr, "[]"), ""
		}
		if p == "" {
			p = strconv.Itoa(port)
		}
		if _, err := strconv.ParseUint(p, 10, 16); err != nil {
			return "", fmt.Errorf("invalid bind address format: %s", h)
		}
		if host == "" {
			host = "localhost"
		}
		out := "tcp://" + net.JoinHostPort(host, p)
		if path != "" {
			out += "/" + path
		}
		return out, nil
	case "ssh", "npipe", "fd":
		return "", fmt.Errorf("%s:// is not supported: use unix:// or tcp://", scheme)
	}
	return "", fmt.Errorf("invalid bind address format: %s", h)
}

// startDaemon starts gantryd in the background and waits until it answers on the default socket.
func (a *app) startDaemon(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("start it as root: gantryd")
	}
	path, err := findDaemon()
	if err != nil {
		return err
	}
	logPath := "/run/gantryd.log"
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("start %s: %w", path, err)
	}
	defer log.Close()
	cmd := exec.Command(path) //nolint:noctx // it outlives us
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", path, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	probe, err := client.New(client.Options{})
	if err != nil {
		return err
	}
	defer probe.Close()
	for {
		// A daemon that listens may still fail to start, so only an answer counts.
		if _, err := probe.Ping(ctx); err == nil {
			return nil
		}
		select {
		case err := <-ended:
			return fmt.Errorf("%s ended at once (%v); its messages are in %s", path, err, logPath)
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer on %s; its messages are in %s", path, client.DefaultHost, logPath)
		case <-tick.C:
		}
	}
}

// findDaemon looks for gantryd beside this program, then in PATH.
func findDaemon() (string, error) {
	if self, err := os.Executable(); err == nil {
		p := filepath.Join(filepath.Dir(self), "gantryd")
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	p, err := exec.LookPath("gantryd")
	if err != nil {
		return "", errors.New("gantryd is neither beside this program nor in PATH")
	}
	return p, nil
}
