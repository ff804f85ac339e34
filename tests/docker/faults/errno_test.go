package faults

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/tests/fault"
	"gantry/tests/harness"
)

// trouble is a way in which a disk, or the kernel, refuses.
type trouble struct {
	name  string
	errno syscall.Errno
	says  string
	hits  func(fault.Call) bool // the calls that it refuses
	stays bool                  // from the call in question on, not only that one
}

func kinds(all ...fault.Kind) func(fault.Call) bool {
	return func(c fault.Call) bool {
		for _, k := range all {
			if c.Kind == k {
				return true
			}
		}
		return false
	}
}

func troubles() []trouble {
	takes := kinds(fault.Create, fault.Write)
	return []trouble{
		{"ENOSPC", syscall.ENOSPC, "no space left on device|database or disk is full", takes, true},
		{"ENOSPC once", syscall.ENOSPC, "no space left on device|database or disk is full", kinds(fault.Create, fault.Write, fault.Name), false},
		{"EDQUOT", syscall.EDQUOT, "disk quota exceeded|database or disk is full", takes, true},
		{"inodes", syscall.ENOSPC, "no space left on device|database or disk is full", kinds(fault.Create), true},
		{"EIO", syscall.EIO, "input/output error|disk I/O error", kinds(fault.Create, fault.Write, fault.Name, fault.Delete, fault.Sync, fault.Attribute), false},
		{"EMFILE for a while", syscall.EMFILE, "too many open files|unable to open database file", kinds(fault.Open, fault.Create), true},
		{"EMFILE", syscall.EMFILE, "too many open files|unable to open database file", kinds(fault.Open, fault.Create), false},
	}
}

// An operation any of whose write sites fails says why, leaves nothing but what was there before, and the daemon goes on; or it does without what failed, and is done. When the trouble
// is over it succeeds.
func TestRefused(t *testing.T) {
	b := newBench(t)
	for _, op := range operations(b) {
		t.Run(op.name, func(t *testing.T) {
			b := *b
			b.T = t
			points, after := b.record(op)
			for _, kind := range troubles() {
				t.Run(kind.name, func(t *testing.T) {
					b := b
					b.T = t
					b.each(op, *budget/time.Duration(len(troubles())), spots(points, kind.hits), func(s spot) { b.refused(op, kind, s, after) })
				})
			}
		})
	}
}

func (b *bench) refused(op operation, kind trouble, s spot, after state) {
	b.Helper()
	e := b.begin()
	seen := 0
	b.super.Watch(func(c fault.Call) syscall.Errno {
		if c.Point == s.point {
			seen++
		}
		if seen >= s.which && kind.hits(c) && (kind.stays || c.Point == s.point && seen == s.which) {
			if !kind.stays {
				seen = 1 << 30
			}
			return kind.errno
		}
		return 0
	})
	r := op.do(e)
	b.super.Watch(nil)
	what := fmt.Sprintf("%s: %s at %s", op.name, kind.name, s)
	b.afterRefusal(op, kind.says, what, e, r, seen >= s.which, kind.hits(fault.Call{Kind: fault.Delete}), after)
}

// afterRefusal looks at what an operation has left that was refused something: by which, if at all, is known from says. It ends the daemon.
func (b *bench) afterRefusal(op operation, says, what string, e *harness.Env, r harness.Result, refused, deletes bool, after state) {
	b.Helper()
	failed := false
	wrong := func(format string, args ...any) {
		b.Helper()
		failed = true
		b.Errorf("%s: %s\n\tit said %d %s%s", what, fmt.Sprintf(format, args...), r.Code, tail(r.Stdout), tail(r.Stderr))
	}
	if r.Code != 0 && !contains(r.Stdout+r.Stderr, says) && refused {
		wrong("this is no clear error")
	}
	if r.Code != 0 && strings.Contains(r.Stderr, "connection refused") || daemon.Pid() == 0 {
		wrong("the daemon has ended")
	}
	// What could not be deleted is deleted with the next garbage, and until then it is said to be there.
	if lines, err := daemon.Fsck(); err != nil || len(lines) > 0 && (r.Code == 0 || !strings.HasSuffix(lines[0], "left over in tmp")) {
		wrong("fsck: %v %v", lines, err)
	}
	now := b.look()
	if lines, err := daemon.Fsck(); err != nil || len(lines) > 0 {
		wrong("fsck after prune: %v %v", lines, err)
	}
	if text := b.allowed(op, now, after); text != "" {
		wrong("%s", text)
	}
	if (op.wrong != nil || r.Code != 0 && !deletes) && slices.Contains(slices.Collect(maps.Values(now.blobs)), both) {
		wrong("a blob and its recipe are both there: %v", now.blobs)
	}
	if op.check != nil {
		if text := op.check(e); text != "" {
			wrong("%s", text)
		}
	}
	if r.Code == 0 && len(now.names) != len(after.names) {
		wrong("it is not done, and has said that it is")
	}
	if *full || rand.IntN(4) == 0 { // what was refused does not come with the next start
		b.end()
		if err := daemon.Start(); err != nil {
			b.Fatalf("%s: %v", what, err)
		}
		if later := b.look(); !maps.Equal(later.names, now.names) {
			wrong("the next start has other images: %v, and had %v", later.names, now.names)
		}
	}
	if again := op.do(e); again.Code != 0 && (op.done == nil || !op.done(again)) {
		wrong("again: %v", again)
	}
	if text := differ(b.look().tree, after.tree); text != "" {
		wrong("again: %s", text)
	}
	if op.check != nil {
		if text := op.check(e); text != "" {
			wrong("again: %s", text)
		}
	}
	b.end()
	if failed {
		b.Logf("the daemon's log:\n%s", daemon.LogTail(3))
	} else if r.Code != 0 {
		b.Logf("%s: %s", what, tail(r.Stderr))
	}
}

func contains(text, alternatives string) bool {
	for a := range strings.SplitSeq(alternatives, "|") {
		if strings.Contains(text, a) {
			return true
		}
	}
	return false
}

// tail returns the end of what was said.
func tail(text string) string { return text[max(0, len(text)-400):] }

// A blob, or a recipe, that the disk cannot read any more is named, by whatever reads it.
func TestUnreadable(t *testing.T) {
	b := newBench(t)
	b.super.Reads = true
	for _, op := range []operation{
		{name: "push", do: func(e *harness.Env) harness.Result {
			b.registry.Drop("keep")
			return e.Do("push", b.registry.Host()+"/keep:1")
		}},
		{name: "save", do: func(e *harness.Env) harness.Result {
			r := e.Do("save", "-o", filepath.Join(e.Config, "saved"), "gone:1")
			r.Stderr += daemon.LogTail(1) // the answer is under way and can only be broken off
			return r
		}},
		{name: "load", do: func(e *harness.Env) harness.Result {
			return e.DoInput(string(archiveOf("loaded:1", base(), harness.Layer(file("new", noise(300_000, 4))))), "load")
		}},
		{name: "settle", do: settle},
	} {
		t.Run(op.name, func(t *testing.T) {
			b := *b
			b.T = t
			for n := 1; ; n++ { // the n-th read of a blob fails
				e := b.begin()
				seen, path := 0, ""
				b.super.Watch(func(c fault.Call) syscall.Errno {
					if c.Point != "read content/blobs/sha256/*" && c.Point != "read content/recipes/sha256/*" {
						return 0
					}
					if seen++; seen != n {
						return 0
					}
					path = c.Path
					return syscall.EIO
				})
				r := op.do(e)
				b.super.Watch(nil)
				if path != "" && r.Code != 0 && !strings.Contains(r.Stdout+r.Stderr, filepath.Base(path)) { // or the client has asked once more
					t.Errorf("%s: read %d, of %s: %v", op.name, n, path, r)
				}
				if wrong := sound(e, false); wrong != "" {
					t.Errorf("%s: read %d: %s", op.name, n, wrong)
				}
				b.end()
				if path == "" || n == 10 && !*full {
					t.Logf("%s: %d reads", op.name, n)
					break
				}
			}
		})
	}
}
