package zstandard

import (
	"math/bits"
	"slices"
)

func highest(n int) int { return bits.Len(uint(n)) - 1 }

// distribution is how an encoder makes a table of statistics.
type distribution struct {
	log  int   // at most
	rare int16 // what a rare symbol gets: -1, or 1
	less int   // taken from the number of symbols where the least log is found
}

// norm returns the distribution of n symbols of some frequencies, and whether there is one.
func (d distribution) norm(freq []int, n int) (norm []int16, log int, ok bool) {
	for len(freq) > 0 && freq[len(freq)-1] == 0 {
		freq = freq[:len(freq)-1]
	}
	if n-d.less < 1 || len(freq) < 2 || slices.Max(freq) == n {
		return nil, 0, false
	}
	log = d.log
	if few := highest(n-1) - 2; few >= 0 { // encoders take it for a large number below
		log = min(log, few)
	}
	log = max(log, min(highest(n-d.less)+1, highest(len(freq)-1)+2), 5)
	log = min(log, d.log)
	norm = make([]int16, len(freq))
	if d.share(freq, norm, n, log) {
		return norm, log, true
	}
	for i, f := range freq {
		norm[i] = 0
		if f > 0 {
			norm[i] = open
		}
	}
	ok = d.shareLate(freq, norm, n, log)
	return norm, log, ok
}

// roundUp is from what rest on a small share is rounded up, in 2^20ths: the smaller, the more it matters.
var roundUp = [8]uint64{0, 473195, 504333, 520860, 550000, 700000, 750000, 830000} //nolint:gochecknoglobals // a constant

// share gives each symbol its share of the states; the most frequent one gets, or gives, what does not add up. It reports whether that one can.
func (d distribution) share(freq []int, norm []int16, n, log int) bool {
	scale := 62 - log
	unit := uint64(1<<62) / uint64(n)
	left, most, largest := 1<<log, 0, 0
	for i, f := range freq {
		switch {
		case f == 0:
		case f <= n>>log:
			norm[i] = d.rare
			left--
		default:
			exact := uint64(f) * unit
			p := exact >> scale
			if p < 8 && exact-p<<scale > roundUp[p]<<(scale-20) {
				p++
			}
			norm[i] = int16(p)
			left -= int(p)
			if int(p) > most {
				most, largest = int(p), i
			}
		}
	}
	if -left >= int(norm[largest]>>1) {
		return false
	}
	norm[largest] += int16(left)
	return true
}

const open = -2 // a symbol that has no share yet

// shareLate is for where the most frequent symbol cannot: the rare ones get their states first, the others share what is left.
func (d distribution) shareLate(freq []int, norm []int16, n, log int) bool {
	total, states := n, 1<<log
	give := func(i int, v int16) {
		norm[i] = v
		states--
		total -= freq[i]
	}
	least := n * 3 >> (log + 1)
	for i, f := range freq {
		switch {
		case f == 0:
		case f <= n>>log:
			give(i, d.rare)
		case f <= least:
			give(i, 1)
		}
	}
	if states <= 0 {
		return false
	}
	if total/states > least {
		least = total * 3 / (states * 2)
		for i, f := range freq {
			if norm[i] == open && f <= least {
				give(i, 1)
			}
		}
	}
	if states <= 0 {
		return false
	}
	if total == 0 {
		if slices.Max(norm) <= 0 {
			return false
		}
		for i := 0; states > 0; i = (i + 1) % len(norm) {
			if norm[i] > 0 {
				norm[i]++
				states--
			}
		}
		return true
	}
	scale := 62 - log
	half := uint64(1)<<(scale-1) - 1
	unit := (uint64(states)<<scale + half) / uint64(total)
	at := half
	for i, f := range freq {
		if norm[i] != open {
			continue
		}
		end := at + uint64(f)*unit
		norm[i] = int16(end>>scale - at>>scale)
		if norm[i] < 1 {
			return false
		}
		at = end
	}
	return true
}

// codeLengths returns the weights that encoders give literals of these frequencies, n in all; the last symbol's, which is not written, is left out.
func codeLengths(freq *[256]int, n int) (weights []byte, ok bool) {
	type leaf struct{ symbol, freq int }
	var leaves []leaf
	for s, f := range freq {
		if f > 0 {
			leaves = append(leaves, leaf{symbol: s, freq: f})
		}
	}
	if len(leaves) < 2 {
		return nil, false
	}
	symbols := leaves[len(leaves)-1].symbol + 1
	slices.SortStableFunc(leaves, func(a, b leaf) int { return b.freq - a.freq })

	// Huffman's tree: of a leaf and a node of the same weight, the node goes first.
	type node struct{ freq, parent, depth int }
	parents := make([]int, len(leaves))
	var nodes []node
	l, at := len(leaves)-1, 0
	for len(nodes) < len(leaves)-1 {
		sum := 0
		for range 2 {
			if l >= 0 && (at == len(nodes) || leaves[l].freq < nodes[at].freq) {
				sum += leaves[l].freq
				parents[l] = len(nodes)
				l--
			} else {
				sum += nodes[at].freq
				nodes[at].parent = len(nodes)
				at++
			}
		}
		nodes = append(nodes, node{freq: sum})
	}
	for i := len(nodes) - 2; i >= 0; i-- {
		nodes[i].depth = nodes[nodes[i].parent].depth + 1
	}
	depths, weightsOf := make([]int, len(leaves)), make([]int, len(leaves))
	for i := range leaves {
		depths[i], weightsOf[i] = nodes[parents[i]].depth+1, leaves[i].freq
	}

	limit := min(huffmanBits, highest(n-1)-1)
	limit = max(limit, min(highest(n)+1, highest(symbols-1)+2), 5)
	limit = min(limit, huffmanBits)
	longest := depths[len(depths)-1]
	if longest > limit {
		if !shorten(depths, weightsOf, limit) {
			return nil, false
		}
		longest = limit
	}
	weights = make([]byte, symbols)
	for i, leaf := range leaves {
		weights[leaf.symbol] = byte(longest + 1 - depths[i])
	}
	return weights[:symbols-1], true
}

// shorten makes no code longer than limit. Codes are in the order of falling frequencies, so that depths rise. What the longest codes gain is paid by others, those whose symbols are rarest first.
func shorten(depths, freq []int, limit int) bool {
	longest := depths[len(depths)-1]
	debt, n := 0, len(depths)-1
	for ; n >= 0 && depths[n] > limit; n-- {
		debt += 1<<(longest-limit) - 1<<(longest-depths[n])
		depths[n] = limit
	}
	for n >= 0 && depths[n] == limit {
		n--
	}
	debt >>= longest - limit
	const none = -1
	var last [huffmanBits + 3]int // of the codes that are so much shorter than limit, the one whose symbol is rarest
	for i := range last {
		last[i] = none
	}
	for i, depth := n, limit; i >= 0; i-- {
		if depths[i] < depth {
			depth = depths[i]
			last[limit-depth] = i
		}
	}
	for debt > 0 {
		k := highest(debt) + 1
		for ; k > 1; k-- {
			if k >= len(last) || last[k] == none {
				continue
			}
			if last[k-1] == none || freq[last[k]] <= 2*freq[last[k-1]] {
				break
			}
		}
		for k <= huffmanBits && last[k] == none {
			k++
		}
		if k >= len(last) || last[k] == none {
			return false
		}
		debt -= 1 << (k - 1)
		if last[k-1] == none {
			last[k-1] = last[k]
		}
		depths[last[k]]++
		if last[k] == 0 {
			last[k] = none
		} else if last[k]--; depths[last[k]] != limit-k {
			last[k] = none
		}
	}
	for ; debt < 0; debt++ {
		if last[1] == none {
			for n >= 0 && depths[n] == limit {
				n--
			}
			if n+1 >= len(depths) {
				return false
			}
			depths[n+1]--
			last[1] = n + 1
			continue
		}
		if last[1]+1 >= len(depths) {
			return false
		}
		depths[last[1]+1]--
		last[1]++
	}
	return true
}

// Ways to describe a Huffman code: its weights with a table, as klauspost/compress and as libzstd make it, or as they are.
const (
	weightsKlauspost = iota
	weightsLibzstd
	weightsDirect
	weightsOther
)

// describeWeights writes the description of a code in a way, if it can be.
func describeWeights(weights []byte, way int) ([]byte, bool) {
	if way == weightsDirect {
		if len(weights) > 128 {
			return nil, false
		}
		out := []byte{byte(127 + len(weights))}
		for i := 0; i < len(weights); i += 2 {
			b := weights[i] << 4
			if i+1 < len(weights) {
				b |= weights[i+1]
			}
			out = append(out, b)
		}
		return out, true
	}
	if len(weights) < 2 {
		return nil, false
	}
	var freq [huffmanBits + 2]int
	for _, w := range weights {
		freq[w]++
	}
	d := distribution{log: weightLog, rare: -1, less: 1}
	if way == weightsLibzstd {
		d = distribution{log: weightLog, rare: 1}
	}
	norm, log, ok := d.norm(freq[:], len(weights))
	if !ok {
		return nil, false
	}
	f := newFSE(norm, log)
	w := bitWriter{out: writeNorm([]byte{0}, norm, log)}
	n := len(weights)
	var state [2]uint32
	state[(n-1)&1], state[n&1] = f.first(weights[n-1]), f.first(weights[n-2])
	for i := n - 3; i >= 0; i-- {
		state[i&1] = f.put(&w, state[i&1], weights[i])
	}
	for i := 1; i >= 0; i-- {
		w.put(state[i]&(1<<log-1), log)
	}
	out := w.close()
	if len(out) > 128 {
		return nil, false
	}
	out[0] = byte(len(out) - 1)
	return out, true
}
