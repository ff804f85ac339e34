package run

import (
	"os"
	"strings"
	"testing"

	"gantry/tests/harness"
)

func TestDefaultConfinement(t *testing.T) {
	e := harness.New(t, daemon)
	out := e.Run(image, "sh", "-c", "grep -E '^(Cap|Seccomp|NoNewPrivs)' /proc/self/status; ls -d /sys/firmware; cat /proc/1/comm; ls /proc/self/fd; ls /dev | tr '\\n' ' '; echo; "+
		"touch /sys/x 2>&1; echo 1 > /proc/sys/kernel/domainname 2>&1; mount -t tmpfs x /mnt 2>&1; hostname x 2>&1; unshare -n true 2>&1; true")
	for _, want := range []string{
		"CapInh:\t0000000000000000", "CapEff:\t00000000a80425fb", "CapBnd:\t00000000a80425fb", "CapAmb:\t0000000000000000", "NoNewPrivs:\t0", "Seccomp:\t2",
		"fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	for _, want := range []string{"touch: /sys/x: Read-only file system", "mount: permission denied", "sethostname: Operation not permitted", "unshare(0x40000000): Operation not permitted"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestCapabilities(t *testing.T) {
	e := harness.New(t, daemon)
	for _, c := range []struct {
		want string
		args []string
	}{
		{"0000000000000000", []string{"--cap-drop", "ALL"}},
		{"0000000000000001", []string{"--cap-drop", "all", "--cap-add", "chown"}},
		{"00000000a80435fb", []string{"--cap-add", "NET_ADMIN"}},
		{"00000000a80435fb", []string{"--cap-add", "CAP_NET_ADMIN"}},
		{"00000000a80425fa", []string{"--cap-drop", "CHOWN"}},
	} {
		if got := e.Run(append(c.args, image, "sh", "-c", "grep CapEff /proc/self/status | cut -f2")...); got != c.want {
			t.Errorf("%v: got %q, want %q", c.args, got, c.want)
		}
	}
	// Not root: nothing effective, and the bounding set as asked for.
	if got := e.Run("-u", "app", image, "sh", "-c", "grep -E 'Cap(Inh|Prm|Eff|Amb)' /proc/self/status | cut -f2 | tr '\\n' ' '"); strings.Trim(got, "0 ") != "" {
		t.Errorf("user's capabilities: %q", got)
	}
	e.Fails(125, `invalid CapAdd: unknown capability: "(CAP_)?NOSUCH"`, "run", "--rm", "--cap-add", "NOSUCH", image, "true")
	e.Fails(125, `invalid CapDrop: unknown capability: "(CAP_)?NOSUCH"`, "run", "--rm", "--cap-drop", "NOSUCH", image, "true")
}

func TestPrivileged(t *testing.T) {
	if harness.Oracle() {
		t.Skip("runc fails where the host itself lacks a capability")
	}
	e := harness.New(t, daemon)
	out := e.Run("--privileged", image, "sh", "-c", "grep -E '^(CapEff|Seccomp:)' /proc/self/status; mkdir /mnt; mount -t tmpfs x /mnt && echo mounted; test -w /proc/sys/kernel/domainname && echo writable; test -c /dev/kmsg && echo devices")
	for _, want := range []string{"Seccomp:\t0", "mounted", "writable", "devices"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestReadOnly(t *testing.T) {
	e := harness.New(t, daemon)
	out := e.Run("--read-only", "--tmpfs", "/scratch:size=1m,mode=700", "-v", "vol:/vol", image, "sh", "-c", "touch /x 2>&1; touch /scratch/x && echo scratch; touch /vol/x && echo vol; touch /dev/shm/x && echo shm; touch /etc/hosts 2>&1 && echo hosts; df -k /scratch | tail -1 | awk '{print $2}'; stat -c %a /scratch")
	if out != "touch: /x: Read-only file system\nscratch\nvol\nshm\ntouch: /etc/hosts: Read-only file system\n1024\n700" {
		t.Errorf("got %q", out)
	}
}

func TestSecurityOptions(t *testing.T) {
	e := harness.New(t, daemon)
	if got := e.Run("--security-opt", "no-new-privileges", image, "grep", "NoNewPrivs", "/proc/self/status"); got != "NoNewPrivs:\t1" {
		t.Errorf("got %q", got)
	}
	if got := e.Run("--security-opt", "seccomp=unconfined", image, "grep", "Seccomp:", "/proc/self/status"); got != "Seccomp:\t0" {
		t.Errorf("got %q", got)
	}
	profile := e.File("profile.json", `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}`)
	if r := e.Do("run", "--rm", "--security-opt", "seccomp="+profile, image, "mkdir", "/x"); r.Code != 1 || !strings.Contains(r.Stderr, "Operation not permitted") {
		t.Error(r)
	}
	e.Fails(125, "", "run", "--rm", "--security-opt", "seccomp=/nosuch.json", image, "true")
	e.Fails(125, "seccomp", "run", "--rm", "--security-opt", "seccomp="+e.File("bad.json", "{"), image, "true")
	e.Fails(125, "[Ii]nvalid (security|--security-opt)", "run", "--rm", "--security-opt", "nosuch=1", image, "true")
	// The default profile refuses what Docker's does.
	if r := e.Do("run", "--rm", "--cap-add", "SYS_ADMIN", image, "unshare", "-n", "true"); r.Code != 0 {
		t.Error("with CAP_SYS_ADMIN the profile must let unshare pass", r)
	}
	if r := e.Do("run", "--rm", image, "unshare", "-n", "true"); r.Code == 0 || !strings.Contains(r.Stderr, "Operation not permitted") {
		t.Error(r)
	}
}

func TestDevices(t *testing.T) {
	e := harness.New(t, daemon)
	if got := e.Run("--device", "/dev/loop-control:/dev/lc:r", image, "sh", "-c", "test -c /dev/lc && stat -c %t:%T /dev/lc; ls /dev/lc"); !strings.Contains(got, "a:ed") {
		t.Errorf("got %q", got)
	}
	e.Fails(127, "error gathering device information while adding custom device|no such file", "run", "--rm", "--device", "/dev/nosuch", image, "true")
	e.Fails(125, "bad mode specified: q", "run", "--rm", "--device", "/dev/null:/dev/x:q", image, "true")
	// A device that was not given cannot be used even when made by mknod.
	r := e.Do("run", "--rm", image, "sh", "-c", "mknod /dev/kmsg2 c 1 11 && cat /dev/kmsg2")
	if r.Code == 0 || !strings.Contains(r.Stderr, "Operation not permitted") {
		t.Error(r)
	}
}

func TestNamespaceModes(t *testing.T) {
	e := harness.New(t, daemon)
	own := func(kind string) string {
		target, err := os.Readlink("/proc/self/ns/" + kind)
		if err != nil {
			t.Fatal(err)
		}
		return target
	}
	for _, c := range []struct{ kind, flag string }{{"pid", "--pid"}, {"uts", "--uts"}, {"ipc", "--ipc"}, {"net", "--network"}} {
		if got := e.Run(c.flag, "host", image, "readlink", "/proc/self/ns/"+c.kind); got != own(c.kind) {
			t.Errorf("%s host: %s, the host's is %s", c.flag, got, own(c.kind))
		}
		if got := e.Run(image, "readlink", "/proc/self/ns/"+c.kind); got == own(c.kind) {
			t.Errorf("without %s host the namespace is the host's", c.flag)
		}
	}
	e.Sleeper("--name", "nsa", "--ipc", "shareable")
	ns := func(kind string) string { return e.OK("exec", "nsa", "readlink", "/proc/self/ns/"+kind) }
	for _, c := range []struct{ kind, flag string }{{"pid", "--pid"}, {"ipc", "--ipc"}, {"net", "--network"}} {
		if got := e.Run(c.flag, "container:nsa", image, "readlink", "/proc/self/ns/"+c.kind); got != ns(c.kind) {
			t.Errorf("%s container:a: %s, a's is %s", c.flag, got, ns(c.kind))
		}
	}
	if got := e.Run("--pid", "container:nsa", image, "sh", "-c", "ps | grep -c 'sleep 1000'"); got == "0" {
		t.Error("a's processes are not seen")
	}
	e.Fails(125, "No such container: nosuch", "run", "--rm", "--network", "container:nosuch", image, "true")
	e.Fails(125, "No such container: nosuch", "run", "--rm", "--pid", "container:nosuch", image, "true")
	e.Fails(125, "conflicting options: hostname|hostname and the network mode|hostname and the UTS mode", "run", "--rm", "--uts", "host", "--hostname", "x", image, "true")
	e.Fails(125, "invalid|--pid", "run", "--rm", "--pid", "nosuch", image, "true")
}

func TestInit(t *testing.T) {
	e := harness.New(t, daemon)
	if got := e.Run("--init", image, "sh", "-c", "cat /proc/1/comm; tr '\\0' ' ' < /proc/1/cmdline"); !strings.Contains(got, "docker-init") && !strings.Contains(got, "/sbin/docker-init") {
		t.Errorf("process 1 is %q", got)
	}
	// It forwards signals and reaps: a sh that is not process 1 dies of SIGTERM.
	for range 5 { // at once: it must not be hit before it is ready
		id := e.OK("run", "-d", "--init", image, "sleep", "1000")
		r := e.Do("stop", id)
		if r.Code != 0 || r.Took > 8_000_000_000 {
			t.Error(r)
		}
		e.Is("143", "inspect", "-f", "{{.State.ExitCode}}", id)
	}
}

func TestHostname(t *testing.T) {
	e := harness.New(t, daemon)
	if got := e.Run("--hostname", "h1", "--domainname", "example.org", "--add-host", "other:1.2.3.4", "--add-host", "six:fd00::9", image, "sh", "-c", "hostname; cat /etc/hostname; cat /etc/hosts"); !strings.HasPrefix(got, "h1\nh1") || !strings.Contains(got, "1.2.3.4\tother") ||
		!strings.Contains(got, "fd00::9\tsix") || !strings.Contains(got, "127.0.0.1\tlocalhost") || !strings.Contains(got, "h1") {
		t.Errorf("got %q", got)
	}
	id := e.OK("create", image, "hostname")
	if got := e.OK("start", "-a", id); got != id[:12] {
		t.Errorf("hostname %q of container %s", got, id)
	}
	if got := e.Run("--dns", "9.9.9.9", "--dns-search", "example.org", "--dns-opt", "ndots:3", image, "cat", "/etc/resolv.conf"); !strings.Contains(got, "nameserver 9.9.9.9") || !strings.Contains(got, "search example.org") || !strings.Contains(got, "options ndots:3") {
		t.Errorf("got %q", got)
	}
	e.Fails(125, "IP address is not correctly formatted|is not an ip address", "run", "--rm", "--dns", "nine", image, "true")
	e.Fails(125, "bad format for add-host", "run", "--rm", "--add-host", "x", image, "true")
	e.Fails(125, "invalid IP address in add-host", "run", "--rm", "--add-host", "x:y", image, "true")
	if got := e.Run("--add-host", "gw:host-gateway", image, "grep", "gw", "/etc/hosts"); !strings.Contains(got, ".") {
		t.Errorf("got %q", got)
	}
}

func TestHealthFlags(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.Sleeper("--health-cmd", "test -e /ok", "--health-interval", "200ms", "--health-retries", "2", "--health-timeout", "5s", "--health-start-period", "0s")
	e.Is("starting", "inspect", "-f", "{{.State.Health.Status}}", id)
	e.Match(`\(health: starting\)`, "ps", "--format", "{{.Status}}")
	e.Await(id, "{{.State.Health.Status}}", "unhealthy")
	e.Match(`\(unhealthy\)`, "ps", "--format", "{{.Status}}", "--filter", "health=unhealthy")
	e.OK("exec", id, "touch", "/ok")
	e.Await(id, "{{.State.Health.Status}} {{.State.Health.FailingStreak}}", "healthy 0")
	e.Match(`"ExitCode":0`, "inspect", "-f", "{{json .State.Health.Log}}", id)
	id = e.Sleeper("--no-healthcheck")
	e.Is("<nil>", "inspect", "-f", "{{.State.Health}}", id)
	e.Fails(125, "--no-healthcheck conflicts with --health-", "run", "--no-healthcheck", "--health-cmd", "true", image)
}
