package early

import (
	"syscall"
	"unsafe"
)

var (
	plan   [MaxEnd]byte // what AppendEnd has made
	status [1024]byte   // of /proc/PID/stat
	name   [32]byte     // its path
	wait   pollFd       // of init
	limit  syscall.Timespec
)

// pollFd is struct pollfd of poll(2).
type pollFd struct {
	fd              int32
	events, revents int16
}

const (
	sysPidfdOpen       = 434
	sysPidfdSendSignal = 424
	sysPpoll           = 271
	pollIn             = 1
	endTime            = 10 // seconds that a killed init may take; the Go program waits longer
)

// deleted ends and removes the container whose directory, which is locked, has a path that ends at end, and ends the program. Whatever fails is for the Go program to do again: a step that has been done already is none.
//
//go:nosplit
//go:norace
//go:nocheckptr
func deleted(dir uintptr, end int, force bool) {
	at := uintptr(unsafe.Pointer(&address.Path))
	if !known(dir) || add(end, literal("/"+End+"\x00")) < 0 {
		return
	}
	file, errno := call(syscall.SYS_OPENAT, cwd, at, syscall.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	if errno != 0 {
		return
	}
	p := unsafe.Pointer(&plan)
	n, errno := call(syscall.SYS_READ, file, uintptr(p), MaxEnd, 0)
	call(syscall.SYS_CLOSE, file, 0, 0, 0)
	if errno != 0 || n < 4 || n >= MaxEnd || plan[n-1] != 0 || plan[n-2] != 0 {
		return
	}
	birth := after0(p)
	if !ended(p, birth, force) {
		return
	}
	for dir := after0(birth); !ends(dir); dir = after0(dir) {
		if _, errno := call(syscall.SYS_RMDIR, uintptr(dir), 0, 0, 0); errno != 0 && errno != syscall.ENOENT {
			return
		}
	}
	// The state goes first: without it nothing but delete sees the container.
	remove(end, literal("/state.json\x00"))
	remove(end, literal("/"+Plain+"\x00"))
	remove(end, literal("/"+Socket+"\x00"))
	remove(end, literal("/config.json\x00"))
	remove(end, literal("/"+End+"\x00"))
	*(*byte)(unsafe.Add(unsafe.Pointer(&address.Path), end)) = 0
	if _, errno := call(syscall.SYS_RMDIR, at, 0, 0, 0); errno == 0 {
		done()
	}
}

// remove removes a file of the container's directory.
//
//go:nosplit
//go:norace
//go:nocheckptr
func remove(end int, file unsafe.Pointer) {
	if add(end, file) > 0 {
		call(syscall.SYS_UNLINKAT, cwd, uintptr(unsafe.Pointer(&address.Path)), 0, 0)
	}
}

// known reports whether nothing is in a directory but what remove is called for: hooks may have put more there.
//
//go:nosplit
//go:norace
//go:nocheckptr
func known(dir uintptr) bool {
	const length, text = 16, 19 // of struct linux_dirent64, where d_reclen and d_name are
	list := unsafe.Pointer(&status)
	n, errno := call(syscall.SYS_GETDENTS64, dir, uintptr(list), uintptr(len(status)), 0)
	if errno != 0 || n == 0 {
		return false
	}
	for at := uintptr(0); at < n; at += uintptr(*(*uint16)(unsafe.Add(list, at+length))) {
		name := unsafe.Add(list, at+text)
		if !equal(name, ".") && !equal(name, "..") && !equal(name, "state.json") && !equal(name, "config.json") && !equal(name, Plain) && !equal(name, Socket) && !equal(name, End) {
			return false
		}
	}
	n, errno = call(syscall.SYS_GETDENTS64, dir, uintptr(list), uintptr(len(status)), 0)
	return errno == 0 && n == 0
}

// after0 returns the word after the one at p.
//
//go:nosplit
//go:norace
//go:nocheckptr
func after0(p unsafe.Pointer) unsafe.Pointer {
	for !ends(p) {
		p = unsafe.Add(p, 1)
	}
	return unsafe.Add(p, 1)
}

// ended sees to it that the process called pid, which was started at birth, has ended; it kills it if force is set, and else reports false if it runs.
//
//go:nosplit
//go:norace
//go:nocheckptr
func ended(pid, birth unsafe.Pointer, force bool) bool {
	number := uintptr(0)
	for p := pid; !ends(p); p = unsafe.Add(p, 1) {
		number = number*10 + uintptr(*(*byte)(p)-'0')
	}
	fd, errno := call(sysPidfdOpen, number, 0, 0, 0)
	if errno == syscall.ESRCH {
		return true
	}
	if errno != 0 {
		return false
	}
	alive, ok := lives(pid, birth)
	switch {
	case !ok:
	case !alive:
	case !force:
		ok = false
	default:
		_, errno = call(sysPidfdSendSignal, fd, uintptr(syscall.SIGKILL), 0, 0)
		ok = errno == 0 || errno == syscall.ESRCH
		wait.fd, wait.events, limit.Sec = int32(fd), pollIn, endTime
		if ok {
			var n uintptr
			n, errno = call(sysPpoll, uintptr(unsafe.Pointer(&wait)), 1, uintptr(unsafe.Pointer(&limit)), 0)
			ok = errno == 0 && n == 1
		}
	}
	call(syscall.SYS_CLOSE, fd, 0, 0, 0)
	return ok
}

// lives reports whether the process called pid is the one that was started at birth, and has not ended. Not ok: it cannot be told.
//
//go:nosplit
//go:norace
//go:nocheckptr
func lives(pid, birth unsafe.Pointer) (alive, ok bool) {
	at := unsafe.Pointer(&name)
	n := put(at, len(name), put(at, len(name), put(at, len(name), 0, literal("/proc/\x00")), pid), literal("/stat\x00"))
	if n < 0 {
		return false, false
	}
	file, errno := call(syscall.SYS_OPENAT, cwd, uintptr(at), syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if errno == syscall.ENOENT {
		return false, true
	}
	if errno != 0 {
		return false, false
	}
	got, errno := call(syscall.SYS_READ, file, uintptr(unsafe.Pointer(&status)), uintptr(len(status)-1), 0)
	call(syscall.SYS_CLOSE, file, 0, 0, 0)
	if errno == syscall.ESRCH {
		return false, true
	}
	if errno != 0 {
		return false, false
	}
	return born(got, birth)
}

// born looks for the start in got bytes of status (proc_pid_stat(5)).
//
//go:nosplit
//go:norace
//go:nocheckptr
func born(got uintptr, birth unsafe.Pointer) (alive, ok bool) {
	text := unsafe.Pointer(&status)
	*(*byte)(unsafe.Add(text, got)) = 0
	at := uintptr(0) // behind the name, which may have anything in it
	for i := range got {
		if *(*byte)(unsafe.Add(text, i)) == ')' {
			at = i + 1
		}
	}
	field := 2
	for ; at > 0 && at < got; at++ {
		if *(*byte)(unsafe.Add(text, at)) != ' ' {
			continue
		}
		field++
		value := unsafe.Add(text, at+1)
		switch field {
		case 3:
			if c := *(*byte)(value); c == 'Z' || c == 'X' {
				return false, true
			}
		case 22:
			for !ends(birth) && *(*byte)(value) == *(*byte)(birth) {
				value, birth = unsafe.Add(value, 1), unsafe.Add(birth, 1)
			}
			return ends(birth) && *(*byte)(value) == ' ', true
		}
	}
	return false, false
}
