package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"gantry/errdefs"
)

const (
	maxRedirects = 5
	maxErrorBody = 64 << 10  // bytes
	maxHeader    = 256 << 10 // bytes of an answer's header
)

// host is one server that is spoken to for one repository.
type host struct {
	client   *Client
	name     string // host or host:port
	auth     Auth
	insecure bool
	mirror   bool
	certs    certificates
	root     string      // path of the API below base: "/v2", or nothing where it is in base
	header   http.Header // sent to this host only
	space    string      // domain that a mirror of several registries is asked for
	pull     bool        // serves what is asked for by digest
	resolve  bool        // says what a tag stands for
	now      func() time.Time
	broken   atomic.Bool // a mirror that failed is not asked again

	mu         sync.Mutex // guards all below
	base       *url.URL   // without /v2/; nil until ping has found out the scheme
	pinged     bool
	challenges []challenge // of the answer to the ping
	scopes     []string    // that the host has asked for, beyond what requests need by themselves
	realm      string      // token server that was given credentials; no other will be
	tokens     map[string]token
}

// ping finds out whether the host speaks TLS and how it wants to be authorized.
func (h *host) ping(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pinged {
		return nil
	}
	bases := []*url.URL{h.base}
	if h.base == nil {
		bases = []*url.URL{{Scheme: "https", Host: h.name}}
		if h.insecure {
			bases = append(bases, &url.URL{Scheme: "http", Host: h.name})
		}
	}
	var last error
	for _, base := range bases {
		challenges, err := h.try(ctx, base)
		if err == nil {
			h.base, h.challenges, h.pinged = base, challenges, true
			return nil
		}
		if ctx.Err() != nil {
			return errdefs.With(errdefs.Canceled, err)
		}
		last = err
	}
	if unreachable(last) { // a wrong name or address is more likely than one that will answer in a moment
		return final{last}
	}
	return last
}

func (h *host) try(ctx context.Context, base *url.URL) ([]challenge, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base.JoinPath(h.root, "/").String(), nil)
	if err != nil {
		return nil, err
	}
	h.dress(req)
	resp, err := h.http(base).Do(req)
	if err != nil {
		return nil, errdefs.With(errdefs.Unavailable, clean(err))
	}
	defer drop(resp)
	switch {
	case resp.StatusCode == http.StatusUnauthorized:
		return parseChallenges(resp.Header), nil
	case resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500:
		return nil, answer(resp)
	default:
		return nil, nil // whatever it says to the ping, the requests proper will tell
	}
}

// dress gives a request to the host what is configured for it.
func (h *host) dress(req *http.Request) {
	for name, values := range h.header {
		req.Header[name] = values
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", h.client.c.UserAgent)
	}
	if h.space != "" {
		q := req.URL.Query()
		q.Set("ns", h.space)
		req.URL.RawQuery = q.Encode()
	}
}

// drop reads what is left of a small answer, so that the connection can be used again.
func drop(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, maxErrorBody) // only an optimization
	_ = resp.Body.Close()                                // nothing was written
}

// leading sends requests to a host with our certificates for it, and those that it leads elsewhere without.
type leading struct {
	h    *host
	base *url.URL
}

func (l leading) RoundTrip(req *http.Request) (*http.Response, error) {
	certs := l.h.certs
	if req.URL.Host != l.base.Host || req.URL.Scheme != l.base.Scheme {
		certs = certs.elsewhere()
	}
	return l.h.client.transport(l.h.name, certs).RoundTrip(req)
}

// http returns a client that follows redirects without taking credentials to another host.
func (h *host) http(base *url.URL) *http.Client {
	return &http.Client{
		Transport: leading{h, base},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return fmt.Errorf("%w: more than %d redirects", errPolicy, maxRedirects)
			}
			if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" && !h.insecure {
				return fmt.Errorf("%w: redirect from https to http", errPolicy)
			}
			if req.URL.Host != base.Host || req.URL.Scheme != base.Scheme {
				req.Header.Del("Authorization")
				for name := range h.header {
					req.Header.Del(name)
				}
			}
			req.Header.Del("Referer") // may have a signature in it
			return nil
		},
	}
}

// transport returns the transport for a host, with its certificates.
func (c *Client) transport(name string, certs certificates) http.RoundTripper {
	if c.c.Transport != nil {
		return c.c.Transport
	}
	key := certs.key(name)
	c.mu.Lock()
	defer c.mu.Unlock()
	if t, ok := c.transports[key]; ok {
		return t
	}
	config, err := certs.config()
	if err != nil {
		return failing{fmt.Errorf("%w: certificates for registry %s: %w", errPolicy, name, err)} // not kept: somebody will see to it
	}
	t := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: cmp.Or(certs.dialTimeout, 30*time.Second), KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    15 * time.Second,
		ResponseHeaderTimeout:  2 * c.c.Stall,
		MaxResponseHeaderBytes: maxHeader,
		IdleConnTimeout:        30 * time.Second,
		MaxIdleConnsPerHost:    maxRanges,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		ReadBufferSize:         64 << 10,
		WriteBufferSize:        64 << 10,
	}
	c.transports[key] = t
	return t
}

// certificates returns what TLS with a host by that name needs.
func (c *Client) certificates(name string, insecure bool) certificates {
	certs := certificates{insecure: insecure}
	for _, folder := range c.c.CertsDirs {
		for _, own := range foldersOf(name) {
			certs.folders = append(certs.folders, filepath.Join(folder, own))
		}
	}
	return certs
}

// request is one request to a host; it may be sent several times.
type request struct {
	method string
	url    *url.URL // nil: path at the host
	path   string   // after /v2/
	header http.Header
	body   func() (io.ReadCloser, error) // nil: none
	size   int64                         // of body
	scope  []string                      // of the token that is needed
	once   bool                          // not to be repeated when the host fails
}

// do sends a request, with authorization where it is due, and again when the host is busy or fails, or the connection breaks. The answer may have any status below 500
// but 401, 408 and 429.
func (h *host) do(ctx context.Context, r request) (*http.Response, error) {
	attempts := h.attempts()
	if r.once {
		attempts = 1
	}
	for budget := h.client.budget(attempts); ; {
		resp, err := h.attempt(ctx, r)
		if err == nil {
			return resp, nil
		}
		if err := budget.again(ctx, err); err != nil {
			return nil, err
		}
	}
}

// attempts returns how often the host is asked. For a mirror there is another host that can be asked instead.
func (h *host) attempts() int {
	if h.mirror {
		return min(2, h.client.c.Attempts)
	}
	return h.client.c.Attempts
}

// failed takes note of a mirror's error and reports whether the next host is to be asked.
func (h *host) failed(err error, what string) bool {
	if !h.mirror {
		return false
	}
	if errdefs.Is(err, errdefs.Unavailable) {
		h.broken.Store(true)
	}
	h.client.c.Log.Warn("registry mirror failed", "mirror", h.name, "what", what, "error", err)
	return true
}

// attempt is do without further attempts.
func (h *host) attempt(ctx context.Context, r request) (*http.Response, error) {
	if err := h.ping(ctx); err != nil {
		return nil, err
	}
	resp, err := h.send(ctx, r)
	if err != nil {
		return nil, err
	}
	if s := resp.StatusCode; s == http.StatusTooManyRequests || s == http.StatusRequestTimeout || s >= 500 {
		defer drop(resp)
		return nil, answer(resp)
	}
	return resp, nil
}

// send sends a request once, or twice when the first answer asks for another token.
func (h *host) send(ctx context.Context, r request) (*http.Response, error) {
	for second := false; ; second = true {
		req, err := h.build(ctx, r)
		if err != nil {
			return nil, err
		}
		resp, err := h.http(h.base).Do(req)
		var f final
		if errors.As(err, &f) { // it is what was to be sent
			return nil, f
		}
		if err != nil {
			return nil, errdefs.With(errdefs.Unavailable, clean(err))
		}
		if resp.StatusCode != http.StatusUnauthorized {
			return resp, nil
		}
		defer drop(resp)
		// A host that a redirect led to has no say in where credentials go (CVE-2020-15157).
		if own := resp.Request.URL; second || own.Host != h.base.Host || own.Scheme != h.base.Scheme {
			return nil, answer(resp)
		}
		if !h.challenged(parseChallenges(resp.Header), r.scope) {
			return nil, answer(resp)
		}
	}
}

func (h *host) build(ctx context.Context, r request) (*http.Request, error) {
	target := r.url
	if target == nil {
		u, err := h.base.Parse(h.base.Path + h.root + "/" + r.path)
		if err != nil {
			return nil, errdefs.With(errdefs.InvalidParameter, err)
		}
		target = u
	}
	var body io.ReadCloser
	if r.body != nil {
		var err error
		if body, err = r.body(); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target.String(), body)
	if err != nil {
		return nil, err
	}
	if r.body != nil {
		req.ContentLength = r.size
		req.GetBody = r.body
		if r.size == 0 {
			req.Body = http.NoBody
		}
	}
	for k, v := range r.header {
		req.Header[k] = v
	}
	if target.Host != h.base.Host || target.Scheme != h.base.Scheme {
		req.Header.Set("User-Agent", h.client.c.UserAgent)
		return req, nil // an upload may be sent elsewhere, without our credentials
	}
	h.dress(req)
	return req, h.authorize(ctx, req, r.scope)
}
