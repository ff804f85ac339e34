package faults

import (
	"syscall"
	"testing"
	"time"

	"gantry/tests/fault"
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

func (b *bench) killed(op operation, s spot, after state) {
	b.Helper()
	e := b.begin()
	seen := 0
	b.super.Watch(func(c fault.Call) syscall.Errno {
		if c.Point != s.point {
			return 0
		}
		if seen++; seen == s.which {
			return fault.Kill
		}
		return 0
	})
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
	if wrong := sound(e); wrong != "" {
		b.Errorf("%s: %s", what, wrong)
	}
	if wrong := b.allowed(op, b.look(), after); wrong != "" {
		b.Errorf("%s: %s", what, wrong)
	}
	if r := op.do(e); r.Code != 0 && (op.done == nil || !op.done(r)) {
		b.Errorf("%s: again: %v", what, r)
	}
	if wrong := differ(b.look().tree, after.tree); wrong != "" {
		b.Errorf("%s: again: %s", what, wrong)
	}
	if wrong := sound(e); wrong != "" {
		b.Errorf("%s: again: %s", what, wrong)
	}
	b.end()
}
