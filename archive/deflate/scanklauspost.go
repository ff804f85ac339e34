package deflate

// What the levels 1 to 6 of klauspost/compress have in common.
const (
	leastWindow = 13
	margin      = 11
)

func hashShort(v uint64) uint32 { return uint32(v) * 2654435761 >> (32 - 15) }
func hashLong(v uint64) uint32  { return uint32(v << 8 * 58295818150454627 >> (64 - 15)) }

func (s *scan) hashFive(v uint64) uint32 { return uint32(v << 24 * 889523592379 >> (64 - s.bits)) }

func (s *scan) enterShort(v uint64, at int) { s.short[hashShort(v)] = s.place(at) }

func (s *scan) enterLong(v uint64, at int) {
	l := &s.long[hashLong(v)]
	l[0], l[1] = s.place(at), l[0]
}

// near returns the position of a place from which a match at a position may be copied; -1 for none.
func (s *scan) near(place int32, at int, v uint64) int {
	if c := s.at(place); c >= 0 && c < at && at-c < history && s.load4(c) == uint32(v) {
		return c
	}
	return -1
}

// extend makes a match as long as it gets, at both ends.
func (s *scan) extend(at, from int) plan {
	length := s.same(at, from, 1<<30)
	data, base := s.w.data, s.w.base
	for from > s.start && at > s.emit && data[from-1-base] == data[at-1-base] {
		at--
		from--
		length++
	}
	s.next, s.length = at+length, length
	return plan{at: at, length: length, distance: at - from}
}

// resume says where the search goes on after a match, and reports whether the window is over.
func (s *scan) resume() bool {
	if s.next = s.emit; s.ahead >= s.next {
		s.next = s.ahead + 1
	}
	return s.over()
}

// piece is how much of a match of some length is one token.
func piece(length int) int {
	switch {
	case length <= 258:
		return length
	case length > 261:
		return 258
	default: // no rest may be shorter than three
		return 255
	}
}
