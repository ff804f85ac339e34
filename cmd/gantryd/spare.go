package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// sparing is a unix socket that tells its clients when the daemon has no descriptors left, instead of having them wait until there are some. It keeps one back for that.
type sparing struct {
	*net.UnixListener

	mu    sync.Mutex // held while it refuses; guards spare
	spare *os.File   // nil: there was none to be had
}

func newSparing(l *net.UnixListener) *sparing {
	s := &sparing{UnixListener: l}
	s.spare, _ = os.Open(os.DevNull) // the next refusal tries again
	return s
}

// refusal is how long one who waits is looked for, and waited for: nobody else is accepted meanwhile.
const refusal = 50 * time.Millisecond

// Accept waits for a client that there is a descriptor for.
func (s *sparing) Accept() (net.Conn, error) {
	for {
		conn, err := s.UnixListener.Accept()
		if !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE) {
			return conn, err
		}
		if conn, err = s.lend(err); conn != nil || err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return conn, err // where another has taken the descriptor net/http waits a while
		}
	}
}

// lend accepts a client, if one waits, with the spare descriptor, and tells it why it is refused, and returns none, unless another spare one can be had by then. The kernel asks for a descriptor whether or not there is a client.
func (s *sparing) lend(why error) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spare != nil {
		_ = s.spare.Close() // read only
		s.spare = nil
	}
	if err := s.SetDeadline(time.Now().Add(refusal)); err != nil {
		return nil, err
	}
	conn, err := s.UnixListener.Accept()
	if derr := s.SetDeadline(time.Time{}); derr != nil && err == nil { // net/http takes an error as it is, or ends
		_ = conn.Close()
		return nil, derr
	}
	if s.spare, _ = os.Open(os.DevNull); s.spare != nil || conn == nil {
		return conn, err
	}
	body, _ := json.Marshal(map[string]string{"message": fmt.Sprintf("the daemon has no file descriptors left (%v): try again, or raise its limit of open files", why)})
	_ = conn.SetDeadline(time.Now().Add(refusal))
	_, _ = conn.Read(make([]byte, 64<<10)) // the request, or enough of it; who does not listen to the answer has been told
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	_ = conn.Close()
	s.spare, _ = os.Open(os.DevNull)
	return nil, nil
}

// Close ends Accept.
func (s *sparing) Close() error {
	err := s.UnixListener.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spare != nil {
		err = errors.Join(err, s.spare.Close())
		s.spare = nil
	}
	return err
}
