package deflate

import "gantry/archive/corrections"

// model codes blocks: what is predicted is compared with what is, and the difference coded. It is the same for making a recipe and for using one.
type model struct {
	c *corrections.Coder
	m matcher

	ahead int              // how many bytes beyond a block the predictor may look
	near  corrections.Prob // it may look less far

	gzip, same, final, sealed, plain, endPad, more corrections.Prob
	kinds                                          [3]corrections.Tree
	lastKind                                       int
	padded                                         corrections.Prob
	pads, bytes                                    corrections.Tree
	size, count                                    corrections.Tree
	lastSize, lastCount                            int
	sameSize, sameCount                            corrections.Prob
	header                                         []byte
	hit                                            [4]corrections.Prob
	lastHit                                        int
	literal                                        [2]corrections.Prob
	lengths, distances                             corrections.Tree
	distance                                       corrections.Prob
	trees                                          treeModel
}

func newModel(c *corrections.Coder) *model {
	m := &model{c: c, pads: corrections.NewTree(8), bytes: corrections.NewTree(8), size: corrections.NewTree(6), count: corrections.NewTree(6), lengths: corrections.NewTree(8), distances: corrections.NewTree(5)}
	for i := range m.kinds {
		m.kinds[i] = corrections.NewTree(2)
	}
	for _, p := range []*corrections.Prob{&m.gzip, &m.same, &m.final, &m.sealed, &m.plain, &m.endPad, &m.more, &m.near, &m.padded, &m.sameSize, &m.sameCount, &m.literal[0], &m.literal[1], &m.distance, &m.hit[0], &m.hit[1], &m.hit[2], &m.hit[3]} {
		*p = corrections.Even
	}
	m.trees.init()
	return m
}

// use begins with a predictor.
func (m *model) use(p predictor, w *window) { m.m, m.ahead = p.make(w), p.ahead }

// begin codes the header of a member.
func (m *model) begin(b *block) {
	c := m.c
	n := len(m.header)
	same := len(b.gzip) == n && string(b.gzip) == string(m.header)
	if c.Bit(&m.same, same) {
		b.gzip = m.header
		return
	}
	n = c.Number(m.size, len(b.gzip))
	if n > maxHeader {
		c.Fail()
		return
	}
	if c.Reads() {
		b.gzip = make([]byte, n)
	}
	for i := range b.gzip {
		b.gzip[i] = byte(c.Tree(m.bytes, int(b.gzip[i])))
	}
	m.header = b.gzip
}

// opening codes what is known of a block before its tokens.
func (m *model) opening(b *block) (tokens int, plain bool) {
	c := m.c
	b.final = c.Bit(&m.final, b.final)
	b.kind = c.Tree(m.kinds[m.lastKind], b.kind)
	if b.kind > dynamic {
		c.Fail()
		return 0, false
	}
	m.lastKind = b.kind
	b.sealed = c.Bit(&m.sealed, b.sealed)
	if c.Bit(&m.sameSize, b.size == m.lastSize) {
		b.size = m.lastSize
	} else {
		b.size = c.Number(m.size, b.size)
	}
	if b.size > maxBlock {
		c.Fail()
		return 0, false
	}
	if b.size > 0 {
		m.lastSize = b.size
	}
	m.sight(b)
	if b.kind == stored {
		if c.Bit(&m.padded, b.pad != 0) {
			b.pad = byte(c.Tree(m.pads, int(b.pad)))
		}
		return 0, false
	}
	if plain = c.Bit(&m.plain, len(b.tokens) == b.size); plain {
		return b.size, true
	}
	if c.Bit(&m.sameCount, len(b.tokens) == m.lastCount) {
		tokens = m.lastCount
	} else {
		tokens = c.Number(m.count, len(b.tokens))
	}
	if tokens > maxTokens {
		c.Fail()
	}
	m.lastCount = tokens
	return tokens, false
}

// sight codes how far the predictor sees.
func (m *model) sight(b *block) {
	switch far := m.ahead > ahead; {
	case b.sealed:
		b.sight = 0
	case far && m.c.Bit(&m.near, b.sight < m.ahead):
		if b.sight = m.c.Number(m.size, b.sight); b.sight > m.ahead {
			m.c.Fail()
		}
	default:
		b.sight = m.ahead
	}
}

// token codes one token at a position of contents that are known up to end.
func (m *model) token(at, end int, t token) token {
	c := m.c
	p := m.m.predict(at, end)
	context := m.lastHit
	if p != 0 {
		context |= 2
	}
	if !c.Bit(&m.hit[context], p != t) {
		m.lastHit = 1
		m.m.advance(at, p)
		return p
	}
	m.lastHit = 0
	if p != 0 && c.Bit(&m.literal[0], t == 0) {
		m.m.advance(at, 0)
		return 0
	}
	length := 3 + c.Tree(m.lengths, t.length()-3)
	distance := t.distance()
	if p == 0 || c.Bit(&m.distance, distance != p.distance()) {
		sym, extra := 0, uint32(0)
		if t != 0 {
			sym, _, extra = distanceSymbol(distance)
		}
		sym = c.Tree(m.distances, sym)
		if sym >= maxDist {
			c.Fail()
			return 0
		}
		least, n := distanceOf(sym)
		distance = least + int(c.Raw(n, extra))
	} else {
		distance = p.distance()
	}
	t = match(length, distance)
	m.m.advance(at, t)
	return t
}

// closing codes what comes after the last block of a member.
func (m *model) closing(b *block) {
	if m.c.Bit(&m.endPad, b.endPad != 0) {
		b.endPad = byte(m.c.Tree(m.pads, int(b.endPad)))
	}
}

// treeModel codes the codes of dynamic blocks.
type treeModel struct {
	method                     [methods]corrections.Tree
	asChosen, trimmed, asRuns  corrections.Prob
	lits, dists, codes         corrections.Tree
	equal, codeEqual           [2]corrections.Prob
	length, codeLength, sym    corrections.Tree
	extra                      [3]corrections.Tree
	count                      corrections.Tree
	separate                   corrections.Prob
	lastMethod                 int
	codesTrimmed, codeAsChosen corrections.Prob
}

func (t *treeModel) init() {
	t.lits, t.dists, t.codes = corrections.NewTree(5), corrections.NewTree(5), corrections.NewTree(4)
	t.length, t.codeLength, t.sym, t.count = corrections.NewTree(4), corrections.NewTree(3), corrections.NewTree(5), corrections.NewTree(6)
	for i := range t.method {
		t.method[i] = corrections.NewTree(2)
	}
	t.extra = [3]corrections.Tree{corrections.NewTree(2), corrections.NewTree(3), corrections.NewTree(7)}
	for _, p := range []*corrections.Prob{&t.asChosen, &t.trimmed, &t.asRuns, &t.equal[0], &t.equal[1], &t.codeEqual[0], &t.codeEqual[1], &t.separate, &t.codesTrimmed, &t.codeAsChosen} {
		*p = corrections.Even
	}
}

// frequencies counts the symbols of the tokens for some contents.
func frequencies(tokens []token, contents []byte) (lit [maxLit]int, dist [maxDist]int) {
	at := 0
	for _, t := range tokens {
		if at >= len(contents) {
			break
		}
		if t == 0 {
			lit[contents[at]]++
			at++
			continue
		}
		sym, _, _ := lengthSymbol(t.length())
		lit[sym]++
		sym, _, _ = distanceSymbol(t.distance())
		dist[sym]++
		at += t.length()
	}
	lit[endBlock]++
	return lit, dist
}

// methods is how many ways there are to choose the codes of a block: zlib's, Go's, and two of klauspost's, who goes on with the code for the first window, or the first tokens, as long as it pays.
const methods = 4

// chosen returns the lengths that a method gives a block.
func chosen(method int, tokens []token, contents []byte) (lens [maxLit + maxDist]byte) {
	most := len(contents)
	switch method {
	case 2:
		most = min(most, scanWindow)
	case 3:
		tokens = tokens[:min(len(tokens), lazyTokens)]
	}
	lit, dist := frequencies(tokens, contents[:most])
	if method == 0 {
		return choose(treeLengths, &lit, &dist)
	}
	return choose(mergeLengths, &lit, &dist)
}

// trim returns how many lengths there are without the zeros at the end, at least least.
func trim(lens []byte, least int) int {
	n := len(lens)
	for n > least && lens[n-1] == 0 {
		n--
	}
	return n
}

// choose returns the lengths that a chooser gives a block.
func choose(f chooser, lit *[maxLit]int, dist *[maxDist]int) (lens [maxLit + maxDist]byte) {
	f(lit[:], maxBits, lens[:maxLit])
	f(dist[:], maxBits, lens[maxLit:])
	if trim(lens[maxLit:], 0) == 0 { // Go's encoders give the first distance a code where there is none
		lens[maxLit] = 1
	}
	return lens
}

// code codes the trees of a block, whose tokens are known.
func (t *treeModel) code(c *corrections.Coder, b *block, contents []byte) {
	method := t.lastMethod
	if !c.Reads() {
		method = b.tree.closest(b.tokens, contents, method)
	} else {
		b.tree = &trees{}
	}
	m := c.Tree(t.method[t.lastMethod], method)
	if m >= methods {
		c.Fail()
		return
	}
	t.lastMethod = m
	want := chosen(m, b.tokens, contents)
	tree := b.tree
	lits, dists := trim(want[:maxLit], 257), trim(want[maxLit:], 1)
	if c.Bit(&t.trimmed, tree.lits != lits || tree.dists != dists) {
		lits = 257 + c.Tree(t.lits, tree.lits-257)
		dists = 1 + c.Tree(t.dists, tree.dists-1)
		if lits > maxLit || dists > maxDist {
			c.Fail()
			return
		}
	}
	tree.lits, tree.dists = lits, dists
	var predicted [maxCodes]byte
	copy(predicted[:], want[:lits])
	copy(predicted[lits:], want[maxLit:maxLit+dists])
	if c.Bit(&t.asChosen, predicted != tree.lens) {
		last := 0
		for i := range lits + dists {
			differs := c.Bit(&t.equal[last], tree.lens[i] != predicted[i])
			last = 0
			if differs {
				last = 1
				tree.lens[i] = byte(c.Tree(t.length, int(tree.lens[i])))
			} else {
				tree.lens[i] = predicted[i]
			}
		}
	} else {
		tree.lens = predicted
	}
	if t.runs(c, tree); c.Err() != nil {
		return
	}
	f := chooser(mergeLengths)
	if m == 0 {
		f = treeLengths
	}
	t.codeOfLengths(c, tree, f)
}

// closest returns the number of the chooser that gives the lengths with the fewest differences, the last one's if it is as good as any.
func (t *trees) closest(tokens []token, contents []byte, last int) int {
	best, least := last, 1<<30
	for i := range methods {
		i = (last + i) % methods
		n := 0
		want := chosen(i, tokens, contents)
		for s, l := range t.lens[:t.lits] {
			if l != want[s] {
				n++
			}
		}
		for s, l := range t.lens[t.lits : t.lits+t.dists] {
			if l != want[maxLit+s] {
				n++
			}
		}
		if n < least {
			best, least = i, n
		}
		if n == 0 {
			break
		}
	}
	return best
}

// makeRuns writes lengths the way that all encoders do: long runs first.
func makeRuns(list []run, lens []byte) []run {
	for i := 0; i < len(lens); {
		n := 1
		for i+n < len(lens) && lens[i+n] == lens[i] {
			n++
		}
		l := lens[i]
		i += n
		if l != 0 {
			list = append(list, run{l, 0})
			for n--; n >= 3; n -= min(n, 6) {
				list = append(list, run{16, byte(min(n, 6) - 3)})
			}
		}
		for l == 0 && n >= 11 {
			k := min(n, 138)
			list = append(list, run{18, byte(k - 11)})
			n -= k
		}
		if l == 0 && n >= 3 {
			list = append(list, run{17, byte(n - 3)})
			n = 0
		}
		for range n {
			list = append(list, run{l, 0})
		}
	}
	return list
}

func equalRuns(a, b []run) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// runs codes how the lengths are written. zlib begins anew with the distances, Go does not.
func (t *treeModel) runs(c *corrections.Coder, tree *trees) {
	all := tree.lens[:tree.lits+tree.dists]
	joint := makeRuns(nil, all)
	apart := makeRuns(makeRuns(nil, all[:tree.lits]), all[tree.lits:])
	apartly := c.Bit(&t.separate, equalRuns(tree.runs, apart) && (t.separate < corrections.Even || !equalRuns(tree.runs, joint)))
	want := joint
	if apartly {
		want = apart
	}
	if !c.Bit(&t.asRuns, !equalRuns(tree.runs, want)) {
		tree.runs = want
		return
	}
	n := c.Number(t.count, len(tree.runs))
	if n > maxCodes {
		c.Fail()
		return
	}
	if c.Reads() {
		tree.runs = make([]run, n)
	}
	for i := range tree.runs {
		r := &tree.runs[i]
		if r.sym = byte(c.Tree(t.sym, int(r.sym))); r.sym > 18 {
			c.Fail()
			return
		}
		if r.sym >= 16 {
			r.extra = byte(c.Tree(t.extra[r.sym-16], int(r.extra)))
		}
	}
}

// codeOfLengths codes the code that the runs are written in.
func (t *treeModel) codeOfLengths(c *corrections.Coder, tree *trees, f chooser) {
	var freq [19]int
	for _, r := range tree.runs {
		freq[r.sym]++
	}
	var want [19]byte
	f(freq[:], 7, want[:])
	n := 19
	for n > 4 && want[codeOrder[n-1]] == 0 {
		n--
	}
	if c.Bit(&t.codesTrimmed, tree.codes != n) {
		n = 4 + c.Tree(t.codes, tree.codes-4)
	}
	if tree.codes = n; n > 19 {
		c.Fail()
		return
	}
	if !c.Bit(&t.codeAsChosen, tree.code != want) {
		tree.code = want
		return
	}
	for i := range tree.code {
		if c.Bit(&t.codeEqual[0], tree.code[i] != want[i]) {
			tree.code[i] = byte(c.Tree(t.codeLength, int(tree.code[i])))
		} else {
			tree.code[i] = want[i]
		}
	}
}
