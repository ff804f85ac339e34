package registry

import (
	"context"
	"slices"
	"sync"

	"gantry/errdefs"
)

// Streams bounds how many blobs, and ranges of blobs, are fetched at once, whatever they belong to. A blob waits for its first stream; further ones for ranges of it
// run only while nobody waits. Its methods may be called concurrently.
type Streams struct {
	mu      sync.Mutex // guards all below
	limit   int
	used    int
	waiting []chan struct{} // closed when a stream is given; first come, first served
}

// NewStreams allows so many streams at once, at least one.
func NewStreams(limit int) *Streams { return &Streams{limit: max(1, limit)} }

// SetLimit allows another number of streams from now on. Those that run are let end.
func (s *Streams) SetLimit(limit int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = max(1, limit)
	s.grant()
}

// grant gives free streams to those who wait. The caller holds mu.
func (s *Streams) grant() {
	for len(s.waiting) > 0 && s.used < s.limit {
		s.used++
		close(s.waiting[0])
		s.waiting = s.waiting[1:]
	}
}

// Full reports whether who asks for a stream now has to wait.
func (s *Streams) Full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used >= s.limit
}

// acquire waits for a stream.
func (s *Streams) acquire(ctx context.Context) error {
	turn := s.enter()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
		s.leave(turn)
		return errdefs.With(errdefs.Canceled, context.Cause(ctx))
	}
}

func (s *Streams) enter() chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	turn := make(chan struct{})
	s.waiting = append(s.waiting, turn)
	s.grant()
	return turn
}

func (s *Streams) leave(turn chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.waiting, turn); i >= 0 {
		s.waiting = slices.Delete(s.waiting, i, i+1)
		return
	}
	s.used-- // it was given meanwhile
	s.grant()
}

// spare takes a stream if there is one that nobody waits for.
func (s *Streams) spare() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) > 0 || s.used >= s.limit {
		return false
	}
	s.used++
	return true
}

// wanted reports whether somebody waits.
func (s *Streams) wanted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting) > 0
}

// single reports whether there is never more than one stream.
func (s *Streams) single() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limit == 1
}

func (s *Streams) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used--
	s.grant()
}
