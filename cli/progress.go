package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/term"
)

// progress prints the messages of a pull, push or load as they come. On a terminal each layer has a line that changes; elsewhere
// only the states are printed. aux gets the messages' out-of-band data and may be nil. The first error in the stream ends it.
func (a *app) progress(w io.Writer, r io.Reader, aux func(json.RawMessage)) error {
	p := progress{w: w, lines: map[string]int{}, now: time.Now, begun: map[string]mark{}}
	if f, ok := w.(*os.File); ok && term.IsTerminal(f.Fd()) {
		p.terminal, p.width = true, 200
		if ws, err := term.GetWinsize(f.Fd()); err == nil {
			p.width = int(ws.Width)
		}
	}
	d := json.NewDecoder(r)
	for {
		var m jsonstream.Message
		if err := d.Decode(&m); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if m.Error != nil {
			return m.Error
		}
		if m.Aux != nil {
			if aux != nil {
				aux(*m.Aux)
			}
			continue
		}
		p.print(&m)
	}
}

type progress struct {
	w        io.Writer
	terminal bool
	width    int
	lines    map[string]int // ID to its line, counted from the first
	now      func() time.Time
	begun    map[string]mark // by ID and status: where the numbers began
}

// mark is how far something was at a time.
type mark struct {
	at      time.Time
	current int64
}

func (p *progress) print(m *jsonstream.Message) {
	text := m.Status
	if m.ID != "" {
		text = m.ID + ": " + text
	}
	if m.Stream != "" {
		fmt.Fprint(p.w, m.Stream)
		return
	}
	bar := m.Progress != nil && (m.Progress.Current > 0 || m.Progress.Total > 0)
	if !p.terminal {
		if !bar && text != "" {
			fmt.Fprintln(p.w, text)
		}
		return
	}
	up := 0
	if m.ID != "" && m.Progress != nil {
		line, ok := p.lines[m.ID]
		if !ok {
			line = len(p.lines)
			p.lines[m.ID] = line
			fmt.Fprintln(p.w)
		}
		up = len(p.lines) - line
		fmt.Fprintf(p.w, "\x1b[%dA\x1b[2K\r", up)
	} else {
		p.lines = map[string]int{}
	}
	fmt.Fprint(p.w, text)
	if bar {
		drawn := progressBar(m.Progress, p.width-len(text))
		fmt.Fprint(p.w, " ", drawn)
		if pace := p.pace(m); len(text)+1+len(drawn)+len(pace) < p.width {
			fmt.Fprint(p.w, pace)
		}
	}
	if up > 0 {
		fmt.Fprintf(p.w, "\r\x1b[%dB", up)
		return
	}
	fmt.Fprintln(p.w)
}

// pace says how fast bytes come or go and how long what is left will take: "  4.2MB/s, 12s left". It is empty in the first second.
func (p *progress) pace(m *jsonstream.Message) string {
	if m.Status != "Downloading" && m.Status != "Pushing" || m.Progress.Units != "" || m.Progress.Total <= 0 {
		return ""
	}
	key := m.ID + " " + m.Status
	first, ok := p.begun[key]
	if !ok || m.Progress.Current < first.current { // begun anew
		first = mark{p.now(), m.Progress.Current}
		p.begun[key] = first
	}
	took := p.now().Sub(first.at)
	came, left := m.Progress.Current-first.current, m.Progress.Total-m.Progress.Current
	if took < time.Second || came <= 0 || left < 0 {
		return ""
	}
	rate := float64(came) / took.Seconds()
	wait := time.Duration(min(float64(left)/rate, 1e6) * float64(time.Second)).Round(time.Second)
	return fmt.Sprintf("  %s/s, %s left", units.HumanSizeWithPrecision(rate, 3), wait)
}

// progressBar draws docker's bar, if width leaves room for it, and the numbers.
func progressBar(p *jsonstream.Progress, width int) string {
	if p.Units != "" && p.Units != "bytes" {
		return fmt.Sprintf("%d/%d %s", p.Current, p.Total, p.Units)
	}
	current := units.HumanSize(float64(p.Current))
	if p.Total <= 0 {
		return fmt.Sprintf("%8v", current)
	}
	var bar string
	if width > 110 {
		done := int(min(max(p.Current*50/p.Total, 0), 50))
		head := ">"
		if done == 50 {
			head = ""
		}
		bar = fmt.Sprintf("[%s%s%s] ", strings.Repeat("=", done), head, strings.Repeat(" ", 50-done-len(head)))
	}
	if p.HideCounts {
		return bar
	}
	numbers := fmt.Sprintf("%8v/%v", current, units.HumanSize(float64(p.Total)))
	if p.Current > p.Total {
		numbers = fmt.Sprintf("%8v", current)
	}
	return bar + numbers
}
