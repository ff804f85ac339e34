package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"gantry/oci"
	"gantry/oci/store"
)

func TestCheckID(t *testing.T) {
	for _, id := range []string{"a", "A-b_c+d.e", "0", strings.Repeat("x", 255), "...", "-"} {
		if err := store.CheckID(id); err != nil {
			t.Errorf("%q: %v", id, err)
		}
	}
	for _, id := range []string{"", ".", "..", "a/b", "a b", "a\x00", "ü", strings.Repeat("x", 256)} {
		if err := store.CheckID(id); !errors.Is(err, store.ErrInvalidID) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestStore(t *testing.T) {
	s := store.New(filepath.Join(t.TempDir(), "a/b"))
	if _, err := s.Lock("x"); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("%v", err)
	}
	d, err := s.Make("x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Make("x"); !errors.Is(err, store.ErrExist) {
		t.Errorf("%v", err)
	}
	if _, err := s.Read("x"); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("without a state: %v", err)
	}
	if err := d.Write(oci.State{ID: "x", Cgroup: "/c"}); err != nil {
		t.Fatal(err)
	}
	if st, err := s.Read("x"); !errors.Is(err, store.ErrNotExist) || st.Cgroup != "/c" {
		t.Errorf("intent: %+v, %v", st, err)
	}
	if err := d.Write(oci.State{ID: "x", Pid: 7, Birth: 9}); err != nil {
		t.Fatal(err)
	}
	if st, err := s.Read("x"); err != nil || st.Pid != 7 || st.Birth != 9 {
		t.Errorf("%+v, %v", st, err)
	}
	if err := os.WriteFile(filepath.Join(d.Path, "state.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read("x"); err == nil || errors.Is(err, store.ErrNotExist) {
		t.Errorf("damaged: %v", err)
	}
	if err := d.Remove(); err != nil {
		t.Fatal(err)
	}
}

// TestLocks has many make, lock and remove one name at the same time: never two hold it.
func TestLocks(t *testing.T) {
	s := store.New(t.TempDir())
	var inside, made int
	var mu sync.Mutex // guards the two
	enter := func(n int) {
		mu.Lock()
		defer mu.Unlock()
		if inside += n; inside > 1 {
			t.Error("two hold the lock")
		}
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				d, err := s.Make("x")
				if err == nil {
					mu.Lock()
					made++
					mu.Unlock()
				} else if d, err = s.Lock("x"); err != nil {
					if !errors.Is(err, store.ErrNotExist) {
						t.Error(err)
					}
					continue
				}
				enter(1)
				enter(-1)
				if err := d.Remove(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if made == 0 {
		t.Error("nobody made it")
	}
}
