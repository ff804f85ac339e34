package document

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

type inner struct {
	Unit   string         `json:"unit,omitempty"`
	Places map[string]int `json:"places"`
}

// odd has the kinds that a specification has not.
type odd struct {
	inner
	Ptr    **int      `json:"ptr,omitempty"`
	At     time.Time  `json:"at"`
	Any    any        `json:"any"`
	Small  int8       `json:"small"`
	Float  float32    `json:"float"`
	Hidden string     `json:"-"`
	Lists  [][]string `json:"lists,omitempty"`
	Trio   [3]string  `json:"trio"`
	Plain  bool
	own    int
}

// seeds are documents of all shapes.
var seeds = []string{
	`{}`, `null`, `[]`, `"x"`, `12`, ` { } `, `{"ociVersion":"1.0"`, `{"ociVersion":1}`, `{"OCIVERSION":"x","process":null}`, `{"process":{"args":["a","b"],"args":["c"]}}`,
	`{"mounts":[{"destination":"/a","options":["x"]},{}],"mounts":[{"source":"b"}]}`, `{"annotations":{"a":"b","c":"\u00e9\ud83d\ude00\ud800x\n\/"}}`,
	`{"linux":{"resources":{"devices":[{"allow":true,"major":-5,"minor":9223372036854775808}]}}}`, `{"linux":{"resources":{"pids":{"limit":1e3}}}}`,
	`{"process":{"rlimits":[{"hard":18446744073709551615,"soft":1.0}]}}`, `{"small":128}`, `{"small":-128,"float":1e39}`, `{"float":-0.5e-2,"any":{"a":[1,null,true,"x"]}}`,
	`{"at":"2024-01-02T03:04:05.678Z","ptr":5,"lists":[["a"],null,[]],"unit":"u","places":{"x":1}}`, `{"at":"x"}`, `{"trio":["a"],"trio":["b","c","d",{}]}`, `{"trio":["a","b"],"trio":[]}`, `{"ptr":null}`, `{"Plain":tru}`, `{"plain":true,}`, `{"a":01}`,
	`{"a":-}`, `{"a":1.}`, `{"a":1e}`, `{"a":"` + "\x01" + `"}`, `{"a":"\x"}`, `{"a":"\u12g4"}`, "{\"hostname\":\"\xff\xc3\"}", `{"a":1}{}`, strings.Repeat("[", 500) + strings.Repeat("]", 500),
	`{"ſmall":1}`, `{"hooks":{"prestart":[{"path":"/x","timeout":5}]}}`, `{"windows":{"credentialSpec":[1,{"a":2}]}}`, `{"process":{"noNewPrivileges":"yes"}}`, `{"a":`, `{"a"`, `{`, ``, `tru`, "\ufeff{}",
}

// same holds Decode against encoding/json.
func same[T any](t *testing.T, data []byte) {
	t.Helper()
	var want, got T
	werr := json.Unmarshal(data, &want)
	gerr := Decode(data, &got)
	if (werr == nil) != (gerr == nil) {
		t.Fatalf("%q: %v, encoding/json %v", data, gerr, werr)
	}
	if werr != nil {
		return
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%q: %+v, encoding/json %+v", data, got, want)
	}
	text, err := Append(nil, got)
	if err != nil {
		t.Fatalf("%q: %v", data, err)
	}
	wtext, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var a, b any
	if err := errors.Join(json.Unmarshal(text, &a), json.Unmarshal(wtext, &b)); err != nil || !reflect.DeepEqual(a, b) {
		t.Fatalf("%q: written as %s, by encoding/json as %s, %v", data, text, wtext, err)
	}
}

func all(t *testing.T, data []byte) {
	t.Helper()
	same[specs.Spec](t, data)
	same[*specs.Spec](t, data)
	same[odd](t, data)
	same[map[string]any](t, data)
	same[any](t, data)
}

func TestLikeStandardLibrary(t *testing.T) {
	same[odd](t, []byte(`{"own":1,"Own":2}`))
	if text, err := Append(nil, odd{own: 1}); err != nil || strings.Contains(string(text), "own") { // what is not exported is nobody's
		t.Errorf("%s, %v", text, err)
	}
	for _, s := range seeds {
		all(t, []byte(s))
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 4096 {
			return
		}
		all(t, data)
	})
}

func TestErrors(t *testing.T) {
	for text, want := range map[string]string{
		`{"process":{"user":{"uid":"root"}}}`: "process.user.uid: string is no uint32",
		`{"mounts":[{"options":7}]}`:          "mounts.options: number is no []string",
		`{"annotations":{"x":false}}`:         "annotations.x: bool is no string",
		`{"process":{"user":{"uid":-1}}}`:     "process.user.uid: number -1 is no uint32",
		`[]`:                                  "the whole: array is no specs.Spec",
	} {
		var s specs.Spec
		err := Decode([]byte(text), &s)
		if kind := (*TypeError)(nil); !errors.As(err, &kind) || err.Error() != want {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	for text, at := range map[string]int{`{"a":}`: 5, `{"a":1,}`: 7, `{"a":[1 2]}`: 8, `{} x`: 3, `{"a"`: 4, strings.Repeat("[", 2000): 1000} {
		var a any
		err := Decode([]byte(text), &a)
		if wrong := (*SyntaxError)(nil); !errors.As(err, &wrong) || wrong.Offset != at {
			t.Errorf("%.20s: %v, want it at %d", text, err, at)
		}
	}
}

// BenchmarkFirst reads a specification as the first thing that a process does: only the first round counts, so run it with -benchtime 1x.
func BenchmarkFirst(b *testing.B) {
	data, err := os.ReadFile(filepath.Join("testdata", "config.json"))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		var s specs.Spec
		if err := Decode(data, &s); err != nil {
			b.Fatal(err)
		}
	}
}
