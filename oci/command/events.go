package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/linux/cgroup"
)

// event is one line of events.
type event struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Data any    `json:"data,omitempty"`
}

func (a *app) events() func(context.Context) error {
	interval, once := 5*time.Second, false
	a.duration(&interval, "interval", "set the stats collection interval")
	a.on(&once, "stats", "display the container's stats then exit")
	return func(ctx context.Context) error {
		s, err := a.read()
		if err != nil {
			return err
		}
		if interval <= 0 {
			return errors.New("duration interval must be greater than 0")
		}
		if s.Status() == specs.StateStopped {
			return fmt.Errorf("container with id %s is not running", s.ID)
		}
		g, err := cgroupOf(s)
		if err != nil {
			return err
		}
		out := json.NewEncoder(os.Stdout)
		stats := func() error {
			now, err := s.Report(g)
			if err != nil {
				return err
			}
			return out.Encode(event{"stats", s.ID, now})
		}
		if once {
			return stats()
		}
		return follow(ctx, g, interval, stats, func() error { return out.Encode(event{Type: "oom", ID: s.ID}) })
	}
}

// follow prints events until the cgroup is gone.
func follow(ctx context.Context, g *cgroup.Cgroup, interval time.Duration, stats, oom func() error) error {
	n, err := g.NotifyOOM()
	if err != nil {
		return err
	}
	defer n.Close()
	type notice struct{ err error }
	notices := make(chan notice)
	go func() {
		for {
			_, err := n.Wait()
			select {
			case notices <- notice{err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case m := <-notices:
			if errors.Is(m.err, io.EOF) {
				return nil
			}
			if m.err != nil {
				return m.err
			}
			if err := oom(); err != nil {
				return err
			}
		case <-tick.C:
			if pids, err := g.Procs(); err != nil || len(pids) == 0 {
				return err // v1 tells nobody of a cgroup's end that is empty but still there
			}
			if err := stats(); err != nil {
				return err
			}
		}
	}
}
