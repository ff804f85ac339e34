package clone_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"gantry/linux/clone"
	"gantry/linux/fd"
)

// start runs a script and returns its child.
func start(t testing.TB, s *clone.Script, o clone.Options) *clone.Child {
	t.Helper()
	c, err := clone.Start(s, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// end takes the child's status and closes what there is of it.
func end(t testing.TB, c *clone.Child) fd.Exit {
	t.Helper()
	e, err := fd.Wait(c.Pidfd)
	if err != nil {
		t.Fatal(err)
	}
	c.Sync.Close()
	c.Pidfd.Close()
	return e
}

func TestExecAndMessages(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var s clone.Script
	s.For("set up")
	s.Dup(clone.File(clone.FD{Name: "out", File: w}), 1)
	s.Ready()
	s.UnblockSignals()
	s.For("execute")
	s.Exec([]string{"/no/such/sh", "/bin/sh"}, []string{"sh", "-c", "echo $GREETING; exit 5"}, []string{"GREETING=hello"})
	c := start(t, &s, clone.Options{})
	w.Close()
	if m, err := c.Next(); m != clone.Ready || err != nil {
		t.Fatal(m, err)
	}
	if err := c.Go(); err != nil {
		t.Fatal(err)
	}
	if m, err := c.Next(); m != clone.Executed || err != nil {
		t.Fatal(m, err)
	}
	out, err := io.ReadAll(r)
	if e := end(t, c); string(out) != "hello\n" || err != nil || e.Code != 5 {
		t.Errorf("output %q, %v, %+v", out, err, e)
	}
}

func TestFailure(t *testing.T) {
	for name, c := range map[string]struct {
		build func(*clone.Script)
		want  clone.Failure
	}{
		"step":       {func(s *clone.Script) { s.For("go there"); s.Chdir("/"); s.Chdir("/no/such") }, clone.Failure{What: "go there", Call: "chdir", Step: 1, Errno: syscall.ENOENT}},
		"no program": {func(s *clone.Script) { s.Exec([]string{"/no/a", "/no/b"}, []string{"a"}, nil) }, clone.Failure{Call: "fail", Step: 2, Errno: syscall.ENOENT}},
		"refused":    {func(s *clone.Script) { s.Exec([]string{"/no/a", "/etc/passwd", "/no/b"}, []string{"a"}, nil) }, clone.Failure{Call: "fail", Step: 3, Errno: syscall.EACCES}},
		"one path":   {func(s *clone.Script) { s.Exec([]string{"/etc"}, []string{"a"}, nil) }, clone.Failure{Call: "execve", Step: 0, Errno: syscall.EACCES}},
	} {
		var s clone.Script
		c.build(&s)
		child := start(t, &s, clone.Options{})
		_, err := child.Next()
		var f *clone.Failure
		if !errors.As(err, &f) || *f != c.want {
			t.Errorf("%s: %v", name, err)
		}
		if e := end(t, child); e.Code != 1 {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// TestSeccomp loads filters: the least, the largest, those that forbid what comes next, one the kernel refuses, and none.
func TestSeccomp(t *testing.T) {
	insn := func(code uint16, k uint32) []byte {
		return binary.NativeEndian.AppendUint32(append(binary.NativeEndian.AppendUint16(nil, code), 0, 0), k)
	}
	const load, ret, allow, errno = 0x20, 0x06, 0x7fff0000, 0x00050000
	large := append(bytes.Repeat(insn(load, 0), 4095), insn(ret, allow)...)
	for name, c := range map[string]struct {
		filter []byte
		want   error
	}{
		"least":       {insn(ret, allow), nil},
		"largest":     {large, nil},
		"binding":     {insn(ret, errno|uint32(syscall.EXDEV)), syscall.EXDEV}, // of what comes next
		"interrupted": {insn(ret, errno|uint32(syscall.EINTR)), syscall.EINTR},
		"wrong":       {insn(0xffff, 0), syscall.EINVAL},
		"empty":       {nil, syscall.EINVAL},
	} {
		t.Run(name, func(t *testing.T) {
			var s clone.Script
			s.NoNewPrivs()
			s.For("load")
			s.Seccomp(c.filter, 0)
			s.Exec([]string{"/bin/true"}, []string{"true"}, nil)
			child := start(t, &s, clone.Options{})
			if name == "binding" || name == "interrupted" { // it cannot tell, either
				if e := end(t, child); e.Code == 0 && e.Signal == 0 {
					t.Error("the program ran")
				}
				return
			}
			_, err := child.Next()
			if !errors.Is(err, c.want) {
				t.Errorf("%v, not %v", err, c.want)
			}
			if e := end(t, child); (e.Code == 0) != (c.want == nil) {
				t.Errorf("ended with %+v", e)
			}
		})
	}
}

// TestLongScripts has more steps than there is room for from the beginning, with a jump over the bound, and as many as there is.
func TestLongScripts(t *testing.T) {
	for _, n := range []int{381, 382, 383, 384, 385, 2000} {
		var s clone.Script
		far := s.Label()
		s.OpenHost("/no/such", 0, "", clone.Else(far, syscall.ENOENT))
		for range n - 2 {
			s.Chdir("/not reached")
		}
		s.Place(far)
		s.Exec([]string{"/bin/true"}, []string{"true"}, nil)
		child := start(t, &s, clone.Options{})
		if _, err := child.Next(); err != nil {
			t.Error(err)
		}
		if e := end(t, child); e.Code != 0 || e.Signal != 0 {
			t.Errorf("%d steps: ended with %+v", n, e)
		}
	}
}

func TestJumps(t *testing.T) {
	var s clone.Script
	missing, done := s.Label(), s.Label()
	r := s.OpenHost("/no/such", 0, "", clone.Else(missing, syscall.ENOENT))
	s.Chdir("/not reached")
	s.Place(missing)
	dir := s.OpenHost("/", 0, "", clone.Then(done))
	s.Chdir("/not reached")
	s.Place(done)
	s.Fchdir(clone.At(dir))
	s.Close(clone.At(dir))
	s.Exec([]string{"/bin/true"}, []string{"true"}, nil)
	_ = r
	c := start(t, &s, clone.Options{})
	if m, err := c.Next(); m != clone.Executed || err != nil {
		t.Error(m, err)
	}
	if e := end(t, c); e.Code != 0 {
		t.Errorf("%+v", e)
	}
	text := s.String()
	for _, want := range []string{"[ENOENT: to L1]", "L1:\n", "[to L2]", "L2:\n  fchdir(r1)"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	var unplaced clone.Script
	unplaced.Jump(unplaced.Label())
	if _, err := clone.Start(&unplaced, clone.Options{}); err == nil {
		t.Error("a label without a place: no error")
	}
}

// TestDescriptors checks that a waiting child holds nothing open that its script does not name.
func TestDescriptors(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var s clone.Script
	s.Ready()
	s.Exec([]string{"/bin/true"}, []string{"true"}, nil)
	c := start(t, &s, clone.Options{})
	if _, err := c.Next(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF { // would block if the child had a copy
		t.Error(n, err)
	}
	c.Sync.Close() // the parent goes away
	if e := end(t, c); e.Code != 1 {
		t.Errorf("%+v", e)
	}
}

func TestManyAtOnce(t *testing.T) {
	done := make(chan error)
	for range 8 {
		go func() {
			for range 20 {
				var s clone.Script
				s.UnblockSignals()
				s.Exec([]string{"/bin/true"}, []string{"true"}, nil)
				c, err := clone.Start(&s, clone.Options{})
				if err != nil {
					done <- err
					return
				}
				_, err = c.Next()
				_, werr := fd.Wait(c.Pidfd)
				if err = errors.Join(err, werr, c.Sync.Close(), c.Pidfd.Close()); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// BenchmarkStart is the clone of a child that ends at once, and its end.
func BenchmarkStart(b *testing.B) {
	var s clone.Script
	s.Exec(nil, nil, nil)
	for b.Loop() {
		c := start(b, &s, clone.Options{})
		end(b, c)
	}
}
