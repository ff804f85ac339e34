package deflate

// How many bytes at the beginning of a match the one that its end leads to need not have: in klauspost/compress from version 1.15 on, in 1.13, and before, where no end is looked at.
const (
	endsNewer  = 2
	endsOlder  = 0
	endsUnseen = -1
)

// newScanFive is klauspost/compress at level 5, its default, or at level 6, which tries more: the last place of each hash of four bytes, the last two of each of seven.
func newScanFive(w *window, six bool, ends int) *scan {
	s := &scan{
		w: w, least: leastWindow, margin: margin, short: make([]int32, 1<<15), long: make([][2]int32, 1<<15), every: six, ends: ends, find: findFive, matched: matchedFive, piece: piece,
	}
	if six {
		s.matched = matchedSix
	}
	return s
}

func findFive(s *scan) plan {
	limit := s.to - s.margin
	next := s.next
	if next > limit {
		return plan{none: true}
	}
	skip := 6
	if s.every {
		skip = 7
	}
	v := s.load8(next)
	for {
		at := next
		next = at + 1 + (at-s.emit)>>skip
		if next > limit {
			return plan{none: true}
		}
		short, long := s.short[hashShort(v)], s.long[hashLong(v)]
		then := s.load8(next)
		s.enterShort(v, at)
		s.enterLong(v, at)
		from := -1
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
			long = s.long[hashLong(then)]
			s.enterShort(then, next)
			s.enterLong(then, next)
			at, from = s.later(at, c, next, long)
		}
		if from >= 0 {
			s.ahead = next
			return s.extendFive(at, from)
		}
		v = then
	}
}

// later returns where a match may begin that is longer than one found by the shorter hash: at the next byte or place, whose places are given.
func (s *scan) later(at, from, next int, places [2]int32) (int, int) {
	length := 4 + s.same(at+4, from+4, 254)
	if c := at + 1 - s.distance; s.every && c >= s.start && s.load4(c) == s.load4(at+1) && 4+s.same(at+5, c+4, 254) > length {
		return at + 1, c
	}
	then := s.load8(next)
	for _, place := range s.lazyPlaces(places, next) {
		if c := s.near(place, next, then); c >= 0 {
			if n := 4 + s.same(next+4, c+4, 254); n > length {
				at, from, length = next, c, n
				if !s.every {
					break
				}
			}
		}
	}
	return at, from
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
	if end := at + length; s.ends >= 0 && (s.every || length < 30) && end < limit {
		a := at + s.ends
		for _, place := range s.long[hashLong(s.load8(end))] {
			c := s.at(place)
			b := c - length + s.ends
			if c < 0 || a-b >= history {
				break
			}
			if b >= s.start && a > b {
				if n := s.same(a, b, 1<<30); n > length {
					at, from, length = a, b, n
				}
			}
			if !s.every {
				break
			}
		}
	}
	return s.extend(at, from)
}

func matchedFive(s *scan) {
	if s.resume() {
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

func matchedSix(s *scan) {
	begin := s.ahead + 1
	if s.resume() {
		for i := begin; i < s.to-8; i += 2 {
			v := s.load8(i)
			s.enterShort(v, i)
			s.enterLong(v, i)
		}
		return
	}
	for i := begin; i < s.next-1; i += 2 {
		v := s.load8(i)
		s.enterLong(v, i)
		s.enterLong(v>>8, i+1)
		s.enterShort(v, i)
	}
}
