// Package faults kills the daemon at each of its write sites, and has each of them fail, and looks at what is left of its store.
package faults

import (
	"flag"
	"os"
	"testing"
	"time"

	"gantry/tests/fault"
	"gantry/tests/harness"
)

var (
	daemon *harness.Daemon
	full   = flag.Bool("sweep", false, "every occurrence of every point instead of a sample")
	budget = flag.Duration("budget", 2500*time.Millisecond, "how long one operation's sample may take, in each test")
	only   = flag.String("points", "", "regular expression of points that are tried; empty: all")
	kills  = flag.Int("kills", 8, "how often a pull is killed; 200 in a sweep")
	driver = flag.String("driver", "", "storage driver; empty: the default one")
)

func TestMain(m *testing.M) {
	fault.Main()
	if os.Getenv("GANTRY_TEST_CLI") == "" { // it makes no difference to the store who asks, and docker's takes several times as long to start
		os.Setenv("GANTRY_TEST_CLI", "gantry")
	}
	harness.Inside(func() int { return run(m) })
}

func run(m *testing.M) int {
	flag.Parse()
	d, err := harness.NewDaemon(harness.Dir(), "d", "--keep-compressed") // settled is when a test says so
	if err != nil {
		println(err.Error())
		return 1
	}
	if *driver != "" {
		d.Flags = append(d.Flags, "--storage-driver", *driver)
	}
	daemon = d
	if harness.Oracle() {
		return 0 // about the state of gantryd
	}
	if err := os.MkdirAll(template(), 0o700); err != nil {
		println(err.Error())
		return 1
	}
	return m.Run()
}
