package registrytest_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"gantry/registry/registrytest"

	"github.com/opencontainers/go-digest"
)

func get(t *testing.T, url, span string) (int, []byte, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if span != "" {
		req.Header.Set("Range", span)
	}
	client := http.Client{Timeout: time.Second}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 256<<10))
	return resp.StatusCode, data, err
}

// Each fault shows to a plain client as what it is meant to be, and never holds the test up.
func TestFaults(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 20_000)
	for _, c := range []struct {
		name   string
		do     registrytest.Behaviour
		span   string
		status int
		bytes  int
		fails  bool
	}{
		{"stall", registrytest.Stall(100), "", 200, 100, true},
		{"drip", registrytest.Drip(1, 20*time.Millisecond), "", 200, -1, true},
		{"cut", registrytest.Cut(100), "", 200, -1, true},
		{"hang", registrytest.Hang(), "", 0, 0, true},
		{"corrupt", registrytest.Corrupt(5), "", 200, len(data), false},
		{"short", registrytest.Short(10), "", 200, 10, false},
		{"endless", registrytest.Endless(), "", 200, 256 << 10, false},
		{"no ranges", registrytest.NoRanges(), "bytes=5-9", 200, len(data), false},
		{"refused ranges", registrytest.RefuseRanges(), "bytes=5-9", 416, 0, false},
		{"other range", registrytest.LieRange("bytes 0-9/10"), "bytes=5-9", 206, 256 << 10, false},
		{"busy", registrytest.Status(429, "1"), "", 429, -1, false},
		{"none", func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) { serve(w, r) }, "bytes=5-9", 206, 5, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := registrytest.New()
			defer r.Close()
			d := r.AddBlob("a", data)
			r.Break(registrytest.Fault{Path: "/blobs/", Do: c.do})
			status, got, err := get(t, r.URL+"/v2/a/blobs/"+d.Digest.String(), c.span)
			if status != c.status || c.bytes >= 0 && len(got) != c.bytes || (err != nil) != c.fails {
				t.Errorf("status %d, %d bytes, %v", status, len(got), err)
			}
			if c.name == "corrupt" && digest.FromBytes(got) == d.Digest {
				t.Error("not corrupt")
			}
		})
	}
	r := registrytest.New()
	defer r.Close()
	r.Break(registrytest.Fault{Path: "/x", Skip: 1, Times: 1, Do: registrytest.Status(500, "")})
	for _, want := range []int{404, 500, 404} {
		if status, _, err := get(t, r.URL+"/v2/x", ""); status != want || err != nil {
			t.Error(status, err)
		}
	}
	if r.Count("GET", "/x") != 3 || !strings.HasPrefix(r.URL, "http://"+r.Host()) {
		t.Error(r.Requests())
	}
}
