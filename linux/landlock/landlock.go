// Package landlock reads a description of what programs may do to files, ports and each other, and makes of it what Landlock, the kernel's
// sandbox for everybody, takes.
package landlock

import (
	"bytes"
	"encoding/json"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"gantry/errdefs"
)

// Policy is what a program is held to. Its JSON has the shape that was proposed for the runtime specification, with the words of the
// kernel's headers in small letters.
type Policy struct {
	// Ruleset says what is restricted: an access named here is denied but where a rule allows it. Nothing named: everything there is.
	Ruleset Ruleset `json:"ruleset"`
	Rules   Rules   `json:"rules"`
	// DisableBestEffort makes it an error that the kernel cannot restrict something, or that a path of a rule is not there.
	DisableBestEffort bool `json:"disableBestEffort,omitempty"`
}

// Ruleset is what is restricted.
type Ruleset struct {
	HandledAccessFS  []string `json:"handledAccessFS,omitempty"`
	HandledAccessNet []string `json:"handledAccessNet,omitempty"`
	Scoped           []string `json:"scoped,omitempty"`
}

// Rules are the exceptions.
type Rules struct {
	PathBeneath []PathBeneath `json:"pathBeneath,omitempty"`
	NetPort     []NetPort     `json:"netPort,omitempty"`
}

// PathBeneath allows accesses to files, and to all below them.
type PathBeneath struct {
	AllowedAccess []string `json:"allowedAccess"`
	Paths         []string `json:"paths"` // in the container
}

// NetPort allows accesses to ports.
type NetPort struct {
	AllowedAccess []string `json:"allowedAccess"`
	Ports         []uint16 `json:"ports"`
}

// access is a right of the kernel's ABI.
type access struct {
	name string
	abi  int // the first version that has it
}

// Rights in the order of their bits.
var (
	files = []access{
		{"execute", 1}, {"write_file", 1}, {"read_file", 1}, {"read_dir", 1}, {"remove_dir", 1}, {"remove_file", 1}, {"make_char", 1}, {"make_dir", 1},
		{"make_reg", 1}, {"make_sock", 1}, {"make_fifo", 1}, {"make_block", 1}, {"make_sym", 1}, {"refer", 2}, {"truncate", 3}, {"ioctl_dev", 5},
	}
	ports  = []access{{"bind_tcp", 4}, {"connect_tcp", 4}}
	scopes = []access{{"abstract_unix_socket", 6}, {"signal", 6}}
)

// ofFiles are the rights that something which is not a directory can be given.
const ofFiles = 1<<0 | 1<<1 | 1<<2 | 1<<14 | 1<<15

// Limits of a policy.
const (
	maxRules = 4096
	maxBytes = 1 << 20
)

// Parse reads a policy.
func Parse(text string) (*Policy, error) {
	if len(text) > maxBytes {
		return nil, errdefs.New(errdefs.InvalidParameter, "landlock: more than %d bytes", maxBytes)
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields() // what is misspelled would not restrict
	var p *Policy
	if err := d.Decode(&p); err != nil {
		return nil, errdefs.New(errdefs.InvalidParameter, "landlock: %w", err)
	}
	var rest bytes.Buffer
	if _, err := rest.ReadFrom(d.Buffered()); err != nil || strings.TrimSpace(rest.String()) != "" || p == nil {
		return nil, errdefs.New(errdefs.InvalidParameter, "landlock: it is not one JSON object")
	}
	_, _, err := p.compile(latest)
	return p, err
}

// latest is an ABI that has everything known here.
const latest = 6

// ABI returns the version of Landlock that the kernel has; 0: none.
func ABI() int {
	const version = 1 // LANDLOCK_CREATE_RULESET_VERSION
	n, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, version)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// Restriction is a policy as the kernel takes it.
type Restriction struct {
	FS, Net, Scoped uint64
	Paths           []PathRule
	Ports           []PortRule
	Strict          bool // a path that is not there is an error
}

// PathRule allows accesses to a path.
type PathRule struct {
	Path   string
	Access uint64
	File   uint64 // the part of Access that is left for something which is not a directory
}

// PortRule allows accesses to a port.
type PortRule struct {
	Port   uint16
	Access uint64
}

// Compile returns what a kernel of the given ABI can do of the policy, or nil if that is nothing, and what it cannot, which is an error if
// the policy wants all.
func (p *Policy) Compile(abi int) (r *Restriction, lost []string, err error) {
	r, lost, err = p.compile(abi)
	if err == nil && len(lost) > 0 && p.DisableBestEffort {
		err = errdefs.New(errdefs.NotImplemented, "landlock: this kernel (ABI %d) cannot restrict %s", abi, strings.Join(lost, ", "))
	}
	if err != nil || r.FS|r.Net|r.Scoped == 0 {
		return nil, lost, err
	}
	return r, lost, nil
}

func (p *Policy) compile(abi int) (*Restriction, []string, error) {
	r := &Restriction{Strict: p.DisableBestEffort}
	var lost []string
	names := func(what string, list []string, known []access) (uint64, error) {
		mask, missing, err := bits(what, list, known, abi)
		lost = append(lost, missing...)
		return mask, err
	}
	handled := p.Ruleset
	if len(handled.HandledAccessFS)+len(handled.HandledAccessNet)+len(handled.Scoped) == 0 {
		// Everything there is on this kernel, which asks for nothing in particular.
		r.FS, r.Net, r.Scoped = all(files, abi), all(ports, abi), all(scopes, abi)
		if abi == 0 {
			lost = append(lost, "anything")
		}
	} else {
		var errs [3]error
		r.FS, errs[0] = names("ruleset.handledAccessFS", handled.HandledAccessFS, files)
		r.Net, errs[1] = names("ruleset.handledAccessNet", handled.HandledAccessNet, ports)
		r.Scoped, errs[2] = names("ruleset.scoped", handled.Scoped, scopes)
		for _, err := range errs {
			if err != nil {
				return nil, nil, err
			}
		}
	}
	for _, rule := range p.Rules.PathBeneath {
		mask, _, err := bits("rules.pathBeneath.allowedAccess", rule.AllowedAccess, files, abi)
		if err != nil {
			return nil, nil, err
		}
		for _, name := range rule.Paths {
			if !path.IsAbs(name) || strings.ContainsRune(name, 0) {
				return nil, nil, errdefs.New(errdefs.InvalidParameter, "landlock: rules.pathBeneath.paths: %q is not an absolute path", name)
			}
			if mask &= r.FS; mask != 0 { // what is not restricted needs no exception
				r.Paths = append(r.Paths, PathRule{name, mask, mask & ofFiles})
			}
		}
	}
	for _, rule := range p.Rules.NetPort {
		mask, _, err := bits("rules.netPort.allowedAccess", rule.AllowedAccess, ports, abi)
		if err != nil {
			return nil, nil, err
		}
		for _, port := range rule.Ports {
			if mask &= r.Net; mask != 0 {
				r.Ports = append(r.Ports, PortRule{port, mask})
			}
		}
	}
	if len(r.Paths)+len(r.Ports) > maxRules {
		return nil, nil, errdefs.New(errdefs.InvalidParameter, "landlock: more than %d rules", maxRules)
	}
	return r, lost, nil
}

// bits returns the rights of those names that abi has, and the names of those that it has not.
func bits(field string, list []string, known []access, abi int) (mask uint64, lost []string, err error) {
	for _, name := range list {
		i := slices.IndexFunc(known, func(a access) bool { return a.name == name })
		switch {
		case i < 0:
			return 0, nil, errdefs.New(errdefs.InvalidParameter, "landlock: %s: %q is unknown", field, name)
		case known[i].abi > abi:
			lost = append(lost, name)
		default:
			mask |= 1 << i
		}
	}
	return mask, lost, nil
}

func all(known []access, abi int) (mask uint64) {
	for i, a := range known {
		if a.abi <= abi {
			mask |= 1 << i
		}
	}
	return mask
}
