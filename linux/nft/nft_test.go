package nft_test

import (
	"encoding/binary"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"gantry/linux/netns/netnstest"
	"gantry/linux/nft"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func port(p uint16) []byte { return binary.BigEndian.AppendUint16(nil, p) }

func table(owned bool) *nft.Batch {
	var b nft.Batch
	t := nft.Table{Name: "t", Owned: owned}
	b.AddTable(t)
	b.DelTable("t")
	b.AddTable(t)
	var many []nft.Element
	for i := range 1000 {
		many = append(many, nft.Element{Key: nft.Join([]byte{6}, port(uint16(i+1))), Value: nft.Join([]byte{10, 0, 0, 1}, port(80))})
	}
	b.AddSet("t", nft.Set{Name: "devices", Key: nft.Device, Elements: []nft.Element{{Key: nft.Name16("eth0")}}})
	b.AddSet("t", nft.Set{Name: "ports", Key: nft.Concat(nft.Proto, nft.Port), Value: nft.Concat(nft.IPv4, nft.Port), Elements: many})
	r := nft.R0
	b.AddChain("t", nft.Chain{Name: "in", Type: "nat", Hook: nft.Prerouting, Priority: nft.PriorityDNAT, Rules: [][]nft.Expr{
		{
			nft.Protocol(r), nft.Equal(r, []byte{2}), nft.DestinationType(r), nft.Equal(r, nft.Native32(nft.TypeLocal)),
			nft.L4Protocol(r), nft.DestinationPort(r + 1), nft.Map("ports", r, r), nft.DNAT4(r, r+1),
		},
	}})
	b.AddChain("t", nft.Chain{Name: "out", Type: "nat", Hook: nft.Postrouting, Priority: nft.PrioritySNAT, Rules: [][]nft.Expr{
		{
			nft.Protocol(r), nft.Equal(r, []byte{2}), nft.SourceAddr4(r), nft.And(r, []byte{255, 255, 0, 0}), nft.Equal(r, []byte{10, 0, 0, 0}),
			nft.OutputName(r), nft.NotEqual(r, nft.Name16("eth0")), nft.Masquerade(),
		},
	}})
	b.AddChain("t", nft.Chain{Name: "forward", Type: "filter", Hook: nft.Forward, Rules: [][]nft.Expr{
		{nft.OutputName(r), nft.In("devices", r), nft.ConntrackState(r), nft.And(r, nft.Native32(nft.StateEstablished|nft.StateRelated)), nft.NotEqual(r, nft.Native32(0)), nft.Accept()},
		{nft.OutputName(r), nft.In("devices", r), nft.ConntrackStatus(r), nft.And(r, nft.Native32(nft.StatusDNAT)), nft.NotEqual(r, nft.Native32(0)), nft.Accept()},
		{nft.OutputName(r), nft.In("devices", r), nft.Drop()},
	}})
	return &b
}

func TestTable(t *testing.T) {
	netnstest.Root(t)
	c, err := nft.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Commit(table(false)); err != nil {
		t.Fatal(err)
	}
	elements, err := c.Elements("t", "ports")
	if err != nil || len(elements) != 1000 {
		t.Errorf("%d elements, %v", len(elements), err)
	}
	rules, err := c.Rules("t")
	if err != nil || rules["in"] != 1 || rules["out"] != 1 || rules["forward"] != 3 {
		t.Errorf("rules: %v, %v", rules, err)
	}
	if out, err := exec.Command("nft", "list", "table", "inet", "t").CombinedOutput(); err == nil {
		for _, want := range []string{`dnat ip to meta l4proto . th dport map @ports`, `oifname @devices drop`, `ip saddr 10.0.0.0/16 oifname != "eth0" masquerade`} {
			if !strings.Contains(string(out), want) {
				t.Errorf("the nft command does not show %q in\n%s", want, out)
			}
		}
	}
	var del nft.Batch
	del.DelElements("t", "ports", elements[:10]...)
	if err := c.Commit(&del); err != nil {
		t.Error(err)
	}
	if err := c.Commit(&del); err == nil {
		t.Error("deleted twice")
	}
	if err := c.Commit(table(false)); err != nil {
		t.Errorf("a second time: %v", err)
	}
	var end nft.Batch
	end.DelTable("t")
	if err := c.Commit(&end); err != nil {
		t.Error(err)
	}
	if there, err := c.HasTable("t"); there || err != nil {
		t.Errorf("still there: %v %v", there, err)
	}
}

func TestOwnedTableAndMonitor(t *testing.T) {
	netnstest.Root(t)
	m, err := nft.Watch()
	if err != nil {
		t.Fatal(err)
	}
	c, err := nft.Dial()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Commit(table(true)); err != nil {
		t.Skipf("this kernel has no owned, persistent tables (Linux 6.9): %v", err)
	}
	other, err := nft.Dial()
	if err != nil {
		t.Fatal(err)
	}
	var end nft.Batch
	end.DelTable("t")
	if err := other.Commit(&end); err == nil {
		t.Error("somebody else could delete the table")
	}
	if err := c.Commit(table(true)); err != nil {
		t.Errorf("replace an owned table: %v", err)
	}
	own := c.Port()
	c.Close()
	if there, err := other.HasTable("t"); !there || err != nil {
		t.Errorf("the table did not outlive its owner: %v", err)
	}
	heard := make(chan bool)
	go func() {
		for {
			changed, missed, err := m.Next(own)
			if err != nil {
				close(heard)
				return
			}
			if missed || slices.Contains(changed, nft.Ref{Family: nft.Inet, Table: "t"}) {
				heard <- true
			}
		}
	}()
	if err := other.Commit(&end); err != nil {
		t.Error(err)
	}
	if !<-heard {
		t.Error("deletion was not heard")
	}
	m.Close()
	for range heard {
	}
	other.Close()
}
