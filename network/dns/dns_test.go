package dns

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

func TestZone(t *testing.T) {
	z := NewZone("Net")
	a, b, six := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3"), netip.MustParseAddr("fd00::2")
	z.Add("1", []string{"Web", "alias"}, a, netip.Addr{})
	z.Add("2", []string{"db", "alias"}, b, six)
	for name, want := range map[string][]netip.Addr{"web": {a}, "WEB.": {a}, "web.net": {a}, "alias": {a, b, six}, "db.NET.": {b, six}} {
		if got, ok := z.Lookup(name); !ok || !slices.Equal(got, want) {
			t.Errorf("%s: %v %v", name, got, ok)
		}
	}
	if name, ok := z.Reverse(six); !ok || name != "db.net" {
		t.Errorf("reverse: %s", name)
	}
	z.Add("1", []string{"www"}, a)
	if _, ok := z.Lookup("web"); ok {
		t.Error("a name that was replaced")
	}
	z.Remove("1")
	z.Remove("2")
	if len(z.names)+len(z.addrs) != 0 {
		t.Errorf("left: %v %v", z.names, z.addrs)
	}
}

func TestPointer(t *testing.T) {
	for name, want := range map[string]string{
		"4.3.2.1.in-addr.arpa": "1.2.3.4",
		"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa": "fd00::1",
		"3.2.1.in-addr.arpa":   "",
		"x.3.2.1.in-addr.arpa": "",
		"arpa":                 "",
		"1.0.ip6.arpa":         "",
	} {
		got, ok := pointer(name)
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%s: %v %v", name, got, ok)
		}
	}
}

func TestParseResolvConf(t *testing.T) {
	c := ParseResolvConf("# x\nnameserver 1.1.1.1 # y\n nameserver\tfe80::1%eth0\nnameserver bad\nsearch a b\ndomain c\noptions ndots:1\noptions x y\n")
	if len(c.Servers) != 2 || !slices.Equal(c.Search, []string{"c"}) || !slices.Equal(c.Options, []string{"ndots:1", "x", "y"}) {
		t.Errorf("%+v", c)
	}
}

// server answers on loopback sockets.
func server(t testing.TB, f *Forwarder, v View) *Server {
	t.Helper()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := Serve(f, udp, tcp, v)
	t.Cleanup(s.Close)
	return s
}

func pack(t testing.TB, name string, kind dnsmessage.Type) []byte {
	t.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 99, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}},
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func exchange(t testing.TB, s *Server, query []byte) dnsmessage.Message {
	t.Helper()
	c, err := net.Dial("udp", s.udp.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(query); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	var m dnsmessage.Message
	if err := m.Unpack(b[:n]); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestForward(t *testing.T) {
	z := NewZone("up")
	var many []netip.Addr
	for i := range 200 {
		many = append(many, netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}))
	}
	z.Add("x", []string{"example"}, netip.MustParseAddr("192.0.2.7"))
	z.Add("many", []string{"many"}, many...)
	upstream := server(t, NewForwarder(nil), View{Zones: []*Zone{z}, Internal: true})
	addr := netip.MustParseAddrPort(upstream.udp.LocalAddr().String())
	s := server(t, NewForwarder(nil), View{
		Hosts: map[string][]netip.Addr{"me": {netip.MustParseAddr("10.9.9.9")}}, Upstream: []netip.AddrPort{addr},
		Links: map[string]string{"other": "me"},
	})
	m := exchange(t, s, pack(t, "example.", dnsmessage.TypeA))
	if len(m.Answers) != 1 || m.ID != 99 || m.RCode != 0 {
		t.Errorf("forwarded: %+v", m)
	}
	if m := exchange(t, s, pack(t, "nowhere.", dnsmessage.TypeA)); m.RCode != dnsmessage.RCodeNameError {
		t.Errorf("unknown upstream: %+v", m)
	}
	if m := exchange(t, s, pack(t, "ME.", dnsmessage.TypeA)); len(m.Answers) != 1 {
		t.Errorf("own host: %+v", m)
	}
	if m := exchange(t, upstream, pack(t, "many.", dnsmessage.TypeA)); !m.Truncated || len(m.Answers) == 0 {
		t.Errorf("200 addresses over UDP: truncated %v, %d answers", m.Truncated, len(m.Answers))
	}
	dead := server(t, NewForwarder(nil), View{Upstream: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}})
	if m := exchange(t, dead, pack(t, "example.", dnsmessage.TypeA)); m.RCode != dnsmessage.RCodeServerFailure {
		t.Errorf("no upstream: %+v", m)
	}
}

func FuzzAnswer(f *testing.F) {
	z := NewZone("net")
	z.Add("x", []string{"a", "b"}, netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1"))
	f.Add(pack(f, "a.", dnsmessage.TypeA), false)
	f.Add(pack(f, "1.0.0.10.in-addr.arpa.", dnsmessage.TypePTR), true)
	f.Add([]byte{0, 1, 2}, false)
	f.Fuzz(func(t *testing.T, query []byte, tcp bool) {
		s := &Server{}
		s.Set(View{Zones: []*Zone{z}})
		answer, forward := s.Answer(query, tcp)
		if forward && answer != nil {
			t.Error("answered and forwarded")
		}
		if answer == nil {
			return
		}
		if !tcp && len(answer) > plainSize {
			t.Errorf("%d bytes over UDP", len(answer))
		}
		var m dnsmessage.Message
		if err := m.Unpack(answer); err != nil {
			t.Errorf("the answer is no message: %v", err)
		}
		if !answers(query, answer) {
			t.Error("the answer does not belong to the query")
		}
	})
}

func FuzzResolvConf(f *testing.F) {
	f.Add("nameserver 1.1.1.1\nsearch x\n")
	f.Fuzz(func(t *testing.T, text string) { ParseResolvConf(text) })
}
