package network

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"gantry/tests/harness"
)

func get(url string) (string, error) {
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return strings.TrimSpace(string(body)), err
}

// web starts a container that serves "hello" on port 80.
func web(e *harness.Env, flags ...string) string {
	e.Helper()
	return e.OK(append(append([]string{"run", "-d"}, flags...), image, "probe", "serve", "80", "hello")...)
}

func TestDefaultBridge(t *testing.T) {
	e := harness.New(t, daemon)
	id := web(e)
	ip := e.Inspect(id, "{{.NetworkSettings.IPAddress}}{{range .NetworkSettings.Networks}} {{.IPAddress}} {{.Gateway}} {{.MacAddress}} {{len .EndpointID}}{{end}}")
	fields := strings.Fields(ip)
	if len(fields) == 5 { // API before 1.52 also has it at the top
		fields = fields[1:]
	}
	if len(fields) != 4 || net.ParseIP(fields[0]) == nil || net.ParseIP(fields[1]) == nil || fields[3] != "64" {
		t.Fatalf("inspect %q", ip)
	}
	e.Eventually(5*time.Second, func() error { _, err := get("http://" + fields[0]); return err })
	out := e.Run(image, "sh", "-c", "ip -o addr show eth0; ip route; probe get http://"+fields[0])
	if !strings.Contains(out, "default via "+fields[1]+" dev eth0") || !strings.HasSuffix(out, "hello") {
		t.Errorf("got %q", out)
	}
	e.Match(`127\.0\.0\.1\tlocalhost.*`+strings.ReplaceAll(fields[0], ".", `\.`)+`\t`+id[:12], "exec", id, "cat", "/etc/hosts")
	// The host is reached, by the gateway's address.
	l, err := net.Listen("tcp", "0.0.0.0:18070")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "host") })) //nolint:errcheck // ends with l
	if got := e.Run(image, "probe", "get", "http://"+fields[1]+":18070"); got != "host" {
		t.Errorf("got %q", got)
	}
	// What leaves by another link has the host's address.
	if got := e.Run(image, "probe", "get", "http://192.0.2.2:18070"); got != "host" {
		t.Errorf("got %q", got)
	}
}

func TestNone(t *testing.T) {
	e := harness.New(t, daemon)
	if got := e.Run("--network", "none", image, "sh", "-c", "ip -o link | cut -d: -f2; ip route"); got != "lo" {
		t.Errorf("got %q", got)
	}
}

func TestHost(t *testing.T) {
	e := harness.New(t, daemon)
	if got := e.Run("--network", "host", image, "sh", "-c", "ip -o link | grep -c ' up0@'; hostname"); !strings.HasPrefix(got, "1\n") {
		t.Errorf("got %q", got)
	}
	// Published ports are discarded in host mode, with a warning at most.
	e.Run("--network", "host", "-p", "18071:80", image, "true")
}

func TestSharedNamespace(t *testing.T) {
	e := harness.New(t, daemon)
	web(e, "--name", "server", "--hostname", "hh")
	if got := e.Run("--network", "container:server", image, "sh", "-c", "probe get http://127.0.0.1; hostname; grep -c hh /etc/hosts"); got != "hello\nhh\n1" {
		t.Errorf("got %q", got)
	}
	e.Fails(125, "conflicting options: port publishing and the container type network mode", "run", "--rm", "--network", "container:server", "-p", "1:1", image, "true")
	e.Fails(125, "conflicting options: hostname and the network mode", "run", "--rm", "--network", "container:server", "--hostname", "x", image, "true")
	e.Fails(125, "conflicting options: port exposing and the container type network mode", "run", "--rm", "--network", "container:server", "--expose", "1", image, "true")
	e.Fails(125, "conflicting options: container type network can't be used with links", "run", "--rm", "--network", "container:server", "--link", "server", image, "true")
	e.Is("hh", "run", "--rm", "--network", "container:"+e.OK("run", "-d", "--network", "container:server", image, "sleep", "1000"), image, "hostname") // of a sharer of a sharer
	e.OK("stop", "-t", "0", "server")
	e.Fails(125, "cannot join network( namespace)? of a non running container", "run", "--rm", "--network", "container:server", image, "true")
}

func TestPublish(t *testing.T) {
	e := harness.New(t, daemon)
	id := web(e, "-p", "18072:80", "-p", "127.0.0.1:18073:80", "-p", "127.0.0.1::80")
	random := ""
	for line := range strings.Lines(e.OK("port", id, "80")) {
		if addr := strings.TrimSpace(line); strings.HasPrefix(addr, "127.0.0.1:") && addr != "127.0.0.1:18073" {
			random = addr
		}
	}
	for _, addr := range []string{"127.0.0.1:18072", "192.0.2.2:18072", "127.0.0.1:18073", random} {
		var got string
		e.Eventually(5*time.Second, func() (err error) { got, err = get("http://" + addr); return err })
		if got != "hello" {
			t.Errorf("%s: %q", addr, got)
		}
	}
	if got, err := get("http://192.0.2.2:18073"); err == nil {
		t.Errorf("a port published on 127.0.0.1 answers on another address: %q", got)
	}
	// From another container through the host's address.
	if got := e.Run(image, "probe", "get", "http://192.0.2.2:18072"); got != "hello" {
		t.Errorf("hairpin: %q", got)
	}
	r := e.Fails(125, `driver failed programming external connectivity on endpoint taken \([0-9a-f]{64}\): Bind for 0\.0\.0\.0:18072 failed: port is already allocated`, "run", "--name", "taken", "-p", "18072:80", image, "true")
	if strings.TrimSpace(r.Stdout) != "" {
		t.Error(r)
	}
	l, err := net.Listen("tcp", "0.0.0.0:18074")
	if err != nil {
		t.Fatal(err)
	}
	e.Fails(125, "address already in use|port is already allocated", "run", "--rm", "-p", "18074:80", image, "true")
	l.Close()
	e.OK("rm", "-f", id)
	if got, err := get("http://127.0.0.1:18072"); err == nil {
		t.Errorf("the port still answers: %q", got)
	}
	// And is free again.
	id = web(e, "-p", "18072:80")
	e.Eventually(5*time.Second, func() error { _, err := get("http://127.0.0.1:18072"); return err })
	// Stop and start keeps a given port.
	e.OK("stop", "-t", "0", id)
	e.Is("", "port", id)
	e.OK("start", id)
	e.Eventually(5*time.Second, func() error { _, err := get("http://127.0.0.1:18072"); return err })

	for _, bad := range []string{"x", "80:y", "70000:80", "1.2.3:80:80", "80:80/nosuch"} {
		e.Fails(125, "[Ii]nvalid|not a valid", "run", "--rm", "-p", bad, image, "true")
	}
}

func TestPublishUDPAndRanges(t *testing.T) {
	e := harness.New(t, daemon)
	e.OK("run", "-d", "--name", "udp", "-p", "127.0.0.1:18075:7/udp", "-p", "127.0.0.1:18080-18082:90-92", image, "probe", "echo", "7")
	e.Match(`91/tcp -> 127\.0\.0\.1:18081`, "port", "udp")
	e.Eventually(5*time.Second, func() error {
		conn, err := net.Dial("udp", "127.0.0.1:18075")
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
			return err
		}
		if _, err := conn.Write([]byte("ping")); err != nil {
			return err
		}
		buf := make([]byte, 10)
		n, err := conn.Read(buf)
		if err == nil && string(buf[:n]) != "ping" {
			err = fmt.Errorf("got %q", buf[:n])
		}
		return err
	})
	e.OK("run", "-d", "--name", "all", "-P", "--expose", "80", "--expose", "81/udp", image, "sleep", "100")
	if lines := strings.Split(e.OK("port", "all"), "\n"); len(lines) < 2 || !strings.Contains(lines[0]+lines[1]+lines[len(lines)-1], "80/tcp -> 0.0.0.0:") {
		t.Errorf("-P: %q", lines)
	}
}

func TestUserNetwork(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.OK("network", "create", "--label", "l=1", "--subnet", "10.66.0.0/24", "--gateway", "10.66.0.9", "--ip-range", "10.66.0.128/25", "-o", "com.docker.network.bridge.name=gtuser", "n1")
	if len(id) != 64 {
		t.Fatalf("ID %q", id)
	}
	if out, err := exec.Command("ip", "-o", "addr", "show", "gtuser").CombinedOutput(); err != nil || !strings.Contains(string(out), "10.66.0.9/24") {
		t.Errorf("bridge: %s", out)
	}
	e.Is("n1 bridge local false map[l:1] 10.66.0.0/24 10.66.0.9 10.66.0.128/25", "network", "inspect", "-f",
		"{{.Name}} {{.Driver}} {{.Scope}} {{.Internal}} {{.Labels}} {{with index .IPAM.Config 0}}{{.Subnet}} {{.Gateway}} {{.IPRange}}{{end}}", "n1")
	a := web(e, "--name", "server", "--network", "n1", "--network-alias", "www", "--network-alias", "round")
	if ip := e.Inspect(a, "{{.NetworkSettings.Networks.n1.IPAddress}}"); !strings.HasPrefix(ip, "10.66.0.1") {
		t.Errorf("address %s is not in the range", ip)
	}
	for _, name := range []string{"server", "www", a[:12], "server.n1"} {
		if got := e.Run("--network", "n1", image, "probe", "get", "http://"+name); got != "hello" {
			t.Errorf("%s: %q", name, got)
		}
	}
	web(e, "--name", "fixed", "--network", "n1", "--ip", "10.66.0.77", "--network-alias", "round")
	if got := e.Run("--network", "n1", image, "sh", "-c", "probe lookup round | wc -w; probe lookup 10.66.0.77 | grep -c fixed.n1; probe lookup nosuch.invalid. 2>/dev/null; echo $?"); got != "2\n1\n1" {
		t.Errorf("DNS: %q", got)
	}
	// An address in use is refused.
	e.Fails(125, "Address already in use", "run", "--rm", "--network", "n1", "--ip", "10.66.0.77", image, "true")
	e.Fails(125, "invalid .*address|not in|no configured subnet|does not belong", "run", "--rm", "--network", "n1", "--ip", "10.67.0.1", image, "true")
	if !harness.OldCLI() { // which does not send the address
		e.Fails(125, "user specified IP address is supported (only|on user)", "run", "--rm", "--ip", "10.66.0.78", image, "true")
	}
	// Renamed it is found by the new name.
	e.OK("rename", "server", "renamed")
	if got := e.Run("--network", "n1", image, "probe", "get", "http://renamed"); got != "hello" {
		t.Errorf("after rename: %q", got)
	}
	// The default network has no names, and does not reach this one.
	if r := e.Do("run", "--rm", image, "probe", "get", "http://renamed"); r.Code == 0 {
		t.Error(r)
	}
	if r := e.Do("run", "--rm", image, "probe", "get", "http://10.66.0.77"); r.Code == 0 {
		t.Error("networks are not isolated", r)
	}
	e.Fails(1, "network n1 (id "+id+" )?has active endpoints|has active endpoints", "network", "rm", "n1")
	e.Fails(1, "network with name n1 already exists", "network", "create", "n1")
	e.Fails(1, "[Pp]ool overlaps", "network", "create", "--subnet", "10.66.0.0/25", "n2")
	e.Fails(1, "invalid|Invalid", "network", "create", "--subnet", "10.66.0.0/99", "n2")
	e.Fails(1, "network (nosuch )?not found|No such network: nosuch|network nosuch not found", "network", "inspect", "nosuch")
	e.Fails(1, "not found|No such network: nosuch", "network", "rm", "nosuch")
	e.Fails(125, "network nosuch not found", "run", "--rm", "--network", "nosuch", image, "true")
	e.Fails(1, `plugin "nosuch" not found|could not find|not supported`, "network", "create", "-d", "nosuch", "n3")
	e.Fails(1, "pre-defined|predefined|cannot be removed|operation is not permitted", "network", "rm", "bridge")
	e.Fails(1, "operation is not permitted on predefined|already exists", "network", "create", "bridge")
}

func TestConnectDisconnect(t *testing.T) {
	e := harness.New(t, daemon)
	e.OK("network", "create", "n1")
	e.OK("network", "create", "n2")
	web(e, "--name", "server", "--network", "n1")
	e.Sleeper("--name", "client")
	if r := e.Do("exec", "client", "probe", "get", "http://server"); r.Code == 0 {
		t.Error(r)
	}
	e.OK("network", "connect", "--alias", "me", "n1", "client")
	e.Is("hello", "exec", "client", "probe", "get", "http://server")
	e.Is("eth0\neth1", "exec", "client", "sh", "-c", "ls /sys/class/net | grep eth")
	e.Is("2", "inspect", "-f", "{{len .NetworkSettings.Networks}}", "client")
	e.Match(`"Name": "client"`, "network", "inspect", "n1")
	e.Fails(1, "already exists in network|already attached", "network", "connect", "n1", "client")
	e.OK("network", "disconnect", "n1", "client")
	e.Is("eth0", "exec", "client", "sh", "-c", "ls /sys/class/net | grep eth")
	e.Fails(1, "is not connected to (the )?network|is not connected", "network", "disconnect", "n1", "client")
	e.Fails(1, "No such container: nosuch", "network", "connect", "n1", "nosuch")
	e.Fails(1, "network nosuch not found", "network", "connect", "nosuch", "client")
	// A container that is not running gets it at its start.
	made := e.OK("create", "--name", "made", "--network", "n2", image, "sh", "-c", "ls /sys/class/net | grep -c eth")
	e.OK("network", "connect", "n1", made)
	e.Is("2", "start", "-a", made)
	// The gateway is right after a restart too.
	e.OK("network", "connect", "n2", "client")
	e.OK("restart", "-t", "0", "client")
	e.Is("2", "exec", "client", "sh", "-c", "ls /sys/class/net | grep -c eth")
}

func TestInternal(t *testing.T) {
	e := harness.New(t, daemon)
	e.OK("network", "create", "--internal", "in")
	web(e, "--name", "server", "--network", "in")
	if got := e.Run("--network", "in", image, "probe", "get", "http://server"); got != "hello" {
		t.Errorf("got %q", got)
	}
	outside := web(e)
	ip := e.Inspect(outside, "{{.NetworkSettings.Networks.bridge.IPAddress}}")
	if r := e.Do("run", "--rm", "--network", "in", image, "probe", "get", ip); r.Code == 0 {
		t.Error("an internal network reaches another", r)
	}
	e.Is("true", "network", "inspect", "-f", "{{.Internal}}", "in")
}

func TestNetworkListPrune(t *testing.T) {
	e := harness.New(t, daemon)
	e.Is("bridge\nhost\nnone", "network", "ls", "--format", "{{.Name}}")
	e.OK("network", "create", "--label", "x=1", "n1")
	e.OK("network", "create", "n2")
	e.Is("n1", "network", "ls", "--filter", "label=x", "--format", "{{.Name}}")
	e.Is("n1\nn2", "network", "ls", "--filter", "type=custom", "--format", "{{.Name}}")
	e.Is("host", "network", "ls", "--filter", "driver=host", "--format", "{{.Name}}")
	e.Match("^NETWORK ID     NAME      DRIVER    SCOPE\n", "network", "ls")
	e.Sleeper("--network", "n2")
	e.Is("Deleted Networks:\nn1", "network", "prune", "-f")
	e.Is("n2", "network", "ls", "-q", "--filter", "name=n2", "--format", "{{.Name}}")
}

// Addresses of many networks and containers do not collide, over restarts of containers.
func TestAddresses(t *testing.T) {
	e := harness.New(t, daemon)
	subnets := map[string]bool{}
	for i := range 5 {
		name := fmt.Sprint("net", i)
		e.OK("network", "create", name)
		subnets[e.OK("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", name)] = true
	}
	if len(subnets) != 5 {
		t.Errorf("subnets %v", subnets)
	}
	seen := map[string]string{}
	for i := range 6 {
		id := e.Sleeper("--network", "net0")
		if i%2 == 1 {
			e.OK("restart", "-t", "0", id)
		}
		ip := e.Inspect(id, "{{.NetworkSettings.Networks.net0.IPAddress}}")
		if other, ok := seen[ip]; ok {
			t.Errorf("%s and %s have %s", id, other, ip)
		}
		seen[ip] = id
	}
	var containers map[string]struct{ IPv4Address string }
	if err := json.Unmarshal([]byte(e.OK("network", "inspect", "-f", "{{json .Containers}}", "net0")), &containers); err != nil || len(containers) != 6 {
		t.Errorf("%v, %v", containers, err)
	}
}

func TestOwnResolver(t *testing.T) {
	e := harness.New(t, daemon)
	e.OK("network", "create", "n1")
	// A container with a server of its own on port 53 of every address still works.
	if got := e.Run("--network", "n1", image, "sh", "-c", "nc -lu -p 53 >/dev/null & sleep 0.1; probe lookup $(hostname) >/dev/null || echo no; grep -c 127.0.0.11 /etc/resolv.conf"); got != "1" {
		t.Errorf("got %q", got)
	}
}
