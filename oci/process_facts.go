package oci

import (
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/linux/apparmor"
	"gantry/linux/cred"
	"gantry/linux/ns"
	"gantry/oci/initproc"
)

// host is what this process may pass on.
type host struct {
	own      cred.Own
	hard     map[int]uint64 // its hard limits, of those asked for
	oomScore int            // its own adjustment
	raise    bool           // it may raise hard limits and lower the adjustment
}

// facts reads what of p depends on this machine and this process.
func facts(p *specs.Process) (host, error) {
	own, err := cred.Self()
	if err != nil {
		return host{}, fmt.Errorf("read own capabilities: %w", err)
	}
	h := host{own: own, hard: map[int]uint64{}, raise: own.Permitted&(1<<cred.SysResource) != 0 && ns.Privileged()}
	for _, l := range p.Rlimits {
		n, err := cred.Rlimit(l.Type)
		if err != nil {
			return host{}, err
		}
		if h.hard[n], err = cred.HardLimit(n); err != nil {
			return host{}, fmt.Errorf("read own %s: %w", l.Type, err)
		}
	}
	if p.OOMScoreAdj != nil {
		data, err := os.ReadFile("/proc/self/oom_score_adj")
		if err != nil {
			return host{}, err
		}
		if h.oomScore, err = strconv.Atoi(strings.TrimSpace(string(data))); err != nil {
			return host{}, fmt.Errorf("read own OOM score adjustment: %w", err)
		}
	}
	return h, nil
}

// fill translates the specification's process for the script. What the host cannot give is replaced by the nearest it can, and
// said so in the warnings.
func (h host) fill(in *initproc.Process, p *specs.Process) (warnings []string) {
	warn := func(format string, args ...any) { warnings = append(warnings, fmt.Sprintf(format, args...)) }
	in.Args, in.Env, in.Cwd, in.User = p.Args, p.Env, p.Cwd, p.User
	in.Paths = candidates(p.Args[0], p.Env)
	in.NoNewPrivs = p.NoNewPrivileges
	in.LastCap, in.Own = h.own.Last, h.own.Permitted
	may := h.own.Permitted & h.own.Bounding
	set := func(list []string) uint64 {
		mask, unknown := cred.Mask(list)
		if len(unknown) > 0 {
			warn("unknown capabilities are left out: %s", strings.Join(unknown, ", "))
		}
		return mask & may
	}
	if c := p.Capabilities; c != nil {
		if mask, _ := cred.Mask(c.Bounding); mask&^may != 0 {
			var lost []string
			for n := range 64 {
				if (mask&^may)&(1<<n) != 0 {
					lost = append(lost, cred.CapabilityName(n))
				}
			}
			warn("capabilities that the engine itself lacks are left out: %s", strings.Join(lost, ", "))
		}
		in.Bounding, in.Effective, in.Permitted = set(c.Bounding), set(c.Effective), set(c.Permitted)
		in.Inheritable, in.Ambient = set(c.Inheritable), set(c.Ambient)
		in.Effective &= in.Permitted
		in.Inheritable &= in.Bounding
		for n := range 64 {
			if (in.Ambient&^(in.Permitted&in.Inheritable))&(1<<n) != 0 {
				warn("can't raise ambient capability %s: it is not among those permitted and inheritable", cred.CapabilityName(n))
			}
		}
		in.Ambient &= in.Permitted & in.Inheritable
	}
	for _, l := range p.Rlimits {
		n, _ := cred.Rlimit(l.Type) // facts has refused unknown ones
		soft, hard := l.Soft, l.Hard
		if most := h.hard[n]; hard > most && !h.raise {
			warn("%s of %d is more than the %d the engine itself has: set to that", l.Type, hard, most)
			hard = most
		}
		in.Rlimits = append(in.Rlimits, initproc.Rlimit{Resource: n, Name: l.Type, Soft: min(soft, hard), Hard: hard})
	}
	if p.OOMScoreAdj != nil {
		score := *p.OOMScoreAdj
		if score < h.oomScore && !h.raise {
			warn("OOM score adjustment %d is less than the engine's own %d: set to that", score, h.oomScore)
			score = h.oomScore
		}
		if score != h.oomScore { // the child is born with the parent's
			in.OOMScoreAdj = &score
		}
	}
	return warnings
}

// labels gives the process what security modules are told about its program. A module that is asked for and not there is an error: a
// program that is to be confined must not run without.
func labels(in *initproc.Process, p *specs.Process) error {
	if p.ApparmorProfile != "" {
		switch {
		case apparmor.Enabled():
			in.AppArmor = &initproc.Label{File: apparmor.ExecFile(), Value: "exec " + p.ApparmorProfile}
		case p.ApparmorProfile != "unconfined":
			return bad("process.apparmorProfile: %q cannot be set: this kernel runs without AppArmor", p.ApparmorProfile)
		}
	}
	if p.SelinuxLabel != "" {
		if !cred.SELinux() {
			return bad("process.selinuxLabel: %q cannot be set: this kernel runs without SELinux", p.SelinuxLabel)
		}
		in.SELinux = &initproc.Label{File: "attr/exec", Value: p.SelinuxLabel}
	}
	return nil
}

// defaultPath is where programs are looked for when the environment does not say.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// candidates returns the paths that a program's name may mean, in order.
func candidates(name string, env []string) []string {
	if strings.Contains(name, "/") {
		return []string{name}
	}
	search := defaultPath
	for _, kv := range env { // the last one wins, as in the program's own view
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			search = v
		}
	}
	var list []string
	for _, dir := range strings.Split(search, ":") {
		list = append(list, path.Join("/", dir, name)) // an empty or relative entry means the root, not the working directory
	}
	return list
}

// Limits on what a specification may hold; far above what any has, below what exhausts this process.
const (
	maxArgs   = 1 << 16
	maxMounts = 4096
)

// validate refuses a specification that no script can be made of.
func validate(s *specs.Spec) error {
	bad := func(format string, args ...any) error { return errdefs.New(errdefs.InvalidParameter, format, args...) }
	switch {
	case s == nil:
		return bad("there is no specification")
	case s.Process == nil:
		return bad("the specification has no process")
	case s.Linux == nil:
		return bad("the specification has no linux part")
	case len(s.Mounts) > maxMounts, len(s.Linux.MaskedPaths) > maxMounts, len(s.Linux.ReadonlyPaths) > maxMounts, len(s.Linux.Devices) > maxMounts, len(s.Linux.Sysctl) > maxMounts:
		return bad("the specification has more than %d mounts, paths, devices or sysctls", maxMounts)
	}
	return validateProcess(s.Process, append(append([]string{s.Hostname, s.Domainname}, s.Linux.MaskedPaths...), s.Linux.ReadonlyPaths...))
}

func validateProcess(p *specs.Process, more []string) error {
	bad := func(format string, args ...any) error { return errdefs.New(errdefs.InvalidParameter, format, args...) }
	switch {
	case p == nil:
		return bad("the specification has no process")
	case len(p.Args) == 0 || p.Args[0] == "":
		return bad("the process has no program")
	case p.CommandLine != "":
		return bad("process.commandLine: it is for Windows; here process.args says what to execute")
	case len(p.Args) > maxArgs || len(p.Env) > maxArgs:
		return bad("the process has more than %d arguments or variables", maxArgs)
	case !path.IsAbs(p.Cwd):
		return bad("working directory %q is not an absolute path", p.Cwd)
	case len(p.User.AdditionalGids) > 65536:
		return bad("the process has more than 65536 groups")
	case p.User.UID == ^uint32(0) || p.User.GID == ^uint32(0):
		return bad("user or group 4294967295 is none")
	}
	for _, list := range [][]string{p.Args, p.Env, {p.Cwd}, more} {
		for _, s := range list {
			if strings.ContainsRune(s, 0) {
				return bad("%q has a zero byte", s)
			}
		}
	}
	for i, kv := range p.Env {
		if strings.IndexByte(kv, '=') <= 0 {
			return bad("process.env[%d]: %q is not a name, an equals sign and a value", i, kv)
		}
	}
	if strings.ContainsRune(p.ApparmorProfile+p.SelinuxLabel, 0) {
		return bad("process.apparmorProfile, process.selinuxLabel: a zero byte")
	}
	seen := map[string]bool{}
	for i, l := range p.Rlimits {
		if seen[l.Type] {
			return bad("process.rlimits[%d].type: %s is there twice", i, l.Type)
		}
		seen[l.Type] = true
		if l.Soft > l.Hard {
			return bad("%s: soft limit %d is above the hard limit %d", l.Type, l.Soft, l.Hard)
		}
	}
	return nil
}
