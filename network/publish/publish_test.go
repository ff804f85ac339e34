package publish_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"gantry/errdefs"
	"gantry/network/publish"
)

var (
	loopback = netip.MustParseAddr("127.0.0.1")
	any4     = netip.IPv4Unspecified()
	any6     = netip.IPv6Unspecified()
)

func echo(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	at := netip.MustParseAddrPort(l.Addr().String())
	u, err := net.ListenPacket("udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	go func() {
		b := make([]byte, 65536)
		for {
			n, from, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = u.WriteTo(b[:n], from)
		}
	}()
	return at
}

func TestProxy(t *testing.T) {
	p := publish.New()
	target := echo(t)
	for _, proto := range []string{"tcp", "udp"} {
		h, err := p.Hold(publish.Request{Proto: proto, Hosts: []netip.Addr{any4, any6}, Target: target})
		if err != nil {
			t.Fatal(err)
		}
		if h.Port < publish.EphemeralFirst {
			t.Errorf("port %d", h.Port)
		}
		for _, host := range []string{"127.0.0.1", "::1"} {
			c, err := net.Dial(proto, net.JoinHostPort(host, fmt.Sprint(h.Port)))
			if err != nil {
				t.Fatal(err)
			}
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			for _, size := range []int{1, 1400, 60000} {
				want := strings.Repeat("x", size)
				if _, err := io.WriteString(c, want); err != nil {
					t.Fatal(err)
				}
				b := make([]byte, size)
				if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
					t.Errorf("%s %s %d bytes: %v", proto, host, size, err)
				}
			}
			if tcp, ok := c.(*net.TCPConn); ok { // half close: the echo ends, and so the other half
				_ = tcp.CloseWrite()
				if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
					t.Errorf("after half close: %d, %v", n, err)
				}
			}
			c.Close()
		}
		open, err := net.Dial(proto, fmt.Sprintf("127.0.0.1:%d", h.Port))
		if err != nil {
			t.Fatal(err)
		}
		defer open.Close()
		h.Close() // with a connection open
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", h.Port)); err != nil {
			t.Errorf("the port is not free: %v", err)
		} else {
			l.Close()
		}
	}
}

func TestHold(t *testing.T) {
	p := publish.New()
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	taken := netip.MustParseAddrPort(other.Addr().String()).Port()
	hold := func(first, last uint16, hosts ...netip.Addr) (*publish.Held, error) {
		return p.Hold(publish.Request{Proto: "tcp", Hosts: hosts, First: first, Last: last, Target: netip.AddrPortFrom(loopback, 1)})
	}
	if _, err := hold(taken, 0, any4); !errdefs.Is(err, errdefs.Conflict) || !strings.Contains(err.Error(), fmt.Sprintf("failed to bind host port 0.0.0.0:%d/tcp: address already in use", taken)) {
		t.Errorf("another program's port: %v", err)
	}
	a, err := hold(0, 0, loopback)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if _, err := hold(a.Port, 0, any4); !errdefs.Is(err, errdefs.Conflict) || !strings.Contains(err.Error(), fmt.Sprintf("Bind for 0.0.0.0:%d failed: port is already allocated", a.Port)) {
		t.Errorf("our own port: %v", err)
	}
	b, err := hold(a.Port, a.Port+20, loopback)
	if err != nil || b.Port == a.Port {
		t.Fatalf("range: %+v, %v", b, err)
	}
	defer b.Close()
	if _, err := hold(5, 0, netip.MustParseAddr("192.0.2.99")); !errdefs.Is(err, errdefs.InvalidParameter) {
		t.Errorf("an address that is not the host's: %v", err)
	}
	both, err := hold(0, 0, any4, any6)
	if err != nil {
		t.Fatal(err)
	}
	both.Close()
	both.Close() // twice is once
	again, err := hold(both.Port, 0, any4, any6)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}
