package build

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/tests/harness"
)

// Every word that only says something says it.
func TestConfiguration(t *testing.T) {
	e := harness.New(t, daemon)
	one(e, "FROM "+image, "MAINTAINER somebody", "ENV A=1 B=\"two words\"", "ENV C=$A-${B:-x}", "LABEL k=v \"l m\"='n o'", "WORKDIR /made", "WORKDIR deeper", "USER app", "EXPOSE 80 90/udp",
		"VOLUME [\"/data\"]", "STOPSIGNAL SIGUSR1", "SHELL [\"/bin/sh\", \"-ec\"]", "HEALTHCHECK --interval=5s CMD true", "ENTRYPOINT [\"echo\", \"-n\"]", "CMD hello", "ONBUILD RUN true")
	for template, want := range map[string]string{
		"{{.Author}}": "somebody", "{{.Config.WorkingDir}}": "/made/deeper", "{{.Config.User}}": "app", "{{json .Config.ExposedPorts}}": `{"80/tcp":{},"90/udp":{}}`,
		"{{json .Config.Volumes}}": `{"/data":{}}`, "{{.Config.StopSignal}}": "SIGUSR1", "{{json .Config.Shell}}": `["/bin/sh","-ec"]`, "{{json .Config.Entrypoint}}": `["echo","-n"]`,
		"{{json .Config.Cmd}}": `["/bin/sh","-ec","hello"]`, "{{json .Config.OnBuild}}": `["RUN true"]`, "{{.Config.Labels.k}}": "v", `{{index .Config.Labels "l m"}}`: "n o",
		"{{json .Config.Healthcheck.Test}}": `["CMD-SHELL","true"]`, "{{json .Config.Healthcheck.Interval}}": "5000000000",
	} {
		if got := e.Inspect("built", template); got != want {
			t.Errorf("%s: %s, want %s", template, got, want)
		}
	}
	e.Is("/made/deeper:app:0:1-two words", "run", "--rm", "--entrypoint", "sh", "built", "-c", `echo $(pwd):$(id -un):$(stat -c %u .):$C`)
	one(e, "FROM "+image, `CMD ["a"]`, `ENTRYPOINT ["b"]`)
	if got := e.Inspect("built", "{{json .Config.Cmd}}"); got != `["a"]` {
		t.Errorf("a command of one's own was dropped: %s", got)
	}
	one(e, "FROM "+image, `ENTRYPOINT ["b"]`)
	if got := e.Inspect("built", "{{json .Config.Cmd}}"); got != "null" {
		t.Errorf("the base's command is there: %s", got)
	}
}

func TestRun(t *testing.T) {
	e := harness.New(t, daemon)
	out := one(e, "FROM "+image, "USER app", "WORKDIR /home/app", `RUN ["sh", "-c", "id -un > who; pwd >> who; echo here >&2"]`, "SHELL [\"/bin/sh\", \"-xc\"]", "RUN rm /bin/vi 2>/dev/null; touch own")
	matches(e, "here", out)
	e.Is("app\n/home/app\n1000", "run", "--rm", "built", "sh", "-c", "cat who; stat -c %u own")
	e.Is("app\n/home/app", "run", "--rm", "built", "cat", "/home/app/who")
	// The program's exit code is that of the command line, and the container is left unless told.
	r := refused(e, 3, `The command '/bin/sh -c echo some; exit 3' returned a non-zero code: 3`, map[string]string{"Dockerfile": lines("FROM "+image, "RUN echo some; exit 3")})
	matches(e, "some\n", r.Stdout)
	e.Match(`^Exited \(3\)`, "ps", "-a", "--format", "{{.Status}}")
	e.OK("container", "prune", "-f")
	refused(e, 1, "returned a non-zero code: 1", map[string]string{"Dockerfile": lines("FROM "+image, "RUN false")}, "--force-rm")
	e.Is("", "ps", "-aq")
	build(e, map[string]string{"Dockerfile": lines("FROM "+image, "RUN echo kept")}, "--rm=false")
	e.Match(`^Exited \(0\)`, "ps", "-a", "--format", "{{.Status}}")
}

func TestRunOptions(t *testing.T) {
	e := harness.New(t, daemon)
	out := build(e, map[string]string{"Dockerfile": lines("FROM "+image, "RUN cat /etc/hosts; df -k /dev/shm | tail -1; ls /sys/class/net; cat /proc/self/limits | grep 'open files'")},
		"--network", "none", "--add-host", "elsewhere:192.0.2.77", "--shm-size", "8m", "--ulimit", "nofile=77")
	matches(e, "192.0.2.77\telsewhere\n", out)
	matches(e, `shm +8192 `, out)
	matches(e, `\nlo\n`, out)
	matches(e, `open files +77 `, out)
	if strings.Contains(out, "eth0") {
		t.Error("there is a network")
	}
}

func TestArguments(t *testing.T) {
	e := harness.New(t, daemon)
	files := map[string]string{"Dockerfile": lines("ARG BASE=nothing", "FROM $BASE", "ARG GIVEN=default", "ARG ONLY", "ENV OWN=${GIVEN}", "RUN echo \"[$GIVEN] [$ONLY] [$http_proxy] [$BASE]\"", "ARG BASE", "RUN echo base=$BASE")}
	out := build(e, files, "-t", "built", "--build-arg", "BASE="+image, "--build-arg", "GIVEN=value", "--build-arg", "http_proxy=http://proxy.test", "--build-arg", "USELESS=1")
	matches(e, `\[value\] \[\] \[http://proxy.test\] \[\]\n.*base=busybox:test\n.*build-args \[USELESS\] were not consumed`, out)
	if env := e.Inspect("built", "{{json .Config.Env}}"); !strings.Contains(env, `"OWN=value"`) || strings.Contains(env, "proxy") || strings.Contains(env, "GIVEN") {
		t.Errorf("environment: %s", env)
	}
	// Other values are another step; another proxy is not.
	matches(e, `Using cache\n.*Using cache\n.*\[value\]|Using cache`, build(e, files, "--build-arg", "BASE="+image, "--build-arg", "GIVEN=value", "--build-arg", "http_proxy=http://other.test"))
	matches(e, `\[more\]`, build(e, files, "--build-arg", "BASE="+image, "--build-arg", "GIVEN=more"))
}

func TestStages(t *testing.T) {
	e := harness.New(t, daemon)
	files := map[string]string{"Dockerfile": lines("FROM "+image+" AS first", "RUN mkdir -p /d/sub && echo one > /d/1 && echo two > /d/sub/2 && ln -s sub/2 /d/link && ln -s /d/1 /one", "FROM first AS second", "RUN echo three > /d/3",
		"FROM "+image, "COPY --from=first /d /copied", "COPY --from=1 /d/3 /one /d/l* /some/", "COPY --from="+image+" /etc/passwd /accounts", "COPY --from=second /d/s*/* /flat/")}
	build(e, files, "-t", "built")
	e.Is("one\ntwo\nsub/2\nthree\none\ntwo\nroot:x:0:0:root:/root:/bin/sh\ntwo", "run", "--rm", "built", "sh", "-c",
		"cat /copied/1 /copied/sub/2; readlink /copied/link; cat /some/3 /some/one /some/link; head -1 /accounts; cat /flat/2")
	matches(e, "(?s)Step 4/4 : RUN echo three > /d/3", build(e, files, "-t", "half", "--target", "second"))
	e.Is("three", "run", "--rm", "half", "cat", "/d/3")
	refused(e, 1, "failed to reach build target nowhere", files, "--target", "nowhere")
	build(e, map[string]string{"Dockerfile": lines("FROM scratch", "COPY hello.txt /", "LABEL a=b"), "hello.txt": "hi"}, "-t", "tiny")
	id := e.OK("create", "tiny", "none")
	e.OK("cp", id+":/hello.txt", filepath.Join(e.Config, "got"))
	if got, err := os.ReadFile(filepath.Join(e.Config, "got")); err != nil || string(got) != "hi" {
		t.Errorf("from scratch: %q %v", got, err)
	}
	refused(e, 1, "No image was generated|No such image", map[string]string{"Dockerfile": "FROM scratch\n"})
}

func TestTriggers(t *testing.T) {
	e := harness.New(t, daemon)
	build(e, map[string]string{"Dockerfile": lines("FROM "+image, "ONBUILD COPY file /triggered", "ONBUILD RUN echo ran > /ran")}, "-t", "trigger")
	out := build(e, map[string]string{"Dockerfile": lines("FROM trigger", "RUN cat /triggered /ran"), "file": "content\n"}, "-t", "built")
	matches(e, `# Executing 2 build triggers\n.*content\nran\n`, out)
	if got := e.Inspect("built", "{{json .Config.OnBuild}}"); got != "null" && got != "[]" {
		t.Errorf("triggers are inherited: %s", got)
	}
}

func TestOptions(t *testing.T) {
	e := harness.New(t, daemon)
	files := map[string]string{"other/Dockerfile.two": lines("FROM "+image, "RUN echo noise"), "Dockerfile": "FROM nowhere.test/none\n"}
	dir := context(e, files)
	ids := filepath.Join(e.Config, "id")
	id := e.OK("build", "-q", "-f", filepath.Join(dir, "other/Dockerfile.two"), "--label", "one=1", "--label", "two=2 2", "--iidfile", ids, "-t", "built", dir)
	matches(e, "^sha256:[0-9a-f]{64}$", id)
	if data, err := os.ReadFile(ids); err != nil || strings.TrimSpace(string(data)) != id {
		t.Errorf("file of the ID: %q %v, want %s", data, err, id)
	}
	e.Is("1 2 2", "inspect", "-f", "{{.Config.Labels.one}} {{.Config.Labels.two}}", "built")
	if r := e.DoInput(lines("FROM "+image, "RUN echo from stdin"), "build", "-"); r.Code != 0 || !strings.Contains(r.Stdout, "\nfrom stdin\n") {
		t.Errorf("a Dockerfile on stdin: %v", r)
	}
	if r := e.DoInput(lines("FROM "+image, "COPY Dockerfile /x", "RUN echo beside"), "build", "-f", "-", dir); r.Code != 0 || !strings.Contains(r.Stdout, "\nbeside\n") {
		t.Errorf("a Dockerfile on stdin beside a context: %v", r)
	}
	refused(e, 1, "unknown instruction: NONSENSE", map[string]string{"Dockerfile": lines("FROM "+image, "NONSENSE x")})
	refused(e, 1, "Cannot locate specified Dockerfile|no such file", map[string]string{"other": ""})
	refused(e, 125, "invalid argument|invalid reference", map[string]string{"Dockerfile": "FROM " + image}, "-t", "UPPER")
}
