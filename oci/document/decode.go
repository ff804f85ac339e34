// Package document reads and writes JSON as encoding/json does, without the tables that it makes of each type first: a program that reads
// one document and ends spends more time on those than on reading. It knows the kinds of values that OCI's documents are made of, and has
// encoding/json's rules: names of fields in any case, the last of several equal names, null that changes nothing.
package document

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// SyntaxError says where a text is not JSON.
type SyntaxError struct {
	Offset  int // of the byte that is wrong
	Problem string
}

func (e *SyntaxError) Error() string { return e.Problem }

// TypeError says which value is not of its field's type.
type TypeError struct {
	Field string // path of names from the root, with dots; empty: the document itself
	Value string // what is there, in JSON's words
	Type  reflect.Type
}

func (e *TypeError) Error() string {
	field := e.Field
	if field == "" {
		field = "the whole"
	}
	return fmt.Sprintf("%s: %s is no %s", field, e.Value, e.Type)
}

// maxDepth is how deep arrays and objects may nest.
const maxDepth = 1000

// Decode stores a document in what into, a pointer, points to. Errors are *SyntaxError, *TypeError, or those of UnmarshalJSON and
// UnmarshalText methods; what was read before is stored all the same.
func Decode(data []byte, into any) error {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return errors.New("document: no pointer to decode into")
	}
	d := decoder{data: data, types: map[reflect.Type][]field{}}
	if err := d.value(v.Elem()); err != nil {
		return err
	}
	if d.space(); d.pos < len(data) {
		return d.syntax("something follows the document")
	}
	return nil
}

type decoder struct {
	data  []byte
	pos   int
	depth int
	path  []string
	types map[reflect.Type][]field
}

func (d *decoder) syntax(format string, args ...any) error {
	if d.pos >= len(d.data) {
		return &SyntaxError{d.pos, "unexpected end of JSON input"}
	}
	return &SyntaxError{d.pos, fmt.Sprintf(format, args...)}
}

func (d *decoder) mismatch(value string, t reflect.Type) error {
	return &TypeError{Field: strings.Join(d.path, "."), Value: value, Type: t}
}

func (d *decoder) space() {
	for d.pos < len(d.data) {
		switch d.data[d.pos] {
		case ' ', '\t', '\r', '\n':
			d.pos++
		default:
			return
		}
	}
}

// next skips white space and returns the byte that follows; 0 at the end.
func (d *decoder) next() byte {
	d.space()
	if d.pos < len(d.data) {
		return d.data[d.pos]
	}
	return 0
}

// byMethod are types that read their JSON or text themselves.
func (d *decoder) byMethod(v reflect.Value) (done bool, err error) {
	if !v.CanAddr() || v.Addr().Type().NumMethod() == 0 {
		return false, nil
	}
	switch u := v.Addr().Interface().(type) {
	case interface{ UnmarshalJSON([]byte) error }:
		from := d.pos
		if err := d.skip(); err != nil {
			return true, err
		}
		return true, u.UnmarshalJSON(d.data[from:d.pos])
	case encoding.TextUnmarshaler:
		if d.data[d.pos] != '"' {
			return false, nil
		}
		s, err := d.text()
		if err != nil {
			return true, err
		}
		return true, u.UnmarshalText([]byte(s))
	}
	return false, nil
}

func (d *decoder) value(v reflect.Value) error {
	c := d.next()
	if c == 'n' {
		if err := d.literal("null"); err != nil {
			return err
		}
		switch v.Kind() {
		case reflect.Interface, reflect.Pointer, reflect.Map, reflect.Slice:
			v.SetZero()
		}
		return nil
	}
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		v = v.Elem()
	}
	if done, err := d.byMethod(v); done {
		return err
	}
	if v.Kind() == reflect.Interface && v.NumMethod() == 0 {
		a, err := d.any()
		if err == nil {
			v.Set(reflect.ValueOf(a))
		}
		return err
	}
	switch c {
	case '{':
		switch v.Kind() {
		case reflect.Struct:
			return d.object(func(name string) error { return d.member(v, name) })
		case reflect.Map:
			return d.mapping(v)
		}
		return d.mismatch("object", v.Type())
	case '[':
		return d.array(v)
	case '"':
		s, err := d.text()
		if err != nil {
			return err
		}
		if v.Kind() != reflect.String {
			return d.mismatch("string", v.Type())
		}
		v.SetString(s)
		return nil
	case 't', 'f':
		word := "true"
		if c == 'f' {
			word = "false"
		}
		if err := d.literal(word); err != nil {
			return err
		}
		if v.Kind() != reflect.Bool {
			return d.mismatch("bool", v.Type())
		}
		v.SetBool(c == 't')
		return nil
	}
	return d.number(v)
}

func (d *decoder) literal(word string) error {
	for i := range len(word) {
		if d.pos >= len(d.data) || d.data[d.pos] != word[i] {
			return d.syntax("invalid character %q in literal %s", d.at(), word)
		}
		d.pos++
	}
	return nil
}

// at is the byte to complain of, if there is one.
func (d *decoder) at() byte {
	if d.pos < len(d.data) {
		return d.data[d.pos]
	}
	return 0
}

// scanNumber returns the text of a number.
func (d *decoder) scanNumber() (string, error) {
	from := d.pos
	digits := func() bool {
		n := d.pos
		for d.pos < len(d.data) && d.data[d.pos] >= '0' && d.data[d.pos] <= '9' {
			d.pos++
		}
		return d.pos > n
	}
	is := func(set string) bool {
		if d.pos < len(d.data) && strings.IndexByte(set, d.data[d.pos]) >= 0 {
			d.pos++
			return true
		}
		return false
	}
	is("-")
	if !is("0") && !digits() {
		if d.pos == from {
			return "", d.syntax("invalid character %q looking for beginning of value", d.at())
		}
		return "", d.syntax("invalid character %q in numeric literal", d.at())
	}
	if is(".") && !digits() {
		return "", d.syntax("invalid character %q after decimal point in numeric literal", d.at())
	}
	if is("eE") {
		is("+-")
		if !digits() {
			return "", d.syntax("invalid character %q in exponent of numeric literal", d.at())
		}
	}
	return string(d.data[from:d.pos]), nil
}

func (d *decoder) number(v reflect.Value) error {
	s, err := d.scanNumber()
	if err != nil {
		return err
	}
	switch v.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || v.OverflowInt(n) {
			return d.mismatch("number "+s, v.Type())
		}
		v.SetInt(n)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil || v.OverflowUint(n) {
			return d.mismatch("number "+s, v.Type())
		}
		v.SetUint(n)
	case reflect.Float32, reflect.Float64:
		n, err := strconv.ParseFloat(s, v.Type().Bits())
		if err != nil || v.OverflowFloat(n) {
			return d.mismatch("number "+s, v.Type())
		}
		v.SetFloat(n)
	default:
		return d.mismatch("number", v.Type())
	}
	return nil
}

// text reads a string.
func (d *decoder) text() (string, error) {
	d.pos++
	from := d.pos
	for d.pos < len(d.data) { // most have nothing special
		c := d.data[d.pos]
		if c == '"' {
			s := string(d.data[from:d.pos])
			d.pos++
			return s, nil
		}
		if c == '\\' || c < ' ' || c >= utf8.RuneSelf {
			break
		}
		d.pos++
	}
	b := append([]byte{}, d.data[from:d.pos]...)
	for d.pos < len(d.data) {
		c := d.data[d.pos]
		switch {
		case c == '"':
			d.pos++
			return string(b), nil
		case c < ' ':
			return "", d.syntax("invalid character %q in string literal", c)
		case c == '\\':
			var err error
			if b, err = d.escape(b); err != nil {
				return "", err
			}
		default:
			r, n := utf8.DecodeRune(d.data[d.pos:]) // what is not UTF-8 becomes U+FFFD
			b = utf8.AppendRune(b, r)
			d.pos += n
		}
	}
	return "", d.syntax("")
}

// escape reads what begins with a backslash.
func (d *decoder) escape(b []byte) ([]byte, error) {
	d.pos++
	if d.pos >= len(d.data) {
		return nil, d.syntax("")
	}
	c := d.data[d.pos]
	if i := strings.IndexByte(`"\/bfnrt`, c); i >= 0 {
		d.pos++
		return append(b, "\"\\/\b\f\n\r\t"[i]), nil
	}
	if c != 'u' {
		return nil, d.syntax("invalid character %q in string escape code", c)
	}
	d.pos++
	r, err := d.hex()
	if err != nil {
		return nil, err
	}
	if utf16.IsSurrogate(r) {
		low := rune(-1)
		if before := d.pos; d.pos+1 < len(d.data) && d.data[d.pos] == '\\' && d.data[d.pos+1] == 'u' {
			d.pos += 2
			if low, err = d.hex(); err != nil {
				return nil, err
			}
			if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
				d.pos = before // the second is no half of it, but something of its own
			}
		} else {
			r = utf8.RuneError
		}
	}
	return utf8.AppendRune(b, r), nil
}

func (d *decoder) hex() (rune, error) {
	var r rune
	for range 4 {
		c := d.at()
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, d.syntax("invalid character %q in \\u hexadecimal character escape", c)
		}
		d.pos++
	}
	return r, nil
}

func (d *decoder) deeper() error {
	if d.depth++; d.depth > maxDepth {
		return d.syntax("nested deeper than %d", maxDepth)
	}
	return nil
}

// object reads an object; member reads the value of a name.
func (d *decoder) object(member func(name string) error) error {
	if err := d.deeper(); err != nil {
		return err
	}
	d.pos++
	if d.next() == '}' {
		d.pos++
		d.depth--
		return nil
	}
	for {
		if d.next() != '"' {
			return d.syntax("invalid character %q looking for beginning of object key string", d.at())
		}
		name, err := d.text()
		if err != nil {
			return err
		}
		if d.next() != ':' {
			return d.syntax("invalid character %q after object key", d.at())
		}
		d.pos++
		if err := member(name); err != nil {
			return err
		}
		switch d.next() {
		case ',':
			d.pos++
		case '}':
			d.pos++
			d.depth--
			return nil
		default:
			return d.syntax("invalid character %q after object key:value pair", d.at())
		}
	}
}

// elements reads an array; element reads its i-th value.
func (d *decoder) elements(element func(i int) error) (n int, err error) {
	if err := d.deeper(); err != nil {
		return 0, err
	}
	d.pos++
	if d.next() == ']' {
		d.pos++
		d.depth--
		return 0, nil
	}
	for {
		if err := element(n); err != nil {
			return n, err
		}
		n++
		switch d.next() {
		case ',':
			d.pos++
		case ']':
			d.pos++
			d.depth--
			return n, nil
		default:
			return n, d.syntax("invalid character %q after array element", d.at())
		}
	}
}

func (d *decoder) member(v reflect.Value, name string) error {
	fields := d.fields(v.Type())
	at := slices.IndexFunc(fields, func(f field) bool { return f.name == name })
	if at < 0 {
		at = slices.IndexFunc(fields, func(f field) bool { return strings.EqualFold(f.name, name) })
	}
	if at < 0 {
		return d.skip()
	}
	d.path = append(d.path, fields[at].name)
	err := d.value(v.FieldByIndex(fields[at].index))
	d.path = d.path[:len(d.path)-1]
	return err
}

func (d *decoder) mapping(v reflect.Value) error {
	t := v.Type()
	if t.Key().Kind() != reflect.String {
		return d.mismatch("object", t)
	}
	if v.IsNil() {
		v.Set(reflect.MakeMap(t))
	}
	return d.object(func(name string) error {
		d.path = append(d.path, name)
		element := reflect.New(t.Elem()).Elem()
		err := d.value(element)
		d.path = d.path[:len(d.path)-1]
		if err == nil {
			v.SetMapIndex(reflect.ValueOf(name).Convert(t.Key()), element)
		}
		return err
	})
}

func (d *decoder) array(v reflect.Value) error {
	if v.Kind() == reflect.Array {
		n, err := d.elements(func(i int) error {
			if i >= v.Len() {
				return d.skip()
			}
			return d.value(v.Index(i))
		})
		for ; err == nil && n < v.Len(); n++ {
			v.Index(n).SetZero()
		}
		return err
	}
	if v.Kind() != reflect.Slice || v.Type().Elem().Kind() == reflect.Uint8 {
		return d.mismatch("array", v.Type())
	}
	n, err := d.elements(func(i int) error {
		if i >= v.Cap() {
			v.Grow(1)
		}
		if i >= v.Len() {
			v.SetLen(i + 1)
		}
		return d.value(v.Index(i))
	})
	if err != nil {
		return err
	}
	if n == 0 && v.Cap() == 0 {
		v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	}
	v.SetLen(n)
	return nil
}

// skip reads a value that nobody wants.
func (d *decoder) skip() (err error) {
	switch d.next() {
	case '{':
		err = d.object(func(string) error { return d.skip() })
	case '[':
		_, err = d.elements(func(int) error { return d.skip() })
	case '"':
		_, err = d.text()
	case 't':
		err = d.literal("true")
	case 'f':
		err = d.literal("false")
	case 'n':
		err = d.literal("null")
	default:
		_, err = d.scanNumber()
	}
	return err
}

// any reads a value as what it is.
func (d *decoder) any() (any, error) {
	switch d.next() {
	case '{':
		m := map[string]any{}
		err := d.object(func(name string) error {
			v, err := d.any()
			m[name] = v
			return err
		})
		return m, err
	case '[':
		list := []any{}
		_, err := d.elements(func(int) error {
			v, err := d.any()
			list = append(list, v)
			return err
		})
		return list, err
	case '"':
		return d.text()
	case 't':
		return true, d.literal("true")
	case 'f':
		return false, d.literal("false")
	case 'n':
		return nil, d.literal("null")
	}
	s, err := d.scanNumber()
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return nil, d.mismatch("number "+s, reflect.TypeFor[float64]())
	}
	return n, nil
}
