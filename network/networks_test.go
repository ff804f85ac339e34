package network_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"gantry/errdefs"
	"gantry/linux/netns"
	"gantry/network"

	"golang.org/x/net/dns/dnsmessage"
)

func on(networks ...string) []network.EndpointConfig {
	var all []network.EndpointConfig
	for _, n := range networks {
		all = append(all, network.EndpointConfig{Network: n})
	}
	return all
}

func create(t testing.TB, s *network.Service, c network.CreateConfig) *network.Network {
	t.Helper()
	n, err := s.Create(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func remove(t testing.TB, s *network.Service, ref string) {
	t.Helper()
	if err := s.Remove(context.Background(), ref); err != nil {
		t.Error(err)
	}
}

// consistent fails the test when records and kernel differ.
func consistent(t testing.TB, s *network.Service) {
	t.Helper()
	differences, err := s.Check(context.Background())
	if err != nil {
		t.Error(err)
	}
	for _, d := range differences {
		t.Errorf("%s %s: %s", d.Area, d.Object, d.Problem)
	}
}

// query asks the sandbox's resolver.
func query(t testing.TB, ns *os.File, name string, kind dnsmessage.Type, proto string) ([]string, dnsmessage.RCode) {
	t.Helper()
	q := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name + "."), Type: kind, Class: dnsmessage.ClassINET}},
	}
	b, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	var c net.Conn
	inside(t, ns, func() (err error) { c, err = net.Dial(proto, "127.0.0.11:53"); return err })
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(3 * time.Second))
	if proto == "tcp" {
		b = append([]byte{byte(len(b) >> 8), byte(len(b))}, b...)
	}
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 4096)
	n, err := c.Read(answer)
	if err != nil {
		t.Errorf("query %s: %v", name, err)
		return nil, dnsmessage.RCodeServerFailure
	}
	answer = answer[:n]
	if proto == "tcp" {
		answer = answer[2:]
	}
	var m dnsmessage.Message
	if err := m.Unpack(answer); err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, a := range m.Answers {
		switch r := a.Body.(type) {
		case *dnsmessage.AResource:
			found = append(found, netip.AddrFrom4(r.A).String())
		case *dnsmessage.AAAAResource:
			found = append(found, netip.AddrFrom16(r.AAAA).String())
		case *dnsmessage.PTRResource:
			found = append(found, r.PTR.String())
		}
	}
	slices.Sort(found)
	return found, m.RCode
}

func TestUserNetworks(t *testing.T) {
	s := open(t, options(t, "gt0"))
	defer closed(t, s)
	ctx := context.Background()
	red := create(t, s, network.CreateConfig{
		Name:    "red",
		IPAM:    network.IPAM{Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix("10.77.0.0/24"), IPRange: netip.MustParsePrefix("10.77.0.128/25"), Gateway: netip.MustParseAddr("10.77.0.254"), Aux: map[string]netip.Addr{"router": netip.MustParseAddr("10.77.0.129")}}}},
		Options: map[string]string{network.OptionMTU: "1400", network.OptionBridgeName: "gtred"},
		Labels:  map[string]string{"a": "b"},
	})
	blue := create(t, s, network.CreateConfig{Name: "blue"})
	a := join(t, s, network.SandboxConfig{ID: id(1), Name: "a", Endpoints: []network.EndpointConfig{{Network: "red", Aliases: []string{"web"}}}})
	b := join(t, s, network.SandboxConfig{ID: id(2), Name: "b", Endpoints: []network.EndpointConfig{{Network: red.ID[:10], Aliases: []string{"web"}, IPv4: netip.MustParseAddr("10.77.0.7"), MAC: "02:11:22:33:44:55"}}})
	c := join(t, s, network.SandboxConfig{ID: id(3), Name: "c", Endpoints: on("blue"), Ports: []network.PortBinding{{ContainerPort: 80, HostPort: 8081}}})
	ea, eb, ec := a.Endpoints[0], b.Endpoints[0], c.Endpoints[0]
	if ea.IPv4.String() != "10.77.0.128/24" || eb.IPv4.String() != "10.77.0.7/24" || eb.MAC != "02:11:22:33:44:55" || ea.Gateway.String() != "10.77.0.254" {
		t.Errorf("endpoints: %+v, %+v", ea, eb)
	}
	stopB, stopC := serve(t, b.File, ":80", "b"), serve(t, c.File, ":80", "c")
	for _, x := range []struct {
		name, addr, want string
		from             *os.File
	}{
		{"same network", "10.77.0.7:80", "b 10.77.0.128", a.File},
		{"other network", ec.IPv4.Addr().String() + ":80", "", a.File},
		{"published port of another network, by own gateway", "10.77.0.254:8081", "c " + ec.Gateway.String(), a.File},
		{"published port of another network, by its gateway", ec.Gateway.String() + ":8081", "c " + ec.Gateway.String(), a.File},
	} {
		if got := ask(t, x.from, x.addr); got != x.want && !(x.want != "" && strings.HasPrefix(got, x.want[:2])) {
			t.Errorf("%s: %q, want %q", x.name, got, x.want)
		}
	}
	for _, x := range []struct {
		name string
		kind dnsmessage.Type
		from *os.File
		want []string
	}{
		{"b", dnsmessage.TypeA, a.File, []string{"10.77.0.7"}},
		{"B.red", dnsmessage.TypeA, a.File, []string{"10.77.0.7"}},
		{"web", dnsmessage.TypeA, b.File, []string{"10.77.0.128", "10.77.0.7"}},
		{id(1)[:12], dnsmessage.TypeA, b.File, []string{"10.77.0.128"}},
		{"b", dnsmessage.TypeAAAA, a.File, nil},
		{"7.0.77.10.in-addr.arpa", dnsmessage.TypePTR, a.File, []string{"b.red."}},
		{"c", dnsmessage.TypeA, c.File, []string{ec.IPv4.Addr().String()}},
	} {
		for _, proto := range []string{"udp", "tcp"} {
			got, code := query(t, x.from, x.name, x.kind, proto)
			if code != 0 || !slices.Equal(got, x.want) {
				t.Errorf("%s %s: %v %v, want %v", proto, x.name, got, code, x.want)
			}
		}
	}
	// the sandbox may have a server of its own
	inside(t, a.File, func() error {
		l, err := net.ListenPacket("udp", "0.0.0.0:53")
		if err == nil {
			err = l.Close()
		}
		return err
	})
	if err := s.Rename(ctx, id(2), "bb"); err != nil {
		t.Error(err)
	}
	if got, _ := query(t, a.File, "bb", dnsmessage.TypeA, "udp"); !slices.Equal(got, []string{"10.77.0.7"}) {
		t.Errorf("after rename: %v", got)
	}
	if err := s.Remove(ctx, "red"); !errdefs.Is(err, errdefs.Forbidden) || !strings.Contains(err.Error(), `network red has active endpoints (name:"a" id:"`) {
		t.Errorf("remove in use: %v", err)
	}
	consistent(t, s)

	// live connection: c comes to red
	e, err := s.Connect(ctx, id(3), nil, network.EndpointConfig{Network: "red", Aliases: []string{"sea"}})
	if err != nil {
		t.Fatal(err)
	}
	if e.Interface != "eth1" || e.NetworkName != "red" {
		t.Errorf("connected: %+v", e)
	}
	if got := ask(t, a.File, e.IPv4.Addr().String()+":80"); got != "c 10.77.0.128" {
		t.Errorf("over the new network: %q", got)
	}
	if got, _ := query(t, a.File, "sea", dnsmessage.TypeA, "udp"); len(got) != 1 {
		t.Errorf("alias of the new endpoint: %v", got)
	}
	if _, err := s.Connect(ctx, id(3), nil, network.EndpointConfig{Network: "red"}); !errdefs.Is(err, errdefs.Forbidden) {
		t.Errorf("connected twice: %v", err)
	}
	if got := ask(t, nil, "127.0.0.1:8081"); got == "" {
		t.Error("port does not answer after connect")
	}
	// its first network goes: ports and default route move
	if err := s.Disconnect(ctx, id(3), blue.ID, false); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, nil, "127.0.0.1:8081"); got == "" {
		t.Error("port does not answer after disconnect of the first network")
	}
	inside(t, c.File, func() error {
		out, err := exec.Command("ip", "route").CombinedOutput()
		if !strings.Contains(string(out), "default via 10.77.0.254 dev eth1") {
			t.Errorf("routes: %s, %v", out, err)
		}
		return nil
	})
	if err := s.Disconnect(ctx, id(3), "blue", false); !errdefs.Is(err, errdefs.Forbidden) {
		t.Errorf("disconnected twice: %v", err)
	}
	remove(t, s, "blue")
	consistent(t, s)
	stopB()
	stopC()
	for i, ns := range []*network.Namespace{a, b, c} {
		leave(t, s, id(i+1), ns)
	}
	names, err := s.Prune(ctx, nil)
	if err != nil || !slices.Equal(names, []string{"red"}) {
		t.Errorf("prune: %v, %v", names, err)
	}
	consistent(t, s)
}

func TestInternalAndICC(t *testing.T) {
	s := open(t, options(t, "gt0"))
	defer closed(t, s)
	create(t, s, network.CreateConfig{Name: "in", Internal: true})
	create(t, s, network.CreateConfig{Name: "quiet", Options: map[string]string{network.OptionICC: "false"}})
	a := join(t, s, network.SandboxConfig{ID: id(1), Name: "a", Endpoints: on("in"), Ports: []network.PortBinding{{ContainerPort: 80, HostPort: 8082}}})
	b := join(t, s, network.SandboxConfig{ID: id(2), Name: "b", Endpoints: on("in")})
	c := join(t, s, network.SandboxConfig{ID: id(3), Name: "c", Endpoints: on("quiet")})
	d := join(t, s, network.SandboxConfig{ID: id(4), Name: "d", Endpoints: on("quiet")})
	if len(a.Ports) != 0 {
		t.Errorf("an internal network publishes: %v", a.Ports)
	}
	stopA, stopC := serve(t, a.File, ":80", "a"), serve(t, c.File, ":80", "c")
	addr := func(n *network.Namespace) string { return n.Endpoints[0].IPv4.Addr().String() + ":80" }
	for _, x := range []struct {
		name string
		from *os.File
		addr string
		ok   bool
	}{
		{"within an internal network", b.File, addr(a), true},
		{"into an internal network", c.File, addr(a), false},
		{"out of an internal network", b.File, addr(c), false},
		{"without inter-container communication", d.File, addr(c), false},
	} {
		if got := ask(t, x.from, x.addr); (got != "") != x.ok {
			t.Errorf("%s: %q", x.name, got)
		}
	}
	if _, code := query(t, a.File, "example.com", dnsmessage.TypeA, "udp"); code != dnsmessage.RCodeNameError {
		t.Errorf("an internal network resolves names of the world: %v", code)
	}
	stopA() // a socket keeps its namespace
	stopC()
	for i, n := range []*network.Namespace{a, b, c, d} {
		leave(t, s, id(i+1), n)
	}
	consistent(t, s)
	remove(t, s, "in")
	remove(t, s, "quiet")
}

func TestNoneAndHost(t *testing.T) {
	s := open(t, options(t, "gt0"))
	defer closed(t, s)
	ctx := context.Background()
	none := join(t, s, network.SandboxConfig{ID: id(1), Name: "a", Endpoints: on("none")})
	host := join(t, s, network.SandboxConfig{ID: id(2), Name: "b", Endpoints: on("host")})
	if none.File == nil || host.File != nil || none.Resolver.IsValid() {
		t.Errorf("none %+v, host %+v", none, host)
	}
	serve(t, none.File, "127.0.0.1:80", "lo")
	if got := ask(t, none.File, "127.0.0.1:80"); got != "lo 127.0.0.1" {
		t.Errorf("loopback: %q", got)
	}
	create(t, s, network.CreateConfig{Name: "x"})
	for _, i := range []int{1, 2} {
		if _, err := s.Connect(ctx, id(i), nil, network.EndpointConfig{Network: "x"}); !errdefs.Is(err, errdefs.Forbidden) {
			t.Errorf("connect sandbox %d: %v", i, err)
		}
	}
	consistent(t, s)
	leave(t, s, id(1), none)
	leave(t, s, id(2), host)
	remove(t, s, "x")
}

func TestRestart(t *testing.T) {
	o := options(t, "gt0")
	s := open(t, o)
	ctx := context.Background()
	create(t, s, network.CreateConfig{Name: "red"})
	live := map[string]int{}
	var spaces []*network.Namespace
	var stops []func()
	for i := range 3 {
		ns := join(t, s, network.SandboxConfig{
			ID: id(i), Name: fmt.Sprint("c", i), Endpoints: on("bridge", "red"), Ports: []network.PortBinding{{ContainerPort: 80, HostPort: uint16(8090 + i)}},
		})
		stops = append(stops, serve(t, ns.File, ":80", fmt.Sprint("c", i)))
		spaces = append(spaces, ns)
	}
	var processes []*exec.Cmd
	// processes that keep the namespaces, as a container's do
	for i := range 2 {
		cmd := exec.Command("sleep", "100")
		if err := netns.Do(spaces[i].File, cmd.Start); err != nil {
			t.Fatal(err)
		}
		processes = append(processes, cmd)
		live[id(i)] = cmd.Process.Pid
	}
	closed(t, s) // sandbox 2 "dies" meanwhile
	if got := ask(t, nil, "127.0.0.1:8090"); !strings.HasPrefix(got, "c0") {
		t.Errorf("without a daemon the published port says %q", got)
	}
	s = open(t, o)
	if err := s.Restore(ctx, live); err != nil {
		t.Fatal(err)
	}
	if got := len(s.Sandboxes("")); got != 2 {
		t.Errorf("%d sandboxes after restore", got)
	}
	spaces[2].File.Close()
	stops[2]()
	if got := ask(t, nil, "127.0.0.1:8091"); !strings.HasPrefix(got, "c1") {
		t.Errorf("after a restart the published port says %q", got)
	}
	if l, err := net.Listen("tcp", "127.0.0.1:8091"); err == nil {
		l.Close()
		t.Error("after a restart the port is free")
	}
	if got, _ := query(t, spaces[0].File, "c1", dnsmessage.TypeA, "udp"); len(got) != 1 {
		t.Errorf("after a restart c1 resolves to %v", got)
	}
	taken := map[netip.Prefix]bool{}
	for _, sb := range s.Sandboxes("") {
		for _, e := range sb.Endpoints {
			taken[e.IPv4] = true
		}
	}
	for i := 10; i < 20; i++ {
		ns := join(t, s, network.SandboxConfig{ID: id(i), Name: fmt.Sprint("c", i), Endpoints: on("bridge", "red")})
		for _, e := range ns.Endpoints {
			if taken[e.IPv4] {
				t.Errorf("address %s is used twice", e.IPv4)
			}
			taken[e.IPv4] = true
		}
		spaces = append(spaces, ns)
	}
	for i, ns := range spaces {
		if i >= 3 {
			i += 7
		} else {
			stops[i]()
		}
		leave(t, s, id(i), ns)
	}
	for _, p := range processes {
		_ = p.Process.Kill()
		_ = p.Wait()
	}
	consistent(t, s)
	remove(t, s, "red")
	closed(t, s)
}

func TestRefusals(t *testing.T) {
	s := open(t, options(t, "gt0"))
	defer closed(t, s)
	ctx := context.Background()
	p := netip.MustParsePrefix
	config := func(subnet string) network.IPAM {
		return network.IPAM{Config: []network.IPAMConfig{{Subnet: p(subnet)}}}
	}
	create(t, s, network.CreateConfig{Name: "red", IPAM: config("10.66.0.0/24")})
	defer remove(t, s, "red")
	off := false
	for _, c := range []struct {
		c     network.CreateConfig
		kind  errdefs.Kind
		words string
	}{
		{network.CreateConfig{Name: "red"}, errdefs.Conflict, "network with name red already exists"},
		{network.CreateConfig{Name: ""}, errdefs.InvalidParameter, "invalid network name"},
		{network.CreateConfig{Name: "bridge"}, errdefs.Forbidden, "operation is not permitted on predefined bridge network"},
		{network.CreateConfig{Name: "x", Driver: "foo"}, errdefs.NotFound, `plugin "foo" not found`},
		{network.CreateConfig{Name: "x", Driver: "macvlan"}, errdefs.NotImplemented, "macvlan"},
		{network.CreateConfig{Name: "x", Driver: "host"}, errdefs.Forbidden, `only one instance of "host" network is allowed`},
		{network.CreateConfig{Name: "x", IPAM: config("10.66.0.0/16")}, errdefs.Forbidden, "Pool overlaps with other one on this address space"},
		{network.CreateConfig{Name: "x", IPAM: config("10.65.0.1/24")}, errdefs.InvalidParameter, "invalid subnet 10.65.0.1/24: it should be 10.65.0.0/24"},
		{network.CreateConfig{Name: "x", IPAM: network.IPAM{Config: []network.IPAMConfig{{Subnet: p("10.65.0.0/24"), Gateway: netip.MustParseAddr("10.64.0.1")}}}}, errdefs.InvalidParameter, "invalid gateway 10.64.0.1"},
		{network.CreateConfig{Name: "x", EnableIPv4: &off}, errdefs.InvalidParameter, "IPv4 or IPv6 must be enabled"},
		{network.CreateConfig{Name: "x", Options: map[string]string{network.OptionMTU: "many"}}, errdefs.InvalidParameter, network.OptionMTU},
		{network.CreateConfig{Name: "x", Options: map[string]string{network.OptionBridgeName: "gt0"}}, errdefs.Forbidden, "networks have same bridge name"},
	} {
		if _, err := s.Create(ctx, c.c); !errdefs.Is(err, c.kind) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("create %+v: %v", c.c, err)
		}
	}
	a := netip.MustParseAddr
	first := join(t, s, network.SandboxConfig{ID: id(1), Name: "one", Endpoints: []network.EndpointConfig{{Network: "red", IPv4: a("10.66.0.9")}}})
	defer leave(t, s, id(1), first)
	for _, c := range []struct {
		e     network.EndpointConfig
		kind  errdefs.Kind
		words string
	}{
		{network.EndpointConfig{Network: "nope"}, errdefs.NotFound, "network nope not found"},
		{network.EndpointConfig{Network: "red", IPv4: a("10.66.0.9")}, errdefs.Forbidden, "Address already in use"},
		{network.EndpointConfig{Network: "red", IPv4: a("10.99.0.9")}, errdefs.InvalidParameter, "no configured subnet contains IP address 10.99.0.9"},
		{network.EndpointConfig{Network: "bridge", IPv4: a("10.66.0.9")}, errdefs.InvalidParameter, "user specified IP address is supported on user defined networks only"},
		{network.EndpointConfig{Network: "bridge", Aliases: []string{"x"}}, errdefs.InvalidParameter, "network-scoped alias"},
		{network.EndpointConfig{Network: "red", MAC: "zz"}, errdefs.InvalidParameter, "invalid MAC address"},
	} {
		if _, err := s.Join(ctx, network.SandboxConfig{ID: id(2), Name: "two", Endpoints: []network.EndpointConfig{c.e}}); !errdefs.Is(err, c.kind) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("join %+v: %v", c.e, err)
		}
	}
	if _, err := s.Join(ctx, network.SandboxConfig{ID: id(1), Name: "one", Endpoints: on("red")}); !errdefs.Is(err, errdefs.Conflict) {
		t.Errorf("joined twice: %v", err)
	}
	if err := s.Remove(ctx, "bridge"); !errdefs.Is(err, errdefs.Forbidden) || !strings.Contains(err.Error(), "bridge is a pre-defined network and cannot be removed") {
		t.Errorf("remove bridge: %v", err)
	}
	if err := s.Leave(ctx, id(77)); err != nil {
		t.Errorf("leave of nobody: %v", err)
	}
	consistent(t, s)
}
