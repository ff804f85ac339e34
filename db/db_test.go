package db

import (
	"os"
	"path/filepath"
	"testing"

	"gantry/errdefs"
)

type record struct{ Name string }

const records Bucket[record] = "record"

func TestOpenKeepsRecords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "x.db")
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Update(func(tx *Tx) error { return records.Put(tx, "a", record{"one"}) }); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if d, err = Open(path); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	err = d.View(func(tx *Tx) error {
		r, err := records.Get(tx, "a")
		if r.Name != "one" {
			t.Errorf("got %+v", r)
		}
		if _, missing := records.Get(tx, "b"); !errdefs.Is(missing, errdefs.NotFound) {
			t.Errorf("missing record: %v", missing)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestOpenMovesDamagedFileAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	if err := os.WriteFile(path, []byte("this is no database, whatever its name says, and it is long enough"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	if len(d.Damaged()) != 1 {
		t.Errorf("damaged: %v", d.Damaged())
	}
}

// What a process leaves that is killed while it asks whether the disk is full goes with the next Open.
func TestOpenRemovesProbe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	if err := os.WriteFile(path+probeSuffix, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	if _, err := os.Stat(path + probeSuffix); !os.IsNotExist(err) {
		t.Errorf("the probe is still there: %v", err)
	}
}
