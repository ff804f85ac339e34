package zstandard

// window is a stretch of the contents, by positions in all of them.
type window struct {
	data []byte
	base int // position of its first byte
	end  int
}

// bytes returns the contents from a position to another.
func (w *window) bytes(from, to int) []byte { return w.data[from-w.base : to-w.base] }

// room sees to it that n more bytes fit without the rest moving.
func (w *window) room(n int) {
	if cap(w.data)-len(w.data) < n {
		w.data = append(make([]byte, 0, len(w.data)+len(w.data)/4+n+64<<10), w.data...)
	}
}

func (w *window) put(p []byte) {
	w.data = append(w.data, p...)
	w.end += len(p)
}

// copy repeats n bytes from so far back.
func (w *window) copy(n, back int) {
	for n > 0 {
		from := len(w.data) - back
		k := min(n, back)
		w.data = append(w.data, w.data[from:from+k]...)
		w.end += k
		n -= k
	}
}

// forget drops what is before a position, once it is much.
func (w *window) forget(before int) {
	if n := before - w.base; n > 1<<20 && n > len(w.data)/4 {
		w.data = w.data[:copy(w.data, w.data[n:])]
		w.base += n
	}
}
