package systemd

import (
	"math"
	"slices"
	"strings"

	"gantry/errdefs"
	"gantry/linux/dbus"
)

func sorted[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// annotations adds the properties that a container's annotations ask for: org.systemd.property.NAME is a value in GVariant's text form.
// A time in seconds, NAMESec, becomes one in microseconds, NAMEUSec, as in systemd's own files.
func (p *properties) annotations(all map[string]string) error {
	for _, key := range sorted(all) {
		name, ok := strings.CutPrefix(key, "org.systemd.property.")
		if !ok {
			continue
		}
		bad := func(err error) error {
			return errdefs.New(errdefs.InvalidParameter, "annotations: %s=%s: %w", key, all[key], err)
		}
		if len(name) < 3 || strings.ContainsFunc(name, func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') }) {
			return bad(errdefs.New(errdefs.InvalidParameter, "%q is no name of a property", name))
		}
		v, err := dbus.ParseText(all[key])
		if err != nil {
			return bad(err)
		}
		if stem, ok := strings.CutSuffix(name, "Sec"); ok && stem != "" && stem[len(stem)-1] >= 'a' && stem[len(stem)-1] <= 'z' {
			name = stem + "USec"
			if v, err = microseconds(v); err != nil {
				return bad(err)
			}
		}
		p.list = append(p.list, property{name, v})
	}
	return nil
}

// microseconds converts a number of seconds.
func microseconds(v dbus.Variant) (dbus.Variant, error) {
	const us = 1000000
	n := uint64(0)
	switch x := v.Value.(type) {
	case byte:
		n = uint64(x)
	case int16:
		n = uint64(x)
	case uint16:
		n = uint64(x)
	case int32:
		n = uint64(x)
	case uint32:
		n = uint64(x)
	case int64:
		n = uint64(x)
	case uint64:
		n = x
	case float64:
		if x < 0 || x > math.MaxInt64/us {
			return v, errdefs.New(errdefs.InvalidParameter, "%v is no number of seconds", x)
		}
		return dbus.Variant{Type: "t", Value: uint64(x * us)}, nil
	default:
		return v, errdefs.New(errdefs.InvalidParameter, "it is no number of seconds")
	}
	if n > math.MaxInt64/us {
		return v, errdefs.New(errdefs.InvalidParameter, "%v is no number of seconds", v.Value)
	}
	return dbus.Variant{Type: "t", Value: n * us}, nil
}
