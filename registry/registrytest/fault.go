package registrytest

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Fault is one way for a registry to misbehave.
type Fault struct {
	Method, Path string // of the requests that meet it; Path is a part of theirs; empty: any
	Skip         int    // so many requests are spared at first
	Times        int    // so many requests meet it; 0: all
	Do           Behaviour
}

// Behaviour answers a request in place of the registry, whose right answer is serve's.
type Behaviour func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc)

// Break makes a registry misbehave; of several faults that a request meets, the first counts.
func (r *Registry) Break(faults ...Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range faults {
		r.faults = append(r.faults, &f)
	}
}

// writer changes an answer on its way.
type writer struct {
	http.ResponseWriter
	write func(p []byte) (int, error)
}

func (w *writer) Write(p []byte) (int, error) { return w.write(p) }

func flush(w http.ResponseWriter) {
	_ = http.NewResponseController(w).Flush() // what cannot be flushed goes at the end
}

// limit lets so many bytes of an answer through and then calls end.
func limit(w http.ResponseWriter, after int, end func()) http.ResponseWriter {
	left := after
	return &writer{w, func(p []byte) (int, error) {
		if len(p) <= left {
			left -= len(p)
			return w.Write(p)
		}
		if _, err := w.Write(p[:left]); err != nil {
			return 0, err
		}
		left = 0
		flush(w)
		end()
		return 0, io.ErrClosedPipe
	}}
}

// Stall sends so many bytes of the answer, and then nothing until the client leaves.
func Stall(after int) Behaviour {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		serve(limit(w, after, func() { <-r.Context().Done() }), r)
	}
}

// Hang says nothing at all until the client leaves.
func Hang() Behaviour {
	return func(_ http.ResponseWriter, r *http.Request, _ http.HandlerFunc) { <-r.Context().Done() }
}

// Drip sends so many bytes of the answer at a time, with a pause after each.
func Drip(bytes int, pause time.Duration) Behaviour {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		serve(&writer{w, func(p []byte) (int, error) {
			for sent := 0; sent < len(p); {
				n, err := w.Write(p[sent:min(sent+bytes, len(p))])
				if sent += n; err != nil {
					return sent, err
				}
				flush(w)
				select {
				case <-r.Context().Done():
					return sent, r.Context().Err()
				case <-time.After(pause):
				}
			}
			return len(p), nil
		}}, r)
	}
}

// Cut resets the connection after so many bytes of the answer.
func Cut(after int) Behaviour {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		serve(limit(w, after, func() { reset(w) }), r)
	}
}

// reset ends a connection with TCP's RST, or as hard as it can be done.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // else it ends softly
	}
	_ = conn.Close()
	panic(http.ErrAbortHandler)
}

// Swallow takes so many bytes of the request's body, as the registry would, and then resets the connection.
func Swallow(bytes int64) Behaviour {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		r.Body = io.NopCloser(io.LimitReader(r.Body, bytes))
		serve(&discard{header: http.Header{}}, r)
		reset(w)
	}
}

// discard is an answer that nobody gets.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(int)             {}

// Corrupt turns over the bits of one byte of the answer.
func Corrupt(at int) Behaviour {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		offset := 0
		serve(&writer{w, func(p []byte) (int, error) {
			q := append([]byte(nil), p...)
			if i := at - offset; i >= 0 && i < len(q) {
				q[i] = ^q[i]
			}
			offset += len(q)
			return w.Write(q)
		}}, r)
	}
}

// Short ends the answer properly after so many bytes, as if that were all.
func Short(size int) Behaviour {
	return func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
		_, _ = w.Write(make([]byte, size)) // the client may have left
	}
}

// Endless sends zeros until the client leaves.
func Endless() Behaviour {
	return func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
		zeros := make([]byte, 64<<10)
		for {
			if _, err := w.Write(zeros); err != nil {
				return
			}
		}
	}
}

// NoRanges answers with the whole, whatever range was asked for.
func NoRanges() Behaviour {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		r.Header.Del("Range")
		serve(&noRanges{w}, r)
	}
}

type noRanges struct{ http.ResponseWriter }

func (w *noRanges) WriteHeader(status int) {
	w.Header().Del("Accept-Ranges")
	w.ResponseWriter.WriteHeader(status)
}

// RefuseRanges answers 416 to every request for a range.
func RefuseRanges() Behaviour {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if r.Header.Get("Range") != "" {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		serve(w, r)
	}
}

// LieRange answers a request for a range with other bytes than it asked for: as the header says, or with a header that says otherwise.
func LieRange(contentRange string) Behaviour {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if r.Header.Get("Range") == "" {
			serve(w, r)
			return
		}
		w.Header().Set("Content-Range", contentRange)
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(make([]byte, 1<<20)) // the client may have left
	}
}

// Status answers with a status, and a Retry-After header unless that is empty.
func Status(status int, retryAfter string) Behaviour {
	return func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		fail(w, status, map[int]string{http.StatusTooManyRequests: "TOOMANYREQUESTS", http.StatusUnauthorized: "UNAUTHORIZED"}[status])
	}
}

// Redirect leads to the same path and query at another base URL.
func Redirect(base string) Behaviour {
	return func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		http.Redirect(w, r, strings.TrimSuffix(base, "/")+r.URL.RequestURI(), http.StatusTemporaryRedirect)
	}
}

// RequireBasic lets in only who brings a name and a password.
func RequireBasic(user, password string) Behaviour {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if u, p, _ := r.BasicAuth(); u != user || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
			fail(w, http.StatusUnauthorized, "UNAUTHORIZED")
			return
		}
		serve(w, r)
	}
}

// RequireBearer lets in only who brings a token, which a realm gives.
func RequireBearer(realm, token string) Behaviour {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if r.Header.Get("Authorization") != "Bearer "+token {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="registry"`, realm))
			fail(w, http.StatusUnauthorized, "UNAUTHORIZED")
			return
		}
		serve(w, r)
	}
}

// Token answers as a token server that gives everybody the token, and a refresh token unless that is empty.
func Token(token, refresh string) Behaviour {
	return func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"token":%q,"access_token":%q,"refresh_token":%q,"expires_in":300}`, token, token, refresh) // the client may have left
	}
}
