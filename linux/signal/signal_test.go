package signal

import (
	"os"
	"runtime"
	"slices"
	"syscall"
	"testing"
)

// TestCatch sends signals from outside while goroutines make the runtime send its own.
func TestCatch(t *testing.T) {
	list := []syscall.Signal{syscall.SIGUSR1, syscall.SIGTERM, syscall.SIGPIPE, 34, 64}
	c, err := Catch(list...)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	defer close(done)
	for range 2 * runtime.NumCPU() {
		go func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
					_ = make([]byte, i%(1<<16)) // collections stop and preempt goroutines
				}
			}
		}()
	}
	ended, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ended.Close()
	var got []syscall.Signal
	want := slices.Repeat(list, 20)
	for _, s := range want {
		if err := syscall.Kill(os.Getpid(), s); err != nil {
			t.Fatal(err)
		}
		l, readable, err := c.Wait(ended)
		if err != nil || readable {
			t.Fatal(readable, err)
		}
		got = append(got, l...)
	}
	if !slices.Equal(got, want) {
		t.Errorf("caught %v, want %v", got, want)
	}
	end.Close()
	if l, readable, err := c.Wait(ended); len(l) != 0 || !readable || err != nil {
		t.Errorf("after the end: %v, %t, %v", l, readable, err)
	}
}
