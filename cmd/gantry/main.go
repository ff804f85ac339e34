// Command gantry is the command line of the Gantry container engine. It takes docker's commands and flags.
package main

import (
	"context"
	"os"

	"gantry/cli"
	_ "gantry/internal/hugeheap" // the linker has it start there
)

func main() {
	os.Exit(cli.Main(context.Background(), cli.Env{Args: os.Args, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv}))
}
