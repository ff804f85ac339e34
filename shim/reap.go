package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"gantry/errdefs"
	"gantry/linux/cgroup"
	"gantry/linux/fd"
	"gantry/linux/mount"
	"gantry/shim/wire"
)

// ReadExit returns how a container ended whose shim is gone. NotFound: it left no word, it was killed.
func ReadExit(dir string) (Exit, error) {
	record, err := read(dir)
	if err != nil {
		return Exit{}, fmt.Errorf("read exit: %w", err)
	}
	if record.Exit == nil {
		return Exit{}, errdefs.New(errdefs.NotFound, "read exit: the shim in %s did not see its container end", dir)
	}
	return *record.Exit, nil
}

// read returns the record in a sandbox directory: of a container that ended, or of one that did not as far as its shim knew.
func read(dir string) (wire.Record, error) {
	var record wire.Record
	err := readRecord(filepath.Join(dir, wire.ExitName), &record)
	if errdefs.Is(err, errdefs.NotFound) {
		err = readRecord(filepath.Join(dir, wire.InitName), &record)
	}
	if errdefs.Is(err, errdefs.NotFound) { // it ended between the two looks
		err = readRecord(filepath.Join(dir, wire.ExitName), &record)
	}
	return record, err
}

func readRecord(path string, v any) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return errdefs.With(errdefs.NotFound, err)
	}
	if err != nil {
		return err
	}
	if len(b) == 0 { // the shim was killed before it wrote
		return errdefs.New(errdefs.NotFound, "%s is empty", path)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// Reap kills what a dead shim left behind in the sandbox of dir: init, the cgroup's other processes, the cgroup. It returns when they
// are gone, or with ctx. A sandbox in which nothing was started is no error.
func Reap(ctx context.Context, dir string) error {
	init, err := read(dir)
	if errdefs.Is(err, errdefs.NotFound) {
		if err := os.Remove(filepath.Join(dir, wire.InitName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("reap container: %w", err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("reap container: %w", err)
	}
	if err := killInit(ctx, init); err != nil {
		return fmt.Errorf("reap container: %w", err)
	}
	if init.Cgroup != "" {
		if err := removeCgroup(ctx, init.Cgroup); err != nil {
			return fmt.Errorf("reap container: %w", err)
		}
	}
	for _, path := range init.Mounts {
		if err := mount.Unmount(path); err != nil {
			return fmt.Errorf("reap container: %w", err)
		}
	}
	if err := os.Remove(filepath.Join(dir, wire.InitName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reap container: %w", err)
	}
	return nil
}

// killInit kills the process if it is still the one that the shim started, and with it its pid namespace.
func killInit(ctx context.Context, init wire.Record) error {
	pidfd, err := fd.Pidfd(init.Pid)
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer pidfd.Close()
	// Asked for after the descriptor was opened: from here on the number cannot be another's.
	if started, err := wire.StartTime(init.Pid); err != nil || started != init.StartTime {
		return nil
	}
	if err := fd.Signal(pidfd, syscall.SIGKILL); err != nil {
		if errors.Is(err, os.ErrProcessDone) {
			return nil
		}
		return err
	}
	stop := context.AfterFunc(ctx, func() { pidfd.Close() })
	defer stop()
	if err := fd.WaitGone(pidfd); err != nil {
		return fmt.Errorf("wait for the end of process %d: %w", init.Pid, err)
	}
	return nil
}

func removeCgroup(ctx context.Context, path string) error {
	group, err := cgroup.Open(path)
	if errdefs.Is(err, errdefs.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	const pause = 5 * time.Millisecond // a killed process leaves its cgroup a moment later, and nothing tells when on v1
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		if err := group.Kill(); err != nil {
			return err
		}
		if err = group.Delete(); !errors.Is(err, syscall.EBUSY) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-timer.C:
			timer.Reset(pause)
		}
	}
}
