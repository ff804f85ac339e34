// Command program tells what it finds at the beginning of main.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"gantry/linux/quick"
)

func main() {
	processors := runtime.GOMAXPROCS(0)
	quick.Start()
	_, there := os.LookupEnv("GOMAXPROCS")
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		panic(err)
	}
	fmt.Println(processors, there, strings.Contains(string(smaps), " hg "), os.Args[1:])
}
