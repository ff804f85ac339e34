package systemd

import (
	"math"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/linux/cgroup"
	"gantry/linux/dbus"
)

// property is one property of a unit.
type property struct {
	name  string
	value dbus.Variant
}

// infinity is systemd's word for no limit.
const infinity = uint64(math.MaxUint64)

// properties are collected in order.
type properties struct {
	list     []property
	version  int  // of systemd
	update   bool // of a unit that is there
	warnings []string
}

func (p *properties) add(name string, sig dbus.Signature, value any) {
	p.list = append(p.list, property{name, dbus.Variant{Type: sig, Value: value}})
}

// args returns the properties as D-Bus takes them, a(sv).
func (p *properties) args() []any {
	list := make([]any, len(p.list))
	for i, one := range p.list {
		list[i] = []any{one.name, one.value}
	}
	return list
}

// limits translates a container's limits. What systemd has no property for is set in the cgroup only, and stays, because the unit is
// delegated. It is pure.
func (p *properties) limits(r *specs.LinuxResources, unified bool) error {
	if r == nil {
		return nil
	}
	if r.Devices != nil {
		if err := p.devices(r.Devices); err != nil {
			return err
		}
	}
	if err := p.memory(r.Memory, unified); err != nil {
		return err
	}
	if c := r.CPU; c != nil {
		idle := unified && c.Idle != nil && *c.Idle == 1 && p.version >= 252
		switch {
		case idle: // a weight of 0 is how systemd says it
			if value(c.Shares) != 0 {
				p.warnings = append(p.warnings, "unable to apply both CPUWeight and CpuIdle to systemd, ignoring CPUWeight")
			}
			p.add("CPUWeight", "t", uint64(0))
		case value(c.Shares) == 0:
		case unified:
			p.add("CPUWeight", "t", cgroup.Weight(*c.Shares))
		default:
			p.add("CPUShares", "t", *c.Shares)
		}
		p.quota(value(c.Quota), value(c.Period))
		for _, one := range []struct{ field, name, set string }{{"cpus", "AllowedCPUs", c.Cpus}, {"mems", "AllowedMemoryNodes", c.Mems}} {
			if err := p.set("linux.resources.cpu."+one.field, one.name, one.set); err != nil {
				return err
			}
		}
	}
	if !unified && r.BlockIO != nil && value(r.BlockIO.Weight) != 0 {
		p.add("BlockIOWeight", "t", uint64(*r.BlockIO.Weight))
	}
	if r.Pids != nil && r.Pids.Limit != nil {
		switch n := *r.Pids.Limit; {
		case n < 0:
			p.add("TasksMax", "t", infinity)
		default:
			p.add("TasksMax", "t", uint64(max(n, 1))) // systemd takes no 0
		}
	}
	return p.unified(r.Unified)
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func (p *properties) memory(m *specs.LinuxMemory, unified bool) error {
	if m == nil {
		return nil
	}
	if !unified {
		if v := value(m.Limit); v != 0 {
			p.add("MemoryLimit", "t", uint64(v)) // -1 is infinity
		}
		return nil
	}
	swap, set, err := cgroup.Swap(value(m.Swap), value(m.Limit))
	if err != nil {
		return err
	}
	if v := value(m.Limit); v != 0 {
		p.add("MemoryMax", "t", uint64(v))
	}
	if v := value(m.Reservation); v != 0 {
		p.add("MemoryLow", "t", uint64(v))
	}
	if set {
		p.add("MemorySwapMax", "t", uint64(swap))
	}
	return nil
}

// quota sets processor time per period, both in microseconds. systemd counts in percent of a second, and rounds down: up is what the
// container was promised.
func (p *properties) quota(quota int64, period uint64) {
	if quota == 0 && period == 0 {
		return
	}
	if period != 0 && p.version >= 242 {
		p.add("CPUQuotaPeriodUSec", "t", period)
	}
	perSecond := infinity
	if quota > 0 {
		if period == 0 {
			period = 100000 // the kernel's
		}
		const percent = 10000
		perSecond = (uint64(quota)*1000000/period + percent - 1) / percent * percent
	}
	p.add("CPUQuotaPerSecUSec", "t", perSecond)
}

// set adds a set of processors or memory nodes, as bits.
func (p *properties) set(field, name, set string) error {
	if set == "" || p.version < 244 {
		return nil
	}
	bits, err := bitsOf(set)
	if err != nil {
		return errdefs.New(errdefs.InvalidParameter, "%s: %q: %w", field, set, err)
	}
	p.add(name, "ay", bits)
	return nil
}

// maxBit bounds a set: the kernel knows 8192 processors.
const maxBit = 1 << 16

// bitsOf reads "0-3,7".
func bitsOf(set string) ([]byte, error) {
	var bits []byte
	for part := range strings.SplitSeq(set, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		low, high, ok := strings.Cut(part, "-")
		if !ok {
			high = low
		}
		from, err := strconv.ParseUint(low, 10, 16)
		if err != nil {
			return nil, err
		}
		to, err := strconv.ParseUint(high, 10, 16)
		if err != nil {
			return nil, err
		}
		if from > to || to >= maxBit {
			return nil, errdefs.New(errdefs.InvalidParameter, "%q is no range", part)
		}
		if need := int(to/8) + 1; need > len(bits) {
			bits = append(bits, make([]byte, need-len(bits))...)
		}
		for n := from; n <= to; n++ {
			bits[n/8] |= 1 << (n % 8)
		}
	}
	if len(bits) == 0 {
		return nil, errdefs.New(errdefs.InvalidParameter, "the set is empty")
	}
	return bits, nil
}

// devices tells systemd what the container may use. Its own rules and the cgroup's both have to agree, so they must not be stricter:
// what systemd cannot say makes it allow everything, and leaves the decision to the cgroup's.
func (p *properties) devices(rules []specs.LinuxDeviceCgroup) error {
	allow, all, err := cgroup.DeviceAllow(rules)
	if err != nil {
		return err
	}
	entries := []any{}
	for _, a := range allow {
		entries = append(entries, []any{a.Path, a.Access})
	}
	p.add("DeviceAllow", "a(ss)", []any{}) // none of before
	if all || p.version < 240 && len(entries) > 0 {
		if !p.update {
			p.add("DevicePolicy", "s", "auto")
			return nil
		}
		// Made to allow everything by itself, systemd would forget to take away the program with the rules of before.
		entries = []any{[]any{"char-*", "rwm"}, []any{"block-*", "rwm"}}
	}
	p.add("DevicePolicy", "s", "strict")
	if len(entries) > 0 {
		p.add("DeviceAllow", "a(ss)", entries)
	}
	return nil
}

// unified translates what it can of v2's files.
func (p *properties) unified(files map[string]string) error {
	amounts := map[string]string{
		"memory.high": "MemoryHigh", "memory.low": "MemoryLow", "memory.min": "MemoryMin", "memory.max": "MemoryMax", "memory.swap.max": "MemorySwapMax",
		"pids.max": "TasksMax",
	}
	for _, name := range sorted(files) {
		text := strings.TrimSpace(files[name])
		bad := func(err error) error {
			return errdefs.New(errdefs.InvalidParameter, "linux.resources.unified: unified resource %q value conversion error: %w", name, err)
		}
		switch name {
		case "cpu.idle":
			if text == "1" && p.version >= 252 {
				p.add("CPUWeight", "t", uint64(0))
			}
		case "cpu.weight":
			if strings.TrimSpace(files["cpu.idle"]) == "1" && p.version >= 252 {
				p.warnings = append(p.warnings, "unable to apply both cpu.weight and cpu.idle to systemd, ignoring cpu.weight")
				continue
			}
			n, err := strconv.ParseUint(text, 10, 64)
			if err != nil {
				return bad(err)
			}
			p.add("CPUWeight", "t", n)
		case "cpu.max":
			f := strings.Fields(text)
			if len(f) != 1 && len(f) != 2 {
				return bad(errdefs.New(errdefs.InvalidParameter, "%q is not QUOTA [PERIOD]", text))
			}
			quota, period := int64(0), uint64(100000)
			var err error
			if f[0] != "max" {
				if quota, err = strconv.ParseInt(f[0], 10, 64); err != nil {
					return bad(err)
				}
			}
			if len(f) == 2 {
				if period, err = strconv.ParseUint(f[1], 10, 64); err != nil {
					return bad(err)
				}
			}
			if period == 0 {
				return bad(errdefs.New(errdefs.InvalidParameter, "the period is 0"))
			}
			p.quota(quota, period)
		case "cpuset.cpus", "cpuset.mems":
			to := map[string]string{"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}[name]
			if err := p.set("linux.resources.unified: "+name, to, text); err != nil {
				return err
			}
		default:
			to := amounts[name]
			if to == "" {
				continue // the cgroup has it
			}
			n := infinity
			if text != "max" {
				var err error
				if n, err = strconv.ParseUint(text, 10, 64); err != nil {
					return bad(err)
				}
			}
			if name == "pids.max" {
				n = max(n, 1)
			}
			p.add(to, "t", n)
		}
	}
	return nil
}
