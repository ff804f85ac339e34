package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gantry/linux/fd"
)

// listener is one open socket of the API.
type listener struct {
	net.Listener
	host string // as configured
	path string // of a unix socket that we made, to be removed at the end
}

func (l *listener) close() error {
	err := l.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	if l.path != "" {
		if rerr := os.Remove(l.path); !errors.Is(rerr, os.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}

// listen opens all of the configuration's hosts.
func (c *config) listen(ctx context.Context, log *slog.Logger) (all []*listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range all {
				err = errors.Join(err, l.close())
			}
			all = nil
		}
	}()
	var secure *tls.Config
	if c.tls {
		if secure, err = c.serverTLS(); err != nil {
			return nil, fmt.Errorf("invalid TLS configuration: %w", err)
		}
	}
	for _, host := range c.hosts {
		proto, addr, _ := strings.Cut(host, "://")
		switch proto {
		case "unix":
			l, err := c.listenUnix(ctx, addr, log)
			if err != nil {
				return all, fmt.Errorf("can't create unix socket %s: %w", addr, err)
			}
			all = append(all, &listener{l, host, addr})
		case "tcp":
			var lc net.ListenConfig
			l, err := lc.Listen(ctx, "tcp", addr)
			if err != nil {
				return all, fmt.Errorf("failed to listen on %s: %w", host, err)
			}
			if secure == nil {
				log.Warn("the API is open without TLS: everyone who can reach it controls this machine", "host", host)
			} else {
				if !c.tlsVerify {
					log.Warn("the API is open without client certificates: everyone who can reach it controls this machine", "host", host)
				}
				l = tls.NewListener(l, secure)
			}
			all = append(all, &listener{l, host, ""})
		case "fd":
			inherited, err := listenFDs(addr, os.Getenv, os.Getpid())
			if err != nil {
				return all, fmt.Errorf("failed to listen on %s: %w", host, err)
			}
			for _, l := range inherited {
				if _, isTCP := l.(*net.TCPListener); isTCP && secure != nil {
					l = tls.NewListener(l, secure)
				}
				all = append(all, &listener{l, host, ""})
			}
		}
	}
	return all, nil
}

// listenUnix makes a socket of mode 0660 that the group may use. A socket on which nobody answers is replaced.
func (c *config) listenUnix(ctx context.Context, path string, log *slog.Logger) (net.Listener, error) {
	dir, name := filepath.Split(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	folder, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = folder.Close() }() // only a handle for the name below
	// A socket's address has room for 107 bytes only; by way of the descriptor any path fits.
	short := path
	if len(path) > 100 {
		short = fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), name)
	}
	dialer := net.Dialer{Timeout: time.Second}
	if conn, err := dialer.DialContext(ctx, "unix", short); err == nil {
		listens := listenerLives(conn.(*net.UnixConn))
		_ = conn.Close()
		if listens {
			return nil, errors.New("another daemon answers on it")
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", short)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // it would use the short name
	gid, err := c.socketGroup(log)
	if err == nil {
		err = os.Chown(path, 0, gid)
	}
	if err == nil {
		err = os.Chmod(path, 0o660)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close(), os.Remove(path))
	}
	return newSparing(l.(*net.UnixListener)), nil
}

// listenerLives reports whether the process that listens at the other end is there, which it is where that cannot be told. The socket of one that was killed takes connections for as long as a child of it has
// come no further than its clone.
func listenerLives(conn *net.UnixConn) bool {
	pid, err := fd.Peer(conn)
	if err != nil || pid == 0 {
		return true
	}
	_, state, err := processOf(strconv.Itoa(pid))
	return !errors.Is(err, os.ErrNotExist) && (err != nil || state != 'Z')
}

// socketGroup returns the group that may use the unix sockets: the given one, by name or number, which must exist;
// without one docker or gantry if there is one of that name, else root.
func (c *config) socketGroup(log *slog.Logger) (int, error) {
	lookup := func(name string) (int, error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(g.Gid)
	}
	if c.group != "" {
		if gid, err := lookup(c.group); err == nil {
			return gid, nil
		}
		if gid, err := strconv.Atoi(c.group); err == nil && gid >= 0 {
			return gid, nil
		}
		if c.group != "docker" { // docker's default, which tools give without knowing whether it exists
			return 0, fmt.Errorf("group %s not found", c.group)
		}
		log.Warn("could not change group of the API socket to docker: there is no such group")
		return 0, nil
	}
	for _, name := range []string{"docker", "gantry"} {
		if gid, err := lookup(name); err == nil {
			return gid, nil
		}
	}
	return 0, nil
}

// listenFDs returns the sockets that systemd passed: all, or the one of the given number or name.
func listenFDs(which string, getenv func(string) string, pid int) ([]net.Listener, error) {
	if p := getenv("LISTEN_PID"); p != strconv.Itoa(pid) {
		return nil, errors.New("no sockets found via socket activation: make sure the service was started by systemd")
	}
	n, err := strconv.Atoi(getenv("LISTEN_FDS"))
	if err != nil || n < 1 || n > 1024 {
		return nil, errors.New("no sockets found via socket activation: make sure the service was started by systemd")
	}
	names := strings.Split(getenv("LISTEN_FDNAMES"), ":")
	const first = 3
	var found []net.Listener
	for i := range n {
		fd := first + i
		name := ""
		if i < len(names) {
			name = names[i]
		}
		if which != "" && which != "*" && which != strconv.Itoa(fd) && which != name {
			continue
		}
		syscall.CloseOnExec(fd)
		file := os.NewFile(uintptr(fd), name)
		l, err := net.FileListener(file)
		_ = file.Close() // FileListener has its own descriptor
		if err != nil {
			return nil, fmt.Errorf("file descriptor %d: %w", fd, err)
		}
		found = append(found, l)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no socket activation file descriptor matches %q", which)
	}
	return found, nil
}

// serverTLS returns the TLS settings of the API's TCP sockets.
func (c *config) serverTLS() (*tls.Config, error) {
	if c.tlsCert == "" || c.tlsKey == "" {
		return nil, errors.New("could not load X509 key pair: --tlscert and --tlskey are needed")
	}
	pair, err := tls.LoadX509KeyPair(c.tlsCert, c.tlsKey)
	if err != nil {
		return nil, fmt.Errorf("could not load X509 key pair (cert: %q, key: %q): %w", c.tlsCert, c.tlsKey, err)
	}
	// HTTP/1.1 only: attach and exec take the connection over.
	t := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, NextProtos: []string{"http/1.1"}}
	if !c.tlsVerify {
		return t, nil
	}
	if c.tlsCACert == "" {
		return nil, errors.New("--tlsverify needs --tlscacert")
	}
	pem, err := os.ReadFile(c.tlsCACert)
	if err != nil {
		return nil, fmt.Errorf("could not read CA certificate %q: %w", c.tlsCACert, err)
	}
	t.ClientAuth, t.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	if !t.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("failed to append certificates from PEM file: %q", c.tlsCACert)
	}
	return t, nil
}
