package cli

import (
	"context"
	"fmt"
	"net/netip"
	"sort"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"
)

func portCommand() *command {
	return &command{
		name: "port", aliases: "container port, port", use: "CONTAINER [PRIVATE_PORT[/PROTO]]",
		short: "List port mappings or a specific mapping for the container", min: 1, max: 2,
		setup: func(a *app, _ *pflag.FlagSet) runFunc {
			return func(ctx context.Context, args []string) error {
				c, err := a.client()
				if err != nil {
					return err
				}
				info, err := c.ContainerInspect(ctx, args[0])
				if err != nil {
					return err
				}
				var lines []string
				ports := info.NetworkSettings.Ports
				if len(args) == 1 {
					lines = allPorts(ports)
				} else if lines, err = onePort(ports, args[1], args[0]); err != nil {
					return err
				}
				for _, l := range lines {
					fmt.Fprintln(a.out, l)
				}
				return nil
			}
		},
	}
}

// onePort lists the addresses that a port of the container is published on.
func onePort(ports network.PortMap, want, name string) ([]string, error) {
	num, proto, _ := strings.Cut(want, "/")
	if proto == "" {
		proto = "tcp"
	}
	if _, err := strconv.ParseUint(num, 10, 16); err != nil {
		return nil, fmt.Errorf("Error: invalid port (%s): %w", num, err) //nolint:staticcheck // docker's words
	}
	port, err := network.ParsePort(num + "/" + proto)
	if err != nil {
		return nil, fmt.Errorf("Error: invalid port (%s): %w", want, err) //nolint:staticcheck // docker's words
	}
	bindings, ok := ports[port]
	if !ok || len(bindings) == 0 {
		return nil, fmt.Errorf("Error: No public port '%s' published for %s", want, name) //nolint:staticcheck // docker's words
	}
	var lines []string
	for _, b := range bindings {
		lines = append(lines, hostPort(addressOrAny(b.HostIP), b.HostPort))
	}
	sort.Strings(lines)
	return lines, nil
}

func addressOrAny(ip netip.Addr) netip.Addr {
	if !ip.IsValid() {
		return netip.IPv4Unspecified()
	}
	return ip
}

func allPorts(ports network.PortMap) []string {
	keys := make([]network.Port, 0, len(ports))
	for p := range ports {
		keys = append(keys, p)
	}
	sort.Slice(keys, func(i, j int) bool {
		if keys[i].Num() != keys[j].Num() {
			return keys[i].Num() < keys[j].Num()
		}
		return keys[i].Proto() < keys[j].Proto()
	})
	var lines []string
	for _, p := range keys {
		for _, b := range ports[p] {
			lines = append(lines, fmt.Sprintf("%s -> %s", p, hostPort(addressOrAny(b.HostIP), b.HostPort)))
		}
	}
	return lines
}
