package network_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gantry/db"
	"gantry/linux/netlink"
	"gantry/linux/netns"
	"gantry/linux/netns/netnstest"
	"gantry/network"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// id makes a container's ID.
func id(i int) string { return fmt.Sprintf("%012x%052x", 0xabcdef000000+i, i) }

// options are those of a service that touches nothing of the host's.
func options(t testing.TB, bridge string) network.Options {
	t.Helper()
	d, err := db.Open(filepath.Join(t.TempDir(), "gantry.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return network.Options{
		DB: d, Bridge: bridge, Pool: 2, ICC: true, IPForward: true, IPMasq: true, IPTables: true,
		Log: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
	}
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) { w.t.Logf("%s", b); return len(b), nil }

func open(t testing.TB, o network.Options) *network.Service {
	t.Helper()
	netnstest.Root(t)
	upLoopback(t)
	s, err := network.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closed(t testing.TB, s *network.Service) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func upLoopback(t testing.TB) {
	t.Helper()
	c, err := netlink.DialRoute()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Do(netlink.SetUp(1)); err != nil {
		t.Fatal(err)
	}
}

func join(t testing.TB, s *network.Service, c network.SandboxConfig) *network.Namespace {
	t.Helper()
	ns, err := s.Join(context.Background(), c)
	if err != nil {
		t.Fatalf("join %s: %v", c.Name, err)
	}
	t.Cleanup(func() {
		if ns.File != nil {
			ns.File.Close()
		}
	})
	return ns
}

func leave(t testing.TB, s *network.Service, id string, ns *network.Namespace) {
	t.Helper()
	if err := s.Leave(context.Background(), id); err != nil {
		t.Error(err)
	}
	if ns != nil && ns.File != nil {
		ns.File.Close()
	}
}

// inside dials or listens in a sandbox.
func inside(t testing.TB, ns *os.File, f func() error) {
	t.Helper()
	if err := netns.Do(ns, f); err != nil {
		t.Fatal(err)
	}
}

// serve answers each connection to the port inside the sandbox with a word and the client's address.
func serve(t testing.TB, ns *os.File, addr, word string) (stop func()) {
	t.Helper()
	var l net.Listener
	inside(t, ns, func() (err error) { l, err = net.Listen("tcp", addr); return err })
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			fmt.Fprintf(c, "%s %s", word, host)
			c.Close()
		}
	}()
	return func() { l.Close() }
}

// ask returns what a server says, connecting from the namespace (nil: this one); "" when it cannot be reached.
func ask(t testing.TB, ns *os.File, addr string) string {
	t.Helper()
	var said []byte
	dial := func() error {
		c, err := net.DialTimeout("tcp", addr, 1500*time.Millisecond) // a lost neighbour solicitation is repeated after a second
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		said, err = io.ReadAll(c)
		return err
	}
	var err error
	if ns != nil {
		err = netns.Do(ns, dial)
	} else {
		err = dial()
	}
	if err != nil {
		t.Logf("%s: %v", addr, err)
	}
	return string(said)
}

func TestJoinDefault(t *testing.T) {
	s := open(t, options(t, "gt0"))
	defer closed(t, s)
	a := join(t, s, network.SandboxConfig{ID: id(1), Name: "a", Endpoints: []network.EndpointConfig{{Network: "bridge"}}})
	b := join(t, s, network.SandboxConfig{
		ID: id(2), Name: "b", Endpoints: []network.EndpointConfig{{Network: "default"}},
		Ports: []network.PortBinding{{ContainerPort: 80, HostPort: 8080}, {ContainerPort: 80}},
	})
	ea, eb := a.Endpoints[0], b.Endpoints[0]
	if ea.IPv4 == eb.IPv4 || !ea.IPv4.IsValid() || ea.Interface != "eth0" || ea.Gateway != ea.IPv4.Masked().Addr().Next() {
		t.Fatalf("endpoints %+v and %+v", ea, eb)
	}
	defer serve(t, b.File, ":80", "b")()
	gateway, ephemeral := ea.Gateway.String(), fmt.Sprint(b.Ports[2].HostPort)
	for _, c := range []struct {
		name, addr, want string
		from             *os.File
	}{
		{"sandbox to sandbox", eb.IPv4.Addr().String() + ":80", "b " + ea.IPv4.Addr().String(), a.File},
		{"host to sandbox", eb.IPv4.Addr().String() + ":80", "b " + gateway, nil},
		{"host to 127.0.0.1", "127.0.0.1:8080", "b " + gateway, nil},
		{"host to its address", gateway + ":8080", "b " + gateway, nil},
		{"host to [::1]", "[::1]:8080", "b " + gateway, nil},
		{"ephemeral", "127.0.0.1:" + ephemeral, "b " + gateway, nil},
		{"sandbox to host's address", gateway + ":8080", "b " + gateway, a.File},
		{"sandbox to itself through the host", gateway + ":8080", "b " + gateway, b.File},
		{"sandbox's own loopback", "127.0.0.1:8080", "", a.File},
	} {
		if got := ask(t, c.from, c.addr); got != c.want {
			t.Errorf("%s (%s): %q, want %q", c.name, c.addr, got, c.want)
		}
	}
	if l, err := net.Listen("tcp", "0.0.0.0:8080"); err == nil {
		l.Close()
		t.Error("the published port is free for other programs")
	}
	if _, err := s.Join(context.Background(), network.SandboxConfig{
		ID: id(3), Name: "c", Endpoints: []network.EndpointConfig{{Network: "bridge"}}, Ports: []network.PortBinding{{ContainerPort: 80, HostPort: 8080}},
	}); err == nil {
		t.Error("port published twice")
	} else {
		t.Log(err)
	}
	leave(t, s, id(1), a)
	leave(t, s, id(2), b)
	if got := ask(t, nil, "127.0.0.1:8080"); got != "" {
		t.Errorf("after Leave the port still answers %q", got)
	}
	if got := s.Sandboxes(""); len(got) != 0 {
		t.Errorf("sandboxes remain: %v", got)
	}
}

func BenchmarkJoin(b *testing.B) {
	port := []network.PortBinding{{ContainerPort: 80}}
	for _, c := range []struct {
		name, on string
		pool     int
		ports    []network.PortBinding
	}{
		{"pool", "bridge", 16, nil}, {"pool-port", "bridge", 16, port}, {"pool-user", "red", 16, nil}, {"cold", "bridge", 0, nil}, {"cold-user-port", "red", 0, port},
	} {
		b.Run(c.name, func(b *testing.B) {
			o := options(b, "gtbench0")
			o.Pool = c.pool
			s := open(b, o)
			defer closed(b, s)
			create(b, s, network.CreateConfig{Name: "red"})
			defer remove(b, s, "red")
			time.Sleep(200 * time.Millisecond)
			n := 0
			for b.Loop() {
				n++
				ns := join(b, s, network.SandboxConfig{ID: id(n), Name: fmt.Sprint("c", n), Endpoints: on(c.on), Ports: c.ports})
				b.StopTimer()
				leave(b, s, id(n), ns)
				if c.pool > 0 {
					time.Sleep(5 * time.Millisecond)
				}
				b.StartTimer()
			}
		})
	}
}
