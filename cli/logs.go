package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"gantry/client"
)

func logsCommand() *command {
	return &command{
		name: "logs", aliases: "container logs, logs", use: "[OPTIONS] CONTAINER", short: "Fetch the logs of a container", min: 1, max: 1,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			o := client.LogsOptions{Stdout: true, Stderr: true}
			fs.BoolVar(&o.Details, "details", false, "Show extra details provided to logs")
			fs.BoolVarP(&o.Follow, "follow", "f", false, "Follow log output")
			fs.StringVar(&o.Since, "since", "", `Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
			fs.StringVarP(&o.Tail, "tail", "n", "all", "Number of lines to show from the end of the logs")
			fs.BoolVarP(&o.Timestamps, "timestamps", "t", false, "Show timestamps")
			fs.StringVar(&o.Until, "until", "", `Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
			return func(ctx context.Context, args []string) error { return a.logs(ctx, args[0], o) }
		},
	}
}

func (a *app) logs(ctx context.Context, id string, o client.LogsOptions) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	info, err := c.ContainerInspect(ctx, id)
	if err != nil {
		return err
	}
	now := time.Now()
	if o.Since, err = timestamp(o.Since, now); err != nil {
		return fmt.Errorf("invalid value for %q: %w", "since", err)
	}
	if o.Until, err = timestamp(o.Until, now); err != nil {
		return fmt.Errorf("invalid value for %q: %w", "until", err)
	}
	r, err := c.ContainerLogs(ctx, info.ID, o)
	if err != nil {
		return err
	}
	defer r.Close()
	if info.Config.Tty {
		_, err = io.Copy(a.out, r)
		return err
	}
	return client.Demux(a.out, a.err, r)
}

// timestamp turns a time as users write it, a duration before now or a date, into seconds.nanoseconds since 1970, as the API
// takes it. Seconds stay as they are; dates without a zone are local.
func timestamp(s string, now time.Time) (string, error) {
	if s == "" {
		return "", nil
	}
	if d, err := time.ParseDuration(s); err == nil && s != "0" {
		return unix(now.Add(-d)), nil
	}
	for _, layout := range []string{
		time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04Z07:00", "2006-01-02T15:04", "2006-01-02T15Z07:00",
		"2006-01-02T15", "2006-01-02Z07:00", "2006-01-02",
	} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return unix(t), nil
		}
	}
	sec, frac, _ := strings.Cut(s, ".")
	if _, err := strconv.ParseInt(sec, 10, 64); err == nil && strings.Trim(frac, "0123456789") == "" {
		return s, nil
	}
	return "", fmt.Errorf("failed to parse value as time or duration: %q", s)
}

func unix(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }
