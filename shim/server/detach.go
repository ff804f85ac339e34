package server

// detacher finds the detach keys in what a client types. Keys that may become the sequence are held back until it is clear.
type detacher struct {
	keys []byte
	held int // number of keys of the sequence seen so far
}

// filter appends the input that is for the process to out. detached: the whole sequence was typed, the rest of the input is void.
func (d *detacher) filter(out, in []byte) (_ []byte, detached bool) {
	if len(d.keys) == 0 {
		return append(out, in...), false
	}
	for _, c := range in {
		for {
			if c == d.keys[d.held] {
				d.held++
				break
			}
			if d.held == 0 {
				out = append(out, c)
				break
			}
			// What is held is no sequence from its first key on; a later part of it may still begin one.
			shift := 1
			for shift < d.held && string(d.keys[shift:d.held]) != string(d.keys[:d.held-shift]) {
				shift++
			}
			out = append(out, d.keys[:shift]...)
			d.held -= shift
		}
		if d.held == len(d.keys) {
			d.held = 0
			return out, true
		}
	}
	return out, false
}

// rest returns what is held back at the end of the input.
func (d *detacher) rest() []byte {
	held := d.keys[:d.held]
	d.held = 0
	return held
}
