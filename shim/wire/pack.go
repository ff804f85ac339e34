package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"reflect"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/logs"
)

// Pack and Unpack carry the one large message, StartRequest, without the names of its members: package encoding/json would keep more
// memory in every shim for having read it once than all the rest of a shim's heap. Both ends must have the same types, and a message
// begins with their fingerprint: a daemon starts shims of its own build only. All other messages are JSON, because a daemon also
// talks to the shims of its predecessors.
//
// Bool: u8. Integers: varint. Floats: u64 of their bits. Strings, slices and maps: uvarint length, then the bytes, elements or pairs
// (a nil slice or map: 0, else length + 1). Pointers: u8 0 or 1 and the value. Structs: the exported fields in order.

var errPacked = errors.New("malformed packed message")

// maxDepth bounds the nesting of types.
const maxDepth = 64

// Pack appends v, a pointer to a struct, to b.
func Pack(b []byte, v any) ([]byte, error) {
	rv := reflect.ValueOf(v).Elem()
	b = binary.LittleEndian.AppendUint64(b, fingerprint(rv.Type()))
	b, err := pack(b, rv, 0)
	if err != nil {
		return nil, fmt.Errorf("pack %s: %w", rv.Type(), err)
	}
	return b, nil
}

// Unpack reads v, a pointer to a zero struct, from b.
func Unpack(b []byte, v any) error {
	rv := reflect.ValueOf(v).Elem()
	if len(b) < 8 || binary.LittleEndian.Uint64(b) != fingerprint(rv.Type()) {
		return errdefs.New(errdefs.InvalidParameter, "the shim is of another build than the daemon: install gantryd and gantry-shim together")
	}
	u := unpacker{b: b[8:]}
	u.value(rv, 0)
	if u.err == nil && len(u.b) != 0 {
		u.err = errPacked
	}
	if u.err != nil {
		return errdefs.With(errdefs.InvalidParameter, fmt.Errorf("unpack %s: %w", rv.Type(), u.err))
	}
	return nil
}

// fingerprint is a hash of the layout of t and the structs in it, by their names, sizes and numbers of fields. It is taken in every shim:
// to look at every field would cost it more memory than all else that it reads.
func fingerprint(t reflect.Type) uint64 {
	h := fnv.New64a()
	var b [16]byte
	for _, t := range [...]reflect.Type{
		t, reflect.TypeFor[logs.Config](), reflect.TypeFor[Health](), reflect.TypeFor[Stream](),
		reflect.TypeFor[specs.Spec](), reflect.TypeFor[specs.Process](), reflect.TypeFor[specs.Mount](), reflect.TypeFor[specs.Hooks](),
		reflect.TypeFor[specs.Linux](), reflect.TypeFor[specs.LinuxResources](), reflect.TypeFor[specs.LinuxSeccomp](),
	} {
		_, _ = io.WriteString(h, t.String())
		binary.LittleEndian.PutUint64(b[:], uint64(t.Size()))
		binary.LittleEndian.PutUint64(b[8:], uint64(t.NumField()))
		_, _ = h.Write(b[:])
	}
	return h.Sum64()
}

func pack(b []byte, v reflect.Value, depth int) ([]byte, error) {
	if depth > maxDepth {
		return nil, errors.New("nested too deeply")
	}
	var err error
	switch v.Kind() {
	case reflect.Bool:
		if v.Bool() {
			return append(b, 1), nil
		}
		return append(b, 0), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return binary.AppendVarint(b, v.Int()), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return binary.AppendUvarint(b, v.Uint()), nil
	case reflect.Float32, reflect.Float64:
		return binary.LittleEndian.AppendUint64(b, math.Float64bits(v.Float())), nil
	case reflect.String:
		s := v.String()
		return append(binary.AppendUvarint(b, uint64(len(s))), s...), nil
	case reflect.Slice:
		if v.IsNil() {
			return append(b, 0), nil
		}
		b = binary.AppendUvarint(b, uint64(v.Len())+1)
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return append(b, v.Bytes()...), nil
		}
		for i := range v.Len() {
			if b, err = pack(b, v.Index(i), depth+1); err != nil {
				return nil, err
			}
		}
		return b, nil
	case reflect.Map:
		if v.IsNil() {
			return append(b, 0), nil
		}
		b = binary.AppendUvarint(b, uint64(v.Len())+1)
		for it := v.MapRange(); it.Next(); {
			if b, err = pack(b, it.Key(), depth+1); err != nil {
				return nil, err
			}
			if b, err = pack(b, it.Value(), depth+1); err != nil {
				return nil, err
			}
		}
		return b, nil
	case reflect.Pointer:
		if v.IsNil() {
			return append(b, 0), nil
		}
		return pack(append(b, 1), v.Elem(), depth+1)
	case reflect.Struct:
		for i := range v.NumField() {
			if b, err = pack(b, v.Field(i), depth+1); err != nil {
				return nil, fmt.Errorf("%s: %w", v.Type().Field(i).Name, err)
			}
		}
		return b, nil
	}
	return nil, fmt.Errorf("no packed form of %s", v.Type())
}

type unpacker struct {
	b   []byte
	err error
}

func (u *unpacker) fail() { u.b, u.err = nil, errPacked }

func (u *unpacker) byte() byte {
	if len(u.b) == 0 {
		u.fail()
		return 0
	}
	c := u.b[0]
	u.b = u.b[1:]
	return c
}

func (u *unpacker) uint() uint64 {
	x, n := binary.Uvarint(u.b)
	if n <= 0 {
		u.fail()
		return 0
	}
	u.b = u.b[n:]
	return x
}

// length reads a number of things of which each takes a byte or more of what is left.
func (u *unpacker) length(x uint64) int {
	if x > uint64(len(u.b)) {
		u.fail()
		return 0
	}
	return int(x)
}

func (u *unpacker) value(v reflect.Value, depth int) {
	if u.err != nil {
		return
	}
	if depth > maxDepth {
		u.fail()
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(u.byte() != 0)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		x, n := binary.Varint(u.b)
		if n <= 0 || v.OverflowInt(x) {
			u.fail()
			return
		}
		u.b = u.b[n:]
		v.SetInt(x)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		x := u.uint()
		if v.OverflowUint(x) {
			u.fail()
			return
		}
		v.SetUint(x)
	case reflect.Float32, reflect.Float64:
		if len(u.b) < 8 {
			u.fail()
			return
		}
		v.SetFloat(math.Float64frombits(binary.LittleEndian.Uint64(u.b)))
		u.b = u.b[8:]
	case reflect.String:
		n := u.length(u.uint())
		v.SetString(string(u.b[:n]))
		u.b = u.b[n:]
	case reflect.Slice:
		u.slice(v, depth)
	case reflect.Map:
		u.pairs(v, depth)
	case reflect.Pointer:
		if u.byte() != 0 && u.err == nil {
			p := reflect.New(v.Type().Elem())
			u.value(p.Elem(), depth+1)
			v.Set(p)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			u.value(v.Field(i), depth+1)
		}
	default:
		u.fail()
	}
}

func (u *unpacker) slice(v reflect.Value, depth int) {
	x := u.uint()
	if x == 0 {
		return
	}
	n := u.length(x - 1)
	if u.err != nil {
		return
	}
	if v.Type().Elem().Kind() == reflect.Uint8 {
		v.SetBytes(append([]byte{}, u.b[:n]...))
		u.b = u.b[n:]
		return
	}
	s := reflect.MakeSlice(v.Type(), 0, min(n, 1024)) // an element may be much larger than the byte that is certain
	zero := reflect.Zero(v.Type().Elem())
	for i := 0; i < n && u.err == nil; i++ {
		s = reflect.Append(s, zero)
		u.value(s.Index(i), depth+1)
	}
	v.Set(s)
}

func (u *unpacker) pairs(v reflect.Value, depth int) {
	x := u.uint()
	if x == 0 {
		return
	}
	n := u.length(x - 1)
	m := reflect.MakeMap(v.Type())
	for i := 0; i < n && u.err == nil; i++ {
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		u.value(key, depth+1)
		u.value(value, depth+1)
		m.SetMapIndex(key, value)
	}
	v.Set(m)
}
