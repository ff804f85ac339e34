package docker

import (
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"gantry/image"
)

func TestParseFilters(t *testing.T) {
	for text, want := range map[string]Filters{
		"":                                 {},
		`{}`:                               {},
		`{"a":{"x":true,"y":true}}`:        {"a": {"x": true, "y": true}},
		`{"a":["x","y"],"b":[]}`:           {"a": {"x": true, "y": true}, "b": {}},
		`{"label":{"com.example=1":true}}`: {"label": {"com.example=1": true}},
	} {
		if got, err := ParseFilters(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v %v", text, got, err)
		}
	}
	for _, text := range []string{"x", `[]`, `{"a":"x"}`, `{"a":{"x":1}}`} {
		if _, err := ParseFilters(text); err == nil || err.Error() != "invalid filter" {
			t.Errorf("%s: %v", text, err)
		}
	}
	f := Filters{"a": {}, "odd": {}}
	if err := f.Validate("a"); err == nil || err.Error() != "invalid filter 'odd'" {
		t.Errorf("%v", err)
	}
}

func TestFilterMatches(t *testing.T) {
	f := Filters{"name": {"^web": true, "db": true}, "label": {"a=1": true, "b": true}, "yes": {"true": true}, "both": {"1": true, "0": true}}
	for value, want := range map[string]bool{"web1": true, "myweb": false, "mydb1": true, "x": false} {
		if f.Match("name", value) != want {
			t.Errorf("match %s", value)
		}
	}
	if !f.Labels("label", map[string]string{"a": "1", "b": ""}) || f.Labels("label", map[string]string{"a": "2", "b": ""}) || f.Labels("label", nil) || !f.Labels("none", nil) {
		t.Error("labels")
	}
	if !f.Prefix("name", "dbx") || f.Prefix("name", "x") || !f.Exact("none", "x") || f.Exact("name", "dbx") {
		t.Error("prefix, exact")
	}
	if yes, err := f.Bool("yes", false); !yes || err != nil {
		t.Error("bool")
	}
	if _, err := f.Bool("both", false); err == nil || err.Error() != "invalid filter 'both=[0 1]'" {
		t.Errorf("both: %v", err)
	}
}

func TestParseTime(t *testing.T) {
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"10m": "2026-05-04T11:50:00Z", "1.5h": "2026-05-04T10:30:00Z", "2026-05-01": "2026-05-01T00:00:00Z",
		"2026-05-01T10:11": "2026-05-01T10:11:00Z", "2026-05-01T10:11:12.5": "2026-05-01T10:11:12.5Z",
		"2026-05-01T10:11:12+02:00": "2026-05-01T08:11:12Z", "1777600000.25": "2026-05-01T01:46:40.25Z", "0": "1970-01-01T00:00:00Z",
	} {
		if got, err := ParseTime(text, now); err != nil || got.UTC().Format(time.RFC3339Nano) != want {
			t.Errorf("%s: %v %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "yesterday", "1.x", "-"} {
		if got, err := ParseTime(text, now); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestAuth(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	for header, want := range map[string]string{
		"": "", "%%%": "", "e30=": "",
		"eyJ1c2VybmFtZSI6ImEiLCJwYXNzd29yZCI6ImI_PyJ9":         "a b??",
		"eyJhdXRoIjoiWVRwaU9tTT0iLCJzZXJ2ZXJhZGRyZXNzIjoiciJ9": "a b:c",
		strings.Repeat("A", 100):                               "",
	} {
		r.Header.Set("X-Registry-Auth", header)
		a := authOf(r)
		if got := strings.TrimSpace(a.Username + " " + a.Password); got != want {
			t.Errorf("%s: %q, want %q", header, got, want)
		}
	}
}

func TestParsePlatform(t *testing.T) {
	for text, want := range map[string]string{
		"linux/arm64": "linux arm64 ", "linux/arm/v7": "linux arm v7", "x86_64": "linux amd64 ", "linux/aarch64": "linux arm64 ", "windows": "windows amd64 ",
	} {
		if p, err := image.ParsePlatform(text); err != nil || p.OS+" "+p.Architecture+" "+p.Variant != want {
			t.Errorf("%s: %+v %v", text, p, err)
		}
	}
	for _, text := range []string{"a/b/c/d", "linux/", "li nux", "*", "foo"} {
		if _, err := image.ParsePlatform(text); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
}

func FuzzFilters(f *testing.F) {
	f.Add(`{"a":{"x":true}}`)
	f.Add(`{"a":["x"]}`)
	f.Fuzz(func(t *testing.T, text string) {
		filters, err := ParseFilters(text)
		if err != nil {
			return
		}
		for key := range filters {
			_, _ = filters.Bool(key, true)
			_ = filters.Match(key, text)
			_ = filters.Labels(key, map[string]string{"a": "b"})
		}
		_, _ = untilOf(filters)
	})
}

// FuzzRequest takes what a client may write apart with every parser of this package.
func FuzzRequest(f *testing.F) {
	f.Add("GET", "/v1.41/events?since=1&until=2", "")
	f.Add("POST", "/v1.56/build", "{}")
	f.Add("GET", "/v1./_ping", "")
	f.Add("POST", "/networks/x/connect", `{"Container":"","EndpointConfig":{"IPAMConfig":{"IPv4Address":"x"}}}`)
	f.Fuzz(func(t *testing.T, method, target, body string) {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://d"+target, strings.NewReader(body))
		if err != nil {
			return
		}
		if v, path, err := splitVersion(r.URL.Path, MinVersion); err == nil && (v < MinVersion || v > MaxVersion || len(path) > len(r.URL.Path)+1) {
			t.Errorf("%s: %v %s", target, v, path)
		}
		_, _ = image.ParsePlatform(target)
		_, _ = ParseTime(target, time.Now())
		_, _ = decodePlatform(body)
		_, _ = tagReference(target, body)
	})
}
