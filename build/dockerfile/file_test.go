package dockerfile

import (
	"slices"
	"strings"
	"testing"

	"gantry/errdefs"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

func TestParse(t *testing.T) {
	f, err := Parse([]byte("ARG V=1\nFROM a AS one\nRUN true\nFROM b\nCOPY x /y\n"))
	if err != nil || len(f.Stages) != 2 || f.Steps() != 5 {
		t.Fatalf("%+v %v", f, err)
	}
	if err := f.Until("ONE"); err != nil || len(f.Stages) != 1 {
		t.Errorf("until a stage: %+v %v", f.Stages, err)
	}
	f.Label(map[string]string{"b": "$x", "a": "1"})
	if got := len(f.Stages[0].Commands); got != 3 {
		t.Errorf("%d commands with labels", got)
	}
	for text, kind := range map[string]errdefs.Kind{
		"": errdefs.InvalidParameter, "RUN true\n": errdefs.InvalidParameter, "FROM a\nNONE x\n": errdefs.InvalidParameter, "FROM a\nRUN --mount=type=cache,target=/x true\n": errdefs.NotImplemented,
		"FROM a\nCOPY <<E /x\na\nE\n": errdefs.NotImplemented, "FROM a\n" + strings.Repeat("ENV a=b\n", maxSteps): errdefs.InvalidParameter,
	} {
		if _, err := Parse([]byte(text)); errdefs.KindOf(err) != kind {
			t.Errorf("%.60q: %v", text, err)
		}
	}
	for _, text := range []string{"ONBUILD RUN true", "FROM x", "MAINTAINER x", "RUN a\nRUN b", ""} {
		if _, err := Trigger(text); err == nil {
			t.Errorf("the trigger %q is taken", text)
		}
	}
}

// What an ARG is worth depends on the user, its default, those before the first FROM, and the environment.
func TestScope(t *testing.T) {
	f, err := Parse([]byte("ARG A=1\nARG B=${A}2\nFROM x$B\nARG A\nARG C=c\nARG D\nARG TARGETARCH\nENV C=own\nRUN x\n"))
	if err != nil {
		t.Fatal(err)
	}
	given, proxy := "given", "p"
	s := f.NewScope(map[string]*string{"D": &given, "http_proxy": &proxy, "unused": &given}, map[string]string{"TARGETARCH": "amd64"})
	for i := range f.Args {
		if err := s.Declare(&f.Args[i]); err != nil {
			t.Fatal(err)
		}
	}
	if from, err := s.From("x$B-$TARGETARCH$C"); err != nil || from != "x12-amd64" {
		t.Errorf("from %q %v", from, err)
	}
	env := []string{"C=own"}
	for _, c := range f.Stages[0].Commands {
		if a, ok := c.(*instructions.ArgCommand); ok {
			if err := s.Arg(a, env); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := s.Args(env); !slices.Equal(got, []string{"A=1", "D=given", "TARGETARCH=amd64", "http_proxy=p"}) {
		t.Errorf("arguments %q", got)
	}
	if got := s.CachedArgs(env); !slices.Equal(got, []string{"A=1", "D=given", "TARGETARCH=amd64"}) {
		t.Errorf("arguments that count %q", got)
	}
	if got := s.Unused(); !slices.Equal(got, []string{"unused"}) {
		t.Errorf("unused %q", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("# escape=`\nARG A\nFROM a AS b\nENV A=$A B=\"${C:-d}\"\nCOPY --chown=1 [\"a\", \"b\"]\nHEALTHCHECK --interval=1s CMD x\nONBUILD RUN y\nEXPOSE 1-3\n")
	f.Fuzz(func(t *testing.T, text string) {
		file, err := Parse([]byte(text))
		if err != nil {
			return
		}
		var st State
		scope := file.NewScope(nil, nil)
		for _, s := range file.Stages {
			for _, c := range s.Commands {
				if scope.Expand(c, st.Config.Env) == nil {
					_, _ = st.Apply(c)
				}
			}
		}
		for _, trigger := range st.Config.OnBuild {
			_, _ = Trigger(trigger)
		}
	})
}
