package content

import "slices"

// span is a run of bytes: from the first up to, not including, the second.
type span [2]int64

// spans are runs of bytes in order, with a gap between any two.
type spans []span

// add returns the spans with one more, which may touch or overlap others.
func (s spans) add(start, end int64) spans {
	if start >= end {
		return s
	}
	at, _ := slices.BinarySearchFunc(s, start, func(x span, start int64) int {
		if x[1] < start {
			return -1
		}
		return 1
	})
	last := at
	for last < len(s) && s[last][0] <= end {
		start, end = min(start, s[last][0]), max(end, s[last][1])
		last++
	}
	return slices.Replace(s, at, last, span{start, end})
}

// prefix returns the length of the run that begins at 0.
func (s spans) prefix() int64 {
	if len(s) == 0 || s[0][0] != 0 {
		return 0
	}
	return s[0][1]
}

// sum returns how many bytes the runs have.
func (s spans) sum() int64 {
	var n int64
	for _, x := range s {
		n += x[1] - x[0]
	}
	return n
}

// gap returns the first run at or after from, up to size, that the spans lack; start is size when there is none.
func (s spans) gap(from, size int64) (start, end int64) {
	start = from
	for _, x := range s {
		if x[0] > start {
			return start, min(x[0], size)
		}
		start = max(start, x[1])
	}
	return min(start, size), size
}

// valid reports whether the spans are in order and within size bytes.
func (s spans) valid(size int64) bool {
	last := int64(-1)
	for _, x := range s {
		if x[0] <= last || x[1] <= x[0] || x[1] > size {
			return false
		}
		last = x[1]
	}
	return true
}
