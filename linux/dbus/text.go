package dbus

import (
	"strconv"
	"strings"

	"gantry/errdefs"
)

// ParseText reads a value in GVariant's text form, as people write it: 'text', true, 5, uint64 5, @au [1, 2], ['a', 'b'], ('a', true).
// A number without a type is an int32, one with a point a double.
func ParseText(text string) (Variant, error) {
	if len(text) > 64<<10 {
		return Variant{}, errdefs.New(errdefs.InvalidParameter, "a value of %d bytes", len(text))
	}
	p := parser{rest: text}
	v, err := p.value("", 0)
	if err == nil && strings.TrimSpace(p.rest) != "" {
		err = p.bad("after the value comes %q", p.rest)
	}
	return v, err
}

type parser struct{ rest string }

func (p *parser) bad(format string, args ...any) error {
	return errdefs.New(errdefs.InvalidParameter, format, args...)
}

// skip skips white space and reports whether c follows, which it takes.
func (p *parser) skip(c byte) bool {
	p.rest = strings.TrimLeft(p.rest, " \t\n")
	if p.rest != "" && p.rest[0] == c {
		p.rest = p.rest[1:]
		return true
	}
	return false
}

// word takes what is not a delimiter.
func (p *parser) word() string {
	end := strings.IndexAny(p.rest, " \t\n,[]()'\"<>{}")
	if end < 0 {
		end = len(p.rest)
	}
	w := p.rest[:end]
	p.rest = p.rest[end:]
	return w
}

// value reads one value, of type want if that is said.
func (p *parser) value(want Signature, depth int) (Variant, error) {
	if depth > maxDepth {
		return Variant{}, p.bad("the value is nested too deeply")
	}
	switch {
	case p.skip('@'):
		sig := Signature(p.signature())
		if first, rest, err := next(sig); err != nil || rest != "" || first != sig {
			return Variant{}, p.bad("@%s is no type", sig)
		}
		if want != "" && sig != want {
			return Variant{}, p.bad("a value of type %s where %s is wanted", sig, want)
		}
		return p.value(sig, depth+1)
	case p.skip('\''):
		return p.text('\'', want)
	case p.skip('"'):
		return p.text('"', want)
	case p.skip('<'):
		v, err := p.value("", depth+1)
		if err == nil && (!p.skip('>') || want != "" && want != "v") {
			err = p.bad("a variant is wrong here, or does not end")
		}
		return Variant{"v", v}, err
	case p.skip('['):
		return p.array(want, depth)
	case p.skip('('):
		return p.tuple(want, depth)
	}
	word := p.word()
	if word == "" {
		return Variant{}, p.bad("a value is missing at %q", p.rest)
	}
	kinds := map[string]Signature{
		"boolean": "b", "byte": "y", "int16": "n", "uint16": "q", "int32": "i", "uint32": "u", "int64": "x", "uint64": "t", "double": "d", "string": "s",
		"objectpath": "o", "signature": "g",
	}
	if sig, ok := kinds[word]; ok {
		if want != "" && sig != want {
			return Variant{}, p.bad("a value of type %s where %s is wanted", sig, want)
		}
		return p.value(sig, depth+1)
	}
	return p.scalar(word, want)
}

// signature takes the characters of a type.
func (p *parser) signature() string {
	end := strings.IndexFunc(p.rest, func(r rune) bool { return !strings.ContainsRune("ybnqiuxtdsogva(){}", r) })
	if end < 0 {
		end = len(p.rest)
	}
	s := p.rest[:end]
	p.rest = p.rest[end:]
	return s
}

func (p *parser) scalar(word string, want Signature) (Variant, error) {
	wrong := func() (Variant, error) { return Variant{}, p.bad("%q is no value of type %q", word, want) }
	if word == "true" || word == "false" {
		if want != "" && want != "b" {
			return wrong()
		}
		return Variant{"b", word == "true"}, nil
	}
	if want == "" {
		want = "i"
		if strings.ContainsAny(word, ".") || strings.ContainsAny(word, "eE") && !strings.HasPrefix(word, "0x") {
			want = "d"
		}
	}
	bits := map[Signature]int{"y": 8, "n": 16, "q": 16, "i": 32, "u": 32, "x": 64, "t": 64}[want]
	switch want {
	case "d":
		v, err := strconv.ParseFloat(word, 64)
		if err != nil {
			return wrong()
		}
		return Variant{want, v}, nil
	case "n", "i", "x":
		v, err := strconv.ParseInt(word, 0, bits)
		if err != nil {
			return wrong()
		}
		return Variant{want, map[Signature]any{"n": int16(v), "i": int32(v), "x": v}[want]}, nil
	case "y", "q", "u", "t":
		v, err := strconv.ParseUint(word, 0, bits)
		if err != nil {
			return wrong()
		}
		return Variant{want, map[Signature]any{"y": byte(v), "q": uint16(v), "u": uint32(v), "t": v}[want]}, nil
	}
	return wrong()
}

// text reads the rest of a string that ends with quote.
func (p *parser) text(quote byte, want Signature) (Variant, error) {
	var b strings.Builder
	for i := 0; i < len(p.rest); i++ {
		c := p.rest[i]
		switch {
		case c == quote:
			p.rest = p.rest[i+1:]
			switch want {
			case "", "s":
				return Variant{"s", b.String()}, nil
			case "o":
				return Variant{"o", Path(b.String())}, nil
			case "g":
				return Variant{"g", Signature(b.String())}, nil
			}
			return Variant{}, p.bad("%q is no value of type %q", b.String(), want)
		case c == 0:
			return Variant{}, p.bad("a zero byte in a string")
		case c == '\\' && i+1 < len(p.rest):
			i++
			switch c = p.rest[i]; c {
			case 'n':
				c = '\n'
			case 't':
				c = '\t'
			case '\\', '\'', '"':
			default:
				return Variant{}, p.bad("\\%c is not known", c)
			}
		}
		b.WriteByte(c)
	}
	return Variant{}, p.bad("a string does not end")
}

func (p *parser) array(want Signature, depth int) (Variant, error) {
	element := Signature("")
	if want != "" {
		if want[0] != 'a' {
			return Variant{}, p.bad("an array is no value of type %q", want)
		}
		element = want[1:]
	}
	list := []any{}
	for !p.skip(']') {
		if len(list) > 0 && !p.skip(',') {
			return Variant{}, p.bad("an array does not end")
		}
		v, err := p.value(element, depth+1)
		if err != nil {
			return Variant{}, err
		}
		element = v.Type
		list = append(list, v.Value)
	}
	if element == "" {
		return Variant{}, p.bad("of what the empty array is must be said: @as []")
	}
	if element == "y" {
		b := make([]byte, len(list))
		for i, v := range list {
			b[i] = v.(byte)
		}
		return Variant{"ay", b}, nil
	}
	return Variant{"a" + element, list}, nil
}

func (p *parser) tuple(want Signature, depth int) (Variant, error) {
	inner := Signature("")
	if want != "" {
		if want[0] != '(' {
			return Variant{}, p.bad("a tuple is no value of type %q", want)
		}
		inner = want[1 : len(want)-1]
	}
	sig, list := Signature("("), []any{}
	for !p.skip(')') {
		if len(list) > 0 && !p.skip(',') {
			return Variant{}, p.bad("a tuple does not end")
		}
		if len(list) > 0 && p.skip(')') { // ('a',)
			break
		}
		element := Signature("")
		if want != "" {
			var err error
			if element, inner, err = next(inner); err != nil {
				return Variant{}, p.bad("more values than type %q has", want)
			}
		}
		v, err := p.value(element, depth+1)
		if err != nil {
			return Variant{}, err
		}
		sig += v.Type
		list = append(list, v.Value)
	}
	if inner != "" || len(list) == 0 {
		return Variant{}, p.bad("a tuple has too few values")
	}
	return Variant{sig + ")", list}, nil
}
