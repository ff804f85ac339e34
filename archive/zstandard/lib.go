package zstandard

// libOptions are what a level of libzstd sets.
type libOptions struct {
	long, short int // bits of the hashes of tables; without a long one, it is the strategy "fast"
	least       int // bytes that the short one has hashes of
}

// lib is libzstd 1.5 at levels 1 to 4, as the program zstd uses it, which cuts a file into jobs: one or two tables, and steps that get bigger the longer nothing is found.
type lib struct {
	scan
	o           libOptions
	short, long []place
	current     int // where the last match was found
	low         int // matches are from here on
	job         int // where the contents that the tables know begin
	entered     [2]int
	passing     bool
}

func newLib(o libOptions, w *window) *lib {
	l := &lib{o: o, scan: scan{w: w}, short: make([]place, 1<<o.short)}
	if o.long > 0 {
		l.long = make([]place, 1<<o.long)
	}
	return l
}

const (
	libMargin  = 8 // bytes at the end of a block that are not searched
	prefixStep = 3 // in what a job knows of the one before
)

func (l *lib) frame(start, window int) {
	l.scan.frame(start, window)
	l.entered, l.job, l.passing = l.last, start, false
}

func (l *lib) block(start, end int, alone bool) {
	// Offsets of a block that is not compressed after all are forgotten.
	if l.passing {
		l.last = l.entered
	}
	for i, o := range l.last {
		if o == 0 {
			l.last[i] = l.entered[i]
		}
	}
	l.enter(start, end, 0, libMargin, alone)
	l.passing = false
	if size := max(1<<20, 4*l.window); start > l.begin && (start-l.begin)%size == 0 {
		l.newJob(max(l.begin, start-l.window/8), start)
	}
	l.entered = l.last
	l.low = max(l.job, end-l.window)
	if l.at == l.low {
		l.at++
	}
	for i, o := range l.last {
		if o > l.at-max(l.job, l.at-l.window) {
			l.last[i] = 0
		}
	}
}

// newJob begins a job: it knows some of what is before it.
func (l *lib) newJob(from, start int) {
	l.job, l.last = from, [2]int{}
	clear(l.short)
	clear(l.long)
	d, base := l.w.bytes(l.w.base, start), l.w.base
	for i := from - base; i+libMargin+prefixStep-1 <= len(d); i += prefixStep {
		v := load8(d, i)
		here := place{uint32(i + base + 1), uint32(v)}
		l.short[l.hash(v)] = here
		if l.long != nil {
			l.long[hash8(v, l.o.long)] = here
		}
	}
}

func (l *lib) took(q sequence, offset int) {
	l.scan.took(q, offset)
	l.current = l.at - q.length
}

func (l *lib) passed() { l.passing = true }

func (l *lib) hash(v uint64) uint32 {
	switch l.o.least {
	case 5:
		return hash5(v, l.o.short)
	case 6:
		return hash6(v, l.o.short)
	default:
		return hash7(v, l.o.short)
	}
}

// valid returns how far a place is back from one in d, if a match may be from there and the first four bytes are the same. The strategies differ in whether it may be from the first place of all.
func (l *lib) valid(p place, at, base int, v uint64) (offset int, ok bool) {
	o := uint32(at+base+1) - p.at
	reach := uint32(at + base - l.low)
	if l.long == nil {
		reach++
	}
	return int(o), o-1 < reach-1 && uint32(v) == p.bytes
}

// repeated returns whether a match at one of the last offsets is at a place in d.
func (l *lib) repeated(d []byte, at, which, base int) (from int, ok bool) {
	if l.last[which] == 0 {
		return 0, false
	}
	return l.again(d, at, l.last[which], base)
}

func (l *lib) enterBoth(v uint64, at int) {
	here := place{uint32(at + 1), uint32(v)}
	l.short[l.hash(v)] = here
	if l.long != nil {
		l.long[hash8(v, l.o.long)] = here
	}
}

func (l *lib) next() sequence {
	d, base := l.view()
	at := l.at - base
	limit := l.limit - base
	if at > limit {
		return l.over()
	}
	if l.phase == matched {
		l.index(d, at, base)
		l.phase = repeating
	}
	if l.phase == repeating {
		if from, ok := l.repeated(d, at, 1, base); ok {
			l.enterBoth(load8(d, at), at+base)
			l.last[0], l.last[1] = l.last[1], l.last[0]
			return l.found(sequence{0, 4 + same(d, at+4, from+4), 1}, repeating)
		}
	}
	if l.long == nil {
		return l.fast(d, at, limit, base)
	}
	return l.double(d, at, limit, base)
}

// index takes down places in the last match.
func (l *lib) index(d []byte, at, base int) {
	first := l.current - base + 2
	if l.long == nil {
		l.enterBoth(load8(d, first), first+base)
		l.enterBoth(load8(d, at-2), at-2+base)
		return
	}
	for _, i := range [2]int{first, at - 2} {
		v := load8(d, i)
		l.long[hash8(v, l.o.long)] = place{uint32(i + base + 1), uint32(v)}
	}
	for _, i := range [2]int{first, at - 1} {
		v := load8(d, i)
		l.short[l.hash(v)] = place{uint32(i + base + 1), uint32(v)}
	}
}

// match returns a match of a place in d, made longer at its beginning.
func (l *lib) match(d []byte, at, offset, length, base int) sequence {
	l.push(offset)
	n := back(d, at, at-offset, l.emit-base, l.low-base)
	return l.found(sequence{at - n - (l.emit - base), length + n, offset + 3}, matched)
}

// double is the strategy "dfast".
func (l *lib) double(d []byte, at, limit, base int) sequence {
	step := 1
	bigger := at + 256
	for then := at + step; then <= limit; then += step {
		v, after := load8(d, at), load8(d, then)
		h := hash8(v, l.o.long)
		long, short := l.long[h], l.short[l.hash(v)]
		l.enterBoth(v, at+base)
		l.current = at + base
		if from, ok := l.repeated(d, at+1, 0, base); ok {
			return l.found(sequence{at + 1 - (l.emit - base), 4 + same(d, at+5, from+4), 1}, matched)
		}
		next := &l.long[hash8(after, l.o.long)]
		if o, ok := l.valid(long, at, base, v); ok && load8(d, at-o) == v {
			l.next1(next, then, after, step, base)
			return l.match(d, at, o, 8+same(d, at+8, at-o+8), base)
		}
		if o, ok := l.valid(short, at, base, v); ok {
			if o2, ok := l.valid(*next, then, base, after); ok && load8(d, then-o2) == after {
				l.next1(next, then, after, step, base)
				return l.match(d, then, o2, 8+same(d, then+8, then-o2+8), base)
			}
			l.next1(next, then, after, step, base)
			return l.match(d, at, o, 4+same(d, at+4, at-o+4), base)
		}
		if then >= bigger {
			step++
			bigger += 256
		}
		at = then
	}
	return l.over()
}

// next1 takes down the place after the one that a match was found at.
func (l *lib) next1(p *place, at int, v uint64, step, base int) {
	if step < 4 {
		*p = place{uint32(at + base + 1), uint32(v)}
	}
}

// fast is the strategy "fast". It goes by pairs of places; whether the second of a pair repeats an offset is seen before the match of the first.
func (l *lib) fast(d []byte, at, limit, base int) sequence {
	step := 2
	bigger := at + 128
	pair := [2]int{at, at + 1}
	third := at + step
	for third+1 < limit {
		for i := range 2 {
			p := pair[0]
			v := load8(d, p)
			e := &l.short[l.hash(v)]
			c := *e
			*e = place{uint32(p + base + 1), uint32(v)}
			l.current = p + base
			if i == 0 {
				if from, ok := l.repeated(d, third, 0, base); ok {
					n := 0
					if from > 0 && d[third-1] == d[from-1] {
						n = 1
					}
					q := sequence{third - n - (l.emit - base), n + 4 + same(d, third+4, from+4), 1}
					l.second(d, pair[1], third-n+q.length, base)
					return l.found(q, matched)
				}
			}
			if o, ok := l.valid(c, p, base, v); ok {
				length := 4 + same(d, p+4, p-o+4)
				l.second(d, pair[1], p+length, base)
				return l.match(d, p, o, length, base)
			}
			pair[0], pair[1] = pair[1], third
			third++
		}
		third = pair[0] + step
		if third >= bigger {
			step++
			bigger += 128
		}
	}
	return l.over()
}

// second takes down the place that would have come next, if it is in the match.
func (l *lib) second(d []byte, at, end, base int) {
	if at < end {
		v := load8(d, at)
		l.short[l.hash(v)] = place{uint32(at + base + 1), uint32(v)}
	}
}
