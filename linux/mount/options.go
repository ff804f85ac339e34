package mount

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"gantry/errdefs"
)

// Options are classic mount options, sorted by what they act on.
type Options struct {
	Bind           bool        // "bind" or "rbind"
	Recursive      bool        // "rbind"
	Set, Clear     Attr        // of the mount itself
	RecSet         Attr        // "rro", "rnosuid", ...: of the mount and all below
	RecClear       Attr        // "rrw", ...
	Propagation    Propagation // zero if none is named
	PropagationRec bool        // "rprivate", ...
	Data           []string    // for the file system: "size=64m", "sync", ...
	CopyUp         bool        // "tmpcopyup": fill a new tmpfs with what it hides
	IDMap          bool        // "idmap" or "ridmap": owners are translated
	IDMapRec       bool        // "ridmap": those of the mounts below it, too
	Remount        bool        // "remount": a bind keeps the attributes of its source that no option names
}

type attrOption struct {
	attr  Attr
	clear bool
}

func attrOf(name string) (attrOption, bool) {
	switch name {
	case "ro":
		return attrOption{ReadOnly, false}, true
	case "rw":
		return attrOption{ReadOnly, true}, true
	case "nosuid":
		return attrOption{NoSuid, false}, true
	case "suid":
		return attrOption{NoSuid, true}, true
	case "nodev":
		return attrOption{NoDev, false}, true
	case "dev":
		return attrOption{NoDev, true}, true
	case "noexec":
		return attrOption{NoExec, false}, true
	case "exec":
		return attrOption{NoExec, true}, true
	case "nodiratime":
		return attrOption{NoDirAtime, false}, true
	case "diratime":
		return attrOption{NoDirAtime, true}, true
	case "noatime":
		return attrOption{NoAtime, false}, true
	case "atime", "relatime":
		return attrOption{atimeMask, true}, true
	case "norelatime", "strictatime":
		return attrOption{StrictAtime, false}, true
	case "nostrictatime":
		return attrOption{atimeMask, true}, true
	case "nosymfollow":
		return attrOption{NoSymFollow, false}, true
	case "symfollow":
		return attrOption{NoSymFollow, true}, true
	}
	return attrOption{}, false
}

// Parse sorts options as mount(8) and the OCI runtime specification write them. Unknown ones go to Data, for the file system to
// judge; a later option wins over an earlier one.
func Parse(options []string) (Options, error) {
	var o Options
	apply := func(a attrOption, set, clear *Attr) {
		group := a.attr
		if group&atimeMask != 0 {
			group = atimeMask
		}
		*set &^= group
		*clear &^= group
		if a.clear {
			*clear |= group
		} else {
			*set |= a.attr
			if group == atimeMask {
				*clear |= group
			}
		}
	}
	for _, name := range options {
		if strings.ContainsRune(name, 0) {
			return Options{}, errdefs.With(errdefs.InvalidParameter, errors.New("mount option with a zero byte"))
		}
		if a, ok := attrOf(name); ok {
			apply(a, &o.Set, &o.Clear)
			continue
		}
		if rest, ok := strings.CutPrefix(name, "r"); ok {
			if a, ok := attrOf(rest); ok {
				apply(a, &o.RecSet, &o.RecClear)
				continue
			}
		}
		switch name {
		case "", "defaults", "async", "loud", "nomand", "mand", "noiversion":
		case "bind":
			o.Bind = true
		case "rbind":
			o.Bind, o.Recursive = true, true
		case "private", "rprivate":
			o.Propagation, o.PropagationRec = unix.MS_PRIVATE, name[0] == 'r'
		case "slave", "rslave":
			o.Propagation, o.PropagationRec = unix.MS_SLAVE, name[0] == 'r'
		case "shared", "rshared":
			o.Propagation, o.PropagationRec = unix.MS_SHARED, name[0] == 'r'
		case "unbindable", "runbindable":
			o.Propagation, o.PropagationRec = unix.MS_UNBINDABLE, name[0] == 'r'
		case "tmpcopyup":
			o.CopyUp = true
		case "idmap", "ridmap":
			o.IDMap, o.IDMapRec = true, name[0] == 'r'
		case "remount":
			o.Remount = true
		default:
			o.Data = append(o.Data, name)
		}
	}
	return o, nil
}
