package main

import (
	"io"
	"log/slog"
	"strings"
)

// slogLevel is the level of docker's name for it.
func slogLevel(name string, debug bool) slog.Level {
	switch name = strings.ToLower(name); {
	case debug, name == "debug", name == "trace":
		return slog.LevelDebug
	case name == "info":
		return slog.LevelInfo
	case name == "warn":
		return slog.LevelWarn
	default: // error, fatal, panic
		return slog.LevelError
	}
}

// newLog writes to w in docker's shape: time="..." level=info msg="...".
func newLog(w io.Writer, format string, level slog.Leveler) *slog.Logger {
	o := &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.LevelKey {
			return slog.String(slog.LevelKey, strings.ToLower(a.Value.String()))
		}
		return a
	}}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
