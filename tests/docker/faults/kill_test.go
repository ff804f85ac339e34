package faults

import (
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"gantry/tests/fault"
	"gantry/tests/harness"
)

// A daemon that is killed before any of its write sites, in any operation, is ready again in no time, has all that it had acknowledged, and of the operation all or nothing; it leaks
// nothing, and the operation succeeds when it is repeated.
func TestKilled(t *testing.T) {
	b := newBench(t)
	for _, op := range operations(b) {
		t.Run(op.name, func(t *testing.T) {
			b := *b
			b.T = t
			points, after := b.record(op)
			b.each(op, *budget, spots(points, func(c fault.Call) bool { return c.Kind != fault.Open }), func(s spot) { b.killed(op, s, after) })
		})
	}
}

// kill is a policy that kills at the spot, and counts the occurrences of its point.
func (s spot) kill(seen *int) fault.Policy {
	return func(c fault.Call) syscall.Errno {
		if c.Point != s.point {
			return 0
		}
		if *seen++; *seen == s.which {
			return fault.Kill
		}
		return 0
	}
}

func (b *bench) killed(op operation, s spot, after state) {
	b.Helper()
	e := b.begin()
	seen := 0
	b.super.Watch(s.kill(&seen))
	r := op.do(e)
	b.super.Watch(nil)
	what := op.name + ": killed before " + s.String()
	if seen < s.which && r.Code != 0 {
		b.Errorf("%s: not reached: %v", what, r)
	}
	daemon.Kill()
	b.super.Wait()
	start := time.Now()
	if err := daemon.Start(); err != nil {
		b.Fatalf("%s: %v", what, err)
	}
	if took := time.Since(start); took > 2*time.Second {
		b.Errorf("%s: ready after %v", what, took)
	}
	if wrong := sound(e, op.wrong != nil && *full); wrong != "" {
		b.Errorf("%s: %s", what, wrong)
	}
	if wrong := b.allowed(op, b.look(), after); wrong != "" {
		b.Errorf("%s: %s", what, wrong)
	}
	if op.check != nil {
		if wrong := op.check(e); wrong != "" {
			b.Errorf("%s: %s", what, wrong)
		}
	}
	if r := op.do(e); r.Code != 0 && (op.done == nil || !op.done(r)) {
		b.Errorf("%s: again: %v", what, r)
	}
	if wrong := differ(b.look().tree, after.tree); wrong != "" {
		b.Errorf("%s: again: %s", what, wrong)
	}
	if wrong := sound(e, false); wrong != "" {
		b.Errorf("%s: again: %s", what, wrong)
	}
	if op.check != nil {
		if wrong := op.check(e); wrong != "" {
			b.Errorf("%s: again: %s", what, wrong)
		}
	}
	b.end()
}

// A daemon that is killed while it repairs what the one before left, when that was killed in turn, leaves that to the next.
func TestKilledAtStart(t *testing.T) {
	b := newBench(t)
	e := b.begin()
	b.super.Watch(func(c fault.Call) syscall.Errno {
		if c.Point == "rename tmp/layer-* -> layers/*" {
			return fault.Kill
		}
		return 0
	})
	operations(b)[0].do(e) // a pull
	b.super.Watch(nil)
	b.end()
	left := filepath.Join(harness.Dir(), "left")
	copyTree(t, daemon.DataRoot(), left)
	var points []fault.Call
	b.super.Watch(func(c fault.Call) syscall.Errno {
		points = append(points, c)
		return 0
	})
	if _, err := b.start(left); err != nil {
		t.Fatal(err)
	}
	b.super.Watch(nil)
	b.end()
	op := operation{name: "start"}
	b.each(op, *budget, spots(points, func(c fault.Call) bool { return c.Kind != fault.Open }), func(s spot) {
		seen := 0
		b.super.Watch(s.kill(&seen))
		e, err := b.start(left)
		b.super.Watch(nil)
		what := "start: killed before " + s.String()
		if err == nil && seen >= s.which {
			t.Errorf("%s: it is still there", what)
		}
		b.end()
		start := time.Now()
		if err := daemon.Start(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("%s: ready after %v", what, took)
		}
		if wrong := sound(e, false); wrong != "" {
			t.Errorf("%s: %s", what, wrong)
		}
		if wrong := b.allowed(op, b.look(), b.before); wrong != "" {
			t.Errorf("%s: %s", what, wrong)
		}
		b.end()
	})
}
