// Command gantryd is the daemon of Gantry: it owns images, containers, networks and volumes, and serves the Docker Engine
// API. It takes dockerd's flags and daemon.json; started by the name dockerd it listens where Docker's clients look.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"gantry/archive/confined"

	"github.com/spf13/pflag"
)

// What the linker sets (-X); the defaults are those of a build by hand.
var (
	version   = "0.1.0-dev"
	gitCommit = ""
	buildTime = ""
)

func main() {
	confined.Main() // when this process is one that only unpacks a layer
	program := filepath.Base(os.Args[0])
	if !confined.Possible {
		fmt.Fprintln(os.Stderr, "failed to start daemon: it was built with cgo, and could not confine what unpacks images: build it with CGO_ENABLED=0")
		os.Exit(1)
	}
	c, err := load(program, os.Args[1:], os.Getenv, os.Stdout)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	case c.version:
		product := "Gantry"
		if program == "dockerd" {
			product = "Docker" // what tools that look for a dockerd read the version after
		}
		fmt.Printf("%s version %s, build %s\n", product, version, gitCommit)
		return
	case c.validate:
		fmt.Fprintln(os.Stderr, "configuration OK")
		return
	}
	d := &daemon{program: program, config: c}
	if err := d.run(context.Background()); err != nil {
		fmt.Fprintf(os.Stderr, "failed to start daemon: %v\n", err)
		os.Exit(1)
	}
}
