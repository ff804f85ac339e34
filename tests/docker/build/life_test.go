package build

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/tests/harness"
)

// underWay starts a build whose second step does not end, and waits until that runs.
func underWay(e *harness.Env) *harness.Session {
	e.Helper()
	dir := context(e, map[string]string{"Dockerfile": lines("FROM "+image, "RUN echo first > /first", "RUN echo started; sleep 1000"), "file": "x"})
	s := e.Go("build", "-t", "never", dir)
	s.Expect("Running in .*started\n")
	return s
}

func nothingRuns(e *harness.Env) {
	e.Helper()
	e.Eventually(20*time.Second, func() error {
		if got := e.OK("ps", "-aq"); got != "" {
			return fmt.Errorf("containers are left: %s", got)
		}
		return nil
	})
	if left, err := os.ReadDir(filepath.Join(e.D.DataRoot(), "snapshots")); err == nil && !harness.Oracle() && len(left) != 0 {
		e.Errorf("snapshots are left: %v", left)
	}
	e.Fails(1, "no such (image|object)", "image", "inspect", "never")
}

// Who hangs up ends the step that runs.
func TestCancelled(t *testing.T) {
	e := harness.New(t, daemon)
	s := underWay(e)
	s.Signal(syscall.SIGKILL)
	s.Wait()
	nothingRuns(e)
}

// What a build goes on from, and no container or name stands for, is not taken from it by prune or rmi; when it is over, it is.
func TestPruned(t *testing.T) {
	if harness.Oracle() {
		t.Skip("dockerd takes it away")
	}
	e := harness.New(t, daemon)
	dir := context(e, map[string]string{"Dockerfile": lines("FROM "+image+" AS first", "RUN echo kept > /kept", "FROM "+image, "RUN echo started; sleep 4", "COPY --from=first /kept /kept")})
	s := e.Go("build", "-t", "pruned", dir)
	s.Expect("Running in .*Running in .*started\n")
	found := regexp.MustCompile(`(?s)---> (\w{12})\nStep 3/`).FindStringSubmatch(s.Output())
	if found == nil {
		t.Fatal(s.Output())
	}
	first := found[1]
	if got := e.OK("image", "prune", "-f"); strings.Contains(got, first) {
		t.Errorf("prune: %s", got)
	}
	e.Fails(1, "unable to delete "+first+" .*image is being used by a build", "rmi", "-f", first)
	e.OK("tag", first, "named")
	e.Fails(1, "a build is using its referenced image "+first, "rmi", "named")
	e.Match("Untagged: named:latest$", "rmi", "-f", "named")
	if code := s.Wait(); code != 0 {
		t.Fatalf("the build ended with %d: %s", code, s.Output())
	}
	e.Is("kept", "run", "--rm", "pruned", "cat", "/kept")
	e.Match("deleted: sha256:"+first, "image", "prune", "-f")
}

// A daemon that is killed leaves nothing of a build but the steps that were done.
func TestKilled(t *testing.T) {
	if harness.Oracle() {
		t.Skip("dockerd leaves the container")
	}
	e := harness.New(t, daemon)
	s := underWay(e)
	daemon.Kill()
	e.Eventually(20*time.Second, daemon.Start) // a child that was not yet executing its own program has the daemon's socket a moment longer
	s.Wait()
	nothingRuns(e)
	matches(e, "Step 2/3[^S]*Using cache", build(e, map[string]string{"Dockerfile": lines("FROM "+image, "RUN echo first > /first", "RUN true")}))
}

// An image that the policy refuses is neither built on nor copied from, though it is here, and though all that is asked for was built before.
func TestPolicy(t *testing.T) {
	if harness.Oracle() {
		t.Skip("dockerd has no policy for images")
	}
	file := filepath.Join(t.TempDir(), "policy.json")
	policy := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	policy(`{"default":[{"type":"insecureAcceptAnything"}]}`)
	d, err := harness.NewDaemon(harness.Dir(), "policy", "--image-policy", file)
	if err == nil {
		err = d.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := d.Base(); err != nil {
		t.Fatal(err)
	}
	e := harness.New(t, d)
	e.OK("tag", image, "allowed:1")
	files := []map[string]string{
		{"Dockerfile": lines("FROM "+image, "RUN echo ran")},
		{"Dockerfile": lines("FROM allowed:1", "COPY --from="+image+" /etc/passwd /x")},
		{"Dockerfile": lines("FROM allowed:1", "RUN echo ran", "RUN echo again")},
	}
	for _, f := range files {
		build(e, f)
	}
	policy(`{"default":[{"type":"reject"}],"transports":{"docker":{"docker.io/library/allowed":[{"type":"insecureAcceptAnything"}]}}}`)
	const refusal = "image busybox:test .* is refused by the policy"
	e.Fails(125, refusal, "run", "--rm", image, "true")
	refused(e, 1, refusal, files[0])
	refused(e, 1, refusal, files[0], "--no-cache")
	refused(e, 1, refusal, files[1])
	refused(e, 1, refusal, files[1], "--no-cache")
	matches(e, "ran\n.*again\n", build(e, files[2], "--no-cache"))
	policy("{")
	refused(e, 1, "policy", files[2])
	policy(`{"default":[{"type":"insecureAcceptAnything"}]}`)
}

// What this builder cannot do is said.
func TestNotThere(t *testing.T) {
	if harness.Oracle() {
		t.Skip("dockerd says it otherwise")
	}
	e := harness.New(t, daemon)
	for word, want := range map[string]string{
		"RUN --mount=type=cache,target=/x true": `line 2: RUN --mount needs BuildKit`,
		"RUN <<EOF\necho a\nEOF":                `line 2: RUN with a here-document needs BuildKit`,
		"COPY --link a /x":                      `line 2: COPY --link needs BuildKit`,
	} {
		refused(e, 1, want, map[string]string{"Dockerfile": lines("FROM "+image, word), "a": ""})
	}
	for _, query := range []string{"version=2", "remote=https://git.test/x.git"} {
		status, body, err := daemon.Do("POST", "/build?"+query, "")
		if err != nil || status != 501 {
			t.Errorf("%s: %d %s %v", query, status, body, err)
		}
	}
}
