package cgroup

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"gantry/errdefs"
)

// access are kinds of use of a device, as the kernel numbers them.
type access uint8

const (
	accessMknod = access(unix.BPF_DEVCG_ACC_MKNOD)
	accessRead  = access(unix.BPF_DEVCG_ACC_READ)
	accessWrite = access(unix.BPF_DEVCG_ACC_WRITE)
	accessAll   = accessRead | accessWrite | accessMknod
)

func (a access) String() string {
	var b strings.Builder
	for _, one := range []struct {
		bit  access
		name byte
	}{{accessRead, 'r'}, {accessWrite, 'w'}, {accessMknod, 'm'}} {
		if a&one.bit != 0 {
			b.WriteByte(one.name)
		}
	}
	return b.String()
}

// node is a device, or all of a kind where a number is every.
type node struct {
	kind         byte // 'b' or 'c'
	major, minor int64
}

// every is a number that stands for all.
const every = -1

// covers reports whether every device of m is one of n.
func (n node) covers(m node) bool {
	return n.kind == m.kind && (n.major == every || n.major == m.major) && (n.minor == every || n.minor == m.minor)
}

// meets reports whether n and m have a device in common.
func (n node) meets(m node) bool {
	one := func(a, b int64) bool { return a == every || b == every || a == b }
	return n.kind == m.kind && one(n.major, m.major) && one(n.minor, m.minor)
}

func (n node) String() string {
	number := func(v int64) string {
		if v == every {
			return "*"
		}
		return strconv.FormatInt(v, 10)
	}
	return fmt.Sprintf("%c %s:%s", n.kind, number(n.major), number(n.minor))
}

// rule is one rule of the specification, checked.
type rule struct {
	allow  bool
	nodes  []node // one, or of both kinds
	access access
	all    bool // every access to every device
}

// parseRule checks a rule; i is its place.
func parseRule(i int, d specs.LinuxDeviceCgroup) (rule, error) {
	bad := func(field, format string, args ...any) (rule, error) {
		return rule{}, errdefs.New(errdefs.InvalidParameter, fmt.Sprintf("linux.resources.devices[%d].%s: ", i, field)+format, args...)
	}
	r := rule{allow: d.Allow}
	for _, c := range d.Access {
		switch c {
		case 'r':
			r.access |= accessRead
		case 'w':
			r.access |= accessWrite
		case 'm':
			r.access |= accessMknod
		default:
			return bad("access", "%q has more than r, w and m", d.Access)
		}
	}
	if d.Access == "" {
		r.access = accessAll
	}
	n := node{major: every, minor: every}
	for _, one := range []struct {
		name string
		from *int64
		to   *int64
	}{{"major", d.Major, &n.major}, {"minor", d.Minor, &n.minor}} {
		if one.from == nil || *one.from < 0 {
			continue
		}
		if *one.from > math.MaxInt32 {
			return bad(one.name, "%d is no number of a device", *one.from)
		}
		*one.to = *one.from
	}
	switch d.Type {
	case "", "a":
		r.nodes = []node{{'b', n.major, n.minor}, {'c', n.major, n.minor}}
		r.all = n.major == every && n.minor == every && r.access == accessAll
	case "b", "c":
		n.kind = d.Type[0]
		r.nodes = []node{n}
	case "u": // the kernel's old word for unbuffered
		n.kind = 'c'
		r.nodes = []node{n}
	default:
		return bad("type", "device rule of unknown type %q", d.Type)
	}
	return r, nil
}

// DefaultDevices are the rules that every container has after its own: what programs take for granted.
func DefaultDevices() []specs.LinuxDeviceCgroup {
	var rules []specs.LinuxDeviceCgroup
	add := func(kind, access string, major, minor int64) {
		d := specs.LinuxDeviceCgroup{Allow: true, Type: kind, Access: access}
		if major != every {
			d.Major = &major
		}
		if minor != every {
			d.Minor = &minor
		}
		rules = append(rules, d)
	}
	add("c", "m", every, every)
	add("b", "m", every, every)
	for _, minor := range []int64{3, 5, 7, 8, 9} { // null, zero, full, random, urandom
		add("c", "rwm", 1, minor)
	}
	add("c", "rwm", 5, 0)       // tty
	add("c", "rwm", 5, 2)       // ptmx
	add("c", "rwm", 136, every) // terminals
	return rules
}

// rulesOf returns a container's rules: its own and the defaults.
func rulesOf(r *specs.LinuxResources) []specs.LinuxDeviceCgroup {
	if r == nil {
		return DefaultDevices()
	}
	return append(slices.Clip(r.Devices), DefaultDevices()...)
}

// target is what a list of rules comes to: an answer, and the exceptions from it.
type target struct {
	allow  bool
	except map[node]access
	err    error // a rule is wrong, or asks for what v1 cannot
}

// targetOf adds up rules in order, from none on, which is to deny. Exceptions from exceptions, as v2 can have, v1 cannot.
func targetOf(rules []specs.LinuxDeviceCgroup) target {
	t := target{except: map[node]access{}}
	for i, d := range rules {
		r, err := parseRule(i, d)
		if err != nil {
			return target{err: err}
		}
		if r.all {
			t.allow = r.allow
			clear(t.except)
			continue
		}
		for _, n := range r.nodes {
			if r.allow != t.allow {
				t.except[n] |= r.access
				continue
			}
			for e, bits := range t.except {
				switch {
				case bits&r.access == 0 || !n.meets(e):
				case n.covers(e):
					if bits &^= r.access; bits == 0 {
						delete(t.except, e)
					} else {
						t.except[e] = bits
					}
				default:
					return target{err: errdefs.New(errdefs.NotImplemented, "linux.resources.devices[%d]: cgroup v1 cannot make an exception (%v %v) from a wider rule (%v %v)", i, n, r.access, e, bits)}
				}
			}
		}
	}
	return t
}

// everything reports whether every access to every device is allowed.
func (t target) everything() bool { return t.err == nil && t.allow && len(t.except) == 0 }

// nodes returns the exceptions' devices in a fixed order.
func (t target) nodes() []node {
	list := make([]node, 0, len(t.except))
	for n := range t.except {
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b node) int {
		return cmp.Or(cmp.Compare(a.major, b.major), cmp.Compare(a.minor, b.minor), cmp.Compare(a.kind, b.kind))
	})
	return list
}

// parseDevicesList reads devices.list. With allow set the exceptions are not told.
func parseDevicesList(text string) (target, error) {
	t := target{except: map[node]access{}}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if f[0] == "a" {
			t.allow = true
			continue
		}
		var n node
		var bits access
		if len(f) == 3 && len(f[0]) == 1 && (f[0] == "b" || f[0] == "c") {
			n.kind = f[0][0]
			major, minor, ok := strings.Cut(f[1], ":")
			for _, one := range []struct {
				text string
				to   *int64
			}{{major, &n.major}, {minor, &n.minor}} {
				v, err := strconv.ParseInt(one.text, 10, 64)
				if one.text == "*" {
					v, err = every, nil
				}
				ok = ok && err == nil
				*one.to = v
			}
			for _, c := range f[2] {
				bits |= map[rune]access{'r': accessRead, 'w': accessWrite, 'm': accessMknod}[c]
			}
			if ok && bits != 0 {
				t.except[n] |= bits
				continue
			}
		}
		return target{}, fmt.Errorf("devices.list has a line %q", strings.TrimSpace(line))
	}
	return t, nil
}

// change is one write to devices.allow or devices.deny.
type change struct {
	allow bool
	text  string
}

// changes says how to come from one state to another without a moment in which less is allowed than in both: the exceptions of a
// cgroup that denies are added before others are taken away. known is false when from is not, or not whole.
func changes(from, to target, known bool) []change {
	var list []change
	if !known || from.allow != to.allow || from.allow { // exceptions from "all" cannot be read, so they are made anew
		list = append(list, change{to.allow, "a"})
		from = target{allow: to.allow}
	}
	for _, n := range to.nodes() {
		if more := to.except[n] &^ from.except[n]; more != 0 {
			list = append(list, change{!to.allow, fmt.Sprintf("%v %v", n, more)})
		}
	}
	for _, n := range from.nodes() {
		if less := from.except[n] &^ to.except[n]; less != 0 {
			list = append(list, change{to.allow, fmt.Sprintf("%v %v", n, less)})
		}
	}
	return list
}

// devicesV1 gives the devices controller its rules.
func (c *Cgroup) devicesV1(to target, rootless bool) error {
	const field = "linux.resources.devices: "
	if to.err != nil {
		return to.err
	}
	dir := c.dir("devices")
	if dir == "" {
		if rootless {
			return nil
		}
		return errdefs.New(errdefs.NotImplemented, field+"controller devices is not there")
	}
	var from target
	if c.taken {
		text, err := read(dir + "/devices.list")
		if err != nil {
			return fmt.Errorf(field+"%w", err)
		}
		if from, err = parseDevicesList(text); err != nil {
			return fmt.Errorf(field+"%w", err)
		}
	}
	for _, s := range changes(from, to, c.taken) {
		file := "/devices.deny"
		if s.allow {
			file = "/devices.allow"
		}
		if err := write(dir+file, s.text); err != nil {
			if permission(err) && (rootless || nestedUser()) { // the machine's rules hold
				return nil
			}
			return fmt.Errorf(field+"%w", err)
		}
	}
	return nil
}

// nestedUser reports whether this process is in a user namespace of its own.
func nestedUser() bool {
	text, err := read("/proc/self/uid_map")
	f := strings.Fields(text)
	return err == nil && !(len(f) == 3 && f[0] == "0" && f[1] == "0" && f[2] == "4294967295")
}

// DeviceAllowance is one line of systemd's DeviceAllow=.
type DeviceAllowance struct{ Path, Access string }

// DeviceAllow puts rules into systemd's words; all says that everything has to be allowed: it is, or systemd has no words for the rules.
// What systemd allows beyond the rules the cgroup's own program denies.
func DeviceAllow(rules []specs.LinuxDeviceCgroup) (allow []DeviceAllowance, all bool, err error) {
	var punched []specs.LinuxDeviceCgroup
	for i, d := range rules {
		if _, err := parseRule(i, d); err != nil {
			return nil, false, err
		}
		punched = append(punched, d)
		if targetOf(punched).err != nil { // an exception from a wider rule
			punched = punched[:len(punched)-1]
		}
	}
	t := targetOf(punched)
	if t.allow {
		return nil, true, nil
	}
	for _, n := range t.nodes() {
		group := map[byte]string{'b': "block", 'c': "char"}[n.kind]
		a := DeviceAllowance{Access: t.except[n].String()}
		switch {
		case n.major == every && n.minor == every:
			a.Path = group + "-*"
		case n.major == every:
			return nil, true, nil
		case n.minor == every:
			a.Path = fmt.Sprintf("%s-%d", group, n.major)
		default:
			a.Path = fmt.Sprintf("/dev/%s/%d:%d", group, n.major, n.minor)
		}
		allow = append(allow, a)
	}
	return allow, false, nil
}
