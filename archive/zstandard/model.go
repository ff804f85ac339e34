package zstandard

import (
	"bytes"

	"gantry/archive/corrections"
)

// model codes frames and blocks: what is predicted is compared with what is, and the difference coded. It is the same for making a recipe and for using one.
type model struct {
	c *corrections.Coder
	m matcher
	w *window

	items             corrections.Tree // what comes next outside of frames
	skippable         corrections.Tree
	descriptors, logs corrections.Tree
	numbers           [numbers]corrections.Tree
	flags             [flags]corrections.Prob
	last              [4]corrections.Prob
	kinds             [4]corrections.Tree
	literals          [4]corrections.Tree
	formats           [4]corrections.Tree
	ways              [4]corrections.Tree
	modes             [3][4]corrections.Tree
	tableWays         [3][4]corrections.Tree
	bytes             corrections.Tree
	hit               [8]corrections.Prob
	same              [3]corrections.Prob // literals, value, length

	frame        frame
	begin        int // of the frame's contents
	most         int // size of blocks that are not the last of their frame
	lastKind     int
	lastLiterals int
	lastWay      int
	lastModes    [3]int
	lastTables   [3]int
	hits         int // of the last two predictions
	recent       recent
	tables       tables
}

// what comes next outside of frames
const (
	itemEnd = iota
	itemFrame
	itemSkipped
)

// numbers that are coded by how many bits they have
const (
	numberSize = iota
	numberHighSize
	numberBlock
	numberBody
	numberLiterals
	numberValue
	numberLength
	numberSkipped
	numberTree
	numberTable
	numbers
)

const (
	flagSize = iota
	flagAsIs
	flagRest
	flags
)

func newModel(c *corrections.Coder, w *window) *model {
	m := &model{
		c: c, w: w, items: corrections.NewTree(2), skippable: corrections.NewTree(4), descriptors: corrections.NewTree(8), logs: corrections.NewTree(8), bytes: corrections.NewTree(8),
		most: maxBlock, hits: 3,
	}
	for i := range m.numbers {
		m.numbers[i] = corrections.NewTree(6)
	}
	for i := range m.kinds {
		m.kinds[i], m.literals[i], m.formats[i], m.ways[i] = corrections.NewTree(2), corrections.NewTree(2), corrections.NewTree(2), corrections.NewTree(2)
		for k := range m.modes {
			m.modes[k][i], m.tableWays[k][i] = corrections.NewTree(2), corrections.NewTree(2)
		}
	}
	for _, list := range [][]corrections.Prob{m.flags[:], m.last[:], m.hit[:], m.same[:]} {
		for i := range list {
			list[i] = corrections.Even
		}
	}
	return m
}

func (m *model) number(kind, v int) int { return m.c.Number(m.numbers[kind], v) }

// raw codes bytes, at most so many, of which nothing is known.
func (m *model) raw(kind int, data []byte, most int) []byte {
	n := m.number(kind, len(data))
	if n > most {
		m.c.Fail()
		return nil
	}
	if m.c.Reads() {
		data = make([]byte, n)
	}
	for i := range data {
		data[i] = byte(m.c.Raw(8, uint32(data[i])))
	}
	return data
}

// header codes the header of a frame that begins at a position.
func (m *model) header(f *frame, begin int) {
	c := m.c
	f.descriptor = byte(c.Tree(m.descriptors, int(f.descriptor)))
	if !f.single() {
		f.window = byte(c.Tree(m.logs, int(f.window)))
	}
	if f.sizeField() > 0 {
		high := m.number(numberHighSize, int(f.size>>31))
		f.size = uint64(high)<<31 | uint64(m.number(numberSize, int(f.size&(1<<31-1))))
	}
	if _, ok := f.append(nil); !ok || f.check() != nil {
		c.Fail()
		return
	}
	m.frame, m.begin, m.recent, m.tables = *f, begin, recent{1, 4, 8}, tables{}
	m.m.frame(begin, int(f.windowSize()))
}

// opening codes what is known of a block before its contents.
func (m *model) opening(b *block) {
	c := m.c
	most, known := m.most, m.frame.sizeField() > 0
	left := 0
	if known {
		left = max(0, int(m.frame.size)-(b.start-m.begin))
		most = min(most, left)
	}
	if c.Bit(&m.flags[flagSize], b.size != most) {
		b.size = m.number(numberBlock, b.size)
	} else {
		b.size = most
	}
	if b.size > min(maxBlock, int(m.frame.windowSize())) {
		c.Fail()
		return
	}
	context := 0
	if known {
		context = 2
	}
	if known && b.size == left || !known && b.size != m.most {
		context |= 1
	}
	if b.last = c.Bit(&m.last[context], b.last); !b.last {
		m.most = b.size
	}
	b.kind = c.Tree(m.kinds[m.lastKind], b.kind)
	if b.kind > compressed {
		c.Fail()
		return
	}
	m.lastKind = b.kind
}

// contents codes what is known of a block with its contents, and takes it down. body is what a compressed one is.
func (m *model) contents(b *block) (body []byte) {
	end := b.start + b.size
	m.m.block(b.start, end, b.frame != nil && b.last)
	if b.kind != compressed {
		m.pass()
		return nil
	}
	if b.asIs = m.c.Bit(&m.flags[flagAsIs], b.asIs); b.asIs {
		b.body = m.raw(numberBody, b.body, maxBlock)
		m.pass()
		if m.c.Reads() && m.c.Err() == nil {
			again := *b
			if _, err := m.tables.read(&again); err != nil {
				m.c.Fail()
			}
			b.sequences = again.sequences
		}
		for _, s := range b.sequences {
			m.recent.offset(s)
		}
		return b.body
	}
	literals := m.sequences(b, end)
	if m.c.Err() != nil {
		return nil
	}
	m.literalsOf(b, literals)
	m.tablesOf(b)
	if !m.c.Reads() || m.c.Err() != nil {
		return nil
	}
	body, ok := m.tables.write(b, literals)
	if !ok {
		m.c.Fail()
	}
	return body
}

// pass has the predictor go through a block that nothing is known of.
func (m *model) pass() {
	for m.c.Err() == nil && m.m.next().length > 0 {
	}
	m.m.passed()
}

// sequences codes the sequences of a block, and returns its literals.
func (m *model) sequences(b *block, end int) []byte {
	literals := make([]byte, 0, b.size)
	at := b.start
	for i := 0; m.c.Err() == nil; i++ {
		var s sequence
		if i < len(b.sequences) {
			s = b.sequences[i]
		}
		guess := m.m.next()
		s = m.sequence(guess, s, at, end)
		if s.length == 0 || m.c.Err() != nil {
			break
		}
		if s.literals+s.length > end-at || i >= maxBlock/leastMatch {
			m.c.Fail()
			break
		}
		literals = append(literals, m.w.bytes(at, at+s.literals)...)
		at += s.literals
		offset := m.recent.offset(s)
		if !m.possible(offset, at) {
			m.c.Fail()
			break
		}
		if s != guess {
			m.m.took(s, offset)
		}
		at += s.length
		if m.c.Reads() {
			b.sequences = append(b.sequences, s)
		}
	}
	return append(literals, m.w.bytes(at, end)...)
}

// possible reports whether a match at a position may have an offset.
func (m *model) possible(offset, at int) bool {
	return offset > 0 && offset <= at-m.begin && offset <= int(m.frame.windowSize())
}

// sequence codes one sequence at a position.
func (m *model) sequence(guess, s sequence, at, end int) sequence {
	c := m.c
	context := m.hits << 1
	if guess.length > 0 {
		context |= 1
	}
	m.hits = m.hits << 1 & 3
	if !c.Bit(&m.hit[context], s != guess) {
		m.hits |= 1
		return guess
	}
	if guess.length > 0 && c.Bit(&m.flags[flagRest], s.length == 0) {
		return sequence{}
	}
	if guess.length == 0 || c.Bit(&m.same[0], s.literals != guess.literals) {
		s.literals = m.number(numberLiterals, s.literals)
	} else {
		s.literals = guess.literals
	}
	if guess.length == 0 || c.Bit(&m.same[1], s.value != guess.value) {
		s.value = m.number(numberValue, s.value)
	} else {
		s.value = guess.value
	}
	if c.Err() != nil || s.value == 0 || s.value>>maxOffset > 0 || s.literals >= end-at {
		c.Fail()
		return sequence{}
	}
	at += s.literals
	full := 0
	peek := m.recent
	if offset := peek.offset(s); m.possible(offset, at) {
		full = same(m.w.bytes(m.w.base, end), at-m.w.base, at-m.w.base-offset)
	}
	if c.Bit(&m.same[2], s.length != full) {
		s.length = m.number(numberLength, s.length)
	} else {
		s.length = full
	}
	if s.length < leastMatch {
		c.Fail()
	}
	return s
}

// literalsOf codes how the literals of a block are coded.
func (m *model) literalsOf(b *block, literals []byte) {
	c := m.c
	b.literals = c.Tree(m.literals[m.lastLiterals], b.literals)
	m.lastLiterals = b.literals
	b.format = c.Tree(m.formats[b.literals], b.format)
	if b.literals != compressed {
		return
	}
	var freq [256]int
	for _, l := range literals {
		freq[l]++
	}
	weights, ok := codeLengths(&freq, len(literals))
	predict := func(way int) []byte {
		tree, can := []byte(nil), false
		if ok {
			tree, can = describeWeights(weights, way)
		}
		if !can {
			return nil
		}
		return tree
	}
	b.tree = m.way(&m.ways, &m.lastWay, weightsOther, b.tree, predict, numberTree, 129)
}

// way codes bytes that a way may have made, of ways less than other; by themselves if none has.
func (m *model) way(trees *[4]corrections.Tree, last *int, other int, data []byte, predict func(way int) []byte, kind, most int) []byte {
	way := other
	if !m.c.Reads() {
		for i := range other {
			if i = (min(*last, other-1) + i) % other; bytes.Equal(predict(i), data) {
				way = i
				break
			}
		}
	}
	way = m.c.Tree(trees[*last], way)
	*last = way
	if way < other {
		data = predict(way)
	} else {
		n := m.number(kind, len(data))
		if n > most {
			m.c.Fail()
			return nil
		}
		if m.c.Reads() {
			data = make([]byte, n)
		}
		for i := range data {
			v := byte(m.c.Tree(m.bytes, int(data[i])))
			if m.c.Reads() {
				data[i] = v
			}
		}
	}
	if len(data) == 0 {
		m.c.Fail()
	}
	return data
}

// ways in which tables of sequences are made
const (
	tableKlauspost = iota
	tableLibzstd
	tableOther
)

// tablesOf codes the tables of a block's sequences.
func (m *model) tablesOf(b *block) {
	if len(b.sequences) == 0 {
		return
	}
	var freq [3][64]int
	for _, s := range b.sequences {
		for k, code := range s.coded() {
			freq[k][code]++
		}
	}
	final := b.sequences[len(b.sequences)-1].coded()
	for k := range b.modes {
		b.modes[k] = m.c.Tree(m.modes[k][m.lastModes[k]], b.modes[k])
		m.lastModes[k] = b.modes[k]
		if b.modes[k] != modeDescribed {
			continue
		}
		predict := func(way int) []byte {
			n := len(b.sequences)
			counts := freq[k]
			log, _ := tableLimits(k)
			d := distribution{log: log, rare: 1}
			if way == tableKlauspost {
				d = distribution{log: 8, rare: -1}
			} else if counts[final[k]] > 1 { // the last one's code takes no bits
				counts[final[k]]--
				n--
			}
			if way == tableLibzstd && n >= 2048 {
				d.rare = -1
			}
			norm, log, ok := d.norm(counts[:], n)
			if !ok {
				return nil
			}
			return writeNorm(nil, norm, log)
		}
		b.description[k] = m.way(&m.tableWays[k], &m.lastTables[k], tableOther, b.description[k], predict, numberTable, 128)
	}
}
