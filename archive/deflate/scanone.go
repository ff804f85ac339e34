package deflate

// newScanOne is klauspost/compress at level 1, or, with a larger table and more that goes into it, at level 2: the last place of each hash of five bytes. It looks at every second place.
func newScanOne(w *window, bits int, every bool) *scan {
	return &scan{w: w, least: leastWindow, margin: margin, bits: bits, short: make([]int32, 1<<bits), every: every, find: findOne, matched: matchedOne, piece: piece}
}

func (s *scan) enterFive(v uint64, at int) { s.short[s.hashFive(v)] = s.place(at) }

func findOne(s *scan) plan {
	limit := s.to - s.margin
	for at := s.next; ; {
		next := at + 2 + (at-s.emit)>>5
		if next > limit {
			return plan{none: true}
		}
		v, then := s.load8(at), s.load8(next)
		place := &s.short[s.hashFive(v)]
		c := s.near(*place, at, v)
		*place = s.place(at)
		if c >= 0 {
			s.enterFive(then, next)
			s.ahead = next
			return s.extend(at, c)
		}
		at, next = next, next+1
		place = &s.short[s.hashFive(then)]
		c = s.near(*place, at, then)
		*place = s.place(at)
		if c >= 0 {
			if !s.every {
				*place = s.place(next) // which need not have that hash
			}
			s.ahead = next
			return s.extend(at, c)
		}
		at = next
	}
}

func matchedOne(s *scan) {
	if s.resume() {
		if s.next+s.length+8 < s.to {
			s.enterFive(s.load8(s.next), s.next)
		}
		return
	}
	if s.every {
		for i := s.next - s.length + 2; i < s.next-5; i += 7 {
			v := s.load8(i)
			s.enterFive(v, i)
			s.enterFive(v>>16, i+2)
			s.enterFive(v>>32, i+4) // of four bytes
		}
	}
	v := s.load8(s.next - 2)
	s.enterFive(v, s.next-2)
	if s.every {
		s.enterFive(v>>8, s.next-1)
	}
	v >>= 16
	place := &s.short[s.hashFive(v)]
	c := s.at(*place)
	*place = s.place(s.next)
	if c < 0 || c >= s.next || s.next-c > history || s.load4(c) != uint32(v) {
		s.next++
		return
	}
	s.plan = s.extend(s.next, c)
	s.plan.known = true
}
