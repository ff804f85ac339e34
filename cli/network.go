package cli

import (
	"context"
	"fmt"
	"net/netip"
	"sort"
	"strings"

	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"

	"gantry/client"
)

// networkRow is a row of network ls; fields are in the order of docker's JSON.
type networkRow struct {
	CreatedAt, Driver, ID, IPv4, IPv6, Internal, Labels, Name, Scope string

	labels map[string]string
}

// Label returns the value of a label.
func (r networkRow) Label(name string) string { return r.labels[name] }

func networkLsCommand() *command {
	return &command{
		name: "ls", hidden: []string{"list"}, aliases: "network ls, network list", use: "[OPTIONS]", short: "List networks",
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			f := filterValue{client.Filters{}}
			fs.VarP(f, "filter", "f", `Provide filter values (e.g. "driver=bridge")`)
			text := fs.String("format", "", formatHelp)
			noTrunc := fs.Bool("no-trunc", false, "Do not truncate the output")
			quiet := fs.BoolP("quiet", "q", false, "Only display network IDs")
			return func(ctx context.Context, _ []string) error {
				c, err := a.client()
				if err != nil {
					return err
				}
				nets, err := c.NetworkList(ctx, f.filters)
				if err != nil {
					return err
				}
				if *text == "" && !*quiet {
					*text = a.config().NetworksFormat
				}
				sort.Slice(nets, func(i, j int) bool { return naturalLess(nets[i].Name, nets[j].Name) })
				var rows []networkRow
				for _, n := range nets {
					r := networkRow{
						CreatedAt: n.Created.String(), Driver: n.Driver, ID: n.ID, IPv4: yesNo(n.EnableIPv4), IPv6: yesNo(n.EnableIPv6),
						Internal: yesNo(n.Internal), Labels: joinLabels(n.Labels), Name: n.Name, Scope: n.Scope, labels: n.Labels,
					}
					if !*noTrunc {
						r.ID = shortID(n.ID)
					}
					rows = append(rows, r)
				}
				form := resolveFormat(*text, "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}", "{{.ID}}", *quiet)
				if *text == "raw" {
					form = format{text: "network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n"}
				}
				return printRows(a.out, form, headers{
					"ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE", "IPv4": "IPV4", "IPv6": "IPV6", "Internal": "INTERNAL",
					"Labels": "LABELS", "CreatedAt": "CREATED AT",
				}, rows)
			}
		},
	}
}

func networkInspectCommand() *command {
	return &command{
		name: "inspect", use: "[OPTIONS] NETWORK [NETWORK...]", short: "Display detailed information on one or more networks", min: 1, max: -1,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			text := fs.StringP("format", "f", "", inspectFormatHelp)
			verbose := fs.BoolP("verbose", "v", false, "Verbose output for diagnostics")
			return func(ctx context.Context, args []string) error {
				return a.inspect(ctx, *text, args, []kind{networkKind(*verbose)})
			}
		},
	}
}

func networkRmCommand() *command {
	return &command{
		name: "rm", hidden: []string{"remove"}, aliases: "network rm, network remove", use: "NETWORK [NETWORK...]", short: "Remove one or more networks", min: 1, max: -1,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			force := fs.BoolP("force", "f", false, "Do not error if the network does not exist")
			return func(ctx context.Context, args []string) error {
				c, err := a.client()
				if err != nil {
					return err
				}
				return a.each(args, func(name string) error {
					if err := c.NetworkRemove(ctx, name); err != nil {
						if *force && client.IsStatus(err, client.StatusNotFound) {
							return nil
						}
						return err
					}
					fmt.Fprintln(a.out, name)
					return nil
				})
			}
		},
	}
}

func networkConnectCommand() *command {
	return &command{
		name: "connect", use: "[OPTIONS] NETWORK CONTAINER", short: "Connect a container to a network", min: 2, max: 2,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			var ip, ip6 string
			var links, opts, linkLocal []string
			var ep network.EndpointSettings
			fs.StringSliceVar(&ep.Aliases, "alias", nil, "Add network-scoped alias for the container")
			fs.StringSliceVar(&opts, "driver-opt", nil, "driver options for the network")
			fs.IntVar(&ep.GwPriority, "gw-priority", 0, "Highest gw-priority provides the default gateway. Accepts positive and negative values.")
			fs.StringVar(&ip, "ip", "", `IPv4 address (e.g., "172.30.100.104")`)
			fs.StringVar(&ip6, "ip6", "", `IPv6 address (e.g., "2001:db8::33")`)
			fs.Var(&listValue{values: &links, check: checkLink}, "link", "Add link to another container")
			fs.StringSliceVar(&linkLocal, "link-local-ip", nil, "Add a link-local address for the container")
			return func(ctx context.Context, args []string) error {
				f := containerFlags{ip: ip, ip6: ip6, linkLocalIP: linkLocal, networkAlias: ep.Aliases}
				if err := f.endpointOptions(&ep); err != nil {
					return err
				}
				ep.Links = links
				if len(opts) > 0 {
					for _, o := range opts {
						if k, _, ok := strings.Cut(o, "="); !ok || k == "" {
							return fmt.Errorf("invalid key/value pair format in driver options")
						}
					}
					ep.DriverOpts = keyValues(opts)
				}
				c, err := a.client()
				if err != nil {
					return err
				}
				return c.NetworkConnect(ctx, args[0], network.ConnectRequest{Container: args[1], EndpointConfig: &ep})
			}
		},
	}
}

func networkDisconnectCommand() *command {
	return &command{
		name: "disconnect", use: "[OPTIONS] NETWORK CONTAINER", short: "Disconnect a container from a network", min: 2, max: 2,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			force := fs.BoolP("force", "f", false, "Force the container to disconnect from a network")
			return func(ctx context.Context, args []string) error {
				c, err := a.client()
				if err != nil {
					return err
				}
				return c.NetworkDisconnect(ctx, args[0], network.DisconnectRequest{Container: args[1], Force: *force})
			}
		},
	}
}

func networkPruneCommand() *command {
	return &command{
		name: "prune", use: "[OPTIONS]", short: "Remove all unused networks",
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			f := filterValue{client.Filters{}}
			fs.Var(f, "filter", `Provide filter values (e.g. "until=<timestamp>")`)
			force := fs.BoolP("force", "f", false, "Do not prompt for confirmation")
			return func(ctx context.Context, _ []string) error {
				if !*force && !a.confirm(ctx, "WARNING! This will remove all custom networks not used by at least one container.") {
					return nil
				}
				c, err := a.client()
				if err != nil {
					return err
				}
				done, err := a.pruneNetworks(ctx, c, f.filters)
				fmt.Fprint(a.out, done.text)
				return err
			}
		},
	}
}

func (a *app) pruneNetworks(ctx context.Context, c *client.Client, f client.Filters) (pruned, error) {
	a.configFilters(f)
	r, err := c.NetworksPrune(ctx, f)
	if err != nil {
		return pruned{}, err
	}
	return pruned{text: listText("Deleted Networks:", r.NetworksDeleted)}, nil
}

// ipamConfig sorts the subnets, ranges, gateways and reserved addresses of network create into one configuration per subnet.
func ipamConfig(subnets, ranges, gateways []string, aux map[string]string) ([]network.IPAMConfig, error) {
	var out []network.IPAMConfig
	for _, s := range subnets {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("invalid subnet %s: %w", s, err)
		}
		for _, old := range out {
			if old.Subnet.Overlaps(p) {
				return nil, fmt.Errorf("multiple overlapping subnet configuration is not supported")
			}
		}
		out = append(out, network.IPAMConfig{Subnet: p})
	}
	find := func(a netip.Addr) *network.IPAMConfig {
		for i := range out {
			if out[i].Subnet.Contains(a) {
				return &out[i]
			}
		}
		return nil
	}
	for _, s := range ranges {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("invalid ip-range %s: %w", s, err)
		}
		c := find(p.Addr())
		if c == nil {
			return nil, fmt.Errorf("no matching subnet for range %s", s)
		}
		if c.IPRange.IsValid() {
			return nil, fmt.Errorf("cannot configure multiple ranges (%s, %s) on the same subnet (%s)", s, c.IPRange, c.Subnet)
		}
		c.IPRange = p
	}
	for _, s := range gateways {
		g, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("invalid gateway %s: %w", s, err)
		}
		c := find(g)
		if c == nil {
			return nil, fmt.Errorf("no matching subnet for gateway %s", s)
		}
		if c.Gateway.IsValid() {
			return nil, fmt.Errorf("cannot configure multiple gateways (%s, %s) for the same subnet (%s)", s, c.Gateway, c.Subnet)
		}
		c.Gateway = g
	}
	for name, s := range aux {
		addr, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("invalid aux-address %s: %w", s, err)
		}
		c := find(addr)
		if c == nil {
			return nil, fmt.Errorf("no matching subnet for aux-address %s", s)
		}
		if c.AuxAddress == nil {
			c.AuxAddress = map[string]netip.Addr{}
		}
		c.AuxAddress[name] = addr
	}
	return out, nil
}
