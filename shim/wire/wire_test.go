package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/logs"
)

func request() StartRequest {
	limit := int64(1 << 30)
	return StartRequest{
		ID: "id", Dir: "/dir",
		Spec: &specs.Spec{
			Version: "1.2.0", Process: &specs.Process{Args: []string{"a", ""}, Env: []string{}, Cwd: "/"}, Root: &specs.Root{Path: "x", Readonly: true},
			Mounts: []specs.Mount{{Destination: "/proc"}}, Annotations: map[string]string{"k": "v"},
			Linux: &specs.Linux{Resources: &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}},
		},
		Seccomp: []byte{1, 2, 3}, HasRoot: true, Namespaces: []specs.LinuxNamespaceType{specs.NetworkNamespace}, Rows: 65535,
		Log: logs.Config{Driver: "local", Options: map[string]string{"a": "b"}}, Health: &Health{Interval: time.Second},
		Streams: []Stream{{Stdin: true, DetachKeys: []byte{16}}},
	}
}

func TestPack(t *testing.T) {
	want := request()
	b, err := Pack(nil, &want)
	if err != nil {
		t.Fatal(err)
	}
	var got StartRequest
	if err := Unpack(b, &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		g, _ := json.Marshal(got)
		w, _ := json.Marshal(want)
		t.Errorf("%s\nwant %s", g, w)
	}
	for n := range b {
		if err := Unpack(b[:n], new(StartRequest)); !errdefs.Is(err, errdefs.InvalidParameter) {
			t.Fatal(n, err)
		}
	}
	b[0]++
	if err := Unpack(b, new(StartRequest)); err == nil || !strings.Contains(err.Error(), "another build") {
		t.Error(err)
	}
}

func FuzzUnpack(f *testing.F) {
	r := request()
	b, err := Pack(nil, &r)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[8:])
	f.Fuzz(func(t *testing.T, data []byte) {
		var r, again StartRequest
		if Unpack(append(b[:8:8], data...), &r) != nil {
			return
		}
		packed, err := Pack(nil, &r)
		if err != nil {
			t.Fatal(err)
		}
		if err := Unpack(packed, &again); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzHeader(f *testing.F) {
	f.Add(make([]byte, headerSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHeader(b)
		if err == nil && (h.Length > MaxBody || h.Files > MaxFiles) {
			t.Fatal(h)
		}
	})
}

// FuzzReceive gives the receiver arbitrary bytes.
func FuzzReceive(f *testing.F) {
	frame := binary.LittleEndian.AppendUint32(nil, 2)
	frame = append(frame, 1, 0, 0, 0, byte(Request), byte(MethodState), 0, 0, '{', '}')
	f.Add(append(frame, frame...))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 100_000 {
			return
		}
		a, b := pair(t)
		defer a.Close()
		defer b.Close()
		if _, err := b.file.Write(data); err != nil {
			t.Fatal(err)
		}
		b.Close()
		for {
			frame, err := a.Receive()
			if err != nil {
				return
			}
			frame.Close()
			_ = frame.Decode(new(StateRequest))
		}
	})
}

func pair(t testing.TB) (a, b *Conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if a, err = NewConn(fds[0]); err == nil {
		b, err = NewConn(fds[1])
	}
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

func TestConn(t *testing.T) {
	a, b := pair(t)
	defer a.Close()
	defer b.Close()
	large := strings.Repeat("x", 3<<20)
	go func() {
		for i := range 20 {
			r, w, err := os.Pipe()
			if err != nil {
				t.Error(err)
				return
			}
			m := StartRequest{ID: "small"}
			if i%3 == 0 {
				m.ID = large
			}
			files := []*os.File{w, r}[:i%3]
			if err := a.Send(Request, MethodStart, uint32(i), &m, files...); err != nil {
				t.Error(err)
			}
			r.Close()
			w.Close()
		}
		a.Close()
	}()
	for i := range 20 {
		f, err := b.Receive()
		if err != nil {
			t.Fatal(err)
		}
		var m StartRequest
		if err := f.Decode(&m); err != nil || f.ID != uint32(i) || len(f.Files) != i%3 || i%3 == 0 && len(m.ID) != len(large) {
			t.Fatal(i, err, f.ID, len(f.Files), len(m.ID))
		}
		f.Close()
	}
	if _, err := b.Receive(); err != io.EOF {
		t.Fatal(err)
	}
}

func TestMissingFiles(t *testing.T) {
	a, b := pair(t)
	defer b.Close()
	frame := []byte{0, 0, 0, 0, 1, 0, 0, 0, byte(Request), byte(MethodAttach), 1, 0}
	if _, err := a.file.Write(frame); err != nil {
		t.Fatal(err)
	}
	a.Close()
	if _, err := b.Receive(); !errdefs.Is(err, errdefs.InvalidParameter) {
		t.Fatal(err)
	}
}

func TestListenDial(t *testing.T) {
	dir := t.TempDir() + "/" + strings.Repeat("long", 40) // longer than a socket address
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(dir); !errors.Is(err, syscall.ENOENT) {
		t.Fatal(err)
	}
	for range 2 { // the second in place of the first
		l, err := Listen(dir)
		if err != nil {
			t.Fatal(err)
		}
		a, err := Dial(dir)
		if err != nil {
			t.Fatal(err)
		}
		b, err := Accept(l)
		if err != nil {
			t.Fatal(err)
		}
		a.Close()
		b.Close()
		l.Close()
	}
	if _, err := Dial(dir); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatal(err)
	}
}

func TestStartTime(t *testing.T) {
	if n, err := StartTime(os.Getpid()); err != nil || n == 0 {
		t.Fatal(n, err)
	}
}

func BenchmarkStartRequest(b *testing.B) {
	r := request()
	j, err := json.Marshal(r)
	if err != nil {
		b.Fatal(err)
	}
	p, err := Pack(nil, &r)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("json", func(b *testing.B) {
		for b.Loop() {
			if err := json.NewDecoder(bytes.NewReader(j)).Decode(new(StartRequest)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("packed", func(b *testing.B) {
		for b.Loop() {
			if err := Unpack(p, new(StartRequest)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
