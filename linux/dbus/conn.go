// Package dbus is a small client of D-Bus: it connects to a bus, or to a service that listens by itself, calls methods and waits for
// signals, one after the other. It knows no objects of its own, no introspection and no passing of descriptors.
//
// It is written down in the D-Bus specification: https://dbus.freedesktop.org/doc/dbus-specification.html
package dbus

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"gantry/errdefs"
	"gantry/linux/fd"
)

// Conn is a connection. It is for one goroutine at a time.
type Conn struct {
	c      net.Conn
	r      *bufio.Reader
	serial uint32
	direct bool      // to a service itself, without a bus between
	early  []Message // signals that came before somebody waited for them
}

// Message is what came: a reply, an error or a signal.
type Message struct {
	Kind      byte
	Reply     uint32 // serial of the call it answers
	Path      Path
	Interface string
	Member    string
	ErrorName string
	Body      []any
}

// The kinds of message.
const (
	KindCall   = 1
	KindReturn = 2
	KindError  = 3
	KindSignal = 4
)

// Error is an error that the other side answered.
type Error struct {
	Name string // "org.freedesktop.systemd1.NoSuchUnit"
	Text string
}

func (e *Error) Error() string {
	if e.Text == "" {
		return e.Name
	}
	return fmt.Sprintf("%s (%s)", e.Text, e.Name)
}

// maxEarly is how many signals are kept for somebody to wait for.
const maxEarly = 1024

// Dial connects to the first address in addresses ("unix:path=/run/dbus/system_bus_socket;...") that answers. direct says that a service
// itself listens there, and no bus.
func Dial(ctx context.Context, addresses string, direct bool) (*Conn, error) {
	paths, err := parseAddresses(addresses)
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		var c *Conn
		if c, err = dial(ctx, path, direct); err == nil {
			return c, nil
		}
	}
	return nil, fmt.Errorf("connect to D-Bus at %s: %w", addresses, err)
}

// parseAddresses returns the sockets of a list of addresses; an abstract one begins with "@".
func parseAddresses(addresses string) ([]string, error) {
	var paths []string
	for address := range strings.SplitSeq(addresses, ";") {
		rest, ok := strings.CutPrefix(address, "unix:")
		if !ok {
			continue // tcp, autolaunch and others
		}
		for option := range strings.SplitSeq(rest, ",") {
			key, value, _ := strings.Cut(option, "=")
			if value = unescape(value); value == "" {
				continue
			}
			switch key {
			case "path":
				paths = append(paths, value)
			case "abstract":
				paths = append(paths, "@"+value)
			}
		}
	}
	if len(paths) == 0 {
		return nil, errdefs.New(errdefs.InvalidParameter, "D-Bus address %q has no unix socket", addresses)
	}
	return paths, nil
}

// unescape resolves %XX; "" if that is not possible.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' {
			if i+2 >= len(s) {
				return ""
			}
			n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil || n == 0 {
				return ""
			}
			c = byte(n)
			i += 2
		}
		b.WriteByte(c)
	}
	return b.String()
}

func dial(ctx context.Context, path string, direct bool) (*Conn, error) {
	n, err := fd.DialUnix(ctx, path)
	if err != nil {
		return nil, err
	}
	c := &Conn{c: n, r: bufio.NewReader(n), direct: direct}
	if deadline, ok := ctx.Deadline(); ok {
		if err = n.SetDeadline(deadline); err != nil {
			n.Close()
			return nil, err
		}
	}
	if err = c.authenticate(); err == nil && !direct {
		_, err = c.Call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello", "")
	}
	if err != nil {
		n.Close()
		return nil, err
	}
	return c, nil
}

// authenticate lets the other side ask the kernel who this is. No user ID is told: in a user namespace it would be another.
func (c *Conn) authenticate() error {
	for _, step := range []struct{ say, hear string }{{"\x00AUTH EXTERNAL\r\n", "DATA"}, {"DATA\r\n", "OK "}} {
		if _, err := io.WriteString(c.c, step.say); err != nil {
			return err
		}
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("authenticate: %w", err)
		}
		if !strings.HasPrefix(string(line), step.hear) {
			return errdefs.New(errdefs.Forbidden, "authenticate: the answer is %q", strings.TrimSpace(string(line)))
		}
	}
	_, err := io.WriteString(c.c, "BEGIN\r\n")
	return err
}

// SetDeadline limits how long calls may take from now on.
func (c *Conn) SetDeadline(t time.Time) error { return c.c.SetDeadline(t) }

// Close closes the connection.
func (c *Conn) Close() error { return c.c.Close() }

// Direct reports whether there is no bus between.
func (c *Conn) Direct() bool { return c.direct }

// Call calls a method with arguments of the types in sig and returns what it returns; *Error when it answers an error.
func (c *Conn) Call(destination string, path Path, iface, member string, sig Signature, args ...any) ([]any, error) {
	c.serial++
	call, err := encode(c.serial, destination, path, iface, member, sig, args)
	if err == nil {
		_, err = c.c.Write(call)
	}
	if err != nil {
		return nil, fmt.Errorf("call %s.%s: %w", iface, member, err)
	}
	for {
		m, err := c.read()
		if err != nil {
			return nil, fmt.Errorf("call %s.%s: %w", iface, member, err)
		}
		switch {
		case m.Kind == KindSignal && len(c.early) < maxEarly:
			c.early = append(c.early, m)
		case m.Reply != c.serial:
		case m.Kind == KindReturn:
			return m.Body, nil
		case m.Kind == KindError:
			e := &Error{Name: m.ErrorName}
			if len(m.Body) > 0 {
				e.Text, _ = m.Body[0].(string)
			}
			return nil, fmt.Errorf("call %s.%s: %w", iface, member, e)
		}
	}
}

// Signal waits for the first signal that match accepts, of those that came since the connection was made.
func (c *Conn) Signal(match func(Message) bool) (Message, error) {
	for i, m := range c.early {
		if match(m) {
			c.early = append(c.early[:i], c.early[i+1:]...)
			return m, nil
		}
	}
	for {
		m, err := c.read()
		if err != nil {
			return Message{}, fmt.Errorf("wait for a signal: %w", err)
		}
		if m.Kind == KindSignal && match(m) {
			return m, nil
		}
	}
}

// encode writes a call.
func encode(serial uint32, destination string, path Path, iface, member string, sig Signature, args []any) ([]byte, error) {
	var body encoder
	if err := body.values(sig, args, 0); err != nil {
		return nil, err
	}
	fields := []any{[]any{byte(1), Variant{"o", path}}, []any{byte(2), Variant{"s", iface}}, []any{byte(3), Variant{"s", member}}}
	if destination != "" {
		fields = append(fields, []any{byte(6), Variant{"s", destination}})
	}
	if sig != "" {
		fields = append(fields, []any{byte(8), Variant{"g", sig}})
	}
	e := encoder{b: []byte{'l', KindCall, 0, 1}}
	e.uint32(uint32(len(body.b)))
	e.uint32(serial)
	if err := e.value("a(yv)", fields, 0); err != nil {
		return nil, err
	}
	e.pad(8)
	return append(e.b, body.b...), nil
}

// read reads one message.
func (c *Conn) read() (Message, error) { return readMessage(c.r) }

func readMessage(r io.Reader) (Message, error) {
	head := make([]byte, 16)
	if _, err := io.ReadFull(r, head); err != nil {
		return Message{}, err
	}
	var order binary.ByteOrder = binary.LittleEndian
	switch head[0] {
	case 'l':
	case 'B':
		order = binary.BigEndian
	default:
		return Message{}, errdefs.New(errdefs.InvalidParameter, "D-Bus: what comes is no message")
	}
	size, fields := order.Uint32(head[4:]), order.Uint32(head[12:])
	if size > maxMessage || fields > maxMessage {
		return Message{}, errdefs.New(errdefs.InvalidParameter, "D-Bus: a message of %d and %d bytes", fields, size)
	}
	rest := int64(fields+7)/8*8 + int64(size)
	all, err := io.ReadAll(io.LimitReader(r, rest)) // grows with what comes, and not with what is promised
	if err == nil && int64(len(all)) < rest {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return Message{}, err
	}
	return decode(head, append(head, all...), order)
}

// decode reads a message whose first 16 bytes are head.
func decode(head, all []byte, order binary.ByteOrder) (Message, error) {
	m := Message{Kind: head[1]}
	d := decoder{b: all, at: 12, order: order}
	list, err := d.value("a(yv)", 0)
	if err != nil {
		return m, err
	}
	var sig Signature
	for _, f := range list.([]any) {
		pair := f.([]any)
		switch v := pair[1].(Variant).Value.(type) {
		case Path:
			if pair[0] == byte(1) {
				m.Path = v
			}
		case string:
			switch pair[0] {
			case byte(2):
				m.Interface = v
			case byte(3):
				m.Member = v
			case byte(4):
				m.ErrorName = v
			}
		case uint32:
			if pair[0] == byte(5) {
				m.Reply = v
			}
		case Signature:
			if pair[0] == byte(8) {
				sig = v
			}
		}
	}
	if err := d.pad(8); err != nil {
		return m, err
	}
	d.b = d.b[d.at:] // the body is aligned by itself
	d.at = 0
	m.Body, err = d.values(sig, 0)
	return m, err
}
