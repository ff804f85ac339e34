package network

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"gantry/db"
	"gantry/errdefs"
	"gantry/event"
	"gantry/linux/netlink"
	"gantry/network/bridge"
	"gantry/network/dns"
	"gantry/network/firewall"
	"gantry/network/ipam"
	"gantry/network/publish"
)

const (
	defaultBridge = "gantry0"
	defaultMTU    = 1500
)

// record is a network in the database.
type record struct {
	Network
	Auto   bool   // the subnet was chosen by us: no address of it may be asked for
	Device string // name of the bridge; "" for host and none
}

const (
	networks  db.Bucket[record]        = "network"
	sandboxes db.Bucket[sandboxRecord] = "network-sandbox"
)

// Service owns the networks of one daemon. Its methods may be called concurrently.
type Service struct {
	o         Options
	preferred []ipam.Pool
	log       *slog.Logger
	lock      *os.File           // of the default bridge's name; nil without one
	nl        *netlink.Conn      // in the host's namespace
	fw        *firewall.Firewall // nil without Options.IPTables
	ports     *publish.Ports
	dns       *dns.Forwarder
	pool      *pool
	watcher   *watcher

	creating sync.Mutex // held while a network's device is made, put back, removed or checked: one at a time

	mu        sync.Mutex // guards all below
	networks  map[string]*network
	sandboxes map[string]*sandbox
	links     map[string]struct{} // host ends of the endpoints there and under way, and of the pool's
}

// network is a network in use. All but users is constant.
type network struct {
	record
	device   *bridge.Device // nil for host and none
	icc      bool
	masq     bool
	binding  netip.Addr // host address for ports that name none; zero: all
	v4, v6   *ipam.Range
	gateway4 netip.Addr // of sandboxes
	gateway6 netip.Addr
	zone     *dns.Zone
	users    int // endpoints there or under way; guarded by Service.mu
}

func (n *network) isDefault() bool { return n.Driver == Bridge && n.Name == Bridge }

func (n *network) predefined() bool { return n.Name == Bridge || n.Name == Host || n.Name == None }

func (n *network) clone() *Network {
	c := n.Network
	c.Options, c.Labels, c.IPAM.Options = maps.Clone(c.Options), maps.Clone(c.Labels), maps.Clone(c.IPAM.Options)
	c.IPAM.Config = slices.Clone(c.IPAM.Config)
	return &c
}

// Open creates or finds the default network and everything on record, and fills the pool in the background. Call
// Restore before the first Join.
func Open(ctx context.Context, o Options) (_ *Service, err error) {
	if o.Bridge == "" {
		o.Bridge = defaultBridge
	}
	if o.MTU == 0 {
		o.MTU = defaultMTU
	}
	var preferred []ipam.Pool // for the default bridge; pools that the user chose are meant for it too
	if o.DefaultPools == nil {
		preferred, o.DefaultPools = ipam.Bridges(), ipam.DefaultPools()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Events == nil {
		o.Events = new(event.Bus)
	}
	s := &Service{
		o: o, preferred: preferred, log: o.Log, ports: publish.New(), dns: dns.NewForwarder(o.DNS),
		networks: map[string]*network{}, sandboxes: map[string]*sandbox{}, links: map[string]struct{}{},
	}
	if s.nl, err = netlink.DialRoute(); err != nil {
		return nil, fmt.Errorf("open networks: %w", err)
	}
	var undo undoStack
	undo.add(func() error { return s.nl.Close() })
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open networks: %w", err), undo.run())
		}
	}()
	if o.IPForward {
		if err := bridge.Sysctl("ipv4/ip_forward", "1"); err != nil {
			return nil, err
		}
	}
	if o.Bridge != None {
		if s.lock, err = bridge.Lock(o.Bridge); err != nil {
			return nil, err
		}
		undo.add(s.lock.Close)
	}
	saved, err := s.load(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.predefine(saved); err != nil {
		return nil, err
	}
	if o.IPTables {
		if s.fw, err = firewall.Open(s.tableName(), s.log); err != nil {
			return nil, err
		}
		undo.add(func() error { return s.fw.Close(false) })
		if err := s.fw.Reset(s.ruleset()); err != nil {
			return nil, err
		}
	}
	if s.watcher, err = watch(s); err != nil {
		return nil, err
	}
	s.pool = newPool(s, o.Pool)
	s.watcher.start()
	return s, nil
}

// load reads the records, sets the user's networks up and reserves the addresses of all sandboxes. It returns the
// predefined networks' records by name.
func (s *Service) load(ctx context.Context) (map[string]record, error) {
	saved := map[string]record{}
	var users []record
	err := s.o.DB.View(func(tx *db.Tx) error {
		for key, r := range networks.All(tx) {
			switch {
			case r.Err != nil:
				s.log.ErrorContext(ctx, "record of a network cannot be read and is left out", "network", key, "error", r.Err)
			case r.Value.Driver != Bridge || r.Value.Name == Bridge:
				saved[r.Value.Name] = r.Value
			default:
				users = append(users, r.Value)
			}
		}
		for key, r := range sandboxes.All(tx) {
			if r.Err != nil {
				s.log.ErrorContext(ctx, "record of a sandbox's network cannot be read and is left out", "sandbox", key, "error", r.Err)
				continue
			}
			s.sandboxes[key] = &sandbox{sandboxRecord: r.Value}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, r := range users {
		n, err := s.materialize(r)
		if err != nil {
			s.log.ErrorContext(ctx, "network cannot be set up", "network", r.Name, "error", err)
		}
		s.networks[n.ID] = n
	}
	return saved, nil
}

// predefine sets up bridge, host and none.
func (s *Service) predefine(saved map[string]record) error {
	fresh := func(name, driver string) record {
		if r, ok := saved[name]; ok {
			return r
		}
		return record{Network: Network{ID: newID(), Name: name, Driver: driver, Created: time.Now().UTC()}}
	}
	host, none := fresh(Host, Host), fresh(None, driverNull)
	all := []record{host, none}
	if s.o.Bridge != None {
		def, err := s.defaultRecord(fresh(Bridge, Bridge))
		if err != nil {
			return err
		}
		all = append(all, def)
	}
	for i := range all {
		all[i].Scope = "local"
		all[i].EnableIPv4 = true
		if all[i].IPAM.Driver == "" {
			all[i].IPAM.Driver = "default"
		}
		n, err := s.materialize(all[i])
		if err != nil {
			return fmt.Errorf("network %s: %w", all[i].Name, err)
		}
		s.networks[n.ID] = n
	}
	for _, sb := range s.sandboxes {
		s.reserve(sb)
	}
	return s.o.DB.Update(func(tx *db.Tx) error {
		for _, r := range all {
			if err := networks.Put(tx, r.ID, r); err != nil {
				return err
			}
		}
		return nil
	})
}

// defaultRecord gives the default network the address plan that the options ask for, or the one it had, or a free one.
func (s *Service) defaultRecord(r record) (record, error) {
	bip := s.o.BIP
	if !bip.IsValid() && s.o.Bridge != defaultBridge {
		have, err := bridge.Address(s.nl, s.o.Bridge)
		if err != nil {
			return r, err
		}
		bip = have
	}
	if !bip.IsValid() && r.Device == s.o.Bridge && len(r.IPAM.Config) > 0 {
		c := r.IPAM.Config[0]
		if err := s.overlap(c.Subnet, r.ID); err == nil {
			bip = netip.PrefixFrom(c.Gateway, c.Subnet.Bits())
		}
	}
	if !bip.IsValid() {
		used, err := s.used(s.o.Bridge)
		if err != nil {
			return r, err
		}
		subnet, err := ipam.Free(slices.Concat(s.preferred, s.o.DefaultPools), used)
		if err != nil {
			return r, err
		}
		bip = netip.PrefixFrom(subnet.Addr().Next(), subnet.Bits())
	}
	if bip.Addr() == bip.Masked().Addr() {
		return r, errdefs.New(errdefs.InvalidParameter, "bridge address %s is the subnet's own: give the bridge an address in it, such as %s/%d", bip, bip.Addr().Next(), bip.Bits())
	}
	config := IPAMConfig{Subnet: bip.Masked(), Gateway: bip.Addr()}
	if s.o.FixedCIDR.IsValid() {
		if !config.Subnet.Overlaps(s.o.FixedCIDR) || s.o.FixedCIDR.Bits() < config.Subnet.Bits() {
			return r, errdefs.New(errdefs.InvalidParameter, "fixed-cidr %s is not within the bridge's subnet %s", s.o.FixedCIDR, config.Subnet)
		}
		config.IPRange = s.o.FixedCIDR.Masked()
	}
	r.Device = s.o.Bridge
	r.Auto = true // nobody may ask for an address of the default network
	r.IPAM = IPAM{Driver: "default", Config: []IPAMConfig{config}}
	r.Options = map[string]string{
		OptionDefault:     "true",
		OptionICC:         fmt.Sprint(s.o.ICC),
		OptionMasquerade:  fmt.Sprint(s.o.IPMasq),
		OptionHostBinding: "0.0.0.0",
		OptionBridgeName:  s.o.Bridge,
		OptionMTU:         fmt.Sprint(s.o.MTU),
	}
	if s.o.HostBinding.IsValid() {
		r.Options[OptionHostBinding] = s.o.HostBinding.String()
	}
	return r, nil
}

// materialize makes the kernel's part of a network. On failure the network is returned without a device.
func (s *Service) materialize(r record) (*network, error) {
	n := &network{record: r, zone: dns.NewZone(r.Name)}
	if r.Device == "" {
		return n, nil
	}
	o, err := parseOptions(r.Options, s.o)
	if err != nil {
		return n, err
	}
	n.icc, n.masq, n.binding = o.icc, o.masq, o.binding
	c := bridge.Config{Name: r.Device, MTU: o.mtu, Isolated: !o.icc, Localnet: s.o.IPTables && !r.Internal, Owner: r.ID}
	for _, config := range r.IPAM.Config {
		own := netip.PrefixFrom(config.Gateway, config.Subnet.Bits())
		addrs := ipam.NewRange(config.Subnet, config.IPRange)
		reserved := []netip.Addr{config.Gateway}
		for _, a := range config.Aux {
			reserved = append(reserved, a)
		}
		gateway := config.Gateway
		if config.Gateway.Is4() && r.Name == Bridge && s.o.DefaultGateway.IsValid() {
			gateway = s.o.DefaultGateway
			reserved = append(reserved, gateway)
		}
		for _, a := range reserved {
			_ = addrs.Reserve(a) // twice is once
		}
		if r.Internal {
			gateway = netip.Addr{}
		}
		if !config.Gateway.Is4() && s.o.IPForward && !r.Internal {
			if err := bridge.Sysctl("ipv6/conf/all/forwarding", "1"); err != nil {
				return n, err
			}
		}
		if config.Gateway.Is4() {
			n.v4, n.gateway4, c.Gateway4 = addrs, gateway, own
		} else {
			n.v6, n.gateway6, c.Gateway6 = addrs, gateway, own
		}
	}
	n.device, err = bridge.Ensure(s.nl, c)
	return n, err
}

// tableName gives each daemon a firewall table of its own.
func (s *Service) tableName() string {
	switch {
	case s.o.TableName != "":
		return s.o.TableName
	case s.o.Bridge == defaultBridge:
		return "gantry"
	case s.o.Bridge == None:
		for _, n := range s.networks {
			if n.Name == Host {
				return "gantry_" + n.ID[:12] // as different as the data roots
			}
		}
	}
	return "gantry_" + strings.Map(func(r rune) rune {
		if r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '_'
	}, s.o.Bridge)
}

// ruleset is what the firewall must hold for everything on record.
func (s *Service) ruleset() firewall.State {
	var u firewall.State
	for _, n := range s.networks {
		if n.device != nil {
			u.Networks = append(u.Networks, n.rules())
		}
	}
	for _, sb := range s.sandboxes {
		u.Ports = append(u.Ports, sb.rules()...)
	}
	return u
}

func (n *network) rules() firewall.Network {
	r := firewall.Network{Bridge: n.Device, Internal: n.Internal, ICC: n.icc, Masquerade: n.masq}
	for _, c := range n.IPAM.Config {
		r.Subnets = append(r.Subnets, c.Subnet)
	}
	return r
}

// reserve takes the addresses of a sandbox on record, and counts it as a user of its networks.
func (s *Service) reserve(sb *sandbox) {
	for _, e := range sb.Endpoints {
		n := s.networks[e.NetworkID]
		if n == nil {
			continue
		}
		n.users++
		if e.HostLink != "" {
			s.links[e.HostLink] = struct{}{}
		}
		if n.v4 != nil && e.IPv4.IsValid() {
			if err := n.v4.Reserve(e.IPv4.Addr()); err != nil {
				s.log.Warn("address on record cannot be reserved", "sandbox", sb.ID, "address", e.IPv4, "error", err)
			}
		}
		if n.v6 != nil && e.IPv6.IsValid() {
			if err := n.v6.Reserve(e.IPv6.Addr()); err != nil {
				s.log.Warn("address on record cannot be reserved", "sandbox", sb.ID, "address", e.IPv6, "error", err)
			}
		}
	}
}

// Close ends what runs in the daemon: pool, resolvers, port holders. Sandboxes that still run keep their network;
// bridges and rules that none needs are removed.
func (s *Service) Close() error {
	s.watcher.close()
	s.pool.close()
	s.mu.Lock()
	all := slices.Collect(maps.Values(s.sandboxes))
	nets := slices.Collect(maps.Values(s.networks))
	s.mu.Unlock()
	for _, sb := range all {
		sb.mu.Lock()
		sb.letGo()
		sb.mu.Unlock()
	}
	var err error
	if s.fw != nil {
		err = s.fw.Close(len(all) == 0)
	}
	for _, n := range nets {
		if n.device != nil && n.users == 0 {
			err = errors.Join(err, n.device.Remove(s.nl))
		}
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	return errors.Join(err, s.nl.Close())
}

func (s *Service) publishEvent(action string, n *network, container string) {
	attributes := map[string]string{"name": n.Name, "type": n.Driver}
	if container != "" {
		attributes["container"] = container
	}
	s.o.Events.Publish(event.Event{Type: event.Network, Action: action, ID: n.ID, Attributes: attributes})
}

// used returns the address ranges that a new network must not touch: those of other networks, and what the host routes
// or has, save through the device named except.
func (s *Service) used(except string) ([]netip.Prefix, error) {
	var used []netip.Prefix
	own := map[string]bool{except: true}
	for _, n := range s.networks {
		own[n.Device] = true
		if n.Device == except && except != "" {
			continue
		}
		for _, c := range n.IPAM.Config {
			used = append(used, c.Subnet)
		}
	}
	links, err := s.nl.Links(0)
	if err != nil {
		return nil, err
	}
	skip := map[int]bool{}
	for _, l := range links {
		if own[l.Name] {
			skip[l.Index] = true
		}
	}
	routes, err := s.nl.Routes()
	if err != nil {
		return nil, err
	}
	for _, r := range routes {
		if r.Dst.Bits() > 0 && !skip[r.Index] {
			used = append(used, r.Dst)
		}
	}
	addrs, err := s.nl.Addrs(0)
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		if !skip[a.Index] {
			used = append(used, a.Prefix)
		}
	}
	return used, nil
}

// overlap refuses a subnet that another network has.
func (s *Service) overlap(p netip.Prefix, exceptID string) error {
	for _, n := range s.networks {
		if n.ID == exceptID {
			continue
		}
		for _, c := range n.IPAM.Config {
			if c.Subnet.Overlaps(p) {
				return errdefs.New(errdefs.Forbidden, "invalid pool request: Pool overlaps with other one on this address space")
			}
		}
	}
	return nil
}

func newID() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// undoStack takes back the steps of an operation that failed half way, last first.
type undoStack []func() error

func (u *undoStack) add(f func() error) { *u = append(*u, f) }

func (u *undoStack) run() error {
	var errs []error
	for _, f := range slices.Backward(*u) {
		if err := f(); err != nil && !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	*u = nil
	return errors.Join(errs...)
}
