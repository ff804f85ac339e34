package network

import (
	"os"
	"strings"
	"testing"

	"gantry/tests/harness"
)

func TestVolumeCommands(t *testing.T) {
	e := harness.New(t, daemon)
	e.Is("v1", "volume", "create", "--label", "a=1", "v1")
	e.Is("v1", "volume", "create", "v1") // is no failure
	anon := e.OK("volume", "create")
	if len(anon) != 64 {
		t.Errorf("made up name %q", anon)
	}
	e.Is("v1 local local map[a:1]", "volume", "inspect", "-f", "{{.Name}} {{.Driver}} {{.Scope}} {{.Labels}}", "v1")
	if info, err := os.Stat(e.OK("volume", "inspect", "-f", "{{.Mountpoint}}", "v1")); err != nil || !info.IsDir() {
		t.Errorf("mountpoint: %v", err)
	}
	e.Is("v1", "volume", "ls", "-q", "--filter", "label=a")
	e.Is("v1", "volume", "ls", "-q", "--filter", "name=v1")
	e.Match("^DRIVER    VOLUME NAME\nlocal     ", "volume", "ls")
	id := e.OK("create", "-v", "v1:/x", image)
	e.Fails(1, `remove v1: volume is in use - \[`+id+`\]`, "volume", "rm", "v1")
	if got := e.OK("volume", "ls", "-q", "--filter", "dangling=true"); got != anon {
		t.Errorf("dangling: %q", got)
	}
	all := []string{"volume", "prune", "-f", "-a"}
	if harness.Oracle() || harness.OldCLI() {
		all = all[:3] // API 1.41 prunes named ones without asking
	}
	out := e.OK(all...)
	if !strings.HasPrefix(out, "Deleted Volumes:\n"+anon) {
		t.Errorf("prune printed %q", out)
	}
	e.OK("rm", id)
	e.Is("v1", "volume", "rm", "v1")
	e.Fails(1, "(get v1: )?no such volume", "volume", "rm", "v1")
	e.Fails(1, "no such volume", "volume", "inspect", "v1")
	e.OK("volume", "rm", "-f", "v1")
	e.Fails(1, `includes invalid characters for a local volume name, only "\[a-zA-Z0-9\]\[a-zA-Z0-9_\.-\]" are allowed`, "volume", "create", "a b")
	e.Fails(1, "nosuch", "volume", "create", "-d", "nosuch", "v2")
	e.Fails(1, "invalid option", "volume", "create", "-o", "nosuch=1", "v2")
}

func TestVolumeOptions(t *testing.T) {
	e := harness.New(t, daemon)
	e.OK("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,mode=1700", "tm")
	if got := e.Run("-v", "tm:/t", image, "sh", "-c", "df -k /t | tail -1 | awk '{print $2}'; stat -c %a /t"); got != "1024\n1700" {
		t.Errorf("got %q", got)
	}
	e.OK("volume", "create", "-o", "type=none", "-o", "device="+e.Config, "-o", "o=bind", "bi")
	e.File("there", "x")
	if got := e.Run("-v", "bi:/t", image, "cat", "/t/there"); got != "x" {
		t.Errorf("got %q", got)
	}
}
