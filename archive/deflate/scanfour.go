package deflate

// newScanFour is klauspost/compress at level 4: the last place of each hash of four bytes, and of each of seven. From its version 1.18 on, what a later match is compared with is not where that leads to
// but as far from the beginning of what the encoder holds as that is away.
func newScanFour(w *window, newer bool) *scan {
	return &scan{
		w: w, least: leastWindow, margin: margin, every: newer, short: make([]int32, 1<<15), long: make([][2]int32, 1<<15), find: findFour, matched: matchedFour, piece: piece,
	}
}

func findFour(s *scan) plan {
	limit := s.to - s.margin
	for at := s.next; ; {
		next := at + 1 + (at-s.emit)>>6
		if next > limit {
			return plan{none: true}
		}
		v := s.load8(at)
		short, long := s.short[hashShort(v)], s.long[hashLong(v)][0]
		s.enterShort(v, at)
		s.enterLong(v, at)
		from := s.near(long, at, v)
		s.ahead = next
		if from < 0 {
			if from = s.near(short, at, v); from >= 0 {
				then := s.load8(next)
				if c := s.near(s.long[hashLong(then)][0], next, then); c >= 0 {
					there := c
					if s.every {
						there = s.held + next - c
					}
					if s.same(next+4, there+4, 1<<30) > s.same(at+4, from+4, 1<<30) {
						at, from = next, c
					}
				}
			}
		}
		if from >= 0 {
			return s.extend(at, from)
		}
		at = next
	}
}

func matchedFour(s *scan) {
	begin := s.ahead
	if s.resume() {
		if s.next+8 < s.to {
			v := s.load8(s.next)
			s.enterShort(v, s.next)
			s.enterLong(v, s.next)
		}
		return
	}
	for i := begin; i < s.next-1; i += 3 {
		v := s.load8(i)
		s.enterLong(v, i)
		s.enterLong(v>>8, i+1)
		s.enterShort(v>>8, i+1)
	}
	v := s.load8(s.next - 1)
	s.enterShort(v, s.next-1)
	s.enterLong(v, s.next-1)
}
