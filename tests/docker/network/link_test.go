package network

import (
	"strings"
	"testing"

	"gantry/tests/harness"
)

// Links on the default network: a line in /etc/hosts, environment variables, and both follow the other container.
func TestLinks(t *testing.T) {
	e := harness.New(t, daemon)
	e.OK("run", "-d", "--name", "db", "-h", "dbhost", "--expose", "5432", "--expose", "5433", "--expose", "53/udp", "-e", "KIND=sql", image, "sleep", "1000")
	address := e.Inspect("db", "{{.NetworkSettings.Networks.bridge.IPAddress}}")
	out := "\n" + e.OK("run", "--rm", "--name", "web", "--link", "db:the-data", "-e", "THE_DATA_ENV_KIND=mine", image, "sh", "-c", "env; cat /etc/hosts") + "\n"
	for _, want := range []string{"THE_DATA_NAME=/web/the-data", "THE_DATA_PORT_5432_TCP=tcp://" + address + ":5432", "THE_DATA_PORT_5433_TCP_ADDR=" + address,
		"THE_DATA_PORT_5433_TCP_PORT=5433", "THE_DATA_PORT_53_UDP_PROTO=udp", "THE_DATA_ENV_KIND=mine", address + "\tthe-data dbhost db"} {
		if !strings.Contains(out, "\n"+want+"\n") {
			t.Errorf("no line %q in %s", want, out)
		}
	}
	if strings.Contains(out, "THE_DATA_ENV_PATH") {
		t.Errorf("PATH is passed on: %s", out)
	}
	e.OK("run", "-d", "--name", "web", "--link", "db", image, "sleep", "1000")
	e.Is("[/db:/web/db]", "inspect", "-f", "{{.HostConfig.Links}}", "web")
	e.Match("DB_NAME=/web/db", "exec", "web", "env")
	// The other gets another address.
	e.OK("stop", "-t", "0", "db")
	e.OK("run", "-d", "--name", "between", image, "sleep", "1000")
	e.OK("start", "db")
	now := e.Inspect("db", "{{.NetworkSettings.Networks.bridge.IPAddress}}")
	e.Match(strings.ReplaceAll(now, ".", `\.`)+"\tdb dbhost", "exec", "web", "cat", "/etc/hosts")
	// It must run.
	e.OK("stop", "-t", "0", "db", "web")
	e.Fails(1, "Cannot link to a non running container: /db AS /web/db", "start", "web")
	e.OK("rename", "db", "base")
	e.OK("start", "base", "web")
	e.Is("[/base:/web/db]", "inspect", "-f", "{{.HostConfig.Links}}", "web")
	e.Fails(1, "Conflict, cannot remove the default link name of the container", "rm", "--link", "/web")
	e.OK("rm", "--link", "/web/db")
	e.Is("[]", "inspect", "-f", "{{.HostConfig.Links}}", "web")
	e.OK("rm", "-f", "base")
	e.OK("restart", "-t", "0", "web")
	// What is not there is refused.
	e.Fails(125, "could not get container for nosuch: No such container: nosuch", "run", "--link", "nosuch", image, "true")
	e.Fails(125, "bad format for links|invalid format for links|invalid argument", "run", "--link", "a:b:c", image, "true")
}

// On a network of the user's own a link is a name, whether or not the other is there yet.
func TestLinksOnUserNetworks(t *testing.T) {
	e := harness.New(t, daemon)
	e.OK("network", "create", "ln")
	e.OK("run", "-d", "--name", "first", "--network", "ln", "--link", "later:other", image, "sleep", "1000")
	e.OK("run", "-d", "--name", "later", "--network", "ln", image, "sleep", "1000")
	e.OK("exec", "first", "ping", "-c", "1", "-W", "5", "other")
	e.Fails(1, "", "exec", "later", "ping", "-c", "1", "-W", "5", "other") // nobody else's name
}
