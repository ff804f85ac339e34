package firewall

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"gantry/linux/netns/netnstest"
	"gantry/linux/nft"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// TestHealShared is for kernels before 6.9, where anybody can change the table.
func TestHealShared(t *testing.T) {
	netnstest.Root(t)
	f, err := Open("gantry_test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	f.table.Owned = false
	target := netip.MustParseAddrPort("10.0.0.2:80")
	port := Port{Proto: 6, Host: netip.MustParseAddrPort("0.0.0.0:8080"), Target: target}
	err = f.Reset(State{
		Networks: []Network{{Bridge: "br0", Subnets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd00::/64")}, ICC: true, Masquerade: true}},
		Ports:    []Port{{Proto: 17, Host: netip.MustParseAddrPort("[::]:53"), Target: netip.MustParseAddrPort("[fd00::2]:53")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Publish([]Port{port}); err != nil {
		t.Fatal(err)
	}
	other, err := nft.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	var delTable, delElement nft.Batch
	delTable.DelTable("gantry_test")
	delElement.DelElements("gantry_test", mapAnyPorts4, nft.Element{Key: nft.Join([]byte{6}, []byte{0x1f, 0x90})})
	for name, attack := range map[string]*nft.Batch{"table": &delTable, "element": &delElement} {
		if err := other.Commit(attack); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		start := time.Now()
		for {
			problems, err := f.Check()
			if err != nil {
				t.Fatal(err)
			}
			if len(problems) == 0 {
				t.Logf("%s healed after %s", name, time.Since(start))
				break
			}
			if time.Since(start) > time.Second {
				t.Fatalf("%s: %v", name, problems)
			}
			time.Sleep(time.Millisecond)
		}
	}
	if err := f.Unpublish([]Port{port}); err != nil {
		t.Error(err)
	}
	if err := f.Unpublish([]Port{port}); err != nil {
		t.Errorf("twice: %v", err)
	}
	if err := f.RemoveNetwork("br0"); err != nil {
		t.Error(err)
	}
	if err := f.Close(true); err != nil {
		t.Error(err)
	}
	if there, err := other.HasTable("gantry_test"); there || err != nil {
		t.Errorf("the table is left: %v", err)
	}
}
