package network_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/linux/netlink"
	"gantry/linux/netns"
	"gantry/linux/netns/netnstest"
	"gantry/linux/nft"
	"gantry/network"
	"gantry/network/bridge"
)

// outside makes a neighbour of this namespace with the address 198.51.100.2; this one has 198.51.100.1.
func outside(t *testing.T) *os.File {
	t.Helper()
	nl, err := netlink.DialRoute()
	if err != nil {
		t.Fatal(err)
	}
	defer nl.Close()
	d, err := bridge.Ensure(nl, bridge.Config{Name: "gtout", MTU: 1500, Gateway4: netip.MustParsePrefix("198.51.100.1/24"), Owner: "test"})
	if err != nil {
		t.Fatal(err)
	}
	ns, err := netns.New(bridge.Loopback)
	if err != nil {
		t.Fatal(err)
	}
	err = d.Attach(nl, ns, bridge.Port{
		HostLink: "gtout0", Interface: "eth0", MAC: bridge.MAC(netip.MustParseAddr("198.51.100.2")),
		IPv4: netip.MustParsePrefix("198.51.100.2/24"), Gateway: netip.MustParseAddr("198.51.100.1"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ns.Close()
		nl, err := netlink.DialRoute()
		if err == nil {
			defer nl.Close()
			err = d.Remove(nl)
		}
		if err != nil {
			t.Error(err)
		}
	})
	return ns
}

func TestOutside(t *testing.T) {
	s := open(t, options(t, "gt0"))
	defer closed(t, s)
	world := outside(t)
	a := join(t, s, network.SandboxConfig{ID: id(1), Name: "a", Endpoints: on("bridge"), Ports: []network.PortBinding{
		{ContainerPort: 80, HostPort: 8080}, {ContainerPort: 80, HostPort: 8081, HostAddr: netip.MustParseAddr("127.0.0.1")},
	}})
	create(t, s, network.CreateConfig{Name: "in", Internal: true})
	b := join(t, s, network.SandboxConfig{ID: id(2), Name: "b", Endpoints: on("in")})
	stopA, stopW := serve(t, a.File, ":80", "a"), serve(t, world, ":80", "world")
	for _, c := range []struct {
		name, addr, want string
		from             *os.File
	}{
		{"world to published port", "198.51.100.1:8080", "a 198.51.100.2", world},
		{"world to a port published on 127.0.0.1", "198.51.100.1:8081", "", world},
		{"world straight to the sandbox", a.Endpoints[0].IPv4.Addr().String() + ":80", "", world},
		{"sandbox to the world, masqueraded", "198.51.100.2:80", "world 198.51.100.1", a.File},
		{"internal sandbox to the world", "198.51.100.2:80", "", b.File},
		{"host to the port on 127.0.0.1", "127.0.0.1:8081", "a 172.18.0.1", nil},
	} {
		if got := ask(t, c.from, c.addr); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	// what a sandbox sends to the host's loopback, by a route of its own, is dropped
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := bridge.Inside(a.File, func(in *netlink.Conn) error {
		eth, err := in.LinkByName("eth0")
		if err != nil {
			return err
		}
		return in.Do(netlink.SetDown(1), netlink.NewRoute(netlink.Route{Dst: netip.MustParsePrefix("127.0.0.0/8"), Gateway: a.Endpoints[0].Gateway, Index: eth.Index}))
	}); err != nil {
		t.Fatal(err)
	}
	if err := netns.Do(a.File, func() error { return bridge.Sysctl("ipv4/conf/eth0/route_localnet", "1") }); err != nil {
		t.Fatal(err)
	}
	if c, err := netnsDial(a.File, l.Addr().String()); err == nil {
		c.Close()
		t.Error("a sandbox reached the host's 127.0.0.1")
	}
	stopA()
	stopW()
	leave(t, s, id(1), a)
	leave(t, s, id(2), b)
	consistent(t, s)
	remove(t, s, "in")
}

func netnsDial(ns *os.File, addr string) (c net.Conn, err error) {
	err = netns.Do(ns, func() (err error) { c, err = net.DialTimeout("tcp", addr, 500*time.Millisecond); return err })
	return c, err
}

// TestHeal lets another program destroy the firewall table, as far as the kernel allows.
func TestHeal(t *testing.T) {
	s := open(t, options(t, "gt0"))
	defer closed(t, s)
	create(t, s, network.CreateConfig{Name: "red"})
	a := join(t, s, network.SandboxConfig{ID: id(1), Name: "a", Endpoints: on("bridge"), Ports: []network.PortBinding{{ContainerPort: 80, HostPort: 8080}}})
	b := join(t, s, network.SandboxConfig{ID: id(2), Name: "b", Endpoints: on("red")})
	stop := serve(t, a.File, ":80", "a")
	if _, err := exec.LookPath("nft"); err == nil {
		for _, attack := range [][]string{{"flush", "ruleset"}, {"delete", "table", "inet", "gantry_gt0"}, {"flush", "chain", "inet", "gantry_gt0", "forward"}} {
			out, err := exec.Command("nft", attack...).CombinedOutput()
			t.Logf("nft %v: %s %v", attack, out, err)
			if got := ask(t, nil, "127.0.0.1:8080"); !strings.HasPrefix(got, "a ") {
				t.Errorf("after nft %v the published port says %q", attack, got)
			}
			if got := ask(t, b.File, a.Endpoints[0].IPv4.Addr().String()+":80"); got != "" {
				t.Errorf("after nft %v networks are not isolated", attack)
			}
		}
	}
	consistent(t, s)
	stop()
	leave(t, s, id(1), a)
	leave(t, s, id(2), b)
	remove(t, s, "red")
}

// TestTwo runs two daemons' services beside each other.
func TestTwo(t *testing.T) {
	first := open(t, options(t, "gt0"))
	second := open(t, options(t, "gt1"))
	join1 := func(s *network.Service, port uint16) *network.Namespace {
		return join(t, s, network.SandboxConfig{ID: id(1), Name: "a", Endpoints: on("bridge"), Ports: []network.PortBinding{{ContainerPort: 80, HostPort: port}}})
	}
	a, b := join1(first, 8080), join1(second, 8081)
	if a.Endpoints[0].IPv4.Overlaps(b.Endpoints[0].IPv4) {
		t.Errorf("both have %s", a.Endpoints[0].IPv4)
	}
	stopA, stopB := serve(t, a.File, ":80", "a"), serve(t, b.File, ":80", "b")
	if got := ask(t, nil, "127.0.0.1:8080") + ask(t, nil, "127.0.0.1:8081"); got != "a 172.18.0.1b 172.20.0.1" {
		t.Errorf("ports: %q", got)
	}
	if got := ask(t, a.File, b.Endpoints[0].IPv4.Addr().String()+":80"); got != "" {
		t.Errorf("one daemon's sandbox reaches the other's: %q", got)
	}
	if _, err := second.Join(context.Background(), network.SandboxConfig{ID: id(2), Name: "c", Endpoints: on("bridge"), Ports: []network.PortBinding{{ContainerPort: 80, HostPort: 8080}}}); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("the other daemon's port: %v", err)
	}
	stopA()
	leave(t, first, id(1), a)
	consistent(t, first)
	consistent(t, second)
	closed(t, first)
	if got := ask(t, nil, "127.0.0.1:8081"); !strings.HasPrefix(got, "b ") {
		t.Errorf("after the other daemon ended: %q", got)
	}
	stopB()
	leave(t, second, id(1), b)
	closed(t, second)
}

// TestMany joins 200 sandboxes at once and expects the kernel as it was.
func TestMany(t *testing.T) {
	const count = 200
	s := open(t, options(t, "gt0"))
	create(t, s, network.CreateConfig{Name: "red"})
	spaces := make([]*network.Namespace, count)
	var wait sync.WaitGroup
	start := time.Now()
	gate := make(chan struct{}, 8)
	for i := range count {
		wait.Go(func() {
			gate <- struct{}{}
			defer func() { <-gate }()
			c := network.SandboxConfig{ID: id(i), Name: fmt.Sprint("c", i), Endpoints: on("bridge"), Ports: []network.PortBinding{{ContainerPort: 80}}}
			if i%4 == 0 {
				c.Endpoints = on("red")
			}
			ns, err := s.Join(context.Background(), c)
			if err != nil {
				t.Error(err)
				return
			}
			spaces[i] = ns
		})
	}
	wait.Wait()
	t.Logf("%d joins in %s", count, time.Since(start))
	seen := map[string]bool{}
	for _, ns := range spaces {
		if ns == nil {
			t.FailNow()
		}
		for _, key := range []string{ns.Endpoints[0].IPv4.String(), ns.Endpoints[0].MAC, ns.Endpoints[0].HostLink, fmt.Sprint(ns.Ports[0].HostPort)} {
			if seen[key] {
				t.Errorf("%s twice", key)
			}
			seen[key] = true
		}
	}
	consistent(t, s)
	start = time.Now()
	for i, ns := range spaces {
		wait.Go(func() { leave(t, s, id(i), ns) })
	}
	wait.Wait()
	t.Logf("%d leaves in %s", count, time.Since(start))
	consistent(t, s)
	remove(t, s, "red")
	closed(t, s)
	nl, err := netlink.DialRoute()
	if err != nil {
		t.Fatal(err)
	}
	defer nl.Close()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		links, err := nl.Links(0)
		if err != nil {
			t.Fatal(err)
		}
		left := 0
		for _, l := range links {
			if l.Kind == "veth" || l.Kind == "bridge" {
				left++
			}
		}
		if left == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d devices are left", left)
		}
	}
	c, err := nft.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if there, err := c.HasTable("gantry_gt0"); there || err != nil {
		t.Errorf("the firewall table is left: %v", err)
	}
}

// TestRepair breaks bridges behind the service's back.
func TestRepair(t *testing.T) {
	s := open(t, options(t, "gt0"))
	defer closed(t, s)
	create(t, s, network.CreateConfig{Name: "red", Options: map[string]string{network.OptionBridgeName: "gtred"}})
	a := join(t, s, network.SandboxConfig{ID: id(1), Name: "a", Endpoints: on("red")})
	b := join(t, s, network.SandboxConfig{ID: id(2), Name: "b", Endpoints: on("red")})
	stop := serve(t, a.File, ":80", "a")
	nl, err := netlink.DialRoute()
	if err != nil {
		t.Fatal(err)
	}
	defer nl.Close()
	for _, device := range []string{"gtred", "gt0"} {
		for _, attack := range []struct {
			name    string
			message func(int) netlink.Message
		}{{"down", netlink.SetDown}, {"deleted", netlink.DelLink}} {
			link, err := nl.LinkByName(device)
			if err != nil {
				t.Fatal(err)
			}
			if err := nl.Do(attack.message(link.Index)); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			for { // the link is up before all that hangs on it is back
				link, err = nl.LinkByName(device)
				differences, cerr := s.Check(t.Context())
				if err == nil && link.Up && cerr == nil && len(differences) == 0 || time.Since(start) > 20*time.Second {
					break
				}
				time.Sleep(time.Millisecond)
			}
			t.Logf("%s %s, back after %s", device, attack.name, time.Since(start))
			consistent(t, s)
			if got := ask(t, b.File, a.Endpoints[0].IPv4.Addr().String()+":80"); got == "" {
				t.Errorf("%s %s: sandboxes do not reach each other after the repair", device, attack.name)
			}
		}
	}
	c := join(t, s, network.SandboxConfig{ID: id(3), Name: "c", Endpoints: on("bridge")})
	stopC := serve(t, c.File, ":80", "c")
	if got := ask(t, nil, c.Endpoints[0].IPv4.Addr().String()+":80"); got == "" {
		t.Error("a new sandbox cannot be reached after the repair")
	}
	stop()
	stopC()
	leave(t, s, id(1), a)
	leave(t, s, id(2), b)
	leave(t, s, id(3), c)
	remove(t, s, "red")
}

// TestBesideIptables has another firewall on the host that forwards nothing by itself.
func TestBesideIptables(t *testing.T) {
	netnstest.Root(t)
	if _, err := exec.LookPath("iptables"); err != nil {
		t.Skip("no iptables command")
	}
	iptables := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("iptables", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("iptables %v: %s %v", args, out, err)
		}
		return string(out)
	}
	world := outside(t)
	nl, err := netlink.DialRoute()
	if err != nil {
		t.Fatal(err)
	}
	defer nl.Close()
	out, err := nl.LinkByName("gtout")
	if err == nil {
		err = nl.Do(netlink.NewRoute(netlink.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("198.51.100.2"), Index: out.Index}))
	}
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, options(t, "gt0"))
	a := join(t, s, network.SandboxConfig{ID: id(1), Name: "a", Endpoints: on("bridge"), Ports: []network.PortBinding{{ContainerPort: 80, HostPort: 8080}}})
	b := join(t, s, network.SandboxConfig{ID: id(2), Name: "b", Endpoints: on("bridge")})
	stopA, stopW := serve(t, a.File, ":80", "a"), serve(t, world, ":80", "world")
	check := func(when string) {
		t.Helper()
		for _, c := range []struct {
			from       *os.File
			addr, want string
		}{
			{world, "198.51.100.1:8080", "a "}, {a.File, "198.51.100.2:80", "world "}, {b.File, a.Endpoints[0].IPv4.Addr().String() + ":80", "a "},
		} {
			if got := ask(t, c.from, c.addr); !strings.HasPrefix(got, c.want) {
				t.Errorf("%s: %s says %q", when, c.addr, got)
			}
		}
	}
	check("without")
	t.Cleanup(func() { iptables("-P", "FORWARD", "ACCEPT") })
	iptables("-P", "FORWARD", "DROP") // as dockerd does when it starts
	time.Sleep(100 * time.Millisecond)
	check("with")
	iptables("-F", "FORWARD")
	time.Sleep(100 * time.Millisecond)
	check("flushed")
	if rules := iptables("-S", "FORWARD"); strings.Count(rules, "-j ACCEPT") != 2 || !strings.Contains(rules, "-A FORWARD -o gt0") {
		t.Errorf("rules:\n%s", rules)
	}
	stopA()
	stopW()
	leave(t, s, id(1), a)
	leave(t, s, id(2), b)
	closed(t, s)
	if rules := iptables("-S", "FORWARD"); strings.Contains(rules, "gt0") {
		t.Errorf("rules are left:\n%s", rules)
	}
}

// TestInherit starts after all records were lost, with the bridge still there.
func TestInherit(t *testing.T) {
	nl, err := netlink.DialRoute()
	if err != nil {
		t.Fatal(err)
	}
	defer nl.Close()
	netnstest.Root(t)
	if err := nl.Do(netlink.NewBridge(netlink.Bridge{Name: "gt0", MAC: bridge.MAC(netip.MustParseAddr("10.0.0.1")), MTU: 1500}), netlink.SetAlias("gt0", "gantry:lost")); err != nil {
		t.Fatal(err)
	}
	o := options(t, "gt0")
	o.BIP = netip.MustParsePrefix("172.29.0.1/16")
	s := open(t, o)
	consistent(t, s)
	second := options(t, "gt0")
	second.TableName = "gantry_second"
	ns := join(t, s, network.SandboxConfig{ID: id(1), Name: "a", Endpoints: on("bridge")})
	if _, err := network.Open(context.Background(), second); err == nil || !strings.Contains(err.Error(), "belongs to another daemon") {
		t.Errorf("a second daemon on the same bridge: %v", err)
	}
	leave(t, s, id(1), ns)
	closed(t, s)
	if _, err := nl.LinkByName("gt0"); err == nil {
		t.Error("the bridge is left")
	}
}

// TestUDP sends to a published UDP port before, while and after it is published: each time the answer changes.
func TestUDP(t *testing.T) {
	s := open(t, options(t, "gt0"))
	defer closed(t, s)
	world := outside(t)
	var client *net.UDPConn
	inside(t, world, func() (err error) {
		client, err = net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(198, 51, 100, 1), Port: 5353})
		return err
	})
	defer client.Close()
	say := func() string {
		_ = client.SetDeadline(time.Now().Add(2 * time.Second))
		_, _ = client.Write([]byte("x")) // refused ones are errors of the next write
		b := make([]byte, 10)
		n, err := client.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return "silence"
		}
		return string(b[:n])
	}
	if got := say(); got != "" {
		t.Errorf("before: %q", got)
	}
	for _, word := range []string{"one", "two"} {
		ns := join(t, s, network.SandboxConfig{ID: id(1), Name: word, Endpoints: on("bridge"), Ports: []network.PortBinding{{Proto: "udp", ContainerPort: 53, HostPort: 5353}}})
		var server net.PacketConn
		inside(t, ns.File, func() (err error) { server, err = net.ListenPacket("udp", "0.0.0.0:53"); return err })
		go func() {
			b := make([]byte, 10)
			for {
				_, from, err := server.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = server.WriteTo([]byte(word), from)
			}
		}()
		got := say()
		if got == "" { // the first may meet the refusal of one before
			got = say()
		}
		if got != word {
			t.Errorf("%q, want %q", got, word)
		}
		server.Close()
		leave(t, s, id(1), ns)
	}
	consistent(t, s)
}

// TestNoFirewall serves ports by proxy.
func TestNoFirewall(t *testing.T) {
	o := options(t, "gt0")
	o.IPTables = false
	s := open(t, o)
	defer closed(t, s)
	a := join(t, s, network.SandboxConfig{ID: id(1), Name: "a", Endpoints: on("bridge"), Ports: []network.PortBinding{{ContainerPort: 80, HostPort: 8080}}})
	stop := serve(t, a.File, ":80", "a")
	if got := ask(t, nil, "127.0.0.1:8080"); got != "a 172.18.0.1" {
		t.Errorf("%q", got)
	}
	stop()
	leave(t, s, id(1), a)
}

func TestIPv6(t *testing.T) {
	s := open(t, options(t, "gt0"))
	defer closed(t, s)
	yes := true
	create(t, s, network.CreateConfig{Name: "six", EnableIPv6: &yes, IPAM: network.IPAM{Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix("fd77::/64")}}}})
	a := join(t, s, network.SandboxConfig{ID: id(1), Name: "a", Endpoints: []network.EndpointConfig{{Network: "six", IPv6: netip.MustParseAddr("fd77::99")}}, Ports: []network.PortBinding{{ContainerPort: 80, HostPort: 8080}}})
	b := join(t, s, network.SandboxConfig{ID: id(2), Name: "b", Endpoints: on("six")})
	e := a.Endpoints[0]
	if e.IPv6.String() != "fd77::99/64" || !e.IPv4.IsValid() || e.Gateway6.String() != "fd77::1" {
		t.Errorf("%+v", e)
	}
	stop := serve(t, a.File, ":80", "a")
	for _, c := range []struct {
		addr string
		from *os.File
	}{{"[fd77::99]:80", b.File}, {"[fd77::99]:80", nil}, {"[::1]:8080", nil}, {"[fd77::1]:8080", b.File}, {"127.0.0.1:8080", nil}} {
		if got := ask(t, c.from, c.addr); !strings.HasPrefix(got, "a ") {
			t.Errorf("%s: %q", c.addr, got)
		}
	}
	stop()
	leave(t, s, id(1), a)
	leave(t, s, id(2), b)
	remove(t, s, "six")
}
