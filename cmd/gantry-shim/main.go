// Command gantry-shim supervises one container. The daemon starts it with a socket as descriptor 3; people do not. Under the name
// docker-init, or as "gantry-shim init", it is the init process of containers that are run with --init.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"gantry/shim/pid1"
	"gantry/shim/server"
)

func main() {
	switch {
	case filepath.Base(os.Args[0]) == "docker-init":
		os.Exit(pid1.Run(os.Args[1:]))
	case len(os.Args) > 1 && os.Args[1] == "init":
		os.Exit(pid1.Run(os.Args[2:]))
	case len(os.Args) > 1:
		fmt.Fprintln(os.Stderr, "gantry-shim: the daemon starts it, without arguments; or: gantry-shim init [--] PROGRAM [ARGUMENT...]")
		os.Exit(2)
	}
	const daemon = 3 // the descriptor of the socket
	if err := server.Run(daemon); err != nil {
		fmt.Fprintln(os.Stderr, "gantry-shim:", err)
		os.Exit(1)
	}
}
