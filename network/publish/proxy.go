package publish

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

const (
	dialTimeout = 10 * time.Second
	udpIdle     = 90 * time.Second // a UDP peer that said nothing for so long is forgotten
	udpPeers    = 1024             // at most, of one port
	udpSize     = 65507            // the largest datagram
)

// proxyTCP serves the connections that arrive at l. It returns when l is closed and every connection has ended.
func proxyTCP(ctx context.Context, l net.Listener, target netip.AddrPort) {
	var wait sync.WaitGroup
	defer wait.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			select { // out of descriptors, for example
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
				continue
			}
		}
		wait.Go(func() { relay(ctx, c, target) })
	}
}

func relay(ctx context.Context, client net.Conn, target netip.AddrPort) {
	defer client.Close()
	d := net.Dialer{Timeout: dialTimeout}
	server, err := d.DialContext(ctx, "tcp", target.String())
	if err != nil {
		if c, ok := client.(*net.TCPConn); ok {
			_ = c.SetLinger(0) // a reset says that nobody answers
		}
		return
	}
	defer server.Close()
	stop := context.AfterFunc(ctx, func() {
		_ = client.Close()
		_ = server.Close()
	})
	defer stop()
	var wait sync.WaitGroup
	wait.Go(func() { pour(server, client) })
	wait.Go(func() { pour(client, server) })
	wait.Wait()
}

// pour copies until the end of src (on Linux by splice) and passes the end on.
func pour(dst, src net.Conn) {
	_, _ = io.Copy(dst, src) // either side may hang up
	if c, ok := dst.(*net.TCPConn); ok {
		_ = c.CloseWrite()
	}
	if c, ok := src.(*net.TCPConn); ok {
		_ = c.CloseRead()
	}
}

// proxyUDP passes datagrams on, with a socket of its own for each peer so that answers find their way.
func proxyUDP(ctx context.Context, c *net.UDPConn, target netip.AddrPort) {
	var (
		mu    sync.Mutex // guards peers
		peers = map[netip.AddrPort]*net.UDPConn{}
		wait  sync.WaitGroup
	)
	defer wait.Wait()
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		for _, p := range peers {
			_ = p.Close()
		}
	}()
	var b []byte
	for {
		if b == nil {
			if err := readable(c); err != nil {
				return
			}
			b = make([]byte, udpSize)
		}
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
				return
			}
			continue
		}
		mu.Lock()
		peer := peers[from]
		if peer == nil && len(peers) < udpPeers {
			if peer, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(target)); err == nil {
				peers[from] = peer
				wait.Go(func() {
					answer(c, peer, from)
					mu.Lock()
					delete(peers, from)
					mu.Unlock()
					_ = peer.Close()
				})
			}
		}
		mu.Unlock()
		if peer != nil {
			_ = peer.SetReadDeadline(time.Now().Add(udpIdle))
			_, _ = peer.Write(b[:n])
		}
	}
}

// readable waits until a datagram is there, so that a port that never gets one needs no buffer.
func readable(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var one [1]byte
	return raw.Read(func(fd uintptr) bool { // it is asked before it waits: what has come already wakes nobody up again
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return !errors.Is(err, syscall.EAGAIN)
	})
}

func answer(c, peer *net.UDPConn, to netip.AddrPort) {
	b := make([]byte, udpSize)
	for {
		n, err := peer.Read(b)
		if err != nil {
			return
		}
		_ = peer.SetReadDeadline(time.Now().Add(udpIdle))
		if _, err := c.WriteToUDPAddrPort(b[:n], to); errors.Is(err, net.ErrClosed) {
			return
		}
	}
}
