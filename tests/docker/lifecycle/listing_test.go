package lifecycle

import (
	"encoding/json"
	"strings"
	"testing"

	"gantry/tests/harness"
)

func TestPs(t *testing.T) {
	e := harness.New(t, daemon)
	e.OK("network", "create", "n1")
	run := e.Sleeper("--name", "running", "-l", "a=1", "-l", "b", "-p", "127.0.0.1:18081:80", "-v", "vol:/v", "--network", "n1")
	stopped := e.OK("run", "-d", "--name", "stopped", "-l", "a=2", image, "sh", "-c", "exit 3")
	e.OK("wait", stopped)
	created := e.OK("create", "--name", "made", "--expose", "99/udp", image, "echo", "x")
	e.OK("tag", image, "alias:1")

	short := func(ids ...string) string {
		for i := range ids {
			ids[i] = ids[i][:12]
		}
		return strings.Join(ids, "\n")
	}
	for _, c := range []struct {
		want string
		args []string
	}{
		{short(run), nil},
		{short(created, stopped, run), []string{"-a"}},
		{short(created), []string{"-l"}},
		{short(created, stopped), []string{"-n", "2"}},
		{created + "\n" + stopped + "\n" + run, []string{"-a", "--no-trunc"}},
		{short(run), []string{"-a", "--filter", "status=running"}},
		{short(stopped), []string{"-a", "--filter", "status=exited"}},
		{short(created), []string{"--filter", "status=created"}},
		{short(stopped), []string{"-a", "--filter", "exited=3"}},
		{short(run), []string{"-a", "--filter", "label=a=1"}},
		{short(stopped, run), []string{"-a", "--filter", "label=a"}},
		{short(run), []string{"-a", "--filter", "label=a", "--filter", "label=b"}},
		{short(run), []string{"-a", "--filter", "name=unn"}},
		{short(run), []string{"-a", "--filter", "name=^/?running$"}},
		{short(run), []string{"-a", "--filter", "id=" + run[:12]}},
		{short(created), []string{"-a", "--filter", "before=alias"}[:0]},
		{short(stopped, run), []string{"-a", "--filter", "before=made"}},
		{short(created), []string{"-a", "--filter", "since=stopped"}},
		{short(created, stopped, run), []string{"-a", "--filter", "ancestor=" + image}},
		{short(created, stopped, run), []string{"-a", "--filter", "ancestor=alias:1"}},
		{"", []string{"-a", "--filter", "ancestor=nosuch"}},
		{short(run), []string{"-a", "--filter", "volume=vol"}},
		{short(run), []string{"-a", "--filter", "network=n1"}},
		{short(run), []string{"-a", "--filter", "publish=18081"}},
		{short(run), []string{"--filter", "expose=80"}},
		{short(run), []string{"-a", "--filter", "is-task=false", "--filter", "status=running"}},
	} {
		if c.args != nil && len(c.args) == 0 {
			continue
		}
		e.Is(c.want, append([]string{"ps", "-q"}, c.args...)...)
	}
	e.Fails(1, "invalid filter", "ps", "--filter", "nosuch=1")
	e.Fails(1, "[Ii]nvalid (filter|value)|Unrecognised filter", "ps", "-a", "--filter", "status=nosuch")

	lines := strings.Split(e.OK("ps"), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "CONTAINER ID   IMAGE          COMMAND") || !strings.Contains(lines[1], "127.0.0.1:18081->80/tcp") || !strings.HasSuffix(lines[1], "running") {
		t.Errorf("ps printed %q", lines)
	}
	e.Is(`made|busybox:test|"echo x"|Created|`, "ps", "-a", "-l", "--format", "{{.Names}}|{{.Image}}|{{.Command}}|{{.Status}}|{{.Ports}}")
	e.Match(`^0B \(virtual \d\.\d+MB\)$`, "ps", "-s", "-a", "-l", "--format", "{{.Size}}")
	var row map[string]any
	if err := json.Unmarshal([]byte(e.OK("ps", "--format", "{{json .}}")), &row); err != nil || row["Names"] != "running" || row["State"] != "running" || row["Networks"] != "n1" || row["Mounts"] != "vol" || row["LocalVolumes"] != "1" {
		t.Errorf("%v, %v", row, err)
	}
	e.Is("a=1,b=", "ps", "--format", "{{.Labels}}")
	e.Is("NAMES     STATUS", "ps", "--filter", "name=nothing", "--format", "table {{.Names}}\t{{.Status}}")
}

func TestInspect(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.Sleeper("--name", "look", "-e", "X=1", "--hostname", "hh", "-p", "18082:80/tcp", "--expose", "81/udp", "-v", "/usr:/t:ro", "--tmpfs", "/s", "--cap-add", "SYS_TIME", "--restart", "on-failure:3", "-m", "32m", "--init")
	var list []map[string]any
	if err := json.Unmarshal([]byte(e.OK("inspect", "look")), &list); err != nil || len(list) != 1 {
		t.Fatal(err)
	}
	for _, key := range []string{"Id", "Created", "Path", "Args", "State", "Image", "ResolvConfPath", "HostnamePath", "HostsPath", "LogPath", "Name", "RestartCount", "Driver", "Platform", "MountLabel", "ProcessLabel",
		"AppArmorProfile", "ExecIDs", "HostConfig", "GraphDriver", "Mounts", "Config", "NetworkSettings"} {
		if _, ok := list[0][key]; !ok {
			t.Errorf("no %s", key)
		}
	}
	for _, c := range []struct{ template, want string }{
		{"{{.Id}}", id},
		{"{{.Name}}", "/look"},
		{"{{.Path}}", "sh"},
		{"{{.Config.Hostname}} {{.Config.Image}} {{.Config.Tty}}", "hh busybox:test false"},
		{`{{json .Config.Env}}`, `["X=1","PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]`},
		{`{{json .NetworkSettings.Ports}}`, `{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"18082"},{"HostIp":"::","HostPort":"18082"}],"81/udp":null}`},
		{`{{json .HostConfig.PortBindings}}`, `{"80/tcp":[{"HostIp":"","HostPort":"18082"}]}`},
		{`{{json .HostConfig.Binds}}`, `["/usr:/t:ro"]`},
		{`{{json .HostConfig.Tmpfs}}`, `{"/s":""}`},
		{`{{json .HostConfig.CapAdd}}`, `["SYS_TIME"]|["CAP_SYS_TIME"]`},
		{`{{json .HostConfig.RestartPolicy}}`, `{"Name":"on-failure","MaximumRetryCount":3}`},
		{`{{.HostConfig.NetworkMode}}`, `default|bridge`},
		{`{{.HostConfig.Init}}`, "true"},
		{`{{.HostConfig.LogConfig.Type}}`, "json-file"},
		{`{{range .Mounts}}{{.Type}} {{.Source}} {{.Destination}} {{.Mode}} {{.RW}} {{.Propagation}}{{end}}`, "bind /usr /t ro false rprivate"},
		{`{{.State.Running}} {{.State.Dead}} {{.State.Restarting}} {{.State.FinishedAt}}`, "true false false 0001-01-01T00:00:00Z"},
		{`{{len .NetworkSettings.Networks}} {{.NetworkSettings.Networks.bridge.IPPrefixLen}}`, "1 24|1 16"},
	} {
		got := e.Inspect("look", c.template)
		found := false
		for want := range strings.SplitSeq(c.want, "|") {
			found = found || got == want || strings.ReplaceAll(got, `,{"HostIp":"::","HostPort":"18082"}`, "") == strings.ReplaceAll(want, `,{"HostIp":"::","HostPort":"18082"}`, "")
		}
		if !found {
			t.Errorf("%s\n got %s\nwant %s", c.template, got, c.want)
		}
	}
	e.Match(`^\[\n {4}\{\n {8}"Id": `, "inspect", "look")
	e.Match(`SizeRw`, "inspect", "-s", "look")
	r := e.Fails(1, "No such object: nosuch", "inspect", "nosuch", "look")
	if !strings.Contains(r.Stdout, id) {
		t.Error("the one that exists is not shown", r)
	}
	e.Fails(1, "[Nn]o such (container|object)", "container", "inspect", "nosuch")
	e.Fails(64, "template parsing error", "inspect", "-f", "{{.Nosuch", "look")
	e.Is(id, "inspect", "--type", "container", "-f", "{{.Id}}", "look")
}

func TestTop(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.Sleeper()
	e.Ready(id)
	e.Eventually(harness.CommandTimeout/6, func() error { return has(e.OK("top", id), "sleep 1000") })
	lines := strings.Split(e.OK("top", id), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[0], "UID") || !strings.Contains(lines[0], "CMD") {
		t.Errorf("top printed %q", lines)
	}
	out := e.OK("top", id, "-o", "pid,comm")
	if !strings.HasPrefix(out, "PID") || !strings.Contains(out, e.Inspect(id, "{{.State.Pid}}")) {
		t.Errorf("top -o printed %q", out)
	}
	e.OK("stop", "-t", "0", id)
	e.Fails(1, "is not running", "top", id)
}

func TestStats(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.Sleeper("-m", "64m", "--name", "st")
	e.Eventually(harness.CommandTimeout/6, func() error { return has(e.OK("top", id), "sleep 1000") })
	out := e.OK("stats", "--no-stream", "--format", "{{.ID}}|{{.Name}}|{{.MemUsage}}|{{.PIDs}}|{{.CPUPerc}}|{{.NetIO}}|{{.BlockIO}}", id)
	fields := strings.Split(out, "|")
	if len(fields) != 7 || fields[0] != id[:12] || fields[1] != "st" || !strings.HasSuffix(fields[2], " / 64MiB") || strings.HasPrefix(fields[2], "0B") || fields[3] != "2" || !strings.HasSuffix(fields[4], "%") {
		t.Errorf("stats printed %q", out)
	}
	e.Match("^CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT", "stats", "--no-stream")
	// One that does not run has none.
	stopped := e.OK("create", image)
	e.Match(`\|0B / 0B\|`, "stats", "--no-stream", "--format", "|{{.MemUsage}}|", stopped)
	e.Is("st", "stats", "--no-stream", "--format", "{{.Name}}")
}

func TestPort(t *testing.T) {
	e := harness.New(t, daemon)
	e.Sleeper("--name", "ports", "-p", "127.0.0.1:18083:80", "-p", "127.0.0.1:18084:53/udp")
	e.Is("53/udp -> 127.0.0.1:18084\n80/tcp -> 127.0.0.1:18083", "port", "ports")
	e.Is("127.0.0.1:18083", "port", "ports", "80")
	e.Is("127.0.0.1:18084", "port", "ports", "53/udp")
	e.Fails(1, "no public port '81(/tcp)?' published for ports", "port", "ports", "81")
}

func TestPrune(t *testing.T) {
	e := harness.New(t, daemon)
	run := e.Sleeper()
	e.OK("create", "--name", "keep", "-l", "keep", image)
	a := e.OK("create", image)
	out := e.OK("container", "prune", "-f", "--filter", "label!=keep")
	if !strings.HasPrefix(out, "Deleted Containers:\n"+a) || !strings.Contains(out, "Total reclaimed space:") {
		t.Errorf("printed %q", out)
	}
	e.Match("Total reclaimed space", "container", "prune", "-f")
	e.Is(run[:12], "ps", "-aq")
}
