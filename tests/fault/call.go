package fault

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Kind says what a call needs.
type Kind int

// Kinds of calls. A file system without space refuses those that take some, one without inodes those that make a file.
const (
	Open   Kind = iota + 1 // takes a descriptor, changes nothing
	Create                 // makes a file, or opens one that it would make
	Write                  // takes space
	Name                   // gives a file another name
	Delete                 // gives space back
	Sync
	Attribute
	Read // of a Supervisor with Reads
)

// Call is a system call that is about to be made in the data root.
type Call struct {
	Point string // verb and paths relative to the data root, with stars where digests and random names are
	Kind  Kind
	Path  string // relative to the data root, as it is
}

// form is how a call is to be read: where its paths and descriptors are among its arguments.
type form struct {
	verb string
	kind Kind
	at   string // "f0": descriptor in argument 0; "p0": path; "a0": folder's descriptor and path after it; "o0", "o1", "O2": path, folder and path, of open and its flags; two are a source and a target
}

// unpacking is what the process is called that unpacks a layer, or works on its recipe: its paths are those of its own root, or of the layer.
const unpacking = "gantry-unpack"

// decode reads a call of a thread. It is false for one that has nothing to do with the data root, or makes no difference there.
func decode(tid, number int, args [6]uint64, root string) (Call, bool) {
	f := calls()[number]
	c := Call{Kind: f.kind}
	proc := fmt.Sprintf("/proc/%d", tid)
	var names []string
	for at := f.at; at != ""; at = at[2:] {
		i := int(at[1] - '0')
		var path string
		var ok bool
		switch at[0] {
		case 'f':
			path, ok = descriptor(proc, int32(args[i]))
		case 'p', 'o':
			path, ok = named(proc, -100, args[i])
		default:
			path, ok = named(proc, int32(args[i]), args[i+1])
		}
		var flags uint64
		switch at[0] {
		case 'o':
			flags = args[i+1]
		case 'b':
			flags = args[i+2]
		case 'O':
			flags = binary.NativeEndian.Uint64(append(memory(proc, args[i+2], 8), make([]byte, 8)...))
		}
		if flags&uint64(os.O_CREATE) != 0 {
			f.verb, c.Kind = "create", Create
		} else if flags&uint64(os.O_TRUNC) != 0 {
			f.verb, c.Kind = "open and truncate", Write
		}
		if !ok {
			return c, false
		}
		rel, inside := within(root, path)
		if !inside {
			argv, err := os.ReadFile(proc + "/cmdline")
			if err != nil || !strings.HasPrefix(string(argv), unpacking+"\x00") || f.at[0] == 'f' && !strings.HasPrefix(path, "/") {
				return c, false
			}
			rel = "(layer)" + path
		}
		c.Path = rel
		names = append(names, Mask(rel))
	}
	if f.verb == "open" && len(names) == 1 {
		c.Kind = Open
	}
	c.Point = f.verb + " " + strings.Join(names, " -> ")
	return c, true
}

// Mask puts stars where digests, IDs and random names are in a path.
func Mask(path string) string {
	if strings.HasPrefix(path, "(layer)") {
		return "(layer)/*"
	}
	path = random.ReplaceAllString(digests.ReplaceAllString(path, "*"), "$1*")
	return contents.ReplaceAllString(path, "$1/*")
}

var (
	digests  = regexp.MustCompile(`[0-9a-f]{64}`)
	random   = regexp.MustCompile(`(\b|-)[0-9]{4,}\b`)
	contents = regexp.MustCompile(`(tmp/layer-\*/fs|layers/\*/fs)/.*`)
)

func descriptor(proc string, fd int32) (string, bool) {
	path, err := os.Readlink(fmt.Sprintf("%s/fd/%d", proc, fd))
	return path, err == nil && strings.HasPrefix(path, "/")
}

// named returns the path of a name in a folder, or in the working directory for AT_FDCWD.
func named(proc string, fd int32, address uint64) (string, bool) {
	name, _, ok := bytes.Cut(memory(proc, address, 4096), []byte{0})
	switch {
	case !ok:
		return "", false
	case filepath.IsAbs(string(name)):
		return filepath.Clean(string(name)), true
	case fd == -100:
		cwd, err := os.Readlink(proc + "/cwd")
		return filepath.Join(cwd, string(name)), err == nil
	default:
		folder, ok := descriptor(proc, fd)
		return filepath.Join(strings.TrimSuffix(folder, " (deleted)"), string(name)), ok
	}
}

// memory reads up to n bytes of a process, fewer where it has no more.
func memory(proc string, address uint64, n int) []byte {
	f, err := os.Open(proc + "/mem")
	if err != nil {
		return nil
	}
	defer f.Close()
	var all []byte
	for len(all) < n { // page by page, since the next may be missing
		buf := make([]byte, min(n-len(all), 4096-int(address&4095)))
		if _, err := f.ReadAt(buf, int64(address)); err != nil {
			break
		}
		all = append(all, buf...)
		address += uint64(len(buf))
		if bytes.IndexByte(buf, 0) >= 0 && n > 8 {
			break
		}
	}
	return all
}
