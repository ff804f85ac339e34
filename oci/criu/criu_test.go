package criu

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gantry/linux/fd"
)

// TestMain lets the test program stand in for criu: where a kernel is too new or too old for the real one, the conversation with it can
// be tested all the same.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "criu" {
		os.Exit(fake())
	}
	os.Exit(m.Run())
}

// fake answers one request on descriptor 3, as $CRIU_FAKE says, and writes what it was asked to $CRIU_ASKED.
func fake() int {
	if len(os.Args) != 3 || os.Args[1] != "swrk" || os.Args[2] != "3" {
		return 9
	}
	conn := os.NewFile(3, "conn")
	buf := make([]byte, 64<<10)
	n, _, err := fd.ReceiveFile(conn, buf)
	if err != nil {
		return 8
	}
	var kind Request
	var asked []string
	err = fields(buf[:n], func(field int, v uint64, part []byte) error {
		switch field {
		case 1:
			kind = Request(v)
		case 2:
			return fields(part, func(field int, v uint64, part []byte) error {
				text := strconv.FormatInt(int64(v), 10)
				if part != nil {
					text = fmt.Sprintf("%q", part)
				}
				asked = append(asked, fmt.Sprintf("%d=%s", field, text))
				return nil
			})
		}
		return nil
	})
	if err != nil {
		return 7
	}
	answer := func(kind Request, success bool, more func(*message)) {
		var m message
		m.number(1, int64(kind))
		m.number(2, map[bool]int64{true: 1}[success])
		if more != nil {
			more(&m)
		}
		_, _ = conn.Write(m)
	}
	switch kind {
	case version:
		answer(kind, true, func(m *message) {
			var v message
			v.number(1, 3)
			v.number(2, 17)
			v.number(4, 1)
			m.bytes(10, v)
		})
		return 0
	case featureCheck:
		answer(kind, true, func(m *message) {
			var v message
			v.number(1, 1)
			m.bytes(8, v)
		})
		return 0
	}
	_ = os.WriteFile(os.Getenv("CRIU_ASKED"), []byte(strings.Join(asked, "\n")), 0o644)
	switch os.Getenv("CRIU_FAKE") {
	case "fail":
		answer(kind, false, func(m *message) { m.number(7, 3) })
		return 1
	case "die":
		return 1
	case "garbage":
		_, _ = conn.Write([]byte{0xff, 0xff, 0xff})
		return 1
	}
	for _, script := range []string{"setup-namespaces", "post-restore"} {
		answer(notify, true, func(m *message) {
			var v message
			v.text(1, script)
			v.number(2, 4711)
			m.bytes(5, v)
		})
		n, _, err := fd.ReceiveFile(conn, buf)
		if err != nil || !slices.Equal(buf[:n], []byte{8, 6, 24, 1}) { // NOTIFY, success
			return 6
		}
	}
	answer(kind, true, nil)
	return 0
}

// stand puts the fake into $PATH.
func stand(t *testing.T, how string) (asked string) {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(dir, "criu")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	t.Setenv("CRIU_FAKE", how)
	asked = filepath.Join(dir, "asked")
	t.Setenv("CRIU_ASKED", asked)
	return asked
}

func TestConversation(t *testing.T) {
	asked := stand(t, "")
	ctx := context.Background()
	if err := Check(ctx, true, false); err != nil {
		t.Error(err)
	}
	if err := Check(ctx, true, true); err == nil || !strings.Contains(err.Error(), "missing features: [LazyPages]") {
		t.Errorf("%v", err)
	}
	var scripts []string
	o := Options{
		Images: t.TempDir(), LogFile: "x.log", Root: "/r", Pid: 77, ShellJob: true, TCPEstablished: true, CgroupMode: "full", StatusFD: -1, EmptyNS: 1 << 30,
		Mounts: []Mount{{"/a", "/b"}}, External: []string{"net[5]:extRootNetNS"}, PageServer: "10.0.0.1", PageServerPort: 99, LSMProfile: "apparmor:x",
		Notified: func(script string, pid int, _ *os.File) error {
			scripts = append(scripts, fmt.Sprint(script, pid))
			return nil
		},
	}
	if err := Run(ctx, Dump, &o); err != nil {
		t.Fatal(err)
	}
	if want := []string{"setup-namespaces4711", "post-restore4711"}; !slices.Equal(scripts, want) {
		t.Errorf("%v", scripts)
	}
	data, err := os.ReadFile(asked)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(data), "\n")
	for _, want := range []string{
		"2=77", "5=1", "7=1", "9=4", `10="x.log"`, `11="\n\b10.0.0.1\x10c"`, "12=1", `13="/r"`, `23="\n\x02/a\x12\x02/b"`, "24=1", "34=4", `37="net[5]:extRootNetNS"`, "38=1073741824", "50=1", `53="apparmor:x"`,
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("%s is not in the request:\n%s", want, data)
		}
	}
	if slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "26=") || strings.HasPrefix(l, "49=") }) {
		t.Errorf("a dump asks for what is a restore's:\n%s", data)
	}
}

func TestFailures(t *testing.T) {
	ctx := context.Background()
	for how, want := range map[string]string{"fail": "criu failed: type DUMP errno 3: no such process: (00.1) Error (x.c:1): why", "die": "ended without an answer", "garbage": "unreadable"} {
		stand(t, how)
		o := Options{Images: t.TempDir(), LogFile: "x.log", StatusFD: -1}
		if err := os.WriteFile(filepath.Join(o.Images, "x.log"), []byte("(00.0) fine\n(00.1) Error (x.c:1): why\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := Run(ctx, Dump, &o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", how, err, want)
		}
	}
	t.Setenv("PATH", t.TempDir())
	if err := Check(ctx, false, false); err == nil || !strings.Contains(err.Error(), `checkpoint and restore need the program criu: exec: "criu": executable file not found in $PATH`) {
		t.Errorf("%v", err)
	}
	if CheckMode("x") == nil || CheckMode("") != nil || CheckMode("strict") != nil {
		t.Error("modes")
	}
}

func FuzzResponse(f *testing.F) {
	f.Add([]byte{8, 6, 16, 1, 42, 4, 10, 2, 'x', 'y'})
	f.Add(binary.AppendUvarint([]byte{42}, 1<<63))
	f.Add([]byte{82, 4, 8, 3, 16, 17})
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseResponse(data)
		if err == nil && (len(r.script) > len(data) || r.version < 0) {
			t.Errorf("%+v", r)
		}
	})
}
