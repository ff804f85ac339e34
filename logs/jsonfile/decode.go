package jsonfile

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"gantry/logs/record"
)

// Next implements rotate.Format.
func (*format) Next(b []byte) (int, error) { return bytes.IndexByte(b, '\n') + 1, nil }

// Decode implements rotate.Format. Lines that this driver or Docker's wrote take the short way; others, such as those with members
// in another order, go through encoding/json.
func (f *format) Decode(b []byte, e *record.Entry, details bool) bool {
	return f.decodeOwn(b, e, details) || f.decodeAny(b, e, details)
}

func (f *format) decodeOwn(b []byte, e *record.Entry, details bool) bool {
	b, ok := bytes.CutPrefix(b, []byte(`{"log":"`))
	if !ok {
		return false
	}
	end, escaped := stringEnd(b)
	if end < 0 {
		return false
	}
	e.Line = b[:end]
	if escaped {
		f.text = unescape(f.text[:0], e.Line)
		if f.text == nil {
			return false
		}
		e.Line = f.text
	}
	if b, ok = bytes.CutPrefix(b[end:], []byte(`","stream":"std`)); !ok {
		return false
	}
	switch {
	case bytes.HasPrefix(b, []byte(`out",`)):
		e.Stream = record.Stdout
	case bytes.HasPrefix(b, []byte(`err",`)):
		e.Stream = record.Stderr
	default:
		return false
	}
	b = b[len(`out",`):]
	if rest, found := bytes.CutPrefix(b, []byte(`"attrs":`)); found {
		at := bytes.LastIndex(rest, []byte(`,"time":"`))
		if at < 0 {
			return false
		}
		if details && !decodeAttributes(rest[:at], e) {
			return false
		}
		b = rest[at+1:]
	}
	b, ok = bytes.CutPrefix(b, []byte(`"time":"`))
	if !ok {
		return false
	}
	text, ok := bytes.CutSuffix(b, []byte("\"}\n"))
	if !ok {
		return false
	}
	if string(text) != string(f.last.text) {
		at, err := time.Parse(time.RFC3339Nano, string(text))
		if err != nil {
			return false
		}
		f.last.at, f.last.text = at, append(f.last.text[:0], text...)
	}
	e.Time = f.last.at
	return true
}

func (f *format) decodeAny(b []byte, e *record.Entry, details bool) bool {
	var line struct {
		Log    *string           `json:"log"`
		Stream string            `json:"stream"`
		Attrs  map[string]string `json:"attrs"`
		Time   time.Time         `json:"time"`
	}
	if json.Unmarshal(b, &line) != nil || line.Log == nil {
		return false
	}
	e.Line, e.Time, e.Stream = []byte(*line.Log), line.Time, record.Stdout
	if line.Stream == "stderr" {
		e.Stream = record.Stderr
	}
	e.Attributes = e.Attributes[:0]
	if details {
		addAttributes(line.Attrs, e)
	}
	return true
}

func decodeAttributes(b []byte, e *record.Entry) bool {
	var m map[string]string
	if json.Unmarshal(b, &m) != nil {
		return false
	}
	addAttributes(m, e)
	return true
}

func addAttributes(m map[string]string, e *record.Entry) {
	for k, v := range m {
		e.Attributes = append(e.Attributes, record.Attribute{Key: k, Value: v})
	}
	slices.SortFunc(e.Attributes, func(a, b record.Attribute) int { return strings.Compare(a.Key, b.Key) })
}

// stringEnd returns where the quotation mark that ends a JSON string is in b, -1 if nowhere.
func stringEnd(b []byte) (end int, escaped bool) {
	for at := 0; ; {
		quote := bytes.IndexByte(b[at:], '"')
		if quote < 0 {
			return -1, false
		}
		backslash := bytes.IndexByte(b[at:at+quote], '\\')
		if backslash < 0 {
			return at + quote, escaped
		}
		escaped = true
		if at += backslash + 2; at > len(b) {
			return -1, false
		}
	}
}

// unescape appends the text that the inside of a JSON string stands for, or returns nil if it is not well-formed.
func unescape(to, s []byte) []byte {
	if to == nil {
		to = make([]byte, 0, len(s))
	}
	for {
		i := bytes.IndexByte(s, '\\')
		if i < 0 {
			return append(to, s...)
		}
		to = append(to, s[:i]...)
		if s = s[i+1:]; len(s) == 0 {
			return nil
		}
		c := s[0]
		s = s[1:]
		switch c {
		case '"', '\\', '/':
			to = append(to, c)
		case 'n':
			to = append(to, '\n')
		case 'r':
			to = append(to, '\r')
		case 't':
			to = append(to, '\t')
		case 'b':
			to = append(to, '\b')
		case 'f':
			to = append(to, '\f')
		case 'u':
			r := hexRune(s)
			if r < 0 {
				return nil
			}
			s = s[4:]
			if utf16.IsSurrogate(r) {
				low := rune(-1)
				if len(s) >= 6 && s[0] == '\\' && s[1] == 'u' {
					low = hexRune(s[2:])
				}
				if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
					s = s[6:]
				}
			}
			to = utf8.AppendRune(to, r)
		default:
			return nil
		}
	}
}

func hexRune(s []byte) rune {
	if len(s) < 4 {
		return -1
	}
	n, err := strconv.ParseUint(string(s[:4]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(n)
}
