package clone

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"gantry/linux/fd"
)

// announced is the length of the message by which a child tells of a seccomp listener: its descriptor number, and two bytes more, so
// that it cannot be taken for another message.
const announced = 6

// sent stands for the number of a listener that comes with the next message.
const sent = -1

// SeccompListen loads a filter with a listener and waits for a parent that has taken it, with Child.Listener, to say Go. What the filter
// makes of write and read applies to that: a write it asks the listener about would wait for ever, a read waits until the parent has
// passed the listener on to who answers. With send the child sends the listener itself, to a parent that has no right to take it, and
// what holds for write holds for sendmsg.
func (s *Script) SeccompListen(filter []byte, flags uint64, send bool) {
	r := s.Reg()
	s.seccomp(filter, flags|unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, r)
	message := place(s.room(), struct {
		number int32
		kind   [4]byte
	}{sent, [4]byte{'L', 'L'}})
	if !send {
		s.store(&message.number, "message", At(r))
	}
	sync := At(SyncRegister)
	sync.text = "sync"
	s.call("write", unix.SYS_WRITE, []Arg{sync, pointer(message, "message"), Int(announced)})
	if send {
		s.SendFile(r)
	}
	s.awaitGo(sync)
	s.Release(r)
}

// executing is the length of the message by which a child tells that it is about to execute its program.
const executing = 2

// Executing tells the parent that the next step executes the program, for one that cannot wait for that: who answers for the filter may
// take its time.
func (s *Script) Executing() {
	sync := At(SyncRegister)
	sync.text = "sync"
	s.Write(sync, "EX")
}

// Listener takes the listener of the filter that the child has just told of.
func (c *Child) Listener() (*os.File, error) {
	if c.listener == sent {
		return c.NextFile("seccomp listener")
	}
	f, err := fd.Take(c.Pidfd, c.listener)
	if err != nil {
		return nil, fmt.Errorf("take seccomp listener: %w", err)
	}
	return f, nil
}
