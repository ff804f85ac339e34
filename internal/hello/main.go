// Command hello is the whole content of the built-in image: it says where it runs, and how long it took to get there.
package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	first := time.Now()
	name, err := os.Hostname()
	if err != nil {
		name = "unknown: " + err.Error()
	}
	fmt.Println("Hello from a Gantry container.")
	fmt.Println("  name     ", name)
	fmt.Println("  kernel   ", kernel())
	fmt.Println("  cgroup   ", cgroup())
	fmt.Println("  address  ", address())
	if at, err := strconv.ParseInt(os.Getenv("REQUESTED"), 10, 64); err == nil { // nanoseconds since 1970
		fmt.Printf("  started   %.1f ms after the request\n", first.Sub(time.Unix(0, at)).Seconds()*1000)
	}
}

// kernel returns the release of the kernel.
func kernel() string {
	body, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown: " + err.Error()
	}
	return "Linux " + strings.TrimSpace(string(body))
}

// cgroup returns the process's cgroup (cgroups(7)): in the unified hierarchy, or where memory is accounted.
func cgroup() string {
	body, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "unknown: " + err.Error()
	}
	unified := "none"
	for line := range strings.Lines(string(body)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		switch parts[1] {
		case "":
			unified = parts[2]
		case "memory":
			return parts[2]
		}
	}
	return unified
}

// address returns the first address that is not the loopback's.
func address() string {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return "unknown: " + err.Error()
	}
	for _, a := range addresses {
		if ip, ok := a.(*net.IPNet); ok && !ip.IP.IsLoopback() {
			return a.String()
		}
	}
	return "none"
}
