// Package server is the inside of a shim: it runs one container, keeps its standard streams, log, terminal, exec sessions and health
// probes, and tells the daemon what happens. It lives as long as the container, whether a daemon is there or not.
package server

import (
	"context"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/shim/wire"
)

// Server is one shim.
type Server struct {
	ended chan struct{} // closed when nothing is left to do

	mu    sync.Mutex          // guards below
	conns map[*wire.Conn]bool // true: gets events
	unit  *unit               // the container, once started
	// missed are the ends of exec sessions that no daemon heard of; the next one to connect gets them.
	missed []wire.Event
	deaf   bool // the socket for daemons is gone
}

// maxMissed bounds Server.missed: an exec session cannot be started without a daemon, so that few can end without one.
const maxMissed = 256

// settleTime after the start, what a container that ends at once does not need is done.
const settleTime = 200 * time.Millisecond

// Run serves the daemon at the other end of the socket fd until the container has ended and been deleted, or until the daemon goes
// away before it started one.
func Run(fd int) error {
	rename()
	conn, err := wire.NewConn(fd)
	if err != nil {
		return err
	}
	s := &Server{ended: make(chan struct{}), conns: map[*wire.Conn]bool{conn: false}}
	if err := warm(); err != nil {
		return err
	}
	go s.serve(conn)
	<-s.ended
	return nil
}

// serve answers the requests of one connection, one after the other where their order matters.
func (s *Server) serve(conn *wire.Conn) {
	for {
		f, err := conn.Receive()
		if err != nil {
			break
		}
		if f.Kind != wire.Request {
			f.Close()
			continue
		}
		switch f.Method {
		case wire.MethodExec, wire.MethodPause, wire.MethodResume, wire.MethodUpdate, wire.MethodStats:
			go s.answer(conn, f)
		case wire.MethodStart:
			answered := make(chan struct{}) // it needs a deep stack, which ends with its goroutine
			go func() {
				defer close(answered)
				s.answer(conn, f)
			}()
			<-answered
		default:
			s.answer(conn, f)
		}
	}
	conn.Close()
	s.mu.Lock()
	delete(s.conns, conn)
	alone := len(s.conns) == 0
	u := s.unit
	s.mu.Unlock()
	if !alone {
		return
	}
	if u == nil { // never started anything
		s.end()
		return
	}
	if u.over() { // its end is in exit.json, nobody will ask for more
		go s.finish(u)
	}
}

// answer handles one request. What handle returns as after runs once the daemon has the answer, so that no event can overtake it.
func (s *Server) answer(conn *wire.Conn, f wire.Frame) {
	defer f.Close()
	result, after, err := s.handle(conn, &f)
	// A daemon that is gone gets no answer; what it asked for before is done nevertheless, until serve comes to the end.
	if err != nil {
		_ = conn.SendError(f.ID, err)
	} else {
		_ = conn.Send(wire.Result, f.Method, f.ID, result)
	}
	if after != nil {
		after()
	}
}

func (s *Server) handle(conn *wire.Conn, f *wire.Frame) (result any, after func(), err error) {
	if f.Method == wire.MethodStart {
		return s.start(conn, f)
	}
	s.mu.Lock()
	u := s.unit
	s.mu.Unlock()
	if u == nil {
		if f.Method == wire.MethodDelete {
			return nil, s.end, nil
		}
		return nil, nil, errdefs.New(errdefs.Conflict, "the shim has no container yet")
	}
	ctx := context.Background() // a request is not undone when the daemon dies
	switch f.Method {
	case wire.MethodState:
		return s.state(conn, u, f)
	case wire.MethodAttach:
		var r wire.AttachRequest
		if err := f.Decode(&r); err != nil {
			return nil, nil, err
		}
		if len(f.Files) != 1 {
			return nil, nil, errdefs.New(errdefs.InvalidParameter, "attach: %d connections", len(f.Files))
		}
		conns := f.Files
		f.Files = nil
		return nil, nil, u.main.attach(conns[0], r.Stream)
	case wire.MethodResize:
		var r wire.ResizeRequest
		if err := f.Decode(&r); err != nil {
			return nil, nil, err
		}
		session, err := u.session(r.ExecID)
		if err != nil {
			return nil, nil, err
		}
		return nil, nil, session.resize(r.Rows, r.Cols)
	case wire.MethodSignal:
		var r wire.SignalRequest
		if err := f.Decode(&r); err != nil {
			return nil, nil, err
		}
		session, err := u.session(r.ExecID)
		if err != nil {
			return nil, nil, err
		}
		if err := session.signal(syscall.Signal(r.Signal)); err != nil || syscall.Signal(r.Signal) != syscall.SIGKILL {
			return nil, nil, err
		}
		return nil, nil, u.thaw() // else nothing dies on cgroup v1
	case wire.MethodCloseStdin:
		var r wire.CloseStdinRequest
		if err := f.Decode(&r); err != nil {
			return nil, nil, err
		}
		session, err := u.session(r.ExecID)
		if err != nil {
			return nil, nil, err
		}
		session.closeStdin()
		return nil, nil, nil
	case wire.MethodPause:
		return nil, nil, u.pause(true)
	case wire.MethodResume:
		return nil, nil, u.pause(false)
	case wire.MethodUpdate:
		var r specs.LinuxResources
		if err := f.Decode(&r); err != nil {
			return nil, nil, err
		}
		group, err := u.group()
		if err == nil {
			err = group.Update(&r)
		}
		return nil, nil, err
	case wire.MethodStats:
		group, err := u.group()
		if err != nil {
			return nil, nil, err
		}
		stats, err := group.Stats()
		return stats, nil, err
	case wire.MethodPids:
		group, err := u.group()
		if err != nil {
			return nil, nil, err
		}
		pids, err := group.Procs()
		return pids, nil, err
	case wire.MethodExec:
		var r wire.ExecRequest
		if err := f.Decode(&r); err != nil {
			return nil, nil, err
		}
		files := f.Files
		f.Files = nil
		session, err := u.exec(ctx, r, files)
		if err != nil {
			return nil, nil, err
		}
		return wire.Exec{ID: r.ID, Pid: session.process.Pid()}, func() { go u.waitExec(session) }, nil
	case wire.MethodDelete:
		if err := u.delete(ctx); err != nil {
			return nil, nil, err
		}
		s.unlisten(u) // before the answer: the next shim of this container binds the same path
		return nil, func() { go s.finish(u) }, nil
	}
	return nil, nil, errdefs.New(errdefs.NotImplemented, "the shim does not know method %d: it is of an older version", f.Method)
}

// start runs the container. A shim gets one start, whether it succeeds or not.
func (s *Server) start(conn *wire.Conn, f *wire.Frame) (any, func(), error) {
	s.mu.Lock()
	used := s.unit != nil
	s.mu.Unlock()
	if used {
		return nil, nil, errdefs.New(errdefs.Conflict, "the shim has a container already")
	}
	var r wire.StartRequest
	if err := f.Decode(&r); err != nil {
		return nil, s.end, err
	}
	u, err := newUnit(context.Background(), s, r, f.Files)
	f.Files = nil
	if err != nil {
		return nil, s.end, err
	}
	s.mu.Lock()
	s.unit = u
	s.conns[conn] = true
	s.mu.Unlock()
	return u.state(), func() {
		go u.wait()
		go s.accept(u.listener)
		if r.Health != nil {
			go u.probe(r.Health)
		}
		settled := time.AfterFunc(settleTime, func() {
			u.reportCrashes()
			u.watchMemory()
		})
		context.AfterFunc(u.ctx, func() { settled.Stop() })
	}, nil
}

// accept serves the daemons that come later.
func (s *Server) accept(listener *os.File) {
	for {
		conn, err := wire.Accept(listener)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors or memory, say: the next try may succeed
			select {
			case <-s.ended:
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		s.mu.Lock()
		s.conns[conn] = false
		s.mu.Unlock()
		go s.serve(conn)
	}
}

// state answers with the container's state and, if asked, lets the connection have the events from then on.
func (s *Server) state(conn *wire.Conn, u *unit, f *wire.Frame) (any, func(), error) {
	var r wire.StateRequest
	if err := f.Decode(&r); err != nil {
		return nil, nil, err
	}
	if !r.Events {
		return u.state(), nil, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	missed := s.missed
	s.missed = nil
	s.conns[conn] = true
	state := u.state()
	return state, func() {
		for i := range missed {
			_ = conn.Send(wire.Announcement, 0, 0, &missed[i])
		}
		if state.Exit != nil {
			_ = conn.Send(wire.Announcement, 0, 0, wire.Event{Kind: wire.EventExit, Exit: state.Exit})
		}
	}, nil
}

// announce tells all daemons that listen; heard is false if none did.
func (s *Server) announce(e wire.Event) (heard bool) {
	s.mu.Lock()
	var to []*wire.Conn
	for conn, wanted := range s.conns {
		if wanted {
			to = append(to, conn)
		}
	}
	if len(to) == 0 && e.Kind == wire.EventExecExit && len(s.missed) < maxMissed {
		s.missed = append(s.missed, e)
	}
	s.mu.Unlock()
	for _, conn := range to {
		if conn.Send(wire.Announcement, 0, 0, &e) == nil {
			heard = true
		}
	}
	return heard
}

// finish deletes the container, waits for clients that still read its output, and ends the shim.
func (s *Server) finish(u *unit) {
	if err := u.delete(context.Background()); err != nil {
		u.warn("delete the container", err)
	}
	s.unlisten(u)
	u.clients.Wait()
	s.end()
}

// unlisten lets no further daemon come.
func (s *Server) unlisten(u *unit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.deaf {
		s.deaf = true
		u.unlisten()
	}
}

func (s *Server) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.ended:
	default:
		close(s.ended)
	}
}
