package build

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/tests/harness"
)

// COPY puts files where docker does.
func TestCopy(t *testing.T) {
	e := harness.New(t, daemon)
	build(e, map[string]string{
		"Dockerfile": lines("FROM "+image, "WORKDIR /w", "RUN mkdir /real && ln -s /real /alias && echo old > /real/file && ln -s /real/file /tofile", "COPY a /plain", "COPY a b.txt /made/by/", "COPY dir /dir", "COPY dir/ existing/",
			"COPY *.txt c?.md rel/", "COPY a .", "COPY a /alias", "COPY b.txt /tofile", "COPY --chown=app:extra a /owned", "COPY --chown=1234 dir /ids/x", "COPY dirlink /through", `COPY ["with space", "/json here"]`, "COPY [^x]b* /set/"),
		"a": "A", "b.txt": "B", "c1.md": "C", "dir/x": "X", "dir/sub/y": "Y", "dir/link": "-> x", "dir/empty/": "", "dirlink": "-> dir", "with space": "S", "xb": "0", "yb": "1",
	}, "-t", "built")
	e.Is("A A B X Y x empty X B C A A B A 1000:2000 1234:1234 1234:1234 X S yb 0:0", "run", "--rm", "built", "sh", "-c",
		`cd /; echo $(cat plain) $(cat made/by/a) $(cat made/by/b.txt) $(cat dir/x) $(cat dir/sub/y) $(readlink dir/link) $(ls dir | grep empty) $(cat w/existing/x) $(cat w/rel/b.txt) $(cat w/rel/c1.md) $(cat w/a) $(cat real/a) \
		$(cat real/file) $(cat owned) $(stat -c %u:%g owned) $(stat -c %u:%g ids) $(stat -c %u:%g ids/x/sub/y) $(cat through/x) $(cat "json here") $(ls set) $(stat -c %u:%g plain)`)
}

func TestCopyRefuses(t *testing.T) {
	e := harness.New(t, daemon)
	for _, c := range []struct{ word, want string }{
		{"COPY missing /x", "file not found|no such file"},
		{"COPY *.none /x", "no source files were specified"},
		{"COPY ../a /x", "forbidden path outside the build context"},
		{"COPY a b /x", "must be a directory and end with a /"},
		{"COPY d /etc/passwd", "cannot copy to non-directory"},
		{"COPY --chown=nobodyknows a /x", "unable to find user nobodyknows|unable to convert"},
	} {
		refused(e, 1, c.want, map[string]string{"Dockerfile": lines("FROM "+image, c.word), "a": "", "b": "", "d/x": ""})
	}
}

// What the context does not show is neither copied nor seen by the cache.
func TestIgnore(t *testing.T) {
	e := harness.New(t, daemon)
	files := map[string]string{"Dockerfile": lines("FROM "+image, "COPY . /c"), ".dockerignore": "Dockerfile\nsecret*\n**/*.log\n!keep.log\nout\n", "a": "", "secret1": "", "deep/x.log": "", "deep/y": "", "keep.log": "", "out/o": ""}
	build(e, files, "-t", "built")
	e.Is("/c\n/c/.dockerignore\n/c/a\n/c/deep\n/c/deep/y\n/c/keep.log", "run", "--rm", "built", "sh", "-c", "find /c | sort")
	files["secret1"] = "other"
	matches(e, "Using cache", build(e, files))
	if harness.Oracle() { // dockerd leaves it to its clients
		return
	}
	// A client that sends everything gets the same.
	entries := []harness.Entry{}
	for name, body := range files {
		entries = append(entries, harness.Entry{Name: name, Body: body})
	}
	if r := e.DoInput(string(harness.Layer(entries...)), "build", "-t", "raw", "-"); r.Code != 0 {
		t.Fatal(r)
	}
	e.Is("/c\n/c/.dockerignore\n/c/a\n/c/deep\n/c/deep/y\n/c/keep.log", "run", "--rm", "raw", "sh", "-c", "find /c | sort")
}

func zipped(data []byte) string {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, _ = w.Write(data)
	_ = w.Close()
	return buf.String()
}

// ADD unpacks archives of the context, and fetches URLs without unpacking them.
func TestAdd(t *testing.T) {
	e := harness.New(t, daemon)
	packed := harness.Layer(harness.Entry{Name: "in/file", Body: "unpacked", UID: 1000, GID: 1000}, harness.Entry{Name: "in/link", Type: '2', Link: "file"})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := "fetched"
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "none") {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, served)
	})}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	url := "http://" + l.Addr().String()
	files := map[string]string{"Dockerfile": lines("FROM "+image, "ADD plain.tar /t", "ADD zipped.tgz other /z/", "COPY plain.tar /whole", "ADD "+url+"/dir/name /n/", "ADD "+url+"/dir/name /file"),
		"plain.tar": string(packed), "zipped.tgz": zipped(packed), "other": "no archive"}
	build(e, files, "-t", "built")
	e.Is(fmt.Sprintf("unpacked 1000 file unpacked no archive %d fetched fetched 600", len(packed)), "run", "--rm", "built", "sh", "-c",
		"echo $(cat /t/in/file) $(stat -c %u /t/in/file) $(readlink /t/in/link) $(cat /z/in/file) $(cat /z/other) $(wc -c < /whole) $(cat /n/name) $(cat /file) $(stat -c %a /file)")
	matches(e, "Step 6/6[^S]*Using cache", build(e, files))
	served = "else"
	build(e, files, "-t", "built")
	e.Is("else", "run", "--rm", "built", "cat", "/file")
	refused(e, 1, "404", map[string]string{"Dockerfile": lines("FROM "+image, "ADD "+url+"/none /x")})
}

// A context may be compressed, and what it names, or the image has in the way, leads nowhere else.
func TestConfined(t *testing.T) {
	e := harness.New(t, daemon)
	canary := filepath.Join(e.Config, "canary")
	if err := os.WriteFile(canary, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	dockerfile := harness.Entry{Name: "Dockerfile", Body: lines("FROM "+image, "RUN ln -s "+canary+" /way && ln -s ../../../../.. /up", "COPY up/file /way", "COPY in /up"+e.Config+"/canary", "COPY out /out")}
	entries := []harness.Entry{dockerfile, {Name: "up", Type: '2', Link: "inside"}, {Name: "inside/file", Body: "bad"}, {Name: "in", Body: "bad"}, {Name: "out", Type: '2', Link: canary}}
	r := e.DoInput(zipped(harness.Layer(entries...)), "build", "-")
	if r.Code == 0 || !strings.Contains(r.Stderr, "file not found") && !strings.Contains(r.Stderr, "no such file") {
		t.Errorf("a link out of the context: %v", r)
	}
	if data, err := os.ReadFile(canary); err != nil || string(data) != "untouched" {
		t.Errorf("the host was changed: %q %v", data, err)
	}
	for _, entry := range []harness.Entry{{Name: "../" + filepath.Base(e.Config) + "/canary", Body: "bad"}, {Name: "l", Type: '1', Link: "../../../../../../../../" + canary}} {
		if r := e.DoInput(string(harness.Layer(dockerfile, entry)), "build", "-"); r.Code == 0 {
			t.Errorf("%+v is taken: %v", entry, r)
		}
	}
	if data, err := os.ReadFile(canary); err != nil || string(data) != "untouched" {
		t.Errorf("the host was changed: %q %v", data, err)
	}
}
