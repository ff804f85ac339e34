package deflate

// lazyOptions are klauspost/compress at levels 7 to 9: zlib's chains, a look at where a match's end leads to, and, at level 9, a guess at what a match saves. Numbers are as in its levels.
type lazyOptions struct {
	lazy, nice, chain int
	gain              bool // a match must save bits
	versions          int  // 0: from 1.18 on, 1: 1.16 and 1.17, 2: before
}

const (
	lazyLeast  = 4
	lazyWindow = 2 * history // bytes that it has at a time
	lazyAhead  = 262         // of those, it does not begin to look for a match with fewer ahead, but at the end
	lazySkip   = 2           // bytes at the beginning of a match that the one its end leads to need not have
	// lazyTokens is how many tokens it gives a table of its own to, and how many bytes the guess is made of.
	lazyTokens = 1 << 15
)

// lazy is the matcher of lazyOptions. It goes on by itself until it knows what there is at the position that is asked for, and keeps: literals up to known, and then a match.
type lazy struct {
	*chain
	level lazyOptions

	index    int  // where it looks for a match next
	base     int  // where its window begins
	until    int  // where it ends
	told     bool // the encoder was told to emit all of it
	begun    int  // where the encoder began with nothing, or a tail
	pending  bool // of the byte before index it is not decided yet whether it is a literal
	length   int  // of the match there
	distance int
	dull     uint16 // literals since the last match

	known int
	match token // 0: it is not known yet what comes at known

	weighed int     // a position
	cost    []int32 // bits that the bytes from there on take as literals
}

func newLazy(o lazyOptions, w *window) *lazy {
	return &lazy{chain: newChain(chainOptions{klauspost: true}, w), level: o}
}

func (l *lazy) begin(at int) {
	l.chain.begin(at)
	l.base, l.until, l.begun, l.told = at, at, at, false
	l.resume(at)
}

// resume goes on at a position with nothing decided.
func (l *lazy) resume(at int) {
	l.index, l.known, l.match, l.pending, l.length, l.dull = at, at, 0, false, lazyLeast-1, 0
}

func (l *lazy) predict(at, end int) token {
	for at >= l.known && l.match == 0 {
		if !l.step(end) {
			return 0
		}
	}
	if at < l.known {
		return 0
	}
	return l.match
}

func (l *lazy) advance(at int, t token) {
	switch {
	case t == 0 && at < l.known:
	case t != 0 && t == l.match && at == l.known:
		l.known += t.length()
		l.match = 0
	default:
		l.resume(at + t.size())
	}
}

// pass goes over contents of which the encoder has thrown away what it found.
func (l *lazy) pass(at, to, end int) {
	for at < to {
		t := l.predict(at, end)
		if at+t.size() > to {
			l.resume(to)
			return
		}
		l.advance(at, t)
		at += t.size()
	}
}

// flush says that the encoder was told to emit what it had. pgzip begins anew then, with a tail of which all is in the chains but the last bytes.
func (l *lazy) flush(at int) {
	l.told = false
	if at-l.begun != pgzipBlock || at-pgzipTail < l.w.base {
		return
	}
	l.begin(at)
	clear(l.head)
	l.start, l.next, l.base = at-pgzipTail, at-pgzipTail, at-pgzipTail
	l.enter(at, at)
	l.next = at
}

// fill moves the window, and takes in as much as there is.
func (l *lazy) fill(end int) {
	for l.index-l.base >= lazyWindow-lazyAhead {
		l.base += history
	}
	l.until = min(l.base+lazyWindow, end)
	l.told = l.until == end
	if l.level.gain && l.until > l.index {
		l.weigh()
	}
}

// weigh adds up what the bytes of the window would cost as literals.
func (l *lazy) weigh() {
	data := l.w.bytes(l.index, l.until)
	var count [256]uint16 // it overflows
	counted := data
	if l.level.versions == 0 {
		counted = data[:min(len(data), lazyTokens)]
	}
	for _, b := range counted {
		count[b]++
	}
	var freq [256]int
	for i, n := range count {
		freq[i] = int(n)
	}
	var lens [256]byte
	mergeLengths(freq[:], maxBits, lens[:])
	l.weighed, l.cost = l.index, append(l.cost[:0], 0)
	sum := int32(0)
	for _, b := range data {
		sum += int32(lens[b])
		l.cost = append(l.cost, sum)
	}
}

// step decides one thing more, and reports whether there was something to decide.
func (l *lazy) step(end int) bool {
	look := l.until - l.index
	if look < lazyAhead && !l.told {
		l.fill(end)
		look = l.until - l.index
	}
	if look <= 0 {
		ok := l.pending
		l.known, l.pending = l.index, false
		return ok
	}
	length, distance := l.length, l.distance
	l.length, l.distance = lazyLeast-1, 0
	lowest := max(l.index-history, l.base)
	l.enter(l.index+1, l.until)
	if length < l.level.lazy && look > length && l.index < l.next {
		l.search(lowest, look)
	}
	switch {
	case length >= lazyLeast && l.length <= length:
		l.emit(length, distance, lowest, look)
	case l.pending:
		if l.length >= lazyLeast {
			l.dull = 0
		}
		l.dull++
		l.known = l.index
		l.index++
		if n := int(l.dull) - l.level.chain; n > 0 {
			l.index = max(l.index, min(l.index+1+n>>6, l.until-1))
			l.known, l.pending = l.index, false
		}
	default:
		l.index++
		l.pending = true
	}
	return true
}

// search looks for a match at index.
func (l *lazy) search(lowest, look int) {
	at := l.index
	most := min(look, 258)
	nice := min(l.level.nice, look)
	data, base := l.w.data, l.w.base
	here := data[at-base : at-base+most]
	gain := int32(4)
	if l.level.versions == 2 {
		gain = 3 // less what a match costs, which was three more
	}
	tries := l.level.chain
	for place := int(l.prev[(at-l.origin)&windowMask]); tries > 0; tries-- {
		from := place - 1 + l.origin
		if place == 0 || from < lowest || from >= at {
			return
		}
		there := data[from-base : from-base+most]
		if there[l.length] == here[l.length] {
			if n := common(here, there); n > l.length && (!l.level.gain || l.saves(at, n, at-from, &gain)) {
				if l.length, l.distance = n, at-from; n >= nice {
					return
				}
			}
		}
		if from == lowest {
			return
		}
		place = int(l.prev[(from-l.origin)&windowMask])
	}
}

// saves reports whether a match saves more than the best one so far, and makes it that. The bits of its distance are taken to be those of the next one; of the largest, those of 129.
func (l *lazy) saves(at, n, distance int, best *int32) bool {
	at -= l.weighed
	_, bits, _ := lengthSymbol(n)
	if distance++; distance > history {
		distance = 129
	}
	_, more, _ := distanceSymbol(distance)
	gain := l.cost[at+n] - l.cost[at] - int32(bits+more) - 3
	if gain <= *best {
		return false
	}
	*best = gain
	return true
}

// emit makes a match of the byte before index known, or a better one that its end leads to.
func (l *lazy) emit(length, distance, lowest, look int) {
	at := l.index - 1
	if l.level.versions == 2 {
		if length+lazySkip+at < l.until-lazyLeast+1 {
			from := l.last(at+length-2) - length + 2
			if from > lowest {
				if n := l.same(at, from, min(look, 258)); n > length {
					length, distance = n, at-from
				}
			}
		}
	} else if length < 258-lazySkip && at+length < l.until-lazyLeast+1 {
		from := l.last(at+length) - length
		if at-from != distance && from > lowest+lazySkip {
			if n := l.same(at+lazySkip, from+lazySkip, min(look, 260)-lazySkip); n > length {
				length, distance = n, at-from
				at += lazySkip
				for at >= l.index && length < 258 && l.w.data[at-1-l.w.base] == l.w.data[at-1-distance-l.w.base] {
					at--
					length++
				}
			}
		}
	}
	l.known, l.match = at, match(length, distance)
	l.index = at + length
	l.enter(l.index, l.until)
	l.pending, l.length, l.dull = false, lazyLeast-1, 0
}

// last returns the last position before index that has the hash of one after it.
func (l *lazy) last(at int) int {
	for place := int(l.head[l.hash(l.w.data[at-l.w.base:])]); place > 0; {
		from := place - 1 + l.origin
		if from <= l.index {
			return from
		}
		place = int(l.prev[(from-l.origin)&windowMask])
	}
	return -1 << 30
}

// same returns how many bytes are the same at two positions, at most so many.
func (l *lazy) same(a, b, most int) int {
	return common(l.w.bytes(a, a+most), l.w.data[b-l.w.base:])
}
