package server

import (
	"bytes"
	"testing"
)

func TestDetacher(t *testing.T) {
	for _, test := range []struct {
		keys, in, out string
		detached      bool
	}{
		{"\x10\x11", "ab\x10\x11cd", "ab", true},
		{"\x10\x11", "ab\x10cd", "ab\x10cd", false},
		{"\x10\x11", "\x10\x10\x11", "\x10", true},
		{"\x10\x11", "x\x10", "x\x10", false},
		{"aab", "aaab", "a", true},
		{"abac", "ababac", "ab", true},
		{"abac", "abab", "abab", false},
		{"a", "bab", "b", true},
		{"", "\x10\x11", "\x10\x11", false},
	} {
		for size := 1; size <= len(test.in); size++ { // in pieces of each size
			d := detacher{keys: []byte(test.keys)}
			var out []byte
			detached := false
			for in := []byte(test.in); len(in) > 0 && !detached; {
				n := min(size, len(in))
				out, detached = d.filter(out, in[:n])
				in = in[n:]
			}
			if !detached {
				out = append(out, d.rest()...)
			}
			if string(out) != test.out || detached != test.detached {
				t.Errorf("keys %q, input %q by %d: %q %v", test.keys, test.in, size, out, detached)
			}
		}
	}
}

func FuzzDetacher(f *testing.F) {
	f.Add([]byte("ab"), []byte("aab"))
	f.Fuzz(func(t *testing.T, keys, in []byte) {
		d := detacher{keys: keys}
		out, detached := d.filter(nil, in)
		at := -1
		if len(keys) > 0 {
			at = bytes.Index(in, keys)
		}
		if detached != (at >= 0) {
			t.Fatal(detached, at)
		}
		if detached {
			in = in[:at]
		} else {
			out = append(out, d.rest()...)
		}
		if !bytes.Equal(out, in) {
			t.Fatalf("%q, want %q", out, in)
		}
	})
}
