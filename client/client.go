// Package client is a thin Go client of the Docker Engine API as gantryd serves it. It speaks HTTP/1.1 over a unix socket, TCP
// or TLS, takes and returns the types of github.com/moby/moby/api, and negotiates the API version without a round trip of its
// own: it asks in the newest version and falls back to the server's when that refuses.
package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"

	"gantry/errdefs"
)

const (
	// DefaultHost is the socket of a gantryd that was started without --host.
	DefaultHost = "unix:///run/gantry.sock"
	// MaxAPIVersion is the newest API version the client speaks, MinAPIVersion the oldest. 1.52 took fields away that scripts read
	// through inspect's templates, such as NetworkSettings.IPAddress, so the client stays below it.
	MaxAPIVersion = "1.51"
	MinAPIVersion = "1.24"
)

// Options says how to reach the server.
type Options struct {
	Host    string            // unix:///path, tcp://host:port or http(s)://host:port; "" means DefaultHost
	TLS     *TLSOptions       // nil: plain TCP; unix sockets never use TLS
	Version string            // API version to use without negotiation, such as "1.41"; "" negotiates
	Headers map[string]string // sent with each request
	Agent   string            // User-Agent
	// Start, when not nil, is called once if nothing listens on Host. It returns nil when a server was started and is ready.
	Start func(ctx context.Context) error
}

// Client talks to one server. Its methods may be called concurrently.
type Client struct {
	opts    Options
	network string // unix, tcp
	address string
	prefix  string // path in front of each request's
	host    string // Host header

	mu      sync.Mutex // guards what follows
	idle    *conn      // at most one connection kept for the next request
	version string     // API version in use, "" before the first answer
	started bool       // Start was called
}

// HTTP statuses that callers look for. They are here because net/http would cost each start of the program.
const (
	StatusNotFound       = 404
	StatusNotImplemented = 501
)

// Error is an error the server answered with.
type Error struct {
	Status  int    // HTTP status
	Message string // the server's words
}

func (e *Error) Error() string { return "Error response from daemon: " + e.Message }

// Kind returns the kind of error that the status stands for.
func (e *Error) Kind() errdefs.Kind {
	switch e.Status {
	case 304:
		return errdefs.NotModified
	case 400:
		return errdefs.InvalidParameter
	case 401:
		return errdefs.Unauthorized
	case 403:
		return errdefs.Forbidden
	case 404:
		return errdefs.NotFound
	case 409:
		return errdefs.Conflict
	case 501:
		return errdefs.NotImplemented
	case 503:
		return errdefs.Unavailable
	}
	return errdefs.Internal
}

// IsStatus reports whether err is a server's answer with the given HTTP status.
func IsStatus(err error, status int) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == status
}

// ConnectionError says that no server could be reached.
type ConnectionError struct {
	Host string
	Err  error
}

// Error says it in docker's words, because scripts look for them.
func (e *ConnectionError) Error() string {
	if errors.Is(e.Err, syscall.EACCES) {
		return fmt.Sprintf("permission denied while trying to connect to the Docker daemon socket at %s: %v", e.Host, e.Err)
	}
	return fmt.Sprintf("Cannot connect to the Docker daemon at %s. Is the docker daemon running?", e.Host)
}

func (e *ConnectionError) Unwrap() error { return e.Err }

// New returns a client. It does not connect.
func New(o Options) (*Client, error) {
	if o.Host == "" {
		o.Host = DefaultHost
	}
	c := &Client{opts: o, version: strings.TrimPrefix(o.Version, "v")}
	scheme, rest, ok := strings.Cut(o.Host, "://")
	if !ok || rest == "" {
		return nil, fmt.Errorf("unable to parse docker host `%s`", o.Host)
	}
	switch scheme {
	case "unix":
		c.network, c.address, c.host = "unix", rest, "api.gantry.localhost"
	case "tcp", "http", "https":
		u, err := url.Parse("tcp://" + rest)
		if err != nil || u.Host == "" {
			return nil, fmt.Errorf("unable to parse docker host `%s`", o.Host)
		}
		c.network, c.address, c.host, c.prefix = "tcp", u.Host, u.Host, strings.TrimSuffix(u.Path, "/")
		if u.Port() == "" {
			port := "2375"
			if o.TLS != nil || scheme == "https" {
				port = "2376"
			}
			c.address = net.JoinHostPort(u.Hostname(), port)
		}
		if scheme == "https" && o.TLS == nil {
			c.opts.TLS = &TLSOptions{Verify: true}
		}
	default:
		return nil, fmt.Errorf("docker host `%s`: %s:// is not supported; use unix:// or tcp://", o.Host, scheme)
	}
	return c, nil
}

// Host returns the address of the server as it was given.
func (c *Client) Host() string { return c.opts.Host }

// Close closes the kept connection. The client can still be used.
func (c *Client) Close() error {
	c.mu.Lock()
	idle := c.idle
	c.idle = nil
	c.mu.Unlock()
	if idle != nil {
		return idle.Close()
	}
	return nil
}

// Version returns the API version in use, such as "1.41"; before the first answer the newest that the client speaks.
func (c *Client) Version() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.version == "" {
		return MaxAPIVersion
	}
	return c.version
}

// Request is one call of the API.
type Request struct {
	Method      string
	Path        string // below the version, such as /containers/json
	Query       url.Values
	JSON        any       // body, encoded as JSON
	Body        io.Reader // body, streamed; excludes JSON
	ContentType string    // of Body
	Header      map[string]string
	Unversioned bool // call without a version in front of the path
}

// Response is the server's answer. Its Body must be closed.
type Response struct {
	Status int
	Header Header
	Body   io.ReadCloser
}

// Do sends a request and returns the answer's head; an answer of status 400 or more comes back as *Error.
func (c *Client) Do(ctx context.Context, r Request) (*Response, error) {
	if r.Body != nil && c.negotiating() && !r.Unversioned {
		if _, err := c.Ping(ctx); err != nil { // a stream cannot be sent twice
			return nil, err
		}
	}
	for {
		resp, cn, err := c.roundTrip(ctx, r, false)
		if err != nil {
			if r.Body == nil && c.downgrade(err) {
				continue
			}
			return nil, err
		}
		stop := guard(ctx, cn)
		rd, reusable, err := responseBody(r.Method, resp.Status, resp.Header, cn.br)
		if err != nil {
			_ = cn.Close()
			return nil, err
		}
		resp.Body = &body{r: rd, release: func(done bool) {
			if stop() && done && reusable {
				c.keep(cn)
				return
			}
			_ = cn.Close()
		}}
		return resp, nil
	}
}

// Call sends a request and decodes the answer's JSON into out, unless out is nil.
func (c *Client) Call(ctx context.Context, r Request, out any) error {
	resp, err := c.Do(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	b, err := readAll(resp.Body)
	if err != nil {
		return fmt.Errorf("%s %s: read answer: %w", r.Method, r.Path, err)
	}
	if raw, ok := out.(*json.RawMessage); ok {
		*raw = b
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("%s %s: decode answer: %w", r.Method, r.Path, err)
	}
	return nil
}

// readAll is io.ReadAll for answers of many megabytes: it doubles its buffer, where io.ReadAll adds a quarter.
func readAll(r io.Reader) ([]byte, error) {
	b := make([]byte, 0, 4096)
	for {
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return b, err
		}
		if len(b) == cap(b) {
			b = slices.Grow(b, cap(b))
		}
	}
}

// Stream is a connection that the server handed over (attach, exec).
type Stream struct {
	net.Conn
	br  *bufio.Reader
	Mux bool // output is in frames that Demux takes apart; false for a terminal's raw bytes
}

// Read reads what the server sends.
func (s *Stream) Read(p []byte) (int, error) { return s.br.Read(p) }

// CloseWrite tells the server that no more input will come.
func (s *Stream) CloseWrite() error {
	if w, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// Hijack sends a request that turns its connection into a raw stream.
func (c *Client) Hijack(ctx context.Context, r Request) (*Stream, error) {
	for {
		resp, cn, err := c.roundTrip(ctx, r, true)
		if err != nil {
			if c.downgrade(err) {
				continue
			}
			return nil, err
		}
		return &Stream{Conn: cn.Conn, br: cn.br, Mux: resp.Header["content-type"] == "application/vnd.docker.multiplexed-stream"}, nil
	}
}

// negotiating reports whether no version is settled yet.
func (c *Client) negotiating() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.version == ""
}

// tooNewError is the answer of a server that does not speak the version asked for.
type tooNewError struct {
	err    *Error
	server string // the version it speaks
}

func (e *tooNewError) Error() string { return e.err.Error() }
func (e *tooNewError) Unwrap() error { return e.err }

// downgrade settles the version the server speaks if err says that ours is too new for it, and reports whether to try again.
func (c *Client) downgrade(err error) bool {
	var t *tooNewError
	if !errors.As(err, &t) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.version = t.server
	return true
}

// roundTrip writes the request and reads the answer's head.
func (c *Client) roundTrip(ctx context.Context, r Request, upgrade bool) (*Response, *conn, error) {
	raw, err := c.encode(r, upgrade)
	if err != nil {
		return nil, nil, err
	}
	for {
		cn, err := c.connect(ctx, upgrade)
		if err != nil {
			return nil, nil, err
		}
		resp, err := exchange(ctx, cn, raw)
		if err != nil {
			_ = cn.Close()
			var be *bodyError
			if cn.reused && raw.stream == nil && ctx.Err() == nil && !errors.As(err, &be) {
				continue // the server had closed the kept connection
			}
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return nil, nil, fmt.Errorf("error during connect: %s %s: %w", r.Method, r.Path, err)
		}
		if err := c.check(r, resp, cn); err != nil {
			return nil, nil, err
		}
		return resp, cn, nil
	}
}

// exchange writes raw and reads the head of the answer.
func exchange(ctx context.Context, cn *conn, raw *rawRequest) (*Response, error) {
	release := guard(ctx, cn)
	defer release()
	werr := raw.write(cn)
	var be *bodyError
	if errors.As(werr, &be) {
		return nil, werr
	}
	// A server that refuses a body may close before all of it was sent: its answer says why.
	status, header, err := readHead(cn.br)
	if err != nil {
		if werr != nil {
			return nil, werr
		}
		return nil, err
	}
	return &Response{Status: status, Header: header}, nil
}

// check turns an answer of status 400 or more into an error, having read its body.
func (c *Client) check(r Request, resp *Response, cn *conn) error {
	if resp.Status < 400 {
		c.settle(r, resp)
		return nil
	}
	rd, reusable, err := responseBody(r.Method, resp.Status, resp.Header, cn.br)
	var b []byte
	if err == nil {
		b, err = io.ReadAll(io.LimitReader(rd, maxErrorBytes))
	}
	if err == nil && reusable && r.Body == nil && len(b) < maxErrorBytes {
		c.keep(cn)
	} else {
		_ = cn.Close()
	}
	e := Error{Status: resp.Status, Message: errorMessage(b, resp.Header)}
	if e.Message == "" {
		e.Message = fmt.Sprintf("request returned %d for API route and version %s, check if the server supports the requested API version", resp.Status, c.path(r))
	}
	server := resp.Header["api-version"]
	if resp.Status == 400 && server != "" && !r.Unversioned && c.opts.Version == "" && c.negotiating() && lessVersion(server, MaxAPIVersion) {
		return &tooNewError{err: &e, server: server}
	}
	c.settle(r, resp)
	return &e
}

// settle takes the version asked for as the one in use once the server answered in it.
func (c *Client) settle(r Request, resp *Response) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.version == "" && !r.Unversioned && resp.Header["api-version"] != "" {
		c.version = MaxAPIVersion
	}
}

// errorMessage gets the words out of an error's body: {"message": "..."} or plain text.
func errorMessage(b []byte, h Header) string {
	if strings.HasPrefix(h["content-type"], "application/json") {
		var m struct {
			Message string `json:"message"`
		}
		if err := json.Unmarshal(b, &m); err == nil && m.Message != "" {
			return strings.TrimSpace(m.Message)
		}
	}
	return strings.TrimSpace(string(b))
}

func (c *Client) path(r Request) string {
	p := r.Path
	if !r.Unversioned {
		p = "/v" + c.Version() + p
	}
	return c.prefix + withQuery(p, r.Query)
}

func (c *Client) encode(r Request, upgrade bool) (*rawRequest, error) {
	raw := &rawRequest{method: r.Method, path: c.path(r), host: c.host, header: map[string]string{}}
	for k, v := range c.opts.Headers {
		raw.header[k] = v
	}
	if c.opts.Agent != "" {
		raw.header["User-Agent"] = c.opts.Agent
	}
	for k, v := range r.Header {
		raw.header[k] = v
	}
	if upgrade {
		raw.header["Connection"] = "Upgrade"
		raw.header["Upgrade"] = "tcp"
	}
	switch {
	case r.Body != nil:
		raw.stream = r.Body
		if r.ContentType != "" {
			raw.header["Content-Type"] = r.ContentType
		}
	case r.JSON != nil:
		var buf bytes.Buffer
		if err := json.NewEncoder(&buf).Encode(r.JSON); err != nil {
			return nil, fmt.Errorf("%s %s: encode request: %w", r.Method, r.Path, err)
		}
		raw.body = buf.Bytes()
		raw.header["Content-Type"] = "application/json"
	case upgrade:
		raw.header["Content-Type"] = "text/plain"
	}
	return raw, nil
}

// connect takes the kept connection or makes a new one. fresh asks for one that never carried a request.
func (c *Client) connect(ctx context.Context, fresh bool) (*conn, error) {
	if !fresh {
		c.mu.Lock()
		idle := c.idle
		c.idle = nil
		c.mu.Unlock()
		if idle != nil {
			return idle, nil
		}
	}
	nc, err := c.dial(ctx)
	if err != nil && c.opts.Start != nil && (errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED)) && c.startOnce() {
		if serr := c.opts.Start(ctx); serr != nil {
			return nil, fmt.Errorf("%w\n%v", &ConnectionError{Host: c.opts.Host, Err: err}, serr)
		}
		nc, err = c.dial(ctx)
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &ConnectionError{Host: c.opts.Host, Err: err}
	}
	if c.network == "tcp" && c.opts.TLS != nil {
		if nc, err = startTLS(ctx, nc, c.address, *c.opts.TLS); err != nil {
			return nil, fmt.Errorf("error during connect: %w", err)
		}
	}
	return &conn{Conn: nc, br: bufio.NewReaderSize(nc, 16<<10)}, nil
}

// startOnce reports true for the first caller only.
func (c *Client) startOnce() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := !c.started
	c.started = true
	return first
}

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, c.network, c.address)
}

// keep stores a connection for the next request.
func (c *Client) keep(cn *conn) {
	cn.reused = true
	c.mu.Lock()
	if c.idle == nil {
		c.idle, cn = cn, nil
	}
	c.mu.Unlock()
	if cn != nil {
		_ = cn.Close()
	}
}

// lessVersion compares API versions such as 1.9 and 1.41 by number.
func lessVersion(a, b string) bool {
	for a != "" || b != "" {
		var x, y string
		x, a, _ = strings.Cut(a, ".")
		y, b, _ = strings.Cut(b, ".")
		if len(x) != len(y) {
			return len(x) < len(y)
		}
		if x != y {
			return x < y
		}
	}
	return false
}

// LessVersion reports whether the API version in use is older than v.
func (c *Client) LessVersion(v string) bool { return lessVersion(c.Version(), v) }

// object returns the path of an object of the API. Names are escaped but for the slashes of image names.
func object(elem ...string) string {
	var b strings.Builder
	for _, e := range elem {
		b.WriteByte('/')
		b.WriteString(strings.ReplaceAll(url.PathEscape(e), "%2F", "/"))
	}
	return b.String()
}
