// Package network gives sandboxes their network: namespaces, links, addresses, published ports, names.
//
// A Network is a bridge with an address range. A sandbox joins one or several of them; each attachment is an
// Endpoint. The kernel objects hang on the sandbox's network namespace, which lives exactly as long as a process or
// descriptor of it, so nothing is left when all of them are gone. Records in the database hold what must outlive the
// daemon: networks, and the endpoints of running sandboxes.
package network

import (
	"log/slog"
	"net/netip"
	"os"
	"time"

	"gantry/db"
	"gantry/event"
	"gantry/network/ipam"
)

// The networks that always exist, and the drivers of the same names.
const (
	Bridge = "bridge"
	Host   = "host"
	None   = "none"
)

// The driver of the network None, in Docker's words.
const driverNull = "null"

// Options of bridge networks, in Docker's words.
const (
	OptionBridgeName  = "com.docker.network.bridge.name"
	OptionDefault     = "com.docker.network.bridge.default_bridge"
	OptionICC         = "com.docker.network.bridge.enable_icc"
	OptionMasquerade  = "com.docker.network.bridge.enable_ip_masquerade"
	OptionHostBinding = "com.docker.network.bridge.host_binding_ipv4"
	OptionMTU         = "com.docker.network.driver.mtu"
)

// Options says how Open sets the service up.
type Options struct {
	DB     *db.DB
	Events *event.Bus
	Log    *slog.Logger

	Bridge         string       // device of the default network; "" means "gantry0", "none" that there is no default network
	BIP            netip.Prefix // address and subnet of the default bridge; zero: 172.18.0.1/16 or the first free default pool
	FixedCIDR      netip.Prefix // the part of BIP's subnet from which containers get addresses; zero: all
	DefaultGateway netip.Addr   // default route of the default network's containers; zero: the bridge
	DefaultPools   []ipam.Pool  // whence networks without a subnet get theirs; nil: ipam.DefaultPools
	MTU            int          // of the default network; 0: 1500
	ICC            bool         // containers of the default network may talk to each other
	IPForward      bool         // switch the kernel's IP forwarding on
	IPMasq         bool         // masquerade what leaves the default network
	IPTables       bool         // keep firewall and NAT rules (in nftables); without, ports are served by a proxy and nothing is isolated
	HostBinding    netip.Addr   // host address of published ports that name none; zero: all
	DNS            []netip.Addr // servers to which names that are no container's are forwarded; nil: the host's
	Pool           int          // ready namespaces kept; 0 for none
	TableName      string       // nftables table; "" derives it from Bridge, so that daemons do not meet
}

// Network is one network, as `network inspect` shows it.
type Network struct {
	ID         string // 64 hex digits
	Name       string
	Created    time.Time
	Driver     string // "bridge", "host", "null"
	Scope      string // "local"
	EnableIPv4 bool
	EnableIPv6 bool
	IPAM       IPAM
	Internal   bool
	Attachable bool
	Ingress    bool
	Options    map[string]string
	Labels     map[string]string
}

// IPAM is a network's address plan.
type IPAM struct {
	Driver  string // "default"
	Options map[string]string
	Config  []IPAMConfig
}

// IPAMConfig is one address range of a network.
type IPAMConfig struct {
	Subnet  netip.Prefix
	IPRange netip.Prefix // zero: the whole subnet
	Gateway netip.Addr
	Aux     map[string]netip.Addr // addresses in use by others, by name
}

// CreateConfig is a request for a network. Zero values mean defaults.
type CreateConfig struct {
	Name       string
	Driver     string // "" means "bridge"
	EnableIPv4 *bool  // nil means true
	EnableIPv6 *bool  // nil means false
	IPAM       IPAM
	Internal   bool
	Attachable bool
	Ingress    bool
	Options    map[string]string
	Labels     map[string]string
}

// SandboxConfig says what a sandbox joins.
type SandboxConfig struct {
	ID        string           // the container's: 64 hex digits
	Name      string           // the container's name without the slash; it resolves on user networks
	Endpoints []EndpointConfig // at least one; "host" and "none" stand alone
	Ports     []PortBinding    // published on the endpoint that has the default route

	DNS        []netip.Addr            // the sandbox's own servers; nil: Options.DNS or the host's
	ExtraHosts map[string][]netip.Addr // --add-host names, which resolve for this sandbox only
}

// EndpointConfig asks for one attachment of a sandbox to a network.
type EndpointConfig struct {
	Network  string   // name, ID or unique prefix of an ID
	Aliases  []string // further names on this network
	DNSNames []string // likewise; both resolve
	IPv4     netip.Addr
	IPv6     netip.Addr
	MAC      string            // "" means one derived from the address
	Links    map[string]string // alias -> name or ID of another sandbox
	// GatewayPriority: the endpoint with the highest has the default route, at equality the first by network name.
	GatewayPriority int
	DriverOpts      map[string]string
}

// PortBinding asks for one published port.
type PortBinding struct {
	Proto         string     // "tcp", "udp"; "" means tcp
	ContainerPort uint16     // 1-65535
	HostAddr      netip.Addr // zero: the network's host binding, else all addresses, IPv4 and IPv6
	HostPort      uint16     // 0: a free one of 49153-65535
	HostPortEnd   uint16     // when above HostPort: the first free one of the range
}

// Published is one port that is open on the host, as `docker port` shows it.
type Published struct {
	Proto         string
	ContainerPort uint16
	HostAddr      netip.Addr // 0.0.0.0 and :: are separate entries
	HostPort      uint16
}

// Endpoint is one attachment, as `inspect` shows it. A sandbox that does not run has endpoints without addresses.
type Endpoint struct {
	NetworkID   string
	NetworkName string
	EndpointID  string // 64 hex digits
	Interface   string // "eth0" inside the sandbox
	HostLink    string // the veth's other end
	MAC         string
	IPv4        netip.Prefix
	Gateway     netip.Addr // zero on internal networks
	IPv6        netip.Prefix
	Gateway6    netip.Addr
	Aliases     []string
	DNSNames    []string // all names by which others find this endpoint
	Links       map[string]string
	DriverOpts  map[string]string

	GatewayPriority int
	Static4         netip.Addr // as asked for
	Static6         netip.Addr
	StaticMAC       string
}

// Namespace is what a sandbox got from Join.
type Namespace struct {
	File      *os.File // the network namespace, for the caller to pass on and close; nil on the host network
	Endpoints []Endpoint
	Ports     []Published
	Resolver  netip.Addr // 127.0.0.11 where names are resolved inside; zero: use the host's servers
}

// Sandbox is a sandbox that has joined, as List of a network's containers needs it.
type Sandbox struct {
	ID        string
	Name      string
	Endpoints []Endpoint
	Ports     []Published
	Resolver  netip.Addr // as in Namespace
}
