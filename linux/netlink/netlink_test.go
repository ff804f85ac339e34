package netlink_test

import (
	"net"
	"net/netip"
	"testing"

	"gantry/errdefs"
	"gantry/linux/netlink"
	"gantry/linux/netns"
	"gantry/linux/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func TestBridgeWithVeth(t *testing.T) {
	netnstest.Root(t)
	c, err := netlink.DialRoute()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	mac := net.HardwareAddr{2, 0x42, 1, 2, 3, 4}
	if err := c.Do(netlink.NewBridge(netlink.Bridge{Name: "br0", MAC: mac, MTU: 1400}), netlink.SetAlias("br0", "hello")); err != nil {
		t.Fatal(err)
	}
	br, err := c.LinkByName("br0")
	if err != nil {
		t.Fatal(err)
	}
	if br.Kind != "bridge" || !br.Up || br.MTU != 1400 || br.Alias != "hello" || br.MAC.String() != mac.String() {
		t.Errorf("bridge: %+v", br)
	}
	if err := c.Do(netlink.NewAddr(netlink.Addr{Index: br.Index, Prefix: netip.MustParsePrefix("10.9.0.1/24")})); err != nil {
		t.Fatal(err)
	}
	var inside *netlink.Conn
	ns, err := netns.New(func() (err error) { inside, err = netlink.DialRoute(); return err })
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	defer inside.Close()
	peer := net.HardwareAddr{2, 0x42, 10, 9, 0, 2}
	err = c.Do(netlink.NewVeth(netlink.Veth{Name: "veth0", Master: br.Index, MTU: 1400, PeerName: "eth0", PeerMAC: peer, PeerNS: ns}),
		netlink.WithoutIPv6("veth0"), netlink.BridgePort("veth0", true, false))
	if err != nil {
		t.Fatal(err)
	}
	ports, err := c.Links(br.Index)
	if err != nil || len(ports) != 1 || ports[0].Name != "veth0" || ports[0].Kind != "veth" {
		t.Errorf("ports: %+v, %v", ports, err)
	}
	eth, err := inside.LinkByName("eth0")
	if err != nil || eth.MAC.String() != peer.String() || eth.MTU != 1400 || eth.Up {
		t.Fatalf("peer: %+v, %v", eth, err)
	}
	if err := inside.Do(
		netlink.SetUp(1), netlink.WithoutIPv6("eth0"), netlink.SetUp(eth.Index),
		netlink.NewAddr(netlink.Addr{Index: eth.Index, Prefix: netip.MustParsePrefix("10.9.0.2/24")}),
		netlink.NewRoute(netlink.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("10.9.0.1"), Index: eth.Index}),
	); err != nil {
		t.Fatal(err)
	}
	routes, err := inside.Routes()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, r := range routes {
		found = found || r.Dst.Bits() == 0 && r.Gateway == netip.MustParseAddr("10.9.0.1") && r.Index == eth.Index
	}
	if !found {
		t.Errorf("no default route in %+v", routes)
	}
	addrs, err := inside.Addrs(eth.Index)
	if err != nil || len(addrs) != 1 || addrs[0].Prefix != netip.MustParsePrefix("10.9.0.2/24") {
		t.Errorf("addresses: %+v, %v", addrs, err)
	}
	// a connection through it
	l, err := net.Listen("tcp", "10.9.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := netns.Do(ns, func() error {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			err = conn.Close()
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	// The port goes by itself with its peer's namespace, but only some time after that.
	if err := c.Do(netlink.DelLink(ports[0].Index), netlink.DelLink(br.Index)); err != nil {
		t.Error(err)
	}
	if _, err := c.LinkByName("br0"); !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("after deletion: %v", err)
	}
}

func TestFailureInBatch(t *testing.T) {
	netnstest.Root(t)
	c, err := netlink.DialRoute()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	err = c.Do(netlink.SetUp(999), netlink.SetUp(1))
	if err == nil {
		t.Error("no error from a device that is not there")
	}
	if lo, err := c.LinkByName("lo"); err != nil || !lo.Up {
		t.Errorf("later requests must run: %+v, %v", lo, err)
	}
	if _, err := c.Links(0); err != nil {
		t.Error(err)
	}
}

func FuzzAttrs(f *testing.F) {
	f.Add([]byte{8, 0, 1, 0, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = netlink.Attrs(b, func(uint16, []byte) {})
	})
}

func BenchmarkNamespace(b *testing.B) {
	netnstest.Root(b)
	for b.Loop() {
		ns, err := netns.New(func() error { return nil })
		if err != nil {
			b.Fatal(err)
		}
		ns.Close()
	}
}

func BenchmarkVisit(b *testing.B) {
	netnstest.Root(b)
	ns, err := netns.New(func() error { return nil })
	if err != nil {
		b.Fatal(err)
	}
	defer ns.Close()
	for b.Loop() {
		if err := netns.Do(ns, func() error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
