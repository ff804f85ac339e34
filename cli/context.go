package cli

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"
)

// contextRow is a row of context ls; fields are in the order of docker's JSON.
type contextRow struct {
	Current                                  bool
	Description, DockerEndpoint, Error, Name string
}

// Marked is the name, with a star when it is the current context.
func (r contextRow) Marked() string {
	if r.Current {
		return r.Name + " *"
	}
	return r.Name
}

// contextCommand has the commands that work with the one context there is; stored contexts are not supported yet.
func contextCommand() *command {
	const later = "only the context \"default\" exists; use --host or DOCKER_HOST for other daemons."
	return &command{name: "context", short: "Manage contexts", subs: func() []*command {
		return []*command{
			{name: "create", short: "Create a context", absent: later},
			{name: "export", short: "Export a context", absent: later},
			{name: "import", short: "Import a context", absent: later},
			contextLsCommand(),
			{name: "rm", short: "Remove one or more contexts", absent: later},
			{name: "show", short: "Print the name of the current context", setup: func(a *app, _ *pflag.FlagSet) runFunc {
				return func(context.Context, []string) error {
					fmt.Fprintln(a.out, "default")
					return nil
				}
			}},
			{name: "update", short: "Update a context", absent: later},
			{name: "use", use: "CONTEXT", short: "Set the current context", min: 1, max: 1, setup: func(a *app, _ *pflag.FlagSet) runFunc {
				return func(_ context.Context, args []string) error {
					if args[0] != "default" {
						return fmt.Errorf("context %q: context not found: %s", args[0], later)
					}
					fmt.Fprintf(a.out, "default\n")
					fmt.Fprintln(a.err, `Current context is now "default"`)
					return nil
				}
			}},
		}
	}}
}

func contextLsCommand() *command {
	return &command{
		name: "ls", hidden: []string{"list"}, aliases: "context ls, context list", use: "[OPTIONS]", short: "List contexts",
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			text := fs.String("format", "", formatHelp)
			quiet := fs.BoolP("quiet", "q", false, "Only show context names")
			return func(context.Context, []string) error {
				host, _, err := a.host()
				if err != nil {
					return err
				}
				rows := []contextRow{{Current: true, Description: "Current DOCKER_HOST based configuration", DockerEndpoint: host, Name: "default"}}
				err = printRows(a.out, resolveFormat(*text, "{{.Marked}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}", "{{.Name}}", *quiet), headers{
					"Marked": "NAME", "Name": "NAME", "Description": "DESCRIPTION", "DockerEndpoint": "DOCKER ENDPOINT", "Error": "ERROR", "Current": "CURRENT",
				}, rows)
				if err == nil && a.getenv("DOCKER_HOST") != "" && !*quiet && *text == "" {
					fmt.Fprintln(a.err, "Warning: DOCKER_HOST environment variable overrides the active context. To use a context, either set the global --context flag, or unset DOCKER_HOST environment variable.")
				}
				return err
			}
		},
	}
}
