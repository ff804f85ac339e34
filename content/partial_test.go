package content

import (
	"encoding/json"
	"testing"
)

func TestSpans(t *testing.T) {
	var s spans
	for _, c := range []struct {
		start, end int64
		want       string
	}{
		{5, 5, `null`},
		{10, 20, `[[10,20]]`},
		{30, 40, `[[10,20],[30,40]]`},
		{20, 25, `[[10,25],[30,40]]`},
		{0, 5, `[[0,5],[10,25],[30,40]]`},
		{4, 30, `[[0,40]]`},
		{50, 60, `[[0,40],[50,60]]`},
		{0, 100, `[[0,100]]`},
	} {
		s = s.add(c.start, c.end)
		if got, _ := json.Marshal(s); string(got) != c.want || !s.valid(100) {
			t.Errorf("%v: %s, want %s", c, got, c.want)
		}
	}
}

// What spans say is what a bitmap says.
func FuzzSpans(f *testing.F) {
	f.Add([]byte{1, 5, 7, 9, 3, 8})
	f.Fuzz(func(t *testing.T, cuts []byte) {
		var s spans
		var bits [256]bool
		for i := 0; i+1 < len(cuts); i += 2 {
			start, end := int64(min(cuts[i], cuts[i+1])), int64(max(cuts[i], cuts[i+1]))
			s = s.add(start, end)
			for k := start; k < end; k++ {
				bits[k] = true
			}
		}
		var sum, prefix int64
		gap := int64(256)
		for k, b := range bits {
			if b {
				sum++
			} else if gap == 256 {
				gap = int64(k)
			}
		}
		for prefix < 256 && bits[prefix] {
			prefix++
		}
		start, end := s.gap(0, 256)
		if !s.valid(256) || s.sum() != sum || s.prefix() != prefix || start != gap || end < start {
			t.Errorf("%v: sum %d, prefix %d, gap %d-%d", s, s.sum(), s.prefix(), start, end)
		}
	})
}

func FuzzNote(f *testing.F) {
	f.Add([]byte(`{"size":10,"boot":"x","spans":[[0,5],[7,9]],"hashed":5,"hash":"AAAA"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := parseNote(data)
		if err == nil && (!n.Spans.valid(n.Size) || n.Hashed > n.Size || n.Spans.sum() > n.Size) {
			t.Errorf("%+v", n)
		}
	})
}
