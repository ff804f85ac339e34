package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
)

// load reads flags and file into one configuration. usage receives the text of --help, in which case pflag.ErrHelp is
// returned.
func load(program string, args []string, getenv func(string) string, usage io.Writer) (*config, error) {
	c := newConfig(program)
	options := c.options()
	flags := pflag.NewFlagSet(program, pflag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.SortFlags = true
	var help bool
	flags.BoolVar(&help, "help", false, "Print usage")
	effects := map[string]string{}
	for _, o := range options {
		if o.flag == "" {
			continue
		}
		f := flags.VarPF(o.value, o.flag, o.short, o.usage)
		if o.value.kind == "bool" {
			f.NoOptDefVal = "true"
		}
		f.Hidden = o.hidden
		effects[o.flag] = o.effect
	}
	if err := flags.Parse(args); err != nil {
		if bad := (*pflag.InvalidValueError)(nil); errors.As(err, &bad) && strings.Contains(bad.GetValue(), "@") { // there may be a password in it
			err = fmt.Errorf("invalid argument for \"--%s\" flag: %w", bad.GetFlag().Name, bad.Unwrap())
		}
		return nil, fmt.Errorf("%w\nSee '%s --help'.", err, program) //nolint:staticcheck // docker's words
	}
	if help {
		_, _ = fmt.Fprintf(usage, "\nUsage:  %s [OPTIONS]\n\nThe daemon of Gantry, a container engine.\n\nOptions:\n%s", program, flags.FlagUsages())
		return nil, pflag.ErrHelp
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("\"%s\" accepts no arguments.\nSee '%s --help'.\n\nUsage:  %s [OPTIONS]", program, program, program) //nolint:staticcheck // docker's words
	}
	flags.Visit(func(f *pflag.Flag) {
		c.fromFlag[f.Name] = true
		if effect := effects[f.Name]; effect != "" {
			c.notes = append(c.notes, "--"+f.Name+": "+effect)
		}
	})
	if c.version {
		return c, nil
	}
	if getenv("DOCKER_TLS_VERIFY") != "" && !c.fromFlag["tlsverify"] {
		c.tlsVerify = true
	}
	if v := getenv("DOCKER_MIN_API_VERSION"); v != "" {
		c.minAPI = v
	}
	if c.configFile != "" {
		if err := c.readFile(options); err != nil {
			return nil, err
		}
	}
	if err := c.check(program); err != nil {
		return nil, err
	}
	c.certificateDefaults(getenv)
	return c, nil
}
