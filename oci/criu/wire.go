package criu

import (
	"encoding/binary"
	"errors"
)

// This file has the encoding that criu's service speaks (protocol buffers, version 2), for the few messages needed of it.

// message is an encoded message in the making.
type message []byte

func (m *message) key(field, wire int) {
	*m = binary.AppendUvarint(*m, uint64(field)<<3|uint64(wire))
}

// number adds an integer, negative ones in the ten bytes of their two's complement.
func (m *message) number(field int, v int64) {
	m.key(field, 0)
	*m = binary.AppendUvarint(*m, uint64(v))
}

func (m *message) flag(field int, v bool) {
	if v {
		m.number(field, 1)
	}
}

func (m *message) bytes(field int, v []byte) {
	m.key(field, 2)
	*m = binary.AppendUvarint(*m, uint64(len(v)))
	*m = append(*m, v...)
}

// text adds a string unless it is empty.
func (m *message) text(field int, v string) {
	if v != "" {
		m.bytes(field, []byte(v))
	}
}

// pair adds a message of two strings.
func (m *message) pair(field int, first, second string) {
	var p message
	p.bytes(1, []byte(first))
	p.bytes(2, []byte(second))
	m.bytes(field, p)
}

var errWire = errors.New("criu sent an unreadable message")

// fields calls f for every field of an encoded message: n is an integer's value, data a string's or message's.
func fields(data []byte, f func(field int, n uint64, data []byte) error) error {
	for len(data) > 0 {
		key, k := binary.Uvarint(data)
		if k <= 0 || key>>3 == 0 || key>>3 > 1<<29 {
			return errWire
		}
		data = data[k:]
		var n uint64
		var part []byte
		switch key & 7 {
		case 0:
			if n, k = binary.Uvarint(data); k <= 0 {
				return errWire
			}
			data = data[k:]
		case 1:
			if len(data) < 8 {
				return errWire
			}
			n, data = binary.LittleEndian.Uint64(data), data[8:]
		case 2:
			size, k := binary.Uvarint(data)
			if k <= 0 || size > uint64(len(data)-k) {
				return errWire
			}
			part, data = data[k:k+int(size)], data[k+int(size):]
		case 5:
			if len(data) < 4 {
				return errWire
			}
			n, data = uint64(binary.LittleEndian.Uint32(data)), data[4:]
		default:
			return errWire
		}
		if err := f(int(key>>3), n, part); err != nil {
			return err
		}
	}
	return nil
}

// response is an answer of criu's.
type response struct {
	kind    Request
	success bool
	errno   int
	message string
	script  string // of a notification
	pid     int    // of a notification, or of a restored process
	version int    // as 31701
	tracked bool   // memory changes can be tracked
	lazy    bool   // pages can be restored lazily
}

func parseResponse(data []byte) (response, error) {
	var r response
	err := fields(data, func(field int, n uint64, part []byte) error {
		switch field {
		case 1:
			r.kind = Request(n)
		case 2:
			r.success = n != 0
		case 4: // restore
			return fields(part, func(field int, n uint64, _ []byte) error {
				if field == 1 {
					r.pid = int(int32(n))
				}
				return nil
			})
		case 5: // notify
			return fields(part, func(field int, n uint64, part []byte) error {
				switch field {
				case 1:
					r.script = string(part)
				case 2:
					r.pid = int(int32(n))
				}
				return nil
			})
		case 7:
			r.errno = int(int32(n))
		case 8: // features
			return fields(part, func(field int, n uint64, _ []byte) error {
				switch field {
				case 1:
					r.tracked = n != 0
				case 2:
					r.lazy = n != 0
				}
				return nil
			})
		case 9:
			r.message = string(part)
		case 10: // version
			return fields(part, func(field int, n uint64, _ []byte) error {
				if weight := map[int]int{1: 10000, 2: 100, 4: 1}[field]; weight != 0 && n < 1000 {
					r.version += int(n) * weight
				}
				return nil
			})
		}
		return nil
	})
	return r, err
}
