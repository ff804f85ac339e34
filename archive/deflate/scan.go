package deflate

import "encoding/binary"

// Encoders of Snappy's kind look at 64 KiB of input at a time. They scan for a match, passing over more and more bytes as long as there is none, and keep of each hash only the last places.
const (
	scanWindow = 65535          // bytes of input taken at a time, by Go's encoders and klauspost's
	scanHeld   = 5 * scanWindow // bytes that klauspost's hold
	pgzipBlock = 1 << 20
	pgzipTail  = 16 << 10 // of the block before, which pgzip gives an encoder to begin with
)

// plan is what such an encoder does next: literals up to at, then a match of length bytes; none where the window has no more of them.
type plan struct {
	known            bool
	none             bool
	at               int
	length, distance int
}

// scan is the matcher of such encoders.
type scan struct {
	w        *window
	find     func(*scan) plan // looks for the next match from next on
	matched  func(*scan)      // goes on after a match of length bytes that ends at emit
	piece    func(length int) int
	least    int  // bytes of a window below which it is not looked at
	margin   int  // bytes at the end of a window that no search begins in
	bits     int  // of a hash of five bytes
	every    bool // of two levels, the one that tries and keeps more
	ends     int  // see endsNewer
	origin   int  // position of place 1
	start    int  // nothing before is matched
	begun    int  // where the encoder began with nothing, or a tail
	from, to int  // the window
	held     int  // where that begins which one of klauspost/compress holds
	next     int  // where the search goes on
	emit     int  // what is before has been emitted
	ahead    int  // the next place that was looked at when the search ended
	length   int  // of the match that has been found, or was the last
	distance int  // of the last match of the window
	plan     plan
	short    []int32    // by hash: place
	long     [][2]int32 // the last two places
}

func (s *scan) begin(at int) {
	if at-s.origin > 1<<29 {
		s.clear(at)
	}
	s.start, s.begun, s.to, s.held = at, at, at, at
	s.plan = plan{}
}

func (s *scan) clear(origin int) {
	s.origin = origin
	clear(s.short)
	clear(s.long)
}

// open begins a window.
func (s *scan) open(at, end int) {
	if at-s.origin > 1<<29 {
		s.rebase(at)
	}
	s.from, s.to, s.next, s.emit, s.distance = at, min(at+scanWindow, end), at, at, 1
	if s.to-s.held > scanHeld {
		s.held = at - history
	}
	s.plan = plan{}
	if s.to-s.from < s.least {
		s.plan = plan{known: true, none: true}
	}
}

func (s *scan) rebase(at int) {
	by := int32(at - 2*history - s.origin)
	s.origin += int(by)
	for i := range s.short {
		s.short[i] = max(0, s.short[i]-by)
	}
	for i := range s.long {
		s.long[i][0], s.long[i][1] = max(0, s.long[i][0]-by), max(0, s.long[i][1]-by)
	}
}

func (s *scan) predict(at, end int) token {
	if at >= s.to {
		s.open(at, end)
	}
	if !s.plan.known {
		s.plan = s.find(s)
		s.plan.known = true
	}
	if s.plan.none || at < s.plan.at {
		return 0
	}
	return match(s.piece(s.plan.length), s.plan.distance)
}

func (s *scan) advance(at int, t token) {
	if at >= s.to {
		return
	}
	p := &s.plan
	switch {
	case p.known && (p.none || at < p.at) && t == 0:
	case p.known && !p.none && at == p.at && t == match(s.piece(p.length), p.distance):
		p.at += t.length()
		if p.length -= t.length(); p.length == 0 {
			s.emit, s.distance = p.at, p.distance
			s.plan = plan{}
			s.matched(s)
		}
	default: // it is another encoder, or was of another opinion
		s.emit = at + t.size()
		s.next, s.ahead, s.length = s.emit, at, t.size()
		s.plan = plan{}
		if t != 0 {
			s.distance = t.distance()
			s.matched(s)
		}
	}
}

// over reports whether no search begins in the rest of the window.
func (s *scan) over() bool {
	if s.next < s.to-s.margin {
		return false
	}
	s.plan = plan{known: true, none: true}
	return true
}

// pass goes over contents of which the encoder has thrown away what it found.
func (s *scan) pass(at, to, end int) {
	for at < to {
		t := s.predict(at, end)
		if s.plan.none {
			at = s.to
			continue
		}
		if at < s.plan.at {
			at = s.plan.at
			continue
		}
		s.advance(at, t)
		at += t.size()
	}
}

// flush says that an encoder was told to emit what it had. pgzip begins anew then.
func (s *scan) flush(at int) {
	s.to = at
	if at-s.begun != pgzipBlock || at-pgzipTail < s.w.base {
		return
	}
	s.clear(at - pgzipTail)
	s.begun = at
	s.start, s.held = at-pgzipTail, at-pgzipTail
	s.to = s.start
	s.pass(s.start, at, at)
	s.to = at
}

func (s *scan) data(at int) []byte { return s.w.data[at-s.w.base:] }

func (s *scan) load4(at int) uint32 { return binary.LittleEndian.Uint32(s.data(at)) }

func (s *scan) load8(at int) uint64 { return binary.LittleEndian.Uint64(s.data(at)) }

func (s *scan) place(at int) int32 { return int32(at - s.origin + 1) }

// at returns the position of a place; -1 for none that may be matched.
func (s *scan) at(place int32) int {
	if p := int(place) - 1 + s.origin; place > 0 && p >= s.start {
		return p
	}
	return -1
}

// same returns how many bytes are the same at two positions, at most so many, in the window.
func (s *scan) same(a, b, most int) int {
	most = min(most, s.to-a)
	return common(s.data(a)[:max(0, most)], s.data(b))
}
