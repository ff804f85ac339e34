package docker

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"gantry/errdefs"
)

const (
	rawStream         = "application/vnd.docker.raw-stream"
	multiplexedStream = "application/vnd.docker.multiplexed-stream"
)

// Hijack takes the connection over for a raw session (attach, exec) and sends docker's answer on it: 101 UPGRADED if the
// client sent an Upgrade header, 200 OK otherwise. multiplexed says that output will come in docker's 8-byte frames,
// which newer clients are told by the Content-Type.
//
// The connection is always a *net.UnixConn or *net.TCPConn whose descriptor may be handed to another process; for a TLS
// client it is one end of a socket pair that is relayed. prefix is what the client already sent after its request.
// After Hijack the handler must return nil and the caller owns the connection.
func Hijack(w http.ResponseWriter, r *http.Request, multiplexed bool) (conn net.Conn, prefix []byte, upgraded bool, err error) {
	_, upgraded = r.Header["Upgrade"]
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, nil, false, errdefs.New(errdefs.InvalidParameter, "take over the connection: %w", err)
	}
	if rw, ok := w.(*response); ok {
		rw.begun = true
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		_ = conn.Close()
		return nil, nil, false, fmt.Errorf("clear deadlines of the connection: %w", err)
	}
	if n := buffered.Reader.Buffered(); n > 0 {
		peeked, _ := buffered.Reader.Peek(n) // cannot fail: n bytes are there
		prefix = append([]byte(nil), peeked...)
	}
	head := "HTTP/1.1 200 OK\r\nContent-Type: " + rawStream + "\r\n\r\n"
	if upgraded {
		contentType := rawStream
		if multiplexed && VersionOf(r) >= 42 {
			contentType = multiplexedStream
		}
		head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: " + contentType + "\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
	}
	if _, err := conn.Write([]byte(head)); err != nil {
		_ = conn.Close()
		return nil, nil, false, fmt.Errorf("answer the upgrade request: %w", err)
	}
	switch conn.(type) {
	case *net.UnixConn, *net.TCPConn:
		return conn, prefix, upgraded, nil
	}
	local, err := relayed(conn)
	if err != nil {
		_ = conn.Close()
		return nil, nil, false, err
	}
	return local, prefix, upgraded, nil
}

// relayed returns one end of a socket pair whose other end is copied to and from conn, half-closes included.
func relayed(conn net.Conn) (net.Conn, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket pair: %w", err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "relay")
		c, err := net.FileConn(file)
		_ = file.Close() // FileConn has its own descriptor
		if err != nil {
			if i == 0 {
				_ = syscall.Close(fds[1])
			} else {
				_ = ends[0].Close()
			}
			return nil, fmt.Errorf("make a socket pair: %w", err)
		}
		ends[i] = c.(*net.UnixConn)
	}
	go relay(conn, ends[1])
	return ends[0], nil
}
