package lifecycle

import (
	"strings"
	"testing"

	"gantry/tests/harness"
)

// What ps selects by each filter, and what it refuses.
func TestPsFilters(t *testing.T) {
	e := harness.New(t, daemon)
	e.OK("network", "create", "fnet")
	e.OK("run", "-d", "--name", "fa", "--label", "a=b", "-p", "127.0.0.1:28080:80", "-v", "fvol:/data", "--expose", "99", image, "sleep", "1000")
	e.OK("network", "connect", "fnet", "fa")
	e.OK("create", "--name", "fb", image, "true")
	e.Do("run", "--name", "fc", image, "sh", "-c", "exit 3")
	e.OK("run", "-d", "--name", "fd", "--health-cmd", "true", "--health-interval", "1h", image, "sleep", "1000")
	e.OK("pause", "fd")
	for filter, want := range map[string]string{
		"name=fa": "fa", "name=^/fa$": "fa", "name=^f[ab]": "fb fa", "label=a": "fa", "label=a=b": "fa", "label=a=c": "", "exited=3": "fc", "exited=0": "", "status=running": "fa",
		"status=paused": "fd", "status=exited": "fc", "status=created": "fb", "ancestor=" + image: "fd fc fb fa", "ancestor=nosuch": "", "before=fc": "fb fa", "since=fb": "fd fc",
		"volume=fvol": "fa", "volume=/data": "fa", "volume=no": "", "network=fnet": "fa", "network=bridge": "fd fc fb fa", "network=no": "", "publish=28080": "fa", "publish=80": "",
		"publish=28000-28100/tcp": "fa", "publish=28080/udp": "", "expose=99": "fa", "expose=80": "fa", "expose=81": "", "health=starting": "fd", "health=healthy": "", "health=none": "fc fb fa", "is-task=true": "",
		"is-task=false": "fd fc fb fa", "id=zz": "",
	} {
		if got := strings.Join(strings.Fields(e.OK("ps", "-a", "--format", "{{.Names}}", "--filter", filter)), " "); got != want {
			t.Errorf("ps --filter %s shows %q, want %q", filter, got, want)
		}
	}
	for filter, want := range map[string]string{
		"status=nosuch": "nosuch", "before=nosuch": "no such container:? nosuch", "publish=x": "error while looking up for publish x", "expose=x": "error while looking up for expose x",
		"publish=1:2": "", "health=x": "health", "is-task=x": `invalid filter 'is-task=\[x\]'`, "nosuch=1": "invalid filter 'nosuch'", "exited=x": "",
	} {
		e.Fails(1, want, "ps", "-a", "--filter", filter)
	}
}
