package dockerfile

import (
	"encoding/json"
	"reflect"
	"testing"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

func TestChange(t *testing.T) {
	for _, c := range []struct {
		line, want string // JSON of what is set; empty: refused
	}{
		{`CMD echo hi`, `{"Cmd":["/bin/sh","-c","echo hi"]}`},
		{`cmd ["echo", "hi"]`, `{"Cmd":["echo","hi"]}`},
		{`ENTRYPOINT ["x"]`, `{"Entrypoint":["x"]}`},
		{`ENV a=1 b="2 3" c='4 "5' d=6\ 7`, `{"Env":["a=1","b=2 3","c=4 \"5","d=6 7"]}`},
		{`ENV key the whole rest`, `{"Env":["key=the whole rest"]}`},
		{`LABEL a=b c="d e"`, `{"Labels":{"a":"b","c":"d e"}}`},
		{`EXPOSE 80 90-91/udp`, `{"ExposedPorts":{"80/tcp":{},"90/udp":{},"91/udp":{}}}`},
		{`VOLUME ["/a", "/b c"]`, `{"Volumes":{"/a":{},"/b c":{}}}`},
		{`VOLUME /a /b`, `{"Volumes":{"/a":{},"/b":{}}}`},
		{`USER nobody`, `{"User":"nobody"}`},
		{`WORKDIR rel`, `{"WorkingDir":"/rel"}`},
		{`STOPSIGNAL SIGINT`, `{"StopSignal":"SIGINT"}`},
		{`ONBUILD RUN x`, `{"OnBuild":["RUN x"]}`},
		{`HEALTHCHECK --interval=5s --retries=2 CMD true`, `{"Healthcheck":{"Test":["CMD-SHELL","true"],"Interval":5000000000,"Retries":2}}`},
		{`HEALTHCHECK NONE`, `{"Healthcheck":{"Test":["NONE"]}}`},
		{``, ``}, {`RUN x`, ``}, {`FROM x`, ``}, {`ENV`, ``}, {`ENV x`, ``}, {`EXPOSE 99999`, ``}, {`EXPOSE 5-3`, ``}, {`EXPOSE 80/icmp`, ``}, {`ENV a="b`, ``}, {`ONBUILD FROM x`, ``},
		{`HEALTHCHECK`, ``}, {`HEALTHCHECK --interval=x CMD y`, ``}, {`SHELL x`, ``}, {`LABEL =x`, ``}, {`STOPSIGNAL SIGNOPE`, ``}, {`STOPSIGNAL 0`, ``},
	} {
		config, err := Change(dockerspec.DockerOCIImageConfig{}, []string{c.line})
		got, _ := json.Marshal(config)
		if err != nil {
			got = nil
		}
		if string(got) != c.want {
			t.Errorf("%s: %s, %v", c.line, got, err)
		}
	}
}

// A change sees what the ones before and the container have made of the environment, and leaves the container's own configuration alone.
func TestChangeOfConfig(t *testing.T) {
	own := func() (c dockerspec.DockerOCIImageConfig) {
		c.Env, c.Cmd, c.Labels, c.Volumes = []string{"A=b", "P=/bin"}, []string{"sleep"}, map[string]string{"l": "1"}, map[string]struct{}{"/v": {}}
		return c
	}
	config := own()
	got, err := Change(config, []string{"ENV P=$P:/x A=$A$A", "ENV Q=${A}c", "LABEL m=\"$Q\"", "WORKDIR $P", "WORKDIR rel", "USER ${U:-nobody}", "EXPOSE ${N:-80}", "VOLUME /$A", `ENTRYPOINT ["e"]`})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"User":"nobody","ExposedPorts":{"80/tcp":{}},"Env":["A=bb","P=/bin:/x","Q=bbc"],"Entrypoint":["e"],"Volumes":{"/bb":{},"/v":{}},"WorkingDir":"/bin:/x/rel","Labels":{"l":"1","m":"bbc"}}`
	if text, _ := json.Marshal(got); string(text) != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
	if !reflect.DeepEqual(config, own()) {
		t.Errorf("the configuration that was given has changed: %+v", config)
	}
	if got, err := Change(config, nil); err != nil || !reflect.DeepEqual(got, config) {
		t.Errorf("no changes: %+v %v", got, err)
	}
}

func FuzzChange(f *testing.F) {
	f.Add(`ENV a=1 b="2 3"`)
	f.Add(`HEALTHCHECK --interval=5s CMD ["a"]`)
	f.Add(`EXPOSE 1-65535/tcp`)
	f.Fuzz(func(t *testing.T, line string) {
		var c dockerspec.DockerOCIImageConfig
		c.Env = []string{"A=b"}
		_, _ = Change(c, []string{line})
	})
}
