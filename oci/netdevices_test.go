package oci_test

import (
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/linux/netlink"
	"gantry/linux/netns"
)

// inNetwork runs f on a thread that has a network of its own: what it does to interfaces the host does not see.
func inNetwork(t *testing.T, f func(*netlink.Conn)) {
	t.Helper()
	rootfs(t) // skips without root's rights
	n, err := netns.New(func() error {
		c, err := netlink.DialRoute()
		if err != nil {
			return err
		}
		defer c.Close()
		f(c)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	n.Close()
}

func addVeth(t *testing.T, c *netlink.Conn, name, peer string, addresses ...string) {
	t.Helper()
	if out, err := exec.Command("ip", "link", "add", name, "type", "veth", "peer", "name", peer).CombinedOutput(); err != nil {
		t.Fatalf("ip link add: %v: %s", err, out)
	}
	l, err := c.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if err := c.Do(netlink.NewAddr(netlink.Addr{Index: l.Index, Prefix: netip.MustParsePrefix(a)})); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNetDevices(t *testing.T) {
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("iproute2 is not installed")
	}
	inNetwork(t, func(c *netlink.Conn) {
		addVeth(t, c, "dev0", "peer0", "10.9.8.7/24", "10.9.8.8/24", "fd00:99::5/64")
		addVeth(t, c, "dev1", "peer1")
		addVeth(t, c, "dev2", "peer2", "10.9.9.1/32")
		if out, err := exec.Command("ip", "addr", "add", "10.44.0.1/24", "dev", "dev0", "scope", "link").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		s := dockerSpec(t, rootfs(t), "sh", "-c", "ip -o addr show | grep -v -e 127.0.0.1 -e fe80 -e '::1/128' | while read n dev kind address rest; do echo $dev $address; done; cat /sys/class/net/eth7/flags; cat /proc/sys/net/ipv4/conf/eth7/forwarding")
		s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"dev0": {Name: "eth7"}, "dev1": {}, "dev2": {Name: "net%d"}}
		s.Linux.Sysctl = map[string]string{"net.ipv4.conf.eth7.forwarding": "1"}
		out, code := run(t, s)
		if want := "eth7 10.9.8.7/24\neth7 10.9.8.8/24\neth7 fd00:99::5/64\nnet0 10.9.9.1/32\n0x1003\n1\n"; strings.ReplaceAll(out, "\t", " ") != want || code != 0 {
			t.Errorf("exit code %d, output %q, want %q", code, out, want)
		}
		if _, err := c.LinkByName("dev0"); err == nil {
			t.Error("the interface is still on the host")
		}
	})
}

// TestNetDevicesBack fails when one of two interfaces has been moved into a namespace that outlives the container.
func TestNetDevicesBack(t *testing.T) {
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("iproute2 is not installed")
	}
	inNetwork(t, func(c *netlink.Conn) {
		addVeth(t, c, "dev0", "peer0", "10.9.8.7/24")
		other, err := netns.New(func() error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		s := dockerSpec(t, rootfs(t), "true")
		for i, n := range s.Linux.Namespaces {
			if n.Type == specs.NetworkNamespace {
				s.Linux.Namespaces[i].Path = "/proc/thread-self/fd/" + fdNumber(other)
			}
		}
		s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"dev0": {Name: "eth0"}, "nodev": {}}
		if _, _, err := tryRun(s); err == nil || !strings.Contains(err.Error(), "linux.netDevices.nodev: no network device") {
			t.Errorf("missing device: %v", err)
		}
		l, err := c.LinkByName("dev0")
		if err != nil {
			t.Fatal(err)
		}
		if a, err := c.Addrs(l.Index); err != nil || len(a) != 1 || a[0].Prefix.String() != "10.9.8.7/24" {
			t.Errorf("addresses %v, %v", a, err)
		}
		s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"dev0": {Name: "lo"}}
		if _, _, err := tryRun(s); err == nil || !strings.Contains(err.Error(), "there is an interface lo") {
			t.Errorf("taken name: %v", err)
		}
	})
}

func TestNetDeviceRefusals(t *testing.T) {
	root := rootfs(t)
	for name, c := range map[string]struct {
		devices map[string]specs.LinuxNetDevice
		words   string
	}{
		"slash":    {map[string]specs.LinuxNetDevice{"a/b": {}}, `"a/b" is not the name of an interface`},
		"template": {map[string]specs.LinuxNetDevice{"a%d": {}}, `"a%d" is not the name of an interface`},
		"long":     {map[string]specs.LinuxNetDevice{"a": {Name: "0123456789abcdef"}}, "linux.netDevices.a.name"},
		"format":   {map[string]specs.LinuxNetDevice{"a": {Name: "%s"}}, "linux.netDevices.a.name"},
		"twice":    {map[string]specs.LinuxNetDevice{"a": {Name: "x"}, "b": {Name: "x"}}, "linux.netDevices.b.name"},
	} {
		s := dockerSpec(t, root, "true")
		s.Linux.NetDevices = c.devices
		if _, _, err := tryRun(s); err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := dockerSpec(t, root, "true")
	s.Hostname, s.Linux.Namespaces = "", []specs.LinuxNamespace{{Type: "mount"}}
	s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"lo": {}}
	if _, _, err := tryRun(s); err == nil || !strings.Contains(err.Error(), "no network namespace of its own") {
		t.Errorf("the host's network: %v", err)
	}
}

func fdNumber(f *os.File) string { return strconv.Itoa(int(f.Fd())) }
