package jsonfile

import (
	"time"
	"unicode/utf8"

	"gantry/logs/record"
)

const hex = "0123456789abcdef"

// plain has true for the bytes that stand for themselves in a JSON string as Docker writes it: <, > and & are escaped too.
var plain = func() (t [256]bool) {
	for c := 0x20; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
	}
	return t
}()

// appendText appends s as the inside of a JSON string.
func appendText(b, s []byte) []byte {
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRune(s[i:])
			if r == utf8.RuneError && size == 1 {
				b = append(b, s[start:i]...)
				b = append(b, `\ufffd`...)
				i++
				start = i
				continue
			}
			if r == '\u2028' || r == '\u2029' { // line ends in JavaScript
				b = append(b, s[start:i]...)
				b = append(b, `\u202`...)
				b = append(b, hex[r&0xf])
				i += size
				start = i
				continue
			}
			i += size
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
		}
		i++
		start = i
	}
	return append(b, s[start:]...)
}

func appendAttributes(b []byte, attributes []record.Attribute) []byte {
	b = append(b, '{')
	for i, a := range attributes {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = appendText(b, []byte(a.Key))
		b = append(b, `":"`...)
		b = appendText(b, []byte(a.Value))
		b = append(b, '"')
	}
	return append(b, '}')
}

// stamp formats times as RFC 3339 with nanoseconds, in UTC. Most messages have the time of the one before.
type stamp struct {
	at   time.Time
	text []byte
}

func (s *stamp) append(b []byte, at time.Time) []byte {
	if s.text == nil || !at.Equal(s.at) {
		s.at = at
		s.text = at.UTC().AppendFormat(s.text[:0], time.RFC3339Nano)
	}
	return append(b, s.text...)
}
