// Command gantry-oci is a stand-alone OCI runtime with runc's command line: for dockerd, containerd, podman and CRI-O.
package main

import (
	"context"
	"os"

	"gantry/linux/quick"
	"gantry/oci/command"
)

// gitCommit is set by the build.
var gitCommit string

func main() {
	quick.Start()
	os.Exit(command.Main(context.Background(), os.Args, command.Info{Version: "0.1.0", Commit: gitCommit}))
}
