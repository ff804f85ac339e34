package network

import (
	"net/netip"
	"strconv"

	"gantry/errdefs"
)

// driverOptions are a bridge network's options, decoded.
type driverOptions struct {
	device  string
	icc     bool
	masq    bool
	mtu     int
	binding netip.Addr // zero: all addresses
}

// parseOptions decodes the options; unknown ones are left alone, as Docker does.
func parseOptions(options map[string]string, defaults Options) (driverOptions, error) {
	o := driverOptions{icc: true, masq: defaults.IPMasq, mtu: defaults.MTU}
	for name, value := range options {
		var err error
		switch name {
		case OptionBridgeName:
			o.device = value
			if len(value) > 15 {
				return o, errdefs.New(errdefs.InvalidParameter, "bridge name %q is longer than 15 bytes", value)
			}
		case OptionICC:
			o.icc, err = strconv.ParseBool(value)
		case OptionMasquerade:
			o.masq, err = strconv.ParseBool(value)
		case OptionMTU:
			if o.mtu, err = strconv.Atoi(value); err == nil && (o.mtu < 0 || o.mtu > 65535) {
				err = strconv.ErrRange
			}
			if o.mtu == 0 {
				o.mtu = defaults.MTU
			}
		case OptionHostBinding:
			if value == "" {
				continue
			}
			if o.binding, err = netip.ParseAddr(value); err == nil && o.binding.IsUnspecified() {
				o.binding = netip.Addr{}
			}
		}
		if err != nil {
			return o, errdefs.New(errdefs.InvalidParameter, "invalid value for option %s: %q", name, value)
		}
	}
	if !o.binding.IsValid() && defaults.HostBinding.IsValid() && !defaults.HostBinding.IsUnspecified() {
		o.binding = defaults.HostBinding
	}
	return o, nil
}
