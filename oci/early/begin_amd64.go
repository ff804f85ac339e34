package early

import (
	"syscall"
	"unsafe"

	_ "gantry/linux/quick" // where entry goes on
)

// entry is where the kernel starts the program, if it is linked with -E gantry/oci/early.entry.
//
//lint:ignore U1000 the linker calls it by name
func entry()

// The functions of this file run before the runtime: they call no function that may grow the stack, allocate nothing, and write no pointer to a variable.

// noThread is what the thread's own memory is until the runtime has one: the first word is the goroutine, none.
//
//lint:ignore U1000 the assembler uses it
var noThread [2]uintptr

var (
	address syscall.RawSockaddrUnix // of the container's socket
	stats   [2]syscall.Stat_t       // the container's directory, as it is open and as it is called
)

// begin starts or deletes the container that the command line names, and ends the program; it returns when there is anything else to do. At sp is what the kernel gave the program: argc, argv, a null, the environment, a null.
//
//lint:ignore U1000 the assembler calls it
//go:nosplit
//go:norace
//go:nocheckptr
func begin(sp unsafe.Pointer) {
	verb, root, id := wanted(sp)
	if verb == other {
		return
	}
	end := add(add(add(0, root), literal("/\x00")), id)
	if end < 0 {
		return
	}
	dir, ok := lock()
	conn := none
	switch {
	case !ok:
	case verb == start:
		conn = connect(end)
	default:
		deleted(dir, end, verb == deleteForce)
	}
	call(syscall.SYS_CLOSE, dir, 0, 0, 0)
	if conn != none {
		begun(conn)
	}
}

// done ends the program.
//
//go:nosplit
//go:norace
//go:nocheckptr
func done() {
	for {
		call(syscall.SYS_EXIT_GROUP, 0, 0, 0, 0)
	}
}

// lock locks the directory that the address is the path of, if it still is where it was.
//
//go:nosplit
//go:norace
//go:nocheckptr
func lock() (dir uintptr, ok bool) {
	at := uintptr(unsafe.Pointer(&address.Path))
	dir, errno := call(syscall.SYS_OPENAT, cwd, at, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	if errno != 0 {
		return none, false
	}
	if _, errno := call(syscall.SYS_FLOCK, dir, syscall.LOCK_EX, 0, 0); errno != 0 {
		return dir, false
	}
	here, now := unsafe.Pointer(&stats), unsafe.Add(unsafe.Pointer(&stats), unsafe.Sizeof(stats[0]))
	_, errno = call(syscall.SYS_FSTAT, dir, uintptr(here), 0, 0)
	_, errno2 := call(syscall.SYS_NEWFSTATAT, cwd, at, uintptr(now), atNoFollow)
	a, b := (*syscall.Stat_t)(here), (*syscall.Stat_t)(now)
	return dir, errno == 0 && errno2 == 0 && a.Dev == b.Dev && a.Ino == b.Ino
}

// begun starts the container whose init is connected, and ends the program.
//
//go:nosplit
//go:norace
//go:nocheckptr
func begun(conn uintptr) {
	message := uint64(1)
	at := unsafe.Pointer(&message)
	if _, errno := call(syscall.SYS_SENDTO, conn, uintptr(at), 1, syscall.MSG_NOSIGNAL); errno != 0 {
		call(syscall.SYS_CLOSE, conn, 0, 0, 0)
		return
	}
	got, errno := call(syscall.SYS_RECVFROM, conn, uintptr(at), unsafe.Sizeof(message), syscall.MSG_PEEK)
	if errno == 0 && got == 0 { // the end, or so it seems: the last message may have come just then
		got, errno = call(syscall.SYS_RECVFROM, conn, uintptr(at), unsafe.Sizeof(message), syscall.MSG_PEEK)
	}
	if errno == 0 && got == 0 || errno == syscall.ECONNRESET { // it has executed its program, or ended
		done()
	}
	sync = int32(conn)
}

// connect connects to the init of the container whose directory's path ends at end; none: it is not to be had.
//
//go:nosplit
//go:norace
//go:nocheckptr
func connect(end int) (conn uintptr) {
	at := unsafe.Pointer(&address.Path)
	n := add(end, literal("/"+Plain+"\x00"))
	if n < 0 {
		return none
	}
	conn, errno := call(syscall.SYS_SOCKET, syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return none
	}
	address.Family = syscall.AF_UNIX
	_, errno = call(syscall.SYS_CONNECT, conn, uintptr(unsafe.Pointer(&address)), unsafe.Offsetof(address.Path)+uintptr(n)+1, 0)
	if errno == 0 && add(end, literal("/"+Socket+"\x00")) > 0 { // who takes the socket away is the one who starts
		if _, errno = call(syscall.SYS_UNLINKAT, cwd, uintptr(at), 0, 0); errno == 0 {
			add(end, literal("/"+Plain+"\x00"))
			call(syscall.SYS_UNLINKAT, cwd, uintptr(at), 0, 0) // of no use any more
			return conn
		}
	}
	call(syscall.SYS_CLOSE, conn, 0, 0, 0)
	return none
}

const (
	none       = ^uintptr(0)
	cwd        = ^uintptr(99) // AT_FDCWD, -100
	atNoFollow = 0x100        // AT_SYMLINK_NOFOLLOW
)

//go:nosplit
//go:norace
//go:nocheckptr
func call(nr, a, b, c, d uintptr) (r uintptr, errno syscall.Errno) {
	for {
		r, _, errno = syscall.RawSyscall6(nr, a, b, c, d, 0, 0)
		if errno != syscall.EINTR {
			return r, errno
		}
	}
}

// add puts the C string s into the socket's address at n and returns where it ends, before a zero byte; -1 if there is no room, or n is -1.
//
//go:nosplit
//go:norace
//go:nocheckptr
func add(n int, s unsafe.Pointer) int {
	return put(unsafe.Pointer(&address.Path), len(address.Path), n, s)
}

// put is add for a buffer of some size.
//
//go:nosplit
//go:norace
//go:nocheckptr
func put(buf unsafe.Pointer, size, n int, s unsafe.Pointer) int {
	for ; n >= 0; n++ {
		if n >= size {
			return -1
		}
		c := *(*byte)(s)
		*(*byte)(unsafe.Add(buf, n)) = c
		if c == 0 {
			return n
		}
		s = unsafe.Add(s, 1)
	}
	return n
}

// literal is a constant with its zero byte.
//
//go:nosplit
func literal(s string) unsafe.Pointer { return unsafe.Pointer(unsafe.StringData(s)) }

// What a command line asks for.
const (
	other = iota // also what begin cannot do
	start
	deleteEnded // what has ended, or has not been started
	deleteForce
)

// wanted returns what the command line asks for, and the root directory and the container as C strings.
//
//go:nosplit
//go:norace
//go:nocheckptr
func wanted(sp unsafe.Pointer) (verb int, root, id unsafe.Pointer) {
	argc := *(*int)(sp)
	argv := unsafe.Add(sp, unsafe.Sizeof(argc))
	i := 1
	for ; i < argc; i++ {
		w := word(argv, i)
		if *(*byte)(w) != '-' {
			break
		}
		w = unsafe.Add(w, 1)
		if *(*byte)(w) == '-' {
			w = unsafe.Add(w, 1)
		}
		if after(w, "systemd-cgroup") != nil && ends(after(w, "systemd-cgroup")) {
			continue
		}
		var value unsafe.Pointer
		name := 0
		switch {
		case after(w, "root") != nil:
			name, value = 1, after(w, "root")
		case after(w, "log-format") != nil:
			name, value = 2, after(w, "log-format")
		case after(w, "log") != nil:
			name, value = 3, after(w, "log")
		default:
			return other, nil, nil
		}
		switch {
		case *(*byte)(value) == '=':
			value = unsafe.Add(value, 1)
		case ends(value) && i+1 < argc:
			i++
			value = word(argv, i)
		default:
			return other, nil, nil
		}
		switch name {
		case 1:
			root = value
		case 2:
			if !equal(value, "json") && !equal(value, "text") {
				return other, nil, nil
			}
		case 3: // the file is there, or has to be made
			file, errno := call(syscall.SYS_OPENAT, cwd, uintptr(value), syscall.O_WRONLY|syscall.O_APPEND|syscall.O_CLOEXEC, 0)
			if errno != 0 {
				return other, nil, nil
			}
			call(syscall.SYS_CLOSE, file, 0, 0, 0)
		}
	}
	if root == nil || *(*byte)(root) != '/' || ends(unsafe.Add(root, 1)) {
		return other, nil, nil
	}
	switch {
	case i+2 == argc && equal(word(argv, i), "start"):
		verb = start
	case i+2 == argc && equal(word(argv, i), "delete"):
		verb = deleteEnded
	case i+3 == argc && equal(word(argv, i), "delete") && (equal(word(argv, i+1), "--force") || equal(word(argv, i+1), "-f")):
		verb = deleteForce
	default:
		return other, nil, nil
	}
	id = word(argv, argc-1)
	for p := id; ; p = unsafe.Add(p, 1) {
		c := *(*byte)(p)
		if c == 0 && p != id {
			break
		}
		if c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || p != id && (c == '_' || c == '-' || c == '.') {
			continue
		}
		return other, nil, nil
	}
	for env := unsafe.Add(argv, uintptr(argc+1)*unsafe.Sizeof(argc)); ; env = unsafe.Add(env, unsafe.Sizeof(argc)) {
		e := *(*unsafe.Pointer)(env)
		if e == nil {
			return verb, root, id
		}
		if after(e, "NOTIFY_SOCKET=") != nil {
			return other, nil, nil
		}
	}
}

// word returns the i-th argument.
//
//go:nosplit
//go:norace
//go:nocheckptr
func word(argv unsafe.Pointer, i int) unsafe.Pointer {
	return *(*unsafe.Pointer)(unsafe.Add(argv, uintptr(i)*unsafe.Sizeof(argv)))
}

// after returns what follows prefix in the C string s; nil if it begins otherwise.
//
//go:nosplit
//go:norace
//go:nocheckptr
func after(s unsafe.Pointer, prefix string) unsafe.Pointer {
	for i := range len(prefix) {
		if *(*byte)(s) != prefix[i] {
			return nil
		}
		s = unsafe.Add(s, 1)
	}
	return s
}

//go:nosplit
//go:norace
//go:nocheckptr
func ends(s unsafe.Pointer) bool { return *(*byte)(s) == 0 }

//go:nosplit
//go:norace
//go:nocheckptr
func equal(s unsafe.Pointer, text string) bool {
	rest := after(s, text)
	return rest != nil && ends(rest)
}
