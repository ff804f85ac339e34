package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/spf13/pflag"

	"gantry/client"
)

func eventsCommand() *command {
	return &command{
		name: "events", aliases: "system events, events", use: "[OPTIONS]", short: "Get real time events from the server",
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			f := filterValue{client.Filters{}}
			var since, until, text string
			fs.VarP(f, "filter", "f", "Filter output based on conditions provided")
			fs.StringVar(&text, "format", "", inspectFormatHelp)
			fs.StringVar(&since, "since", "", "Show all events created since timestamp")
			fs.StringVar(&until, "until", "", "Stream events until this timestamp")
			return func(ctx context.Context, _ []string) error { return a.events(ctx, f.filters, since, until, text) }
		},
	}
}

func (a *app) events(ctx context.Context, f client.Filters, since, until, text string) error {
	if text == "json" {
		text = "{{json .}}"
	}
	tmpl, err := parseTemplate(resolveFormat(text, "", "", false).text)
	if err != nil {
		return &exitError{code: 64, msg: "Error parsing format: " + err.Error(), err: err}
	}
	now := time.Now()
	if since, err = timestamp(since, now); err != nil {
		return err
	}
	if until, err = timestamp(until, now); err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	r, err := c.Events(ctx, since, until, f)
	if err != nil {
		return err
	}
	defer r.Close()
	d := json.NewDecoder(r)
	for {
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		var m events.Message
		if err := json.Unmarshal(raw, &m); err != nil {
			return fmt.Errorf("decode event: %w", err)
		}
		if text == "" {
			fmt.Fprintln(a.out, eventLine(m))
			continue
		}
		var b strings.Builder
		var v any = m
		if text == "{{json .}}" {
			v = raw
		}
		if err := tmpl.Execute(&b, v); err != nil {
			return err
		}
		fmt.Fprintln(a.out, b.String())
	}
}

// eventLine is an event as docker writes it: time, type, action, ID and sorted attributes.
func eventLine(m events.Message) string {
	var b strings.Builder
	switch {
	case m.TimeNano != 0:
		b.WriteString(time.Unix(0, m.TimeNano).Format("2006-01-02T15:04:05.000000000Z07:00") + " ")
	case m.Time != 0:
		b.WriteString(time.Unix(m.Time, 0).Format("2006-01-02T15:04:05.000000000Z07:00") + " ")
	}
	fmt.Fprintf(&b, "%s %s %s", m.Type, m.Action, m.Actor.ID)
	if len(m.Actor.Attributes) > 0 {
		attrs := make([]string, 0, len(m.Actor.Attributes))
		for k, v := range m.Actor.Attributes {
			attrs = append(attrs, k+"="+v)
		}
		sort.Strings(attrs)
		fmt.Fprintf(&b, " (%s)", strings.Join(attrs, ", "))
	}
	return b.String()
}
