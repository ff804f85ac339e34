// Package db keeps the engine's records: small JSON documents in named buckets of one embedded SQLite file.
//
// The database is an index of what the kernel and the content-addressed files hold. It runs in WAL mode with
// synchronous=NORMAL: a transaction survives kill -9 of the process, and a power cut may lose the newest ones but
// never tears one.
package db

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"gantry/errdefs"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// schemaVersion is what this code writes; see migrations.
const schemaVersion = 1

// migrations brings a file from version i to i+1.
var migrations = [schemaVersion]string{
	`CREATE TABLE record (bucket TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (bucket, key)) WITHOUT ROWID;`,
}

// DB is an open database. Its methods may be called concurrently; writers take turns.
type DB struct {
	path string
	mu   sync.Mutex // guards conn: one connection serves all, since every transaction is short
	conn *sqlite.Conn
}

// Open opens or creates the database file. A file that is no database is moved aside to path+".damaged-<unix time>",
// Damaged reports it, and an empty one takes its place.
func Open(path string) (*DB, error) {
	d, err := open(path)
	if err != nil && !damaged(err) && os.Remove(path+reserveSuffix) == nil { // perhaps for want of space: SQLite has several words for it
		d, err = open(path)
	}
	if err == nil || !damaged(err) {
		return d, err
	}
	aside := fmt.Sprintf("%s.damaged-%d", path, time.Now().Unix())
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if rerr := os.Rename(path+suffix, aside+suffix); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
			return nil, fmt.Errorf("move damaged database aside: %w", rerr)
		}
	}
	return open(path)
}

// Damaged returns the files that Open moved aside because they were no databases.
func (d *DB) Damaged() []string {
	found, _ := filepath.Glob(d.path + ".damaged-*")
	var main []string
	for _, f := range found {
		if !strings.HasSuffix(f, "-wal") && !strings.HasSuffix(f, "-shm") {
			main = append(main, f)
		}
	}
	return main
}

// DropDamaged deletes a file that Damaged has listed, and what belongs to it; that one last, so that a kill leaves what is listed.
func (d *DB) DropDamaged(file string) error {
	for _, suffix := range []string{"-wal", "-shm", ""} {
		if err := os.Remove(file + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove damaged database: %w", err)
		}
	}
	return nil
}

func open(path string) (*DB, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("create database folder: %w", err)
	}
	conn, err := sqlite.OpenConn(path, sqlite.OpenReadWrite, sqlite.OpenCreate, sqlite.OpenWAL)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	d := &DB{path: path, conn: conn}
	if err := d.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("open database %s: %w", path, err), conn.Close())
	}
	_ = os.Remove(path + probeSuffix) // of a process that was killed while it asked; there need not be one
	d.setReserve()
	d.extendLog()
	return d, nil
}

func damaged(err error) bool {
	switch sqlite.ErrCode(err).ToPrimary() {
	case sqlite.ResultNotADB, sqlite.ResultCorrupt:
		return true
	default:
		return false
	}
}

func (d *DB) prepare() error {
	for _, pragma := range []string{"PRAGMA synchronous=NORMAL", "PRAGMA cache_size=-1024", "PRAGMA journal_size_limit=4194304"} {
		if err := sqlitex.ExecuteTransient(d.conn, pragma, nil); err != nil {
			return err
		}
	}
	version := 0
	err := sqlitex.ExecuteTransient(d.conn, "PRAGMA user_version", &sqlitex.ExecOptions{ResultFunc: func(s *sqlite.Stmt) error {
		version = s.ColumnInt(0)
		return nil
	}})
	if err != nil {
		return err
	}
	if version > schemaVersion {
		return errdefs.New(errdefs.Unavailable, "the database has version %d, this program knows %d: use the newer program", version, schemaVersion)
	}
	for ; version < schemaVersion; version++ {
		// ExecuteScript makes one transaction of it.
		script := fmt.Sprintf("%s PRAGMA user_version=%d;", migrations[version], version+1)
		if err := sqlitex.ExecuteScript(d.conn, script, nil); err != nil {
			return fmt.Errorf("migrate to version %d: %w", version+1, err)
		}
	}
	return nil
}

// Close writes the log back into the file and closes it.
func (d *DB) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.conn.Close()
}

// Tx is a transaction; it is valid only inside the function that Update or View calls.
type Tx struct {
	db       *DB
	conn     *sqlite.Conn
	writable bool
	adds     bool // a record was stored under a new key
}

// Update runs f in one transaction, which is committed when f returns nil and rolled back otherwise. On a full disk the log is written back, so that
// it can be used from its beginning, and f runs again; when that does not help and f adds no record, the reserve is given up and f runs once more,
// so that what frees space can be recorded: f must not mind running several times.
func (d *DB) Update(f func(*Tx) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	adds, err := d.update(f)
	if !errdefs.Is(err, errdefs.Exhausted) {
		return err
	}
	if sqlitex.ExecuteTransient(d.conn, "PRAGMA wal_checkpoint(RESTART)", nil) == nil {
		if adds, err = d.update(f); !errdefs.Is(err, errdefs.Exhausted) {
			return err
		}
	}
	if !adds && os.Remove(d.path+reserveSuffix) == nil {
		_ = sqlitex.ExecuteTransient(d.conn, "PRAGMA wal_checkpoint(RESTART)", nil) // grows the file, so that the log is free for what comes next
		d.extendLog()
		_, err = d.update(f)
	}
	return err
}

// update is one attempt of Update; adds tells whether f has stored a record under a new key.
func (d *DB) update(f func(*Tx) error) (adds bool, err error) {
	if err := d.exec("BEGIN IMMEDIATE"); err != nil {
		return false, fmt.Errorf("begin transaction in %s: %w", d.path, d.full(err))
	}
	done := false
	defer func() {
		if !done && !d.conn.AutocommitEnabled() { // f failed or panicked, and SQLite has not rolled back by itself
			err = errors.Join(err, d.exec("ROLLBACK"))
		}
	}()
	tx := &Tx{db: d, conn: d.conn, writable: true}
	if err := f(tx); err != nil {
		return tx.adds, err
	}
	if err := d.exec("COMMIT"); err != nil {
		return tx.adds, fmt.Errorf("commit transaction in %s: %w", d.path, d.full(err))
	}
	done = true
	return tx.adds, nil
}

const (
	reserveSuffix = ".reserve"
	probeSuffix   = ".probe"  // of a file by which the disk is asked whether it is full
	reserveSize   = 512 << 10 // bytes
	logSize       = 192 << 10 // bytes that the log has from the start
)

// extendLog gives the log the space of some transactions, which then need none of the disk's. SQLite ends its reading of the log at what it has not
// written. Without space the log stays as it is.
func (d *DB) extendLog() {
	log, err := os.OpenFile(d.path+"-wal", os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer log.Close()
	if st, err := log.Stat(); err == nil && st.Size() < logSize {
		_ = syscall.Fallocate(int(log.Fd()), 0, 0, logSize)
	}
}

// setReserve keeps some space for the day when the disk is full. Without space there is none; the next Open tries again.
func (d *DB) setReserve() {
	path := d.path + reserveSuffix
	if st, err := os.Stat(path); err == nil && st.Size() == reserveSize {
		return
	}
	if err := os.WriteFile(path, make([]byte, reserveSize), 0o600); err != nil {
		_ = os.Remove(path) // half a reserve is none
	}
}

// View runs f with a consistent view of the records.
func (d *DB) View(f func(*Tx) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.exec("BEGIN"); err != nil {
		return fmt.Errorf("begin transaction in %s: %w", d.path, err)
	}
	return errors.Join(f(&Tx{db: d, conn: d.conn}), d.exec("ROLLBACK"))
}

func (d *DB) exec(query string) error {
	stmt, err := d.conn.Prepare(query)
	if err != nil {
		return err
	}
	_, err = stmt.Step()
	return errors.Join(err, stmt.Reset())
}

// full marks the errors that mean a full disk or an exhausted quota. SQLite has no word for the latter: its file system is asked.
func (d *DB) full(err error) error {
	switch sqlite.ErrCode(err).ToPrimary() {
	case sqlite.ResultFull:
		return errdefs.With(errdefs.Exhausted, err)
	case sqlite.ResultIOErr, sqlite.ResultCantOpen:
		probe := d.path + probeSuffix
		perr := os.WriteFile(probe, make([]byte, 4096), 0o600)
		_ = os.Remove(probe) // there need not be one
		if errors.Is(perr, syscall.ENOSPC) || errors.Is(perr, syscall.EDQUOT) {
			return errdefs.With(errdefs.Exhausted, fmt.Errorf("%w: %w", err, perr))
		}
	}
	return err
}

// Check returns what SQLite's own quick check finds wrong with the file; none when it is sound.
func (d *DB) Check(ctx context.Context) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	defer d.conn.SetInterrupt(d.conn.SetInterrupt(ctx.Done()))
	var problems []string
	err := sqlitex.ExecuteTransient(d.conn, "PRAGMA quick_check", &sqlitex.ExecOptions{ResultFunc: func(s *sqlite.Stmt) error {
		if line := s.ColumnText(0); line != "ok" {
			problems = append(problems, line)
		}
		return nil
	}})
	return problems, err
}

// Bucket is a named set of records of one type, each stored as JSON under a key.
type Bucket[T any] string

// Put stores the record, in place of any older one of the same key.
func (b Bucket[T]) Put(tx *Tx, key string, record T) error {
	value, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("encode %s %s: %w", string(b), key, err)
	}
	for _, query := range []string{"UPDATE record SET value = ?3 WHERE bucket = ?1 AND key = ?2", "INSERT INTO record (bucket, key, value) VALUES (?1, ?2, ?3)"} {
		stmt, err := tx.conn.Prepare(query)
		if err != nil {
			return err
		}
		stmt.BindText(1, string(b))
		stmt.BindText(2, key)
		stmt.BindBytes(3, value)
		if err := run(stmt); err != nil {
			return fmt.Errorf("store %s %s: %w", string(b), key, tx.db.full(err))
		}
		if tx.conn.Changes() > 0 {
			return nil
		}
		tx.adds = true
	}
	return nil
}

// Get returns the record, or an error of kind NotFound.
func (b Bucket[T]) Get(tx *Tx, key string) (T, error) {
	var record T
	stmt, err := tx.conn.Prepare("SELECT value FROM record WHERE bucket = ? AND key = ?")
	if err != nil {
		return record, err
	}
	stmt.BindText(1, string(b))
	stmt.BindText(2, key)
	found, err := stmt.Step()
	if err == nil && found {
		err = json.Unmarshal(column(stmt, 0), &record)
	}
	if err = errors.Join(err, stmt.Reset()); err != nil {
		return record, fmt.Errorf("read %s %s: %w", string(b), key, err)
	}
	if !found {
		return record, errdefs.New(errdefs.NotFound, "no such %s: %s", string(b), key)
	}
	return record, nil
}

// Delete removes the record; there need not be one.
func (b Bucket[T]) Delete(tx *Tx, key string) error {
	stmt, err := tx.conn.Prepare("DELETE FROM record WHERE bucket = ? AND key = ?")
	if err != nil {
		return err
	}
	stmt.BindText(1, string(b))
	stmt.BindText(2, key)
	if err := run(stmt); err != nil {
		return fmt.Errorf("delete %s %s: %w", string(b), key, tx.db.full(err))
	}
	return nil
}

// All yields every record in the order of their keys. A record that cannot be decoded is yielded with its key, a zero
// value and the error, and the iteration goes on.
func (b Bucket[T]) All(tx *Tx) iter.Seq2[string, Record[T]] {
	return func(yield func(string, Record[T]) bool) {
		stmt, err := tx.conn.Prepare("SELECT key, value FROM record WHERE bucket = ? ORDER BY key")
		if err != nil {
			yield("", Record[T]{Err: err})
			return
		}
		defer func() { _ = stmt.Reset() }() // repeats the error of Step
		stmt.BindText(1, string(b))
		for {
			found, err := stmt.Step()
			if err != nil {
				yield("", Record[T]{Err: err})
				return
			}
			if !found {
				return
			}
			var r Record[T]
			key := stmt.ColumnText(0)
			if err := json.Unmarshal(column(stmt, 1), &r.Value); err != nil {
				r = Record[T]{Err: fmt.Errorf("read %s %s: %w", string(b), key, err)}
			}
			if !yield(key, r) {
				return
			}
		}
	}
}

// Record is one result of All.
type Record[T any] struct {
	Value T
	Err   error
}

func column(stmt *sqlite.Stmt, i int) []byte {
	value := make([]byte, stmt.ColumnLen(i))
	stmt.ColumnBytes(i, value)
	return value
}

func run(stmt *sqlite.Stmt) error {
	_, err := stmt.Step()
	return errors.Join(err, stmt.Reset())
}
