package ipam_test

import (
	"net/netip"
	"testing"

	"gantry/errdefs"
	"gantry/network/ipam"
)

func TestFree(t *testing.T) {
	p := netip.MustParsePrefix
	pools := []ipam.Pool{{p("10.0.0.0/22"), 24}, {p("10.1.0.0/16"), 16}}
	for _, c := range []struct {
		used []netip.Prefix
		want string
	}{
		{nil, "10.0.0.0/24"},
		{[]netip.Prefix{p("10.0.0.5/32")}, "10.0.1.0/24"},
		{[]netip.Prefix{p("10.0.0.0/23")}, "10.0.2.0/24"},
		{[]netip.Prefix{p("10.0.0.0/23"), p("10.0.2.1/24"), p("10.0.3.0/30")}, "10.1.0.0/16"},
		{[]netip.Prefix{p("10.0.0.0/8")}, ""},
		{[]netip.Prefix{p("fd00::/8")}, "10.0.0.0/24"},
	} {
		got, err := ipam.Free(pools, c.used)
		if c.want == "" {
			if !errdefs.Is(err, errdefs.Exhausted) {
				t.Errorf("%v: %v, %v", c.used, got, err)
			}
		} else if err != nil || got != p(c.want) {
			t.Errorf("%v: %v, %v; want %s", c.used, got, err, c.want)
		}
	}
	if _, err := ipam.Free([]ipam.Pool{{p("255.255.255.0/24"), 24}}, []netip.Prefix{p("255.255.255.0/24")}); err == nil {
		t.Error("the end of the address space")
	}
}

func TestRange(t *testing.T) {
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	r := ipam.NewRange(p("10.0.0.0/29"), netip.Prefix{})
	if err := r.Reserve(a("10.0.0.1")); err != nil {
		t.Fatal(err)
	}
	var got []string
	for range 5 {
		x, err := r.Allocate()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, x.String())
	}
	if want := "10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6"; want != join(got) {
		t.Errorf("got %s", join(got))
	}
	if _, err := r.Allocate(); !errdefs.Is(err, errdefs.Exhausted) {
		t.Errorf("full: %v", err)
	}
	r.Release(a("10.0.0.3"))
	if x, err := r.Allocate(); err != nil || x != a("10.0.0.3") {
		t.Errorf("freed: %v, %v", x, err)
	}
	for _, bad := range []string{"10.0.0.0", "10.0.0.7", "10.0.0.8", "fd00::1"} {
		if err := r.Reserve(a(bad)); !errdefs.Is(err, errdefs.InvalidParameter) {
			t.Errorf("reserve %s: %v", bad, err)
		}
	}
	if err := r.Reserve(a("10.0.0.3")); !errdefs.Is(err, errdefs.Forbidden) {
		t.Errorf("reserve twice: %v", err)
	}
	part := ipam.NewRange(p("10.0.0.0/16"), p("10.0.5.0/30"))
	for range 4 {
		if x, err := part.Allocate(); err != nil || !p("10.0.5.0/30").Contains(x) {
			t.Errorf("part: %v, %v", x, err)
		}
	}
	if _, err := part.Allocate(); err == nil {
		t.Error("part is full")
	}
	if err := part.Reserve(a("10.0.9.9")); err != nil {
		t.Errorf("outside of the part, inside the subnet: %v", err)
	}
	six := ipam.NewRange(p("fd00::/64"), netip.Prefix{})
	if x, err := six.Allocate(); err != nil || x != a("fd00::1") {
		t.Errorf("IPv6: %v, %v", x, err)
	}
}

func join(s []string) (all string) {
	for i, x := range s {
		if i > 0 {
			all += " "
		}
		all += x
	}
	return all
}

func FuzzFree(f *testing.F) {
	f.Add([]byte{10, 0, 0, 0, 8, 24, 10, 0, 0, 0, 16})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 6 {
			return
		}
		pools := []ipam.Pool{{netip.PrefixFrom(netip.AddrFrom4([4]byte(b[:4])), int(b[4]%33)), int(b[5] % 40)}}
		var used []netip.Prefix
		for b = b[6:]; len(b) >= 5; b = b[5:] {
			used = append(used, netip.PrefixFrom(netip.AddrFrom4([4]byte(b[:4])), int(b[4]%33)))
		}
		got, err := ipam.Free(pools, used)
		if err != nil {
			return
		}
		if got.Bits() != pools[0].Size || !pools[0].Base.Masked().Contains(got.Addr()) {
			t.Errorf("%v is not of %v", got, pools)
		}
		for _, u := range used {
			if u.Overlaps(got) {
				t.Errorf("%v overlaps %v", got, u)
			}
		}
	})
}
