package jsonfile

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"gantry/logs/record"
	"gantry/logs/rotate"
)

// TestFormat has lines that dockerd 20.10 wrote for the same output.
func TestFormat(t *testing.T) {
	at := time.Date(2026, 11, 21, 4, 7, 47, 452214180, time.FixedZone("", 3600))
	open := &record.Partial{Ordinal: 1}
	for _, test := range []struct {
		in      string
		partial *record.Partial
		want    string
	}{
		{"hello", nil, `{"log":"hello\n","stream":"stderr","time":"2026-11-21T03:07:47.45221418Z"}`},
		{"open", open, `{"log":"open","stream":"stderr","time":"2026-11-21T03:07:47.45221418Z"}`},
		{"\x00\x07\b\t\v\f\r\x1b", nil, `{"log":"\u0000\u0007\u0008\u0009\u000b\u000c\r\u001b\n","stream":"stderr","time":"2026-11-21T03:07:47.45221418Z"}`},
		{"<script>&\"\\/", nil, `{"log":"\u003cscript\u003e\u0026\"\\/\n","stream":"stderr","time":"2026-11-21T03:07:47.45221418Z"}`},
		{"é\u2028\u2029😀\ufffd\x7f", nil, `{"log":"é\u2028\u2029😀` + "\ufffd\x7f" + `\n","stream":"stderr","time":"2026-11-21T03:07:47.45221418Z"}`},
		{"\xed\xa0\x80\xf0\x9f\x98", nil, `{"log":"\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\n","stream":"stderr","time":"2026-11-21T03:07:47.45221418Z"}`},
	} {
		path := filepath.Join(t.TempDir(), "log")
		d, err := Open(path, rotate.Limits{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Write(&record.Message{Stream: record.Stderr, Time: at, Line: []byte(test.in), Partial: test.partial}); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != test.want+"\n" {
			t.Errorf("%q: %v\ngot  %s\nwant %s", test.in, err, got, test.want)
		}
	}
}

// TestForeignLines reads what other writers of the format may have written.
func TestForeignLines(t *testing.T) {
	var f format
	for _, test := range []struct{ in, text, attributes string }{
		{`{"log":"a\n","stream":"stdout","attrs":{"k":"v\"}"},"time":"2020-01-01T00:00:00Z"}`, "a\n", `k=v"}`},
		{`{"time":"2020-01-01T00:00:00Z","stream":"stdout","log":"\ud83d\ude00\ud83d\/\b"}`, "😀\ufffd/\b", ""},
		{`{"log":"\ud83d\ude00\ud83d\/\b","stream":"stdout","time":"2020-01-01T00:00:00Z"}`, "😀\ufffd/\b", ""},
	} {
		var e record.Entry
		if !f.Decode([]byte(test.in+"\n"), &e, true) || string(e.Line) != test.text || e.Stream != record.Stdout || e.Time.Year() != 2020 {
			t.Errorf("%s: %q %v", test.in, e.Line, e)
		}
		var pairs []string
		for _, a := range e.Attributes {
			pairs = append(pairs, a.Key+"="+a.Value)
		}
		if strings.Join(pairs, " ") != test.attributes {
			t.Errorf("%s: %q", test.in, pairs)
		}
	}
	for _, bad := range []string{"", "x", "{}", `{"log":"a`, `{"log":"\u12"}`, `{"log":"a","stream":"stdout","time":"yesterday"}`} {
		if f.Decode([]byte(bad+"\n"), new(record.Entry), true) {
			t.Errorf("%s was accepted", bad)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"log":"a\u0041\n","stream":"stdout","attrs":{"a":"b"},"time":"2020-01-01T00:00:00.5Z"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if bytes.IndexByte(b, '\n') >= 0 || !utf8.Valid(b) {
			return
		}
		var short, long record.Entry
		var d format
		line := append(b, '\n')
		if !d.decodeOwn(line, &short, false) || !json.Valid(b) {
			return
		}
		if !d.decodeAny(line, &long, false) {
			t.Fatalf("only the short way takes %q", b)
		}
		if string(short.Line) != string(long.Line) || !short.Time.Equal(long.Time) || short.Stream != long.Stream {
			var members map[string]any
			if json.Unmarshal(b, &members) == nil && bytes.Count(b, []byte(`":`)) > len(members) {
				return // a member twice
			}
			t.Fatalf("%q: %q and %q", b, short.Line, long.Line)
		}
	})
}
