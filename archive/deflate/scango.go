package deflate

// newScanGo is compress/flate at level 1: one place for each hash of four bytes, and a window and the one before to match in.
func newScanGo(w *window) *scan {
	return &scan{
		w: w, least: 17, margin: 15, short: make([]int32, 1<<14), find: findGo, matched: matchedGo,
		piece: func(length int) int { return length },
	}
}

func hashGo(v uint32) uint32 { return v * 0x1e35a7bd >> (32 - 14) }

// candidateGo returns the last position with the hash of the bytes at a position, and takes that down instead; -1 when it does not match.
func (s *scan) candidateGo(at int) int {
	v := s.load4(at)
	h := hashGo(v)
	c := s.at(s.short[h])
	s.short[h] = s.place(at)
	if c < 0 || c >= at || at-c > history || s.load4(c) != v {
		return -1
	}
	return c
}

// extendGo is how long the match is: the window before this one counts only if it is whole.
func (s *scan) extendGo(at, from int) plan {
	return plan{at: at, length: 4 + s.same(at+4, from+4, 254), distance: at - from}
}

func findGo(s *scan) plan {
	if s.ahead == -2 { // a match follows the last one at once
		s.ahead = 0
		if c := s.candidateGo(s.next); c >= 0 {
			return s.extendGo(s.next, c)
		}
		s.next++
	}
	limit := s.to - s.margin
	for skip, next := 32, s.next; ; {
		at := next
		step := skip >> 5
		next += step
		skip += step
		if next > limit {
			return plan{none: true}
		}
		if c := s.candidateGo(at); c >= 0 {
			s.next = at
			return s.extendGo(at, c)
		}
	}
}

func matchedGo(s *scan) {
	if s.next = s.emit; s.over() {
		return
	}
	v := s.load4(s.next - 1)
	s.short[hashGo(v)] = s.place(s.next - 1)
	s.ahead = -2
}
