package registry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gantry/errdefs"

	"github.com/BurntSushi/toml"
)

const maxCertificates = 4 << 20 // bytes of a file

// server is one server that a registry's hosts.toml names: a mirror, or the registry itself. The words are containerd's.
type server struct {
	base        *url.URL // the API lies below its path
	pull        bool     // serves what is asked for by digest
	resolve     bool     // says what a tag stands for
	push        bool
	ca          []string
	client      [][2]string // certificate and key
	skipVerify  bool
	header      http.Header
	dialTimeout time.Duration // 0: the usual
}

// hostsConfig is what the first folder has that knows a registry: its hosts.toml, or that of _default.
func (c *Client) hostsConfig(domain string) (mirrors []server, origin *server, err error) {
	for _, name := range append(foldersOf(domain), "_default") {
		for _, folder := range c.c.CertsDirs {
			path := filepath.Join(folder, name, "hosts.toml")
			data, err := readFile(path, maxTOML)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				mirrors, origin, err = parseHosts(data, domain, filepath.Dir(path))
			}
			if err != nil {
				return nil, nil, errdefs.New(errdefs.InvalidParameter, "read %s: %w", path, err)
			}
			mirrors, origin = own(mirrors, origin, domain)
			return mirrors, origin, nil
		}
	}
	return nil, nil, nil
}

// foldersOf returns the names that a host's folder may have: containerd's spelling of one with a port, which file systems without colons can have, and its own.
func foldersOf(name string) []string {
	name = filepath.Base(name)
	if i := strings.LastIndexByte(name, ':'); i > 0 {
		return []string{name[:i] + "_" + name[i+1:] + "_", name}
	}
	return []string{name}
}

func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err = errors.Join(err, f.Close()); err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("file has more than %d bytes", limit)
	}
	return data, err
}

// maxTOML is how large a hosts.toml may be, in bytes.
const maxTOML = 64 << 10

// parseHosts decodes a hosts.toml. origin is nil where the file does not say what the registry itself is. Files that it names are relative to folder.
func parseHosts(data []byte, domain, folder string) (mirrors []server, origin *server, err error) {
	if len(data) > maxTOML {
		return nil, nil, fmt.Errorf("file has more than %d bytes", maxTOML)
	}
	var root map[string]any
	meta, err := toml.Decode(string(data), &root)
	if err != nil {
		return nil, nil, err
	}
	hosts, ok := root["host"].(map[string]any)
	if !ok && root["host"] != nil {
		return nil, nil, errors.New("host is no table")
	}
	address, ok := root["server"].(string)
	if !ok && root["server"] != nil {
		return nil, nil, errors.New("server is no string")
	}
	delete(root, "host")
	delete(root, "server")
	if address != "" || len(root) > 0 {
		if address == "" {
			address = originHost(domain)
		}
		s, err := parseServer(address, root, folder)
		if err != nil {
			return nil, nil, err
		}
		origin = &s
	}
	for _, key := range meta.Keys() { // in the order of the file, which is that of asking
		if len(key) < 2 || key[0] != "host" || hosts[key[1]] == nil {
			continue
		}
		values, ok := hosts[key[1]].(map[string]any)
		if !ok {
			return nil, nil, fmt.Errorf("host.%q is no table", key[1])
		}
		delete(hosts, key[1])
		s, err := parseServer(key[1], values, folder)
		if err != nil {
			return nil, nil, err
		}
		mirrors = append(mirrors, s)
	}
	return mirrors, origin, nil
}

// originHost returns where the images of a domain are.
func originHost(domain string) string {
	if domain == hubDomain {
		return hubHost
	}
	return domain
}

func parseServer(address string, values map[string]any, folder string) (server, error) {
	s := server{pull: true, resolve: true, push: true}
	if !strings.Contains(address, "://") {
		address = "https://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
		return s, fmt.Errorf("host %q is not a URL of http or https without name and password", bare(address))
	}
	override := false
	for key, v := range values {
		ok := true
		switch key {
		case "capabilities":
			err = s.setCapabilities(v)
		case "ca":
			var files []string
			files, ok = texts(v)
			for _, f := range files {
				s.ca = append(s.ca, within(folder, f))
			}
		case "client":
			ok = s.setClient(v, folder)
		case "skip_verify":
			s.skipVerify, ok = v.(bool)
		case "override_path":
			override, ok = v.(bool)
		case "header":
			var headers map[string]any
			if headers, ok = v.(map[string]any); ok {
				err = s.setHeader(headers)
			}
		case "dial_timeout":
			var text string
			if text, ok = v.(string); ok {
				s.dialTimeout, err = time.ParseDuration(text)
			}
		default:
			err = fmt.Errorf("key %q is not known", key)
		}
		if err != nil {
			return s, err
		}
		if !ok {
			return s, fmt.Errorf("key %q has a value of the wrong type", key)
		}
	}
	s.base = &url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimSuffix(u.Path, "/")}
	if !override && !strings.HasSuffix(s.base.Path, "/v2") {
		s.base.Path += "/v2"
	}
	return s, nil
}

func within(folder, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(folder, path)
}

// texts returns a string, or an array of strings, as a slice.
func texts(v any) ([]string, bool) {
	if s, ok := v.(string); ok {
		return []string{s}, true
	}
	list, ok := v.([]any)
	if !ok {
		return nil, false
	}
	var all []string
	for _, v := range list {
		s, ok := v.(string)
		if !ok {
			return nil, false
		}
		all = append(all, s)
	}
	return all, true
}

func (s *server) setCapabilities(v any) error {
	names, ok := texts(v)
	if !ok {
		return errors.New("capabilities are no array of strings")
	}
	s.pull, s.resolve, s.push = false, false, false
	for _, name := range names {
		switch name {
		case "pull":
			s.pull = true
		case "resolve":
			s.resolve = true
		case "push":
			s.push = true
		case "referrers": // who says what tags stand for is asked for these, too: without the capability, their tag may still be there
		default:
			return fmt.Errorf("capability %q is not known: there are pull, resolve, push and referrers", name)
		}
	}
	return nil
}

// setClient takes a file with certificate and key, an array of such, or an array of pairs of files.
func (s *server) setClient(v any, folder string) bool {
	if files, ok := texts(v); ok {
		for _, f := range files {
			s.client = append(s.client, [2]string{within(folder, f), within(folder, f)})
		}
		return true
	}
	pairs, ok := v.([]any)
	if !ok {
		return false
	}
	for _, p := range pairs {
		files, ok := texts(p)
		switch {
		case ok && len(files) == 1:
			s.client = append(s.client, [2]string{within(folder, files[0]), within(folder, files[0])})
		case ok && len(files) == 2:
			s.client = append(s.client, [2]string{within(folder, files[0]), within(folder, files[1])})
		default:
			return false
		}
	}
	return true
}

func (s *server) setHeader(values map[string]any) error {
	s.header = http.Header{}
	for name, v := range values {
		list, ok := texts(v)
		if !ok || strings.ContainsAny(name+strings.Join(list, ""), "\r\n\x00") {
			return fmt.Errorf("header %q is neither a string nor an array of strings", name)
		}
		for _, text := range list {
			s.header.Add(name, text)
		}
	}
	return nil
}

// certificates is what TLS with one server needs; two that are equal as text are the same.
type certificates struct {
	insecure    bool
	folders     []string // laid out like /etc/docker/certs.d/HOST
	roots       []string // such folders of which only the authorities count
	ca          []string
	client      [][2]string
	dialTimeout time.Duration
}

// elsewhere is what counts where a server leads to: whom to trust, but not who we are.
func (c certificates) elsewhere() certificates {
	c.roots, c.folders, c.client = append(slices.Clip(c.roots), c.folders...), nil, nil
	return c
}

// key tells certificates from others, and from themselves once a file has changed.
func (c certificates) key(name string) string {
	key := fmt.Sprintf("%q %v", name, c)
	files := slices.Clone(c.ca)
	for _, pair := range c.client {
		files = append(files, pair[:]...)
	}
	for _, folder := range slices.Concat(c.folders, c.roots) {
		entries, _ := os.ReadDir(folder) // a folder that is not there has no files, and config tells of other errors
		for _, e := range entries {
			files = append(files, filepath.Join(folder, e.Name()))
		}
	}
	for _, f := range files {
		if st, err := os.Stat(f); err == nil {
			key += fmt.Sprintf(" %q %d %d", f, st.Size(), st.ModTime().UnixNano())
		}
	}
	return key
}

// config reads the files.
func (c certificates) config() (*tls.Config, error) {
	config := &tls.Config{InsecureSkipVerify: c.insecure, MinVersion: tls.VersionTLS12} //nolint:gosec // the administrator said so
	for _, folder := range c.roots {
		if err := addFolder(config, folder); err != nil {
			return nil, err
		}
	}
	config.Certificates = nil // those are for another host
	for _, folder := range c.folders {
		if err := addFolder(config, folder); err != nil {
			return nil, err
		}
	}
	for _, file := range c.ca {
		if err := addRoot(config, file); err != nil {
			return nil, err
		}
	}
	for _, pair := range c.client {
		if err := addClient(config, pair[0], pair[1]); err != nil {
			return nil, err
		}
	}
	return config, nil
}

// addFolder reads a registry's folder: *.crt are roots, *.cert with *.key the client's own.
func addFolder(config *tls.Config, folder string) error {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		file := filepath.Join(folder, e.Name())
		switch filepath.Ext(file) {
		case ".crt":
			err = addRoot(config, file)
		case ".cert":
			err = addClient(config, file, strings.TrimSuffix(file, ".cert")+".key")
		case ".key":
			if cert := strings.TrimSuffix(file, ".key") + ".cert"; !slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == filepath.Base(cert) }) {
				err = fmt.Errorf("key %s has no client certificate %s beside it", file, cert)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func addRoot(config *tls.Config, file string) error {
	data, err := readFile(file, maxCertificates)
	if err != nil {
		return err
	}
	if config.RootCAs == nil {
		if config.RootCAs, err = x509.SystemCertPool(); err != nil {
			config.RootCAs = x509.NewCertPool()
		}
	}
	if !config.RootCAs.AppendCertsFromPEM(data) {
		return fmt.Errorf("%s holds no certificate", file)
	}
	return nil
}

func addClient(config *tls.Config, certificate, key string) error {
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return fmt.Errorf("client certificate %s with key %s: %w", certificate, key, err)
	}
	config.Certificates = append(config.Certificates, pair)
	return nil
}

// failing is the transport of a server whose certificates cannot be read.
type failing struct{ err error }

func (f failing) RoundTrip(*http.Request) (*http.Response, error) { return nil, f.err }
