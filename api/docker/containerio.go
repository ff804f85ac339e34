package docker

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gantry/archive"
	"gantry/container"
	"gantry/errdefs"
	"gantry/logs"

	api "github.com/moby/moby/api/types/container"
)

// frame writes docker's header of a piece of a multiplexed stream: stream number, three zeros, length.
func frame(header *[8]byte, stream byte, n int) []byte {
	header[0] = stream
	binary.BigEndian.PutUint32(header[4:], uint32(n))
	return header[:]
}

func (s *Server) containerLogs(w http.ResponseWriter, r *http.Request) error {
	o := logs.ReadOptions{Follow: Bool(r, "follow"), Stdout: Bool(r, "stdout"), Stderr: Bool(r, "stderr"), Details: Bool(r, "details"), Tail: -1}
	if !o.Stdout && !o.Stderr {
		return errdefs.New(errdefs.InvalidParameter, "Bad parameters: you must choose at least one stream")
	}
	if tail := r.Form.Get("tail"); tail != "" && tail != "all" {
		if n, err := strconv.Atoi(tail); err == nil && n >= 0 {
			o.Tail = n
		}
	}
	for _, v := range []struct {
		key string
		to  *time.Time
	}{{"since", &o.Since}, {"until", &o.Until}} {
		if text := r.Form.Get(v.key); text != "" && text != "0" {
			t, err := ParseTime(text, time.Now())
			if err != nil {
				return err
			}
			*v.to = t
		}
	}
	tty, entries, err := s.engine.Containers.Logs(r.Context(), r.PathValue("name"), o)
	if err != nil {
		return err
	}
	stamps := Bool(r, "timestamps")
	w.Header().Set("Content-Type", rawStream)
	if !tty && VersionOf(r) >= 42 {
		w.Header().Set("Content-Type", multiplexedStream)
	}
	out := newLogWriter(w, tty, o.Follow)
	begun := false
	if o.Follow { // clients wait for the header before they read, and the first line may be long in coming
		if err := s.engine.Containers.CheckLogs(r.PathValue("name")); err != nil {
			return err
		}
		w.WriteHeader(http.StatusOK)
		if err := out.flush(); err != nil {
			return nil //nolint:nilerr // the client went away
		}
		begun = true
	}
	for e, err := range entries {
		if err != nil {
			if !begun && r.Context().Err() == nil {
				return err
			}
			break
		}
		begun = true
		if err := out.write(&e, stamps, o.Details); err != nil {
			return nil //nolint:nilerr // the client went away
		}
	}
	if !begun {
		w.WriteHeader(http.StatusOK)
	}
	return out.flush()
}

// logWriter sends log entries, in frames unless they come from a terminal.
type logWriter struct {
	w      http.ResponseWriter
	tty    bool
	follow bool
	buf    []byte
	header [8]byte
}

// logBuffer is how much is gathered before it is sent, in bytes.
const logBuffer = 64 << 10

func newLogWriter(w http.ResponseWriter, tty, follow bool) *logWriter {
	return &logWriter{w: w, tty: tty, follow: follow, buf: make([]byte, 0, logBuffer)}
}

func (l *logWriter) write(e *logs.Entry, stamps, details bool) error {
	var prefix []byte
	if stamps {
		prefix = append(e.Time.UTC().AppendFormat(nil, "2006-01-02T15:04:05.000000000Z07:00"), ' ')
	}
	if details {
		for i, a := range e.Attributes {
			if i > 0 {
				prefix = append(prefix, ',')
			}
			prefix = append(prefix, url.QueryEscape(a.Key)+"="+url.QueryEscape(a.Value)...)
		}
		prefix = append(prefix, ' ')
	}
	if !l.tty {
		stream := byte(1)
		if e.Stream == logs.Stderr {
			stream = 2
		}
		l.buf = append(l.buf, frame(&l.header, stream, len(prefix)+len(e.Line))...)
	}
	l.buf = append(append(l.buf, prefix...), e.Line...)
	if l.follow || len(l.buf) >= logBuffer {
		return l.flush()
	}
	return nil
}

func (l *logWriter) flush() error {
	if len(l.buf) > 0 {
		if _, err := l.w.Write(l.buf); err != nil {
			return err
		}
		l.buf = l.buf[:0]
	}
	return http.NewResponseController(l.w).Flush()
}

// connFile returns a descriptor of the connection for the supervisor and closes the daemon's own.
func connFile(conn net.Conn) (*os.File, error) {
	c, ok := conn.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, errors.Join(errdefs.New(errdefs.Internal, "a connection of type %T cannot be handed over", conn), conn.Close())
	}
	f, err := c.File()
	return f, errors.Join(err, conn.Close())
}

func (s *Server) containerAttach(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	keys, err := detachKeys(r.Form.Get("detachKeys"))
	if err != nil {
		return err
	}
	tty, arrived, err := s.engine.Containers.ExpectAttach(name)
	if err != nil {
		return err
	}
	defer arrived()
	o := container.AttachOptions{Stdin: Bool(r, "stdin"), Stdout: Bool(r, "stdout"), Stderr: Bool(r, "stderr"), Logs: Bool(r, "logs"), Stream: Bool(r, "stream"), DetachKeys: keys}
	conn, prefix, _, err := Hijack(w, r, !tty)
	if err != nil {
		return err
	}
	if o.Logs {
		if err := s.replay(r.Context(), conn, name, o); err != nil {
			return errors.Join(err, conn.Close())
		}
	}
	file, err := connFile(conn)
	if err != nil {
		return err
	}
	return s.engine.Containers.Attach(context.WithoutCancel(r.Context()), name, file, prefix, o)
}

// replay sends what a container has logged so far to a client that attaches.
func (s *Server) replay(ctx context.Context, conn io.Writer, name string, o container.AttachOptions) error {
	tty, entries, err := s.engine.Containers.Logs(ctx, name, logs.ReadOptions{Stdout: o.Stdout, Stderr: o.Stderr, Tail: -1})
	if err != nil {
		return err
	}
	var header [8]byte
	for e, err := range entries {
		if err != nil {
			return err
		}
		var out []byte
		if !tty {
			stream := byte(1)
			if e.Stream == logs.Stderr {
				stream = 2
			}
			out = append(out, frame(&header, stream, len(e.Line))...)
		}
		if _, err := conn.Write(append(out, e.Line...)); err != nil {
			return err
		}
	}
	return nil
}

// detachKeys reads a key sequence such as "ctrl-p,ctrl-q" or "a,b"; empty means docker's own.
func detachKeys(text string) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	var keys []byte
	for key := range strings.SplitSeq(text, ",") {
		name, ctrl := strings.CutPrefix(strings.ToLower(key), "ctrl-")
		switch {
		case !ctrl && len(key) == 1:
			keys = append(keys, key[0])
		case ctrl && len(name) == 1 && name[0] >= 'a' && name[0] <= 'z':
			keys = append(keys, name[0]-'a'+1)
		case ctrl && len(name) == 1 && strings.Contains("@[\\]^_", name):
			keys = append(keys, name[0]-'@')
		default:
			return nil, errdefs.New(errdefs.InvalidParameter, "invalid detach keys (%s) provided: unknown key %q", text, key)
		}
	}
	return keys, nil
}

// statsInterval is the time between two samples of docker stats.
const statsInterval = time.Second

func (s *Server) containerStats(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	stream := BoolOr(r, "stream", true)
	oneShot := Bool(r, "one-shot")
	if stream && oneShot {
		return errdefs.New(errdefs.InvalidParameter, "cannot have stream=true and one-shot=true")
	}
	c, err := s.engine.Containers.Get(name)
	if err != nil {
		return err
	}
	name = c.ID() // the name may change meanwhile
	before, err := s.engine.Containers.Stats(r.Context(), name)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	if oneShot || (!stream && before.Read.IsZero()) {
		return json.NewEncoder(w).Encode(before)
	}
	enc := json.NewEncoder(w)
	if stream && before.Read.IsZero() { // docker answers a stopped container at once, too
		if err := enc.Encode(before); err != nil {
			return nil //nolint:nilerr // the client went away
		}
	}
	tick := time.NewTicker(statsInterval)
	defer tick.Stop()
	for {
		if err := http.NewResponseController(w).Flush(); err != nil {
			return nil //nolint:nilerr // the client went away
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return nil
		}
		now, err := s.engine.Containers.Stats(r.Context(), name)
		if err != nil {
			if errdefs.Is(err, errdefs.NotFound) {
				return nil
			}
			return err
		}
		now.PreRead, now.PreCPUStats = before.Read, before.CPUStats
		before = now
		if err := enc.Encode(now); err != nil || !stream {
			return nil //nolint:nilerr // the client went away
		}
	}
}

func (s *Server) containerChanges(w http.ResponseWriter, r *http.Request) error {
	changes, err := s.engine.Containers.Changes(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	out := make([]api.FilesystemChange, 0, len(changes))
	for _, c := range changes {
		out = append(out, api.FilesystemChange{Kind: api.ChangeType(c.Kind), Path: c.Path})
	}
	return WriteJSON(w, http.StatusOK, out)
}

func (s *Server) containerExport(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.engine.Containers.Get(r.PathValue("name")); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	return s.engine.Containers.Export(r.Context(), r.PathValue("name"), w)
}

// statHeader is where a copy tells what it copies, as base64 of JSON.
const statHeader = "X-Docker-Container-Path-Stat"

func setStat(w http.ResponseWriter, st archive.PathStat) {
	body, err := json.Marshal(api.PathStat{Name: st.Name, Size: st.Size, Mode: st.Mode, Mtime: st.ModTime, LinkTarget: st.LinkTarget})
	if err == nil { // always: it is all strings and numbers
		w.Header().Set(statHeader, base64.StdEncoding.EncodeToString(body))
	}
}

func (s *Server) containerStat(w http.ResponseWriter, r *http.Request) error {
	p, err := cleanPath(r)
	if err != nil {
		return err
	}
	st, err := s.engine.Containers.Stat(r.Context(), r.PathValue("name"), p)
	if err != nil {
		return notInContainer(err, p, r.PathValue("name"))
	}
	setStat(w, st)
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Server) containerCopyFrom(w http.ResponseWriter, r *http.Request) error {
	p, err := cleanPath(r)
	if err != nil {
		return err
	}
	err = s.engine.Containers.CopyFrom(r.Context(), r.PathValue("name"), p, w, func(st archive.PathStat) {
		setStat(w, st)
		w.Header().Set("Content-Type", "application/x-tar")
	})
	return notInContainer(err, p, r.PathValue("name"))
}

// notInContainer says in docker's words that a path does not exist.
func notInContainer(err error, p, name string) error {
	if errors.Is(err, os.ErrNotExist) {
		return errdefs.New(errdefs.NotFound, "Could not find the file %s in container %s", p, name)
	}
	return err
}

func (s *Server) containerCopyTo(w http.ResponseWriter, r *http.Request) error {
	p, err := cleanPath(r)
	if err != nil {
		return err
	}
	o := container.CopyToOptions{NoOverwriteDirNonDir: Bool(r, "noOverwriteDirNonDir"), CopyUIDGID: Bool(r, "copyUIDGID")}
	if err := s.engine.Containers.CopyTo(r.Context(), r.PathValue("name"), p, r.Body, o); err != nil {
		return notInContainer(err, p, r.PathValue("name"))
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// dup returns another descriptor of the same connection.
func dup(f *os.File) (*os.File, error) {
	var fd int
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var derr error
	if err := raw.Control(func(n uintptr) { fd, derr = syscall.Dup(int(n)) }); err != nil {
		return nil, err
	}
	if derr != nil {
		return nil, derr
	}
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), f.Name()), nil
}
