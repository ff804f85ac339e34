package server

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"gantry/shim/wire"
)

// warn tells the daemon what went wrong, and leaves word in the sandbox directory in case none listens.
func (u *unit) warn(what string, err error) {
	message := fmt.Sprintf("%s: %v", what, err)
	u.server.announce(wire.Event{Kind: wire.EventWarning, Message: message})
	f, err := u.openLog()
	if err != nil {
		return // nowhere left to say so
	}
	defer f.Close()
	fmt.Fprintln(f, time.Now().UTC().Format(time.RFC3339Nano), message)
}

// reportCrashes lets the Go runtime write there why it ended the shim.
func (u *unit) reportCrashes() {
	f, err := u.openLog()
	if err != nil {
		u.warn("prepare for crashes", err)
		return
	}
	defer f.Close()
	if err := debug.SetCrashOutput(f, debug.CrashOptions{}); err != nil {
		u.warn("prepare for crashes", err)
	}
}

func (u *unit) openLog() (*os.File, error) {
	return os.OpenFile(filepath.Join(u.request.Dir, wire.LogName), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}
