package dbus

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"gantry/errdefs"
)

// A value of a type of D-Bus is, in Go: y byte, b bool, n int16, q uint16, i int32, u uint32, x int64, t uint64, d float64, s string,
// o Path, g Signature, a []any (of bytes []byte), () []any, {} [2]any within an array, v Variant.

// Path is the path of an object.
type Path string

// Signature is a list of types.
type Signature string

// Variant is a value with its type.
type Variant struct {
	Type  Signature
	Value any
}

// Limits of what is taken from outside. D-Bus itself allows more.
const (
	maxMessage = 16 << 20
	maxDepth   = 32
)

// align returns how many bytes a value of the type that begins with c is aligned to.
func align(c byte) int {
	switch c {
	case 'y', 'g', 'v':
		return 1
	case 'n', 'q':
		return 2
	case 'x', 't', 'd', '(', '{':
		return 8
	}
	return 4
}

// next splits the first complete type from sig.
func next(sig Signature) (first, rest Signature, err error) {
	bad := func() (Signature, Signature, error) {
		return "", "", errdefs.New(errdefs.InvalidParameter, "D-Bus signature %q is none", sig)
	}
	end, open := 0, 0
	for ; ; end++ {
		if end == len(sig) || end > 255 {
			return bad()
		}
		switch c := sig[end]; {
		case c == 'a':
			continue
		case c == '(' || c == '{':
			open++
		case c == ')' || c == '}':
			if open == 0 || strings.ContainsRune("a({", rune(sig[end-1])) {
				return bad()
			}
			open--
		case !strings.ContainsRune("ybnqiuxtdsogv", rune(c)):
			return bad()
		}
		if open == 0 {
			return sig[:end+1], sig[end+1:], nil
		}
	}
}

// encoder writes values, little endian.
type encoder struct{ b []byte }

func (e *encoder) pad(n int) {
	for len(e.b)%n != 0 {
		e.b = append(e.b, 0)
	}
}

func (e *encoder) uint32(v uint32) {
	e.pad(4)
	e.b = binary.LittleEndian.AppendUint32(e.b, v)
}

func (e *encoder) text(s string) {
	e.uint32(uint32(len(s)))
	e.b = append(append(e.b, s...), 0)
}

func (e *encoder) signature(s Signature) {
	e.b = append(append(append(e.b, byte(len(s))), s...), 0)
}

// values writes values of the types in sig.
func (e *encoder) values(sig Signature, values []any, depth int) error {
	for _, v := range values {
		first, rest, err := next(sig)
		if err != nil {
			return err
		}
		if err := e.value(first, v, depth); err != nil {
			return err
		}
		sig = rest
	}
	if sig != "" {
		return errdefs.New(errdefs.InvalidParameter, "D-Bus: values of type %q are missing", sig)
	}
	return nil
}

func (e *encoder) value(sig Signature, v any, depth int) error {
	wrong := func() error {
		return errdefs.New(errdefs.InvalidParameter, "D-Bus: a %T is no value of type %q", v, sig)
	}
	if depth > maxDepth {
		return errdefs.New(errdefs.InvalidParameter, "D-Bus: a value is nested too deeply")
	}
	e.pad(align(sig[0]))
	switch v := v.(type) {
	case byte:
		if sig != "y" {
			return wrong()
		}
		e.b = append(e.b, v)
	case bool:
		if sig != "b" {
			return wrong()
		}
		n := uint32(0)
		if v {
			n = 1
		}
		e.uint32(n)
	case int16:
		if sig != "n" {
			return wrong()
		}
		e.b = binary.LittleEndian.AppendUint16(e.b, uint16(v))
	case uint16:
		if sig != "q" {
			return wrong()
		}
		e.b = binary.LittleEndian.AppendUint16(e.b, v)
	case int32:
		if sig != "i" {
			return wrong()
		}
		e.uint32(uint32(v))
	case uint32:
		if sig != "u" {
			return wrong()
		}
		e.uint32(v)
	case int64:
		if sig != "x" {
			return wrong()
		}
		e.b = binary.LittleEndian.AppendUint64(e.b, uint64(v))
	case uint64:
		if sig != "t" {
			return wrong()
		}
		e.b = binary.LittleEndian.AppendUint64(e.b, v)
	case float64:
		if sig != "d" {
			return wrong()
		}
		e.b = binary.LittleEndian.AppendUint64(e.b, math.Float64bits(v))
	case string:
		if sig != "s" || strings.Contains(v, "\x00") {
			return wrong()
		}
		e.text(v)
	case Path:
		if sig != "o" {
			return wrong()
		}
		e.text(string(v))
	case Signature:
		if sig != "g" || len(v) > 255 {
			return wrong()
		}
		e.signature(v)
	case Variant:
		if sig != "v" {
			return wrong()
		}
		if first, rest, err := next(v.Type); err != nil || rest != "" || first == "" {
			return wrong()
		}
		e.signature(v.Type)
		return e.value(v.Type, v.Value, depth+1)
	case []byte:
		if sig != "ay" {
			return wrong()
		}
		e.uint32(uint32(len(v)))
		e.b = append(e.b, v...)
	case []any:
		switch {
		case sig[0] == '(':
			return e.values(sig[1:len(sig)-1], v, depth+1)
		case sig[0] != 'a':
			return wrong()
		}
		at := len(e.b)
		e.uint32(0)
		e.pad(align(sig[1])) // not part of the length
		start := len(e.b)
		for _, one := range v {
			if err := e.value(sig[1:], one, depth+1); err != nil {
				return err
			}
		}
		binary.LittleEndian.PutUint32(e.b[at:], uint32(len(e.b)-start))
	case [2]any:
		if sig[0] != '{' {
			return wrong()
		}
		return e.values(sig[1:len(sig)-1], v[:], depth+1)
	default:
		return wrong()
	}
	return nil
}

// decoder reads values.
type decoder struct {
	b     []byte
	at    int
	order binary.ByteOrder
}

func (d *decoder) take(n int) ([]byte, error) {
	if n < 0 || n > len(d.b)-d.at {
		return nil, errdefs.New(errdefs.InvalidParameter, "D-Bus: a message ends in the middle of a value")
	}
	d.at += n
	return d.b[d.at-n : d.at], nil
}

func (d *decoder) pad(n int) error {
	_, err := d.take((n - d.at%n) % n)
	return err
}

func (d *decoder) uint32() (uint32, error) {
	if err := d.pad(4); err != nil {
		return 0, err
	}
	b, err := d.take(4)
	if err != nil {
		return 0, err
	}
	return d.order.Uint32(b), nil
}

// text reads a string of n bytes and the zero after it.
func (d *decoder) text(n int) (string, error) {
	b, err := d.take(n)
	if err != nil {
		return "", err
	}
	if end, err := d.take(1); err != nil || end[0] != 0 {
		return "", errdefs.New(errdefs.InvalidParameter, "D-Bus: a string does not end")
	}
	return string(b), nil
}

// values reads values of the types in sig.
func (d *decoder) values(sig Signature, depth int) ([]any, error) {
	list := []any{}
	for sig != "" {
		first, rest, err := next(sig)
		if err != nil {
			return nil, err
		}
		v, err := d.value(first, depth)
		if err != nil {
			return nil, err
		}
		list, sig = append(list, v), rest
	}
	return list, nil
}

func (d *decoder) value(sig Signature, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errdefs.New(errdefs.InvalidParameter, "D-Bus: a value is nested too deeply")
	}
	size := align(sig[0])
	if err := d.pad(size); err != nil {
		return nil, err
	}
	switch sig[0] {
	case 's', 'o':
		n, err := d.uint32()
		if err != nil {
			return nil, err
		}
		if n > maxMessage {
			return nil, errdefs.New(errdefs.InvalidParameter, "D-Bus: a string of %d bytes", n)
		}
		s, err := d.text(int(n))
		if sig[0] == 'o' {
			return Path(s), err
		}
		return s, err
	case 'g', 'v':
		n, err := d.take(1)
		if err != nil {
			return nil, err
		}
		s, err := d.text(int(n[0]))
		if err != nil || sig[0] == 'g' {
			return Signature(s), err
		}
		first, rest, err := next(Signature(s))
		if err != nil || rest != "" {
			return nil, errdefs.New(errdefs.InvalidParameter, "D-Bus: a variant of type %q", s)
		}
		v, err := d.value(first, depth+1)
		return Variant{first, v}, err
	case '(':
		return d.values(sig[1:len(sig)-1], depth+1)
	case '{':
		pair, err := d.values(sig[1:len(sig)-1], depth+1)
		if err != nil || len(pair) != 2 {
			return nil, errdefs.New(errdefs.InvalidParameter, "D-Bus: an entry of type %q: %w", sig, err)
		}
		return [2]any(pair), nil
	case 'a':
		return d.array(sig, depth)
	}
	b, err := d.take(map[byte]int{'y': 1, 'n': 2, 'q': 2, 'b': 4, 'i': 4, 'u': 4, 'x': 8, 't': 8, 'd': 8}[sig[0]])
	if err != nil {
		return nil, err
	}
	switch sig[0] {
	case 'y':
		return b[0], nil
	case 'n':
		return int16(d.order.Uint16(b)), nil
	case 'q':
		return d.order.Uint16(b), nil
	case 'b':
		return d.order.Uint32(b) != 0, nil
	case 'i':
		return int32(d.order.Uint32(b)), nil
	case 'u':
		return d.order.Uint32(b), nil
	case 'x':
		return int64(d.order.Uint64(b)), nil
	case 't':
		return d.order.Uint64(b), nil
	case 'd':
		return math.Float64frombits(d.order.Uint64(b)), nil
	}
	return nil, fmt.Errorf("D-Bus: type %q", sig)
}

func (d *decoder) array(sig Signature, depth int) (any, error) {
	n, err := d.uint32()
	if err != nil {
		return nil, err
	}
	if err := d.pad(align(sig[1])); err != nil {
		return nil, err
	}
	if int64(n) > int64(len(d.b)-d.at) {
		return nil, errdefs.New(errdefs.InvalidParameter, "D-Bus: an array of %d bytes in a message of %d", n, len(d.b))
	}
	if sig == "ay" {
		b, err := d.take(int(n))
		return append([]byte{}, b...), err
	}
	list := []any{}
	for end := d.at + int(n); d.at < end; {
		v, err := d.value(sig[1:], depth+1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}
