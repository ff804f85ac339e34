// Package registry is a client of OCI distribution registries: it fetches and sends manifests and blobs, finds out how a registry wants to be spoken
// to, and gives credentials to nobody but the registry that they are for and the token server which that registry names.
package registry

import (
	"cmp"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"gantry/errdefs"

	"github.com/distribution/reference"
)

// Auth is what a user gives to be let in, as in Docker's X-Registry-Auth header. It is sent to the one registry it is given for, and to
// the token server which that registry names.
type Auth struct {
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
	ServerAddress string `json:"serveraddress,omitempty"`
}

// Config is the daemon's configuration of registries.
type Config struct {
	Insecure  []string // hosts, host:port or networks in CIDR form that may be spoken to without TLS or with unverified TLS; loopback always may
	Mirrors   []string // base URLs asked first for images of Docker Hub
	CertsDirs []string // folders laid out like /etc/docker/certs.d: HOST/*.crt, *.cert, *.key, and containerd's HOST/hosts.toml
	UserAgent string
	Transport http.RoundTripper // nil: one with time-outs, per registry
	Log       *slog.Logger

	Streams  *Streams      // of blobs at once; clients may share it; nil: three
	Attempts int           // at a request, or a range of a blob, in a row that bring nothing; 0: five
	Pause    time.Duration // after the first failed attempt; it doubles with each further one; 0: a second
	Stall    time.Duration // a connection on which nothing comes for that long is given up; 0: 30 seconds
	Chunk    int64         // bytes of the ranges in which a large blob is fetched; 0: 8 MiB
}

const (
	hubDomain = "docker.io"
	hubHost   = "registry-1.docker.io"
)

// Client speaks to registries. Its methods may be called concurrently.
type Client struct {
	c         Config
	streams   *Streams
	resolving func(host string) ([]net.IP, error)

	mu         sync.Mutex // guards transports
	transports map[string]http.RoundTripper
}

// New returns a client. Errors: InvalidParameter for a mirror that is no URL.
func New(c Config) (*Client, error) {
	for _, m := range c.Mirrors {
		u, err := url.Parse(m)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, errdefs.New(errdefs.InvalidParameter, "registry mirror %q is not a URL of http or https", bare(m))
		}
	}
	if c.UserAgent == "" {
		c.UserAgent = "gantry"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Streams == nil {
		c.Streams = NewStreams(3)
	}
	c.Attempts = cmp.Or(max(0, c.Attempts), 5)
	c.Pause = cmp.Or(max(0, c.Pause), firstPause)
	c.Stall = cmp.Or(max(0, c.Stall), 30*time.Second)
	c.Chunk = cmp.Or(max(0, c.Chunk), defaultChunk)
	return &Client{c: c, streams: c.Streams, resolving: net.LookupIP, transports: map[string]http.RoundTripper{}}, nil
}

// insecure reports whether a host, with or without port, may be spoken to without verified TLS.
func (c *Client) insecure(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.Trim(name, "[]")
	if name == "localhost" || slices.Contains(c.c.Insecure, host) || slices.Contains(c.c.Insecure, name) {
		return true
	}
	var addrs []netip.Addr
	if a, err := netip.ParseAddr(name); err == nil {
		addrs = append(addrs, a)
		if a.Unmap().IsLoopback() {
			return true
		}
	}
	var nets []netip.Prefix
	for _, i := range c.c.Insecure {
		if p, err := netip.ParsePrefix(i); err == nil {
			nets = append(nets, p)
		}
	}
	if len(nets) == 0 {
		return false
	}
	if len(addrs) == 0 {
		ips, err := c.resolving(name)
		if err != nil {
			return false
		}
		for _, ip := range ips {
			if a, ok := netip.AddrFromSlice(ip); ok {
				addrs = append(addrs, a)
			}
		}
	}
	return slices.ContainsFunc(addrs, func(a netip.Addr) bool {
		return slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })
	})
}

// Repository is one repository of images at a registry, or at the mirrors that stand in for it.
type Repository struct {
	client *Client
	name   reference.Named // without tag and digest
	path   string          // "library/busybox"
	auth   Auth
	push   bool
	hosts  []*host // in the order in which they are asked
}

// Repository returns the repository of an image's name. push says that it is to be written to, which is never done to a mirror. Errors: InvalidParameter for a hosts.toml that
// cannot be read.
func (c *Client) Repository(name reference.Named, auth Auth, push bool) (*Repository, error) {
	name = reference.TrimNamed(name)
	r := &Repository{client: c, name: name, path: reference.Path(name), auth: auth, push: push}
	domain := reference.Domain(name)
	mirrors, origin, err := c.hostsConfig(domain)
	if err != nil {
		return nil, err
	}
	if push && origin != nil && !origin.push {
		return nil, errdefs.New(errdefs.Forbidden, "registry %s is configured not to be pushed to", origin.base.Host)
	}
	if !push {
		for _, m := range mirrors {
			h := c.serverHost(m, Auth{})
			h.mirror, h.space = true, domain
			r.hosts = append(r.hosts, h)
		}
	}
	if !push && domain == hubDomain {
		for _, m := range c.c.Mirrors {
			if u, err := url.Parse(m); err == nil { // New has seen that it is one
				h := c.host(u.Host, mirrorAuth(u))
				h.base = &url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimSuffix(u.Path, "/")}
				h.mirror = true
				r.hosts = append(r.hosts, h)
			}
		}
	}
	r.hosts = append(r.hosts, c.originOf(domain, origin, auth))
	return r, nil
}

// originOf returns the registry itself; origin is what a hosts.toml has of it, or nil.
func (c *Client) originOf(domain string, origin *server, auth Auth) *host {
	if origin != nil {
		return c.serverHost(*origin, auth)
	}
	return c.host(originHost(domain), auth)
}

// own takes from the mirrors of a hosts.toml the one that is the registry itself, which such files often list to say how it is spoken to.
func own(mirrors []server, origin *server, domain string) ([]server, *server) {
	host := originHost(domain)
	if origin != nil {
		host = origin.base.Host
	}
	var others []server
	for i := range mirrors {
		if mirrors[i].base.Host == host {
			origin = &mirrors[i]
		} else {
			others = append(others, mirrors[i])
		}
	}
	return others, origin
}

// mirrorAuth returns the credentials in a mirror's URL. Those of Docker Hub never go to a mirror.
func mirrorAuth(u *url.URL) Auth {
	if u.User == nil {
		return Auth{}
	}
	password, _ := u.User.Password()
	return Auth{Username: u.User.Username(), Password: password}
}

func (c *Client) host(name string, auth Auth) *host {
	insecure := c.insecure(name)
	return &host{
		client: c, name: name, auth: auth, insecure: insecure, certs: c.certificates(name, insecure), root: "/v2", pull: true, resolve: true,
		tokens: map[string]token{}, now: time.Now,
	}
}

// serverHost returns the host that a hosts.toml describes.
func (c *Client) serverHost(s server, auth Auth) *host {
	h := c.host(s.base.Host, auth)
	h.base, h.root, h.header, h.pull, h.resolve = s.base, "", s.header, s.pull, s.resolve
	h.insecure = h.insecure || s.skipVerify
	h.certs.insecure = h.insecure
	h.certs.ca, h.certs.client, h.certs.dialTimeout = s.ca, s.client, s.dialTimeout
	return h
}
