package dbus

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"gantry/errdefs"
)

func TestValues(t *testing.T) {
	sig := Signature("ybnqiuxtdsogasaya(ss)a{sv}v(u(b))aau")
	values := []any{byte(1), true, int16(-2), uint16(3), int32(-4), uint32(5), int64(-6), uint64(7), 1.5, "text", Path("/a/b"), Signature("a(yv)"),
		[]any{"x", "yy"}, []byte{1, 2, 3}, []any{[]any{"/dev/x", "rw"}}, []any{[2]any{"key", Variant{"t", uint64(9)}}}, Variant{"a(sv)", []any{[]any{"n", Variant{"b", false}}}},
		[]any{uint32(1), []any{true}}, []any{[]any{uint32(1)}, []any{}}}
	var e encoder
	if err := e.values(sig, values, 0); err != nil {
		t.Fatal(err)
	}
	d := decoder{b: e.b, order: binary.LittleEndian}
	got, err := d.values(sig, 0)
	if err != nil || !reflect.DeepEqual(got, values) {
		t.Errorf("%v\n%#v\nwant\n%#v", err, got, values)
	}
	for i := range e.b {
		d := decoder{b: e.b[:i], order: binary.LittleEndian}
		if _, err := d.values(sig, 0); err == nil {
			t.Errorf("cut after %d bytes: no error", i)
		}
	}
	for _, c := range []struct {
		sig Signature
		v   any
	}{{"u", "x"}, {"s", uint32(1)}, {"as", "x"}, {"s", "a\x00b"}, {"v", Variant{"uu", uint32(1)}}, {"(su)", []any{"x"}}, {"o", 1}} {
		var e encoder
		if err := e.values(c.sig, []any{c.v}, 0); err == nil {
			t.Errorf("%v as %q: no error", c.v, c.sig)
		}
	}
}

func TestSignatures(t *testing.T) {
	for sig, first := range map[Signature]Signature{"su": "s", "aasu": "aas", "(u(s))b": "(u(s))", "a{sv}": "a{sv}"} {
		if got, _, err := next(sig); got != first || err != nil {
			t.Errorf("%q: %q, %v", sig, got, err)
		}
	}
	for _, sig := range []Signature{"", "a", "(", "()", "a()", "{}", "z", "(a)", ")"} {
		if got, _, err := next(sig); err == nil {
			t.Errorf("%q: %q", sig, got)
		}
	}
}

func TestText(t *testing.T) {
	for text, want := range map[string]Variant{
		"'a b'": {"s", "a b"}, `"it's"`: {"s", "it's"}, `'it\'s'`: {"s", "it's"}, "true": {"b", true}, "5": {"i", int32(5)}, "-5": {"i", int32(-5)}, "0x10": {"i", int32(16)}, "1.5": {"d", 1.5},
		"uint64 18446744073709551615": {"t", ^uint64(0)}, "@t 5": {"t", uint64(5)}, "byte 7": {"y", byte(7)}, "['a', 'b']": {"as", []any{"a", "b"}},
		"[uint32 1, 2]": {"au", []any{uint32(1), uint32(2)}}, "@as []": {"as", []any{}}, "@ay [1, 2]": {"ay", []byte{1, 2}}, "('a', true)": {"(sb)", []any{"a", true}},
		"[('/dev/null', 'rw')]": {"a(ss)", []any{[]any{"/dev/null", "rw"}}}, "<'x'>": {"v", Variant{"s", "x"}}, " 1 ": {"i", int32(1)}, "objectpath '/x'": {"o", Path("/x")},
	} {
		got, err := ParseText(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %#v, %v, want %#v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "'a", "[1, 'a']", "[]", "()", "@z 1", "@u -1", "uint64 'x'", "1 2", "byte 256", "maybe", "[1", "(1", "<1", "@(uu) (1,)", "@u (1, 2)", strings.Repeat("[", 100)} {
		if got, err := ParseText(text); !errdefs.Is(err, errdefs.InvalidParameter) {
			t.Errorf("%q: %#v, %v", text, got, err)
		}
	}
}

func TestAddresses(t *testing.T) {
	got, err := parseAddresses("tcp:host=x;unix:path=/run/a%20b,guid=12;unix:abstract=/tmp/x")
	if err != nil || !reflect.DeepEqual(got, []string{"/run/a b", "@/tmp/x"}) {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := parseAddresses("autolaunch:"); !errdefs.Is(err, errdefs.InvalidParameter) {
		t.Errorf("none: %v", err)
	}
}

// TestBus talks to a real bus.
func TestBus(t *testing.T) {
	daemon, err := exec.LookPath("dbus-daemon")
	if err != nil {
		t.Skip("this needs dbus-daemon")
	}
	socket := filepath.Join(t.TempDir(), "bus")
	config := filepath.Join(t.TempDir(), "config")
	text := `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path=` + socket + `</listen><auth>EXTERNAL</auth><policy context="default"><allow send_destination="*" eavesdrop="true"/><allow receive_sender="*"/><allow own="*"/></policy></busconfig>`
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(daemon, "--nofork", "--nopidfile", "--nosyslog", "--config-file="+config)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = c.Process.Kill() // it serves until then
		_ = c.Wait()
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var bus *Conn
	for bus == nil {
		if bus, err = Dial(ctx, "unix:path=/no/such;unix:path="+socket, false); err != nil && ctx.Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	defer bus.Close()
	const name, path = "org.freedesktop.DBus", Path("/org/freedesktop/DBus")
	if _, err := bus.Call(name, path, name, "AddMatch", "s", "type='signal',member='NameOwnerChanged'"); err != nil {
		t.Fatal(err)
	}
	got, err := bus.Call(name, path, name, "RequestName", "su", "org.example.Test", uint32(0))
	if err != nil || !reflect.DeepEqual(got, []any{uint32(1)}) {
		t.Errorf("RequestName: %v, %v", got, err)
	}
	s, err := bus.Signal(func(m Message) bool {
		return m.Member == "NameOwnerChanged" && len(m.Body) == 3 && m.Body[0] == "org.example.Test"
	})
	if err != nil || s.Interface != name || s.Path != path {
		t.Errorf("signal %+v, %v", s, err)
	}
	var e *Error
	if _, err := bus.Call(name, path, name, "NoSuchMethod", ""); !errors.As(err, &e) || e.Name != "org.freedesktop.DBus.Error.UnknownMethod" || e.Text == "" {
		t.Errorf("a missing method: %v", err)
	}
	if err := bus.SetDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := bus.Signal(func(Message) bool { return false }); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("no signal: %v", err)
	}
}

func FuzzMessage(f *testing.F) {
	call, err := encode(1, "org.x", "/p", "i.f", "Member", "sa(sv)", []any{"a", []any{[]any{"n", Variant{"t", uint64(1)}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(call)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := readMessage(bytes.NewReader(b))
		if err == nil && m.Kind == KindReturn && len(m.Body) > len(b)*8 {
			t.Errorf("%d values from %d bytes", len(m.Body), len(b))
		}
	})
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"'a'", "@a(ss) [('a', 'b')]", "uint64 5", "<true>", "[1, 2]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := ParseText(s)
		if err != nil {
			return
		}
		var e encoder
		if err := e.value("v", v, 0); err != nil {
			t.Errorf("%q: %#v cannot be sent: %v", s, v, err)
		}
	})
}
