// Package firewall keeps the rules of bridge networks in one nftables table: published ports, masquerading, isolation.
//
// The state in memory is the truth. Whatever somebody else changes in the table is put back at once, in one transaction;
// from Linux 6.9 on nobody else can change it while the daemon runs, and isolation never opens.
package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"syscall"

	"gantry/linux/nft"
)

// Network is one bridge network.
type Network struct {
	Bridge     string
	Subnets    []netip.Prefix
	Internal   bool // nothing passes between it and the world
	ICC        bool // its sandboxes may talk to each other
	Masquerade bool // what leaves it gets the host's address
}

// Port is one published port.
type Port struct {
	Proto  uint8 // IPPROTO_TCP, ...
	Host   netip.AddrPort
	Target netip.AddrPort
}

// Firewall owns one table. Its methods may be called concurrently.
type Firewall struct {
	log     *slog.Logger
	conn    *nft.Conn
	monitor *nft.Monitor
	done    chan struct{}

	mu       sync.Mutex // guards all below, and the table
	table    nft.Table
	closed   bool
	networks map[string]Network // by bridge
	ports    map[portKey]netip.AddrPort
}

type portKey struct {
	proto uint8
	host  netip.AddrPort
}

// Open takes over the table of that name. Nothing changes in it before the first Reset.
func Open(table string, log *slog.Logger) (*Firewall, error) {
	conn, err := nft.Dial()
	if err != nil {
		return nil, fmt.Errorf("open firewall: %w", err)
	}
	monitor, err := nft.Watch()
	if err != nil {
		return nil, fmt.Errorf("open firewall: %w", errors.Join(err, conn.Close()))
	}
	f := &Firewall{
		log: log, conn: conn, monitor: monitor, done: make(chan struct{}), table: nft.Table{Name: table, Owned: true},
		networks: map[string]Network{}, ports: map[portKey]netip.AddrPort{},
	}
	go f.watch()
	return f, nil
}

// Close stops watching. With remove the table goes, otherwise it stays as it is.
func (f *Firewall) Close(remove bool) error {
	f.mu.Lock()
	f.closed = true
	var err error
	if remove {
		err = f.removeTable()
	}
	f.mu.Unlock()
	err = errors.Join(err, f.monitor.Close())
	<-f.done
	return errors.Join(err, f.conn.Close())
}

func (f *Firewall) removeTable() error {
	clear(f.networks)
	f.admit()
	var b nft.Batch
	b.AddTable(f.table)
	b.DelTable(f.table.Name)
	return f.conn.Commit(&b)
}

// State is all that the table is made from.
type State struct {
	Networks []Network
	Ports    []Port
}

// Reset replaces everything in one transaction.
func (f *Firewall) Reset(u State) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.networks)
	clear(f.ports)
	for _, n := range u.Networks {
		f.networks[n.Bridge] = n
	}
	for _, p := range u.Ports {
		f.ports[p.key()] = p.Target
	}
	return f.apply()
}

// SetNetwork adds or changes a network.
func (f *Firewall) SetNetwork(n Network) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	before, was := f.networks[n.Bridge]
	f.networks[n.Bridge] = n
	if err := f.apply(); err != nil {
		delete(f.networks, n.Bridge)
		if was {
			f.networks[n.Bridge] = before
		}
		return err
	}
	return nil
}

// RemoveNetwork removes a network.
func (f *Firewall) RemoveNetwork(bridge string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.networks, bridge)
	return f.apply()
}

// Publish opens ports.
func (f *Firewall) Publish(ports []Port) error {
	if len(ports) == 0 {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var b nft.Batch
	for _, p := range ports {
		f.ports[p.key()] = p.Target
		set, e := element(p.key(), p.Target)
		b.AddElements(f.table.Name, set, e)
	}
	err := f.conn.Commit(&b)
	if err != nil { // somebody changed the table under us
		err = f.apply()
	}
	if err != nil {
		for _, p := range ports {
			delete(f.ports, p.key())
		}
		return fmt.Errorf("publish ports: %w", err)
	}
	f.forget(ports)
	return nil
}

// forget lets connections of UDP be decided anew. It is no failure when the kernel cannot: they end by themselves when
// nothing comes for a while.
func (f *Firewall) forget(ports []Port) {
	const udp = 17
	numbers := map[uint16]bool{}
	for _, p := range ports {
		if p.Proto == udp {
			numbers[p.Host.Port()] = true
		}
	}
	if len(numbers) == 0 {
		return
	}
	if err := f.conn.Forget(udp, numbers); err != nil {
		f.log.Debug("connections of published UDP ports are not forgotten", "error", err)
	}
}

// Unpublish closes ports; those that are not open are no error.
func (f *Firewall) Unpublish(ports []Port) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var b nft.Batch
	for _, p := range ports {
		if _, ok := f.ports[p.key()]; !ok {
			continue
		}
		delete(f.ports, p.key())
		set, e := element(p.key(), p.Target)
		b.DelElements(f.table.Name, set, nft.Element{Key: e.Key})
	}
	if err := f.conn.Commit(&b); err != nil {
		if err := f.apply(); err != nil {
			return fmt.Errorf("unpublish ports: %w", err)
		}
	}
	f.forget(ports)
	return nil
}

func (p Port) key() portKey { return portKey{p.Proto, p.Host} }

// watch puts the table back whenever somebody else changed it, and looks after the other firewall's table.
func (f *Firewall) watch() {
	defer close(f.done)
	for {
		changed, missed, err := f.monitor.Next(f.conn.Port())
		if err != nil {
			f.mu.Lock()
			closed := f.closed
			f.mu.Unlock()
			if !closed {
				f.log.Error("firewall is no longer watched", "table", f.table.Name, "error", err)
			}
			return
		}
		if missed || slices.Contains(changed, nft.Ref{Family: nft.Inet, Table: f.table.Name}) {
			if err := f.Heal(); err != nil {
				f.log.Error("firewall table was changed by another program and could not be put back", "table", f.table.Name, "error", err)
			} else {
				f.log.Warn("firewall table was changed by another program and has been put back", "table", f.table.Name)
			}
		}
		if missed || slices.Contains(changed, foreign()) {
			f.mu.Lock()
			f.admit()
			f.mu.Unlock()
		}
	}
}

// Heal writes the whole table anew.
func (f *Firewall) Heal() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	return f.apply()
}

// apply replaces the table in one transaction; the caller holds mu.
func (f *Firewall) apply() error {
	err := f.conn.Commit(f.batch())
	if f.table.Owned && (errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EOPNOTSUPP)) {
		f.table.Owned = false // Linux before 6.9
		err = f.conn.Commit(f.batch())
	}
	if err == nil {
		f.admit()
	}
	if errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("firewall table %s belongs to another running daemon: %w", f.table.Name, err)
	}
	return err
}

func (f *Firewall) batch() *nft.Batch {
	var b nft.Batch
	b.AddTable(f.table)
	b.DelTable(f.table.Name)
	b.AddTable(f.table)
	sets := f.sets()
	for _, s := range sets {
		b.AddSet(f.table.Name, s)
	}
	for _, c := range f.chains() {
		b.AddChain(f.table.Name, c)
	}
	return &b
}

// The sets and maps.
const (
	setBridges   = "bridges"   // all bridges
	setInternal  = "internal"  // those of internal networks
	setTalk      = "talk"      // bridge . bridge: pairs between which sandboxes may talk
	mapPorts4    = "ports4"    // proto . host address . host port : address . port
	mapAnyPorts4 = "anyports4" // proto . host port : address . port, on every address of the host
	mapPorts6    = "ports6"
	mapAnyPorts6 = "anyports6"
)

func (f *Firewall) sets() []nft.Set {
	bridges := nft.Set{Name: setBridges, Key: nft.Device}
	internal := nft.Set{Name: setInternal, Key: nft.Device}
	talk := nft.Set{Name: setTalk, Key: nft.Concat(nft.Device, nft.Device)}
	for _, n := range f.sorted() {
		name := nft.Name16(n.Bridge)
		bridges.Elements = append(bridges.Elements, nft.Element{Key: name})
		if n.Internal {
			internal.Elements = append(internal.Elements, nft.Element{Key: name})
		}
		if n.ICC {
			talk.Elements = append(talk.Elements, nft.Element{Key: nft.Join(name, name)})
		}
	}
	maps := map[string]*nft.Set{
		mapPorts4:    {Name: mapPorts4, Key: nft.Concat(nft.Proto, nft.IPv4, nft.Port), Value: nft.Concat(nft.IPv4, nft.Port)},
		mapAnyPorts4: {Name: mapAnyPorts4, Key: nft.Concat(nft.Proto, nft.Port), Value: nft.Concat(nft.IPv4, nft.Port)},
		mapPorts6:    {Name: mapPorts6, Key: nft.Concat(nft.Proto, nft.IPv6, nft.Port), Value: nft.Concat(nft.IPv6, nft.Port)},
		mapAnyPorts6: {Name: mapAnyPorts6, Key: nft.Concat(nft.Proto, nft.Port), Value: nft.Concat(nft.IPv6, nft.Port)},
	}
	for k, target := range f.ports {
		name, e := element(k, target)
		maps[name].Elements = append(maps[name].Elements, e)
	}
	return []nft.Set{bridges, internal, talk, *maps[mapPorts4], *maps[mapAnyPorts4], *maps[mapPorts6], *maps[mapAnyPorts6]}
}

func (f *Firewall) sorted() []Network {
	return slices.SortedFunc(maps.Values(f.networks), func(a, b Network) int {
		if a.Bridge < b.Bridge {
			return -1
		}
		return 1
	})
}

// element returns the map in which a port is published, and its entry.
func element(k portKey, target netip.AddrPort) (set string, e nft.Element) {
	port := func(p uint16) []byte { return binary.BigEndian.AppendUint16(nil, p) }
	e.Value = nft.Join(target.Addr().AsSlice(), port(target.Port()))
	host := k.host.Addr()
	switch {
	case host.Is4() && host.IsUnspecified():
		set, e.Key = mapAnyPorts4, nft.Join([]byte{k.proto}, port(k.host.Port()))
	case host.Is4():
		set, e.Key = mapPorts4, nft.Join([]byte{k.proto}, host.AsSlice(), port(k.host.Port()))
	case host.IsUnspecified():
		set, e.Key = mapAnyPorts6, nft.Join([]byte{k.proto}, port(k.host.Port()))
	default:
		set, e.Key = mapPorts6, nft.Join([]byte{k.proto}, host.AsSlice(), port(k.host.Port()))
	}
	return set, e
}
