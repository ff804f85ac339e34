package deflate

// newScanFive is klauspost/compress at level 5, its default: the last place of each hash of four bytes, the last two of each of seven.
func newScanFive(w *window) *scan {
	return &scan{
		w: w, least: 13, margin: 11, short: make([]int32, 1<<15), long: make([][2]int32, 1<<15), find: findFive, matched: matchedFive,
		piece: func(length int) int {
			switch {
			case length <= 258:
				return length
			case length > 261:
				return 258
			default: // no rest may be shorter than three
				return 255
			}
		},
	}
}

func hashShort(v uint64) uint32 { return uint32(v) * 2654435761 >> (32 - 15) }
func hashLong(v uint64) uint32  { return uint32(v << 8 * 58295818150454627 >> (64 - 15)) }

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

func findFive(s *scan) plan {
	limit := s.to - s.margin
	next := s.next
	if next > limit {
		return plan{none: true}
	}
	v := s.load8(next)
	for {
		at := next
		next = at + 1 + (at-s.emit)>>6
		if next > limit {
			return plan{none: true}
		}
		short, long := s.short[hashShort(v)], s.long[hashLong(v)]
		then := s.load8(next)
		s.enterShort(v, at)
		s.enterLong(v, at)
		from, length := -1, 0
		if c := s.near(long[0], at, v); c >= 0 {
			s.enterShort(then, next)
			s.enterLong(then, next)
			from = c
			if c2 := s.near(long[1], at, v); c2 >= 0 {
				if s.same(at+4, c2+4, 254) > s.same(at+4, c+4, 254) {
					from = c2
				}
			}
		} else if c := s.nearAfter(long[0], long[1], at, v); c >= 0 {
			s.enterShort(then, next)
			s.enterLong(then, next)
			from = c
		} else if c := s.near(short, at, v); c >= 0 {
			from, length = c, 4+s.same(at+4, c+4, 254)
			long = s.long[hashLong(then)]
			s.enterShort(then, next)
			s.enterLong(then, next)
			for _, place := range s.lazyPlaces(long, next) {
				if c := s.near(place, next, then); c >= 0 {
					if 4+s.same(next+4, c+4, 254) > length {
						at, from = next, c
						break
					}
				}
			}
		}
		if from >= 0 {
			s.ahead = next
			return s.extendFive(at, from)
		}
		v = then
	}
}

// nearAfter is near of the older place, which counts only if the newer one is near enough.
func (s *scan) nearAfter(newer, older int32, at int, v uint64) int {
	if c := s.at(newer); c < 0 || c >= at || at-c >= history {
		return -1
	}
	return s.near(older, at, v)
}

// lazyPlaces are those that are tried at the next position: the older one only if the newer one is near enough.
func (s *scan) lazyPlaces(long [2]int32, at int) []int32 {
	if c := s.at(long[0]); c < 0 || c >= at || at-c >= history {
		return nil
	}
	return long[:]
}

// extendFive makes a match as long as it gets: it may begin earlier, or be another one that its end leads to.
func (s *scan) extendFive(at, from int) plan {
	limit := s.to - s.margin
	length := s.same(at, from, 1<<30)
	if end := at + length; length < 30 && end < limit {
		if c := s.at(s.long[hashLong(s.load8(end))][0]); c >= 0 {
			a, b := at+2, c-length+2
			if b >= s.start && a-b < history && a-b > 0 {
				if l := s.same(a, b, 1<<30); l > length {
					at, from, length = a, b, l
				}
			}
		}
	}
	data, base := s.w.data, s.w.base
	for from > s.start && at > s.emit && data[from-1-base] == data[at-1-base] {
		at--
		from--
		length++
	}
	s.next, s.length = at+length, length
	return plan{at: at, length: length, distance: at - from}
}

func matchedFive(s *scan) {
	if s.ahead >= s.next {
		s.next = s.ahead + 1
	}
	if s.next >= s.to-s.margin {
		s.plan = plan{known: true, none: true}
		return
	}
	if i := s.next - s.length + 1; i < s.next-1 {
		v := s.load8(i)
		s.enterShort(v, i)
		s.enterLong(v, i)
		s.enterLong(v>>8, i+1)
		s.enterShort(v>>16, i+2)
		for i += 4; i < s.next-1; i += 3 {
			v := s.load8(i)
			s.enterLong(v, i)
			s.enterShort(v>>8, i+1)
		}
	}
	v := s.load8(s.next - 1)
	s.enterShort(v, s.next-1)
	s.enterLong(v, s.next-1)
}
