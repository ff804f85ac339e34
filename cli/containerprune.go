package cli

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"

	"gantry/client"
)

func containerPruneCommand() *command {
	return &command{
		name: "prune", use: "[OPTIONS]", short: "Remove all stopped containers",
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			f := filterValue{client.Filters{}}
			fs.Var(f, "filter", `Provide filter values (e.g. "until=<timestamp>")`)
			force := fs.BoolP("force", "f", false, "Do not prompt for confirmation")
			return func(ctx context.Context, _ []string) error {
				if !*force && !a.confirm(ctx, "WARNING! This will remove all stopped containers.") {
					return nil
				}
				c, err := a.client()
				if err != nil {
					return err
				}
				done, err := a.pruneContainers(ctx, c, f.filters)
				if err != nil {
					return err
				}
				fmt.Fprintf(a.out, "%sTotal reclaimed space: %s\n", done.text, units.HumanSize(float64(done.bytes)))
				return nil
			}
		},
	}
}

// pruned is what a prune removed, as text, and the space that gave back.
type pruned struct {
	text  string
	bytes uint64
}

func (a *app) pruneContainers(ctx context.Context, c *client.Client, f client.Filters) (pruned, error) {
	a.configFilters(f)
	r, err := c.ContainersPrune(ctx, f)
	if err != nil {
		return pruned{}, err
	}
	return pruned{listText("Deleted Containers:", r.ContainersDeleted), r.SpaceReclaimed}, nil
}

// listText is a header and lines, with an empty line after them; nothing when there are no lines.
func listText(header string, lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return header + "\n" + strings.Join(lines, "\n") + "\n\n"
}

// configFilters adds config.json's pruneFilters that the command line does not overrule.
func (a *app) configFilters(f client.Filters) {
	for _, p := range a.config().PruneFilters {
		k, v, ok := strings.Cut(p, "=")
		if !ok || strings.HasPrefix(k, "label") && (f["label"][v] || f["label!"][v]) {
			continue
		}
		f.Add(k, v)
	}
}

// confirm asks a question on standard output and reports whether the answer is yes.
func (a *app) confirm(ctx context.Context, question string) bool {
	fmt.Fprintf(a.out, "%s\nAre you sure you want to continue? [y/N] ", question)
	if a.stdin == nil {
		return false
	}
	answer := make(chan string, 1)
	go func() {
		s, _ := bufio.NewReader(a.stdin).ReadString('\n') // an end without a line is a no
		answer <- s
	}()
	select {
	case s := <-answer:
		s = strings.ToLower(strings.TrimSpace(s))
		return s == "y" || s == "yes"
	case <-ctx.Done():
		return false
	}
}
