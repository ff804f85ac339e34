package faults

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// limit leaves the daemon so many descriptors beside those that it has, and returns what takes the limit away.
func limit(t *testing.T, more int) (lift func()) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Prlimit(daemon.Pid(), unix.RLIMIT_NOFILE, nil, &old); err != nil {
		t.Fatal(err)
	}
	taken := map[int]bool{}
	open, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(daemon.Pid()), "fd"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range open {
		n, _ := strconv.Atoi(f.Name())
		taken[n] = true
	}
	n := 0
	for ; more > 0 || taken[n]; n++ { // the limit is of numbers, and the lowest free one is taken
		if !taken[n] {
			more--
		}
	}
	set := func(soft uint64) {
		if err := unix.Prlimit(daemon.Pid(), unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: soft, Max: old.Max}, nil); err != nil {
			t.Error(err)
		}
	}
	set(uint64(n))
	return func() { set(old.Cur) }
}

// A daemon that has few descriptors left, or none, says so, loses nothing, and goes on when there are some again.
func TestFewDescriptors(t *testing.T) {
	b := newBench(t)
	all := operations(b)
	if !*full {
		all = []operation{all[rand.IntN(len(all))]}
	}
	for _, op := range all {
		t.Run(op.name, func(t *testing.T) {
			b := *b
			b.T = t
			_, after := b.record(op)
			refused, enough := 0, 0
			for more := 0; enough < 2 && (*full || more < 20); more++ {
				switch { // a few, and later on every fourth
				case !*full && more > 0:
					more += 10 + rand.IntN(10)
				case more > 24:
					more += 3
				}
				if more > 200 {
					t.Fatalf("it is refused with %d descriptors", more)
				}
				e := b.begin()
				lift := limit(t, more)
				begun := time.Now()
				r := op.do(e)
				lift()
				what := fmt.Sprintf("%s with %d descriptors", op.name, more)
				if took := time.Since(begun); took > 20*time.Second {
					t.Errorf("%s: it took %v", what, took)
				}
				if r.Code == 0 {
					enough++
				} else {
					refused++
				}
				b.afterRefusal(op, "too many open files|unable to open database file", what, e, r, true, false, after)
			}
			t.Logf("%s: refused %d times", op.name, refused)
		})
	}
}
