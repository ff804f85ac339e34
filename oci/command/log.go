package command

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"gantry/linux/pty"
)

// logger writes messages in the forms that runc's callers read.
type logger struct {
	path   string // file that gets the messages; empty: standard error
	asJSON bool
	debug  bool
	start  time.Time
}

// open makes the file, so that a path that cannot be written is found at once.
func (l *logger) open() error {
	if l.path == "" {
		return nil
	}
	f, err := l.file()
	if err != nil {
		return err
	}
	return f.Close()
}

func (l *logger) file() (*os.File, error) {
	return os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NOCTTY, 0o644)
}

func (l *logger) warn(message string) { l.write("warning", message) }

func (l *logger) debugf(format string, args ...any) {
	if l.debug {
		l.write("debug", fmt.Sprintf(format, args...))
	}
}

// fail writes the message that ends the command: to the log, and to standard error if that is elsewhere.
func (l *logger) fail(message string) {
	l.write("error", message)
	if l.path != "" {
		fmt.Fprintln(os.Stderr, message)
	}
}

func (l *logger) write(level, message string) {
	f := os.Stderr
	if l.path != "" {
		var err error
		if f, err = l.file(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
		defer f.Close()
	}
	_, _ = f.WriteString(l.line(level, message, l.path == "" && pty.IsTerminal(os.Stderr))) // nowhere to tell of a failure
}

func (l *logger) line(level, message string, terminal bool) string {
	now := time.Now().Format(time.RFC3339)
	switch {
	case l.asJSON:
		data, _ := json.Marshal(struct {
			Level string `json:"level"`
			Msg   string `json:"msg"`
			Time  string `json:"time"`
		}{level, message, now}) // strings always can be
		return string(data) + "\n"
	case terminal:
		color := map[string]int{"error": 31, "warning": 33, "debug": 37}[level]
		return fmt.Sprintf("\x1b[%dm%s\x1b[0m[%04d] %-44s \n", color, strings.ToUpper(level)[:4], int(time.Since(l.start)/time.Second), message)
	}
	return fmt.Sprintf("time=%q level=%s msg=%s\n", now, level, quoted(message))
}

// quoted puts a value in quotes if it needs them.
func quoted(s string) string {
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-._/@^+", c) >= 0:
		default:
			return fmt.Sprintf("%q", s)
		}
	}
	return s
}
