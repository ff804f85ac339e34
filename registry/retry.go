package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"gantry/errdefs"
)

const (
	firstPause    = time.Second // before the second attempt; each further one is twice as long
	maxPause      = 15 * time.Second
	maxRetryAfter = time.Minute // a registry that asks for more is not waited for
)

// budget counts the attempts at one thing in a row that got nowhere.
type budget struct {
	attempts int           // at most
	pause    time.Duration // after the first
	failed   int
}

func (c *Client) budget(attempts int) *budget { return &budget{attempts: attempts, pause: c.c.Pause} }

// progress begins to count anew.
func (b *budget) progress() { b.failed = 0 }

// again waits until it makes sense to try again after err, or returns err: it will not pass, or the budget is spent.
func (b *budget) again(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errdefs.With(errdefs.Canceled, context.Cause(ctx))
	}
	b.failed++
	if b.failed >= b.attempts || !temporary(err) {
		return err
	}
	wait := min(b.pause<<min(b.failed-1, 16), maxPause)
	wait = wait/2 + rand.N(wait/2+1) // so that many clients do not come back at once
	var e *Error
	if errors.As(err, &e) && e.RetryAfter > 0 {
		wait = e.RetryAfter + rand.N(e.RetryAfter/10+1)
	}
	if told, ok := ctx.Value(waits{}).(func(time.Duration)); ok {
		told(wait)
	}
	return pause(ctx, wait)
}

// waits is the key of what is told of waits.
type waits struct{}

// OnWait returns a context of requests whose failures, if they may pass, are told: told gets the time until the next attempt, which may be that for which the registry asks. The
// next attempt waits for it to return. It may be called by several goroutines at once.
func OnWait(ctx context.Context, told func(time.Duration)) context.Context {
	return context.WithValue(ctx, waits{}, told)
}

// pause waits, unless ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return errdefs.With(errdefs.Canceled, context.Cause(ctx))
	case <-t.C:
		return nil
	}
}

// temporary reports whether the same request may go well a little later: the registry is busy or fails, or the connection was lost.
func temporary(err error) bool {
	switch {
	case errors.As(err, new(final)):
		return false
	case errors.Is(err, errRange):
		return true
	}
	var e *Error
	if errors.As(err, &e) {
		switch e.Status {
		case http.StatusTooManyRequests, http.StatusRequestTimeout:
			return e.RetryAfter <= maxRetryAfter
		case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
			return false
		default:
			return e.Status >= 500 && e.RetryAfter <= maxRetryAfter
		}
	}
	var (
		certificate *tls.CertificateVerificationError
		authority   x509.UnknownAuthorityError
		record      tls.RecordHeaderError
		alert       tls.AlertError
		dns         *net.DNSError
		netErr      net.Error
		urlErr      *url.Error
	)
	switch {
	case errors.Is(err, errPolicy), errors.Is(err, errNoCredentials), errors.As(err, &certificate), errors.As(err, &authority), errors.As(err, &record), errors.As(err, &alert):
		return false
	case errors.As(err, &dns):
		return !dns.IsNotFound
	case errors.Is(err, errStalled), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &netErr):
		return true
	default:
		return errors.As(err, &urlErr)
	}
}

// final is an error that is not to be met with another attempt.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// unreachable reports whether there was no connection at all.
func unreachable(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial" && !op.Timeout()
}

// retryAfter reads a Retry-After header: seconds or a date (RFC 9110, 10.2.3); 0 when it says nothing.
func retryAfter(header string, now time.Time) time.Duration {
	if s, err := strconv.ParseUint(header, 10, 31); err == nil {
		return time.Duration(s) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// clean takes from an error of package net/http what may be secret: the query of a URL, in which storage services have their signatures.
func clean(err error) error {
	var e *url.Error
	if !errors.As(err, &e) {
		return err
	}
	return &url.Error{Op: e.Op, URL: bare(e.URL), Err: e.Err}
}

// bare returns a URL without what may be secret.
func bare(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "(malformed URL)"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

var (
	errStalled = errors.New("connection stalled")
	errRange   = errors.New("registry sent another range than it was asked for")
	errPolicy  = errors.New("refused")
)

const stallBytes = 4 << 10 // a body that comes slower than this per window has stalled

// stallReader fails a body of which less than stallBytes came in a window of waiting for it. What the reader does in between does not count.
type stallReader struct {
	body    io.ReadCloser
	window  time.Duration
	left    time.Duration // of the window
	got     int           // in the window
	timer   *time.Timer   // runs while Read waits
	stalled atomic.Bool
	end     func() bool
}

func newStallReader(ctx context.Context, body io.ReadCloser, window time.Duration) *stallReader {
	r := &stallReader{body: body, window: window, left: window}
	closeBody := func() { _ = body.Close() } // makes Read fail
	r.timer = time.AfterFunc(window, func() {
		r.stalled.Store(true)
		closeBody()
	})
	r.timer.Stop()
	r.end = context.AfterFunc(ctx, closeBody)
	return r
}

func (r *stallReader) Read(p []byte) (int, error) {
	begun := time.Now()
	r.timer.Reset(max(r.left, time.Millisecond))
	n, err := r.body.Read(p)
	r.timer.Stop()
	r.left -= time.Since(begun)
	if r.got += n; r.got >= stallBytes {
		r.got, r.left = 0, r.window
	}
	if err != nil && r.stalled.Load() {
		err = fmt.Errorf("%w: less than %d bytes in %s", errStalled, stallBytes, r.window)
	}
	return n, err
}

func (r *stallReader) stop() {
	r.timer.Stop()
	r.end()
}
