package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"
)

func networkCreateCommand() *command {
	return &command{
		name: "create", use: "[OPTIONS] NETWORK", short: "Create a network", min: 1, max: 1,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			r := network.CreateRequest{IPAM: &network.IPAM{}}
			var ipv4, ipv6 bool
			var from string
			var subnets, ranges, gateways, labels []string
			var aux map[string]string
			fs.BoolVar(&r.Attachable, "attachable", false, "Enable manual container attachment")
			fs.Var(&mapValue{values: &aux}, "aux-address", "Auxiliary IPv4 or IPv6 addresses used by Network driver")
			fs.StringVar(&from, "config-from", "", "The network from which to copy the configuration")
			fs.BoolVar(&r.ConfigOnly, "config-only", false, "Create a configuration only network")
			fs.StringVarP(&r.Driver, "driver", "d", "bridge", "Driver to manage the Network")
			fs.StringSliceVar(&gateways, "gateway", nil, "IPv4 or IPv6 Gateway for the master subnet")
			fs.BoolVar(&r.Ingress, "ingress", false, "Create swarm routing-mesh network")
			fs.BoolVar(&r.Internal, "internal", false, "Restrict external access to the network")
			fs.StringSliceVar(&ranges, "ip-range", nil, "Allocate container ip from a sub-range")
			fs.StringVar(&r.IPAM.Driver, "ipam-driver", "default", "IP Address Management Driver")
			fs.Var(&mapValue{values: &r.IPAM.Options}, "ipam-opt", "Set IPAM driver specific options")
			fs.BoolVar(&ipv4, "ipv4", true, "Enable or disable IPv4 address assignment")
			fs.BoolVar(&ipv6, "ipv6", false, "Enable or disable IPv6 address assignment")
			fs.Var(&listValue{values: &labels, check: checkLabel}, "label", "Set metadata on a network")
			fs.VarP(&mapValue{values: &r.Options}, "opt", "o", "Set driver specific options")
			fs.StringVar(&r.Scope, "scope", "", "Control the network's scope")
			fs.StringSliceVar(&subnets, "subnet", nil, "Subnet in CIDR format that represents a network segment")
			return func(ctx context.Context, args []string) error {
				r.Name = args[0]
				if r.Name == "" {
					return errors.New("network name cannot be empty")
				}
				var err error
				if r.IPAM.Config, err = ipamConfig(subnets, ranges, gateways, aux); err != nil {
					return err
				}
				r.Labels = keyValues(labels)
				if fs.Changed("ipv4") {
					r.EnableIPv4 = &ipv4
				}
				if fs.Changed("ipv6") {
					r.EnableIPv6 = &ipv6
				}
				if from != "" {
					r.ConfigFrom = &network.ConfigReference{Network: from}
				}
				c, err := a.client()
				if err != nil {
					return err
				}
				resp, err := c.NetworkCreate(ctx, r)
				if err != nil {
					return err
				}
				if resp.Warning != "" {
					fmt.Fprintln(a.err, "WARNING:", resp.Warning)
				}
				fmt.Fprintln(a.out, resp.ID)
				return nil
			}
		},
	}
}
