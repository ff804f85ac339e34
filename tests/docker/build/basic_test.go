package build

import (
	"strings"
	"testing"

	"gantry/tests/harness"
)

// The messages are docker's, which others read too.
func TestStepsAndCache(t *testing.T) {
	e := harness.New(t, daemon)
	files := map[string]string{
		"Dockerfile": lines("FROM "+image, "ENV GREETING=hello", "COPY greeting /etc/", `RUN echo "$GREETING $(cat /etc/greeting)" > /out && echo done`, `CMD ["cat", "/out"]`),
		"greeting":   "world\n",
	}
	first := build(e, files, "-t", "built:one", "-t", "built:two")
	matches(e, `Step 1/5 : FROM busybox:test\n ---> [0-9a-f]{12}\nStep 2/5 : ENV GREETING=hello\n.* ---> [0-9a-f]{12}\nStep 3/5 : COPY greeting /etc/\n ---> [0-9a-f]{12}\nStep 4/5 : RUN echo .*`+
		` ---> Running in [0-9a-f]{12}\ndone\n.*---> [0-9a-f]{12}\nStep 5/5 : CMD \["cat", "/out"\].*Successfully built [0-9a-f]{12}\nSuccessfully tagged built:one\nSuccessfully tagged built:two$`, first)
	matches(e, `\nRemoving intermediate container [0-9a-f]{12}\n`, first)
	e.Is("hello world", "run", "--rm", "built:two")
	e.Is("", "ps", "-aq")

	second := build(e, files)
	matches(e, `Step 2/5 : ENV GREETING=hello\n ---> Using cache\n.*Step 3.* ---> Using cache\n.*Step 4.* ---> Using cache\n.*Step 5.* ---> Using cache\n`, second)
	id := e.OK("images", "-q", "--no-trunc", "built:one")
	matches(e, id[7:19], second)

	files["greeting"] = "there\n"
	third := build(e, files, "-t", "built:three")
	matches(e, `Step 2/5 : ENV GREETING=hello\n ---> Using cache\n.*Step 3/5 : COPY greeting /etc/\n ---> [0-9a-f]{12}\nStep 4`, third)
	e.Is("hello there", "run", "--rm", "built:three")
	if again := build(e, files, "--no-cache"); strings.Contains(again, "Using cache") {
		t.Errorf("--no-cache used the cache: %s", again)
	}
}
