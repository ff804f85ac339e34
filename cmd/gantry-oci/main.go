// Command gantry-oci is a stand-alone OCI runtime.
package main

import "os"

func main() { os.Exit(1) }
