package cli

import (
	"context"
	"errors"

	"github.com/spf13/pflag"

	"gantry/client"
)

func stopCommand() *command {
	return &command{
		name: "stop", aliases: "container stop, stop", use: "[OPTIONS] CONTAINER [CONTAINER...]",
		short: "Stop one or more running containers", min: 1, max: -1,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			options := stopFlags(fs)
			return func(ctx context.Context, args []string) error {
				o, err := options()
				if err != nil {
					return err
				}
				c, err := a.client()
				if err != nil {
					return err
				}
				return a.parallel(args, func(id string) error { return c.ContainerStop(ctx, id, o) })
			}
		},
	}
}

func restartCommand() *command {
	return &command{
		name: "restart", aliases: "container restart, restart", use: "[OPTIONS] CONTAINER [CONTAINER...]",
		short: "Restart one or more containers", min: 1, max: -1,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			options := stopFlags(fs)
			return func(ctx context.Context, args []string) error {
				o, err := options()
				if err != nil {
					return err
				}
				c, err := a.client()
				if err != nil {
					return err
				}
				return a.eachPrint(args, func(id string) error { return c.ContainerRestart(ctx, id, o) })
			}
		},
	}
}

// stopFlags adds the flags that stop and restart share.
func stopFlags(fs *pflag.FlagSet) func() (client.StopOptions, error) {
	var signal string
	var timeout int
	fs.StringVarP(&signal, "signal", "s", "", "Signal to send to the container")
	fs.IntVarP(&timeout, "timeout", "t", 0, "Seconds to wait before killing the container")
	fs.IntVar(&timeout, "time", 0, "Seconds to wait before killing the container (deprecated: use --timeout)")
	_ = fs.MarkHidden("time")
	return func() (client.StopOptions, error) {
		o := client.StopOptions{Signal: signal}
		if fs.Changed("time") && fs.Changed("timeout") {
			return o, errors.New("conflicting options: cannot specify both --timeout and --time")
		}
		if fs.Changed("time") || fs.Changed("timeout") {
			o.Timeout = &timeout
		}
		return o, nil
	}
}
