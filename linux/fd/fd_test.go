package fd_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gantry/linux/fd"
)

func TestSealedCopy(t *testing.T) {
	f, err := fd.SealedCopy("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(io.NewSectionReader(f, 0, int64(len(want))+1))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes instead of %d, %v", len(got), len(want), err)
	}
	if !fd.IsSealed(f) {
		t.Error("it is not sealed")
	}
	if _, err := f.WriteAt([]byte{0}, 0); err == nil {
		t.Error("it can be written")
	}
	if err := f.Truncate(1); err == nil {
		t.Error("it can be cut")
	}
	if out, err := exec.Command(fd.Path(f), "-test.run", "^$").CombinedOutput(); err != nil {
		t.Errorf("execute it: %v\n%s", err, out)
	}
	plain, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if fd.IsSealed(plain) {
		t.Error("an ordinary file is sealed")
	}
}

// TestSockets passes descriptors over a socket whose path is too long for an address.
func TestSockets(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 40))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "sock")
	l, err := fd.ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		c, err := fd.DialUnix(context.Background(), path)
		if err != nil {
			done <- err
			return
		}
		defer c.Close()
		null, err := os.Open("/dev/null")
		if err != nil {
			done <- err
			return
		}
		defer null.Close()
		done <- fd.Send(c, []byte("hello"), null, null)
	}()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	buf := make([]byte, 16)
	n, files, err := fd.Receive(conn.(*net.UnixConn), buf)
	if err != nil || string(buf[:n]) != "hello" || len(files) != 2 {
		t.Fatalf("%q, %d files, %v", buf[:n], len(files), err)
	}
	for _, f := range files {
		if st, err := f.Stat(); err != nil || st.Mode()&os.ModeCharDevice == 0 {
			t.Errorf("received %v, %v", st, err)
		}
		f.Close()
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestPidfd(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := fd.Pidfd(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	gone := make(chan error, 1)
	go func() { gone <- fd.WaitGone(p) }()
	if err := fd.Signal(p, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-gone; err != nil {
		t.Error(err)
	}
	if e, err := fd.Wait(p); err != nil || e.Signal != syscall.SIGTERM {
		t.Errorf("%+v, %v", e, err)
	}
	if err := fd.Signal(p, syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal to the dead: %v", err)
	}
	_ = cmd.Wait() // its status is taken
}
