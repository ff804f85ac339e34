package deflate

// newScanThree is klauspost/compress at level 3: the last two places of each hash of five bytes.
func newScanThree(w *window) *scan {
	const bits = 16
	return &scan{w: w, least: leastWindow, margin: margin, bits: bits, long: make([][2]int32, 1<<bits), find: findThree, matched: matchedThree, piece: piece}
}

const nearThree = history - 4 // the largest distance at level 3

// enterTwo takes down a place, and returns those that were there.
func (s *scan) enterTwo(v uint64, at int) [2]int32 {
	l := &s.long[s.hashFive(v)]
	old := *l
	l[0], l[1] = s.place(at), l[0]
	return old
}

// within is near, up to a distance.
func (s *scan) within(place int32, at int, v uint64, distance int) int {
	if c := s.near(place, at, v); c >= 0 && at-c <= distance {
		return c
	}
	return -1
}

func findThree(s *scan) plan {
	limit := s.to - s.margin
	for at := s.next; ; {
		next := at + 1 + (at-s.emit)>>7
		if next > limit {
			return plan{none: true}
		}
		v := s.load8(at)
		places := s.enterTwo(v, at)
		from := s.within(places[0], at, v, nearThree)
		if from >= 0 {
			if c := s.within(places[1], at, v, nearThree); c >= 0 && s.same(at, c, 1<<30) > s.same(at, from, 1<<30) {
				from = c
			}
		} else if c := s.at(places[0]); c >= 0 && at-c <= nearThree {
			from = s.within(places[1], at, v, nearThree-1)
		}
		if from >= 0 {
			s.ahead = next
			return s.extend(at, from)
		}
		at = next
	}
}

func matchedThree(s *scan) {
	if s.resume() {
		if from := s.emit - s.distance; from >= s.start && from+8 < s.to {
			s.enterTwo(s.load8(from), from)
		}
		return
	}
	for i := s.next - s.length + 2; i < s.next-5; i += 6 {
		s.enterTwo(s.load8(i), i)
	}
	v := s.load8(s.next - 2)
	s.enterTwo(v, s.next-2)
	s.enterTwo(v>>8, s.next-1)
	v >>= 16
	places := s.enterTwo(v, s.next)
	if c := s.at(places[0]); c >= 0 && s.next-c < nearThree {
		for _, place := range places {
			if c := s.within(place, s.next, v, nearThree-1); c >= 0 {
				s.plan = s.extend(s.next, c)
				s.plan.known = true
				return
			}
		}
	}
	s.next++
}
