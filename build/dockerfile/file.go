// Package dockerfile gives the words of a Dockerfile their meaning: what stages and instructions there are, what variables stand for, and what an instruction changes of an image's configuration.
// The words themselves are read by BuildKit's parser.
package dockerfile

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	"gantry/errdefs"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// Limits of a Dockerfile.
const (
	MaxSize  = 4 << 20 // bytes
	maxSteps = 4096
)

// File is a Dockerfile.
type File struct {
	Args   []instructions.ArgCommand // before the first FROM
	Stages []instructions.Stage
	Escape rune
}

// Parse reads a Dockerfile. Errors: InvalidParameter, NotImplemented for what only BuildKit can do.
func Parse(data []byte) (*File, error) {
	if len(data) > MaxSize {
		return nil, errdefs.New(errdefs.InvalidParameter, "the Dockerfile has more than %d bytes", MaxSize)
	}
	result, err := parse(data)
	if err != nil {
		return nil, err
	}
	f := &File{Escape: result.EscapeToken}
	if f.Stages, f.Args, err = instructions.Parse(result.AST, nil); err != nil {
		return nil, errdefs.With(errdefs.InvalidParameter, err)
	}
	if len(f.Stages) == 0 {
		return nil, errdefs.New(errdefs.InvalidParameter, "No build stage in current context: the Dockerfile has no FROM")
	}
	for _, s := range f.Stages {
		for _, c := range s.Commands {
			if err := supported(c); err != nil {
				return nil, err
			}
		}
	}
	if n := f.Steps(); n > maxSteps {
		return nil, errdefs.New(errdefs.InvalidParameter, "the Dockerfile has %d steps: there may be %d", n, maxSteps)
	}
	return f, nil
}

func parse(data []byte) (*parser.Result, error) {
	result, err := parser.Parse(bytes.NewReader(data))
	if err != nil {
		return nil, errdefs.With(errdefs.InvalidParameter, errors.Join(err))
	}
	return result, nil
}

// Steps counts all instructions.
func (f *File) Steps() int {
	n := len(f.Args)
	for _, s := range f.Stages {
		n += 1 + len(s.Commands)
	}
	return n
}

// Until drops the stages after the one of that name or number.
func (f *File) Until(target string) error {
	i, found := instructions.HasStage(f.Stages, target)
	if !found {
		n, err := strconv.Atoi(target)
		if err != nil || n < 0 || n >= len(f.Stages) {
			return errdefs.New(errdefs.InvalidParameter, "failed to reach build target %s in Dockerfile", target)
		}
		i = n
	}
	f.Stages = f.Stages[:i+1]
	return nil
}

// Label adds labels at the end, by name.
func (f *File) Label(labels map[string]string) {
	last := &f.Stages[len(f.Stages)-1]
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		last.AddCommand(instructions.NewLabelCommand(k, labels[k], true))
	}
}

// Trigger reads an instruction that ONBUILD has kept in an image. Errors: as Parse.
func Trigger(expression string) (instructions.Command, error) {
	result, err := parse([]byte(expression))
	if err != nil {
		return nil, err
	}
	if len(result.AST.Children) != 1 {
		return nil, errdefs.New(errdefs.InvalidParameter, "the trigger %.200q is not one instruction", expression)
	}
	c, err := instructions.ParseCommand(result.AST.Children[0])
	if err != nil {
		return nil, errdefs.With(errdefs.InvalidParameter, err)
	}
	switch c.(type) {
	case *instructions.OnbuildCommand:
		return nil, errdefs.New(errdefs.InvalidParameter, "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
	case *instructions.MaintainerCommand:
		return nil, errdefs.New(errdefs.InvalidParameter, "MAINTAINER isn't allowed as an ONBUILD trigger")
	}
	return c, supported(c)
}

// supported refuses what this builder cannot do.
func supported(c instructions.Command) error {
	refuse := func(what string) error {
		line := 0
		if at := c.Location(); len(at) > 0 {
			line = at[0].Start.Line
		}
		return errdefs.New(errdefs.NotImplemented, "line %d: %s %s needs BuildKit, which this daemon does not have yet", line, strings.ToUpper(c.Name()), what)
	}
	switch c := c.(type) {
	case *instructions.RunCommand:
		if len(c.FlagsUsed) > 0 {
			return refuse("--" + c.FlagsUsed[0])
		}
		if len(c.Files) > 0 {
			return refuse("with a here-document")
		}
	case *instructions.CopyCommand:
		switch {
		case c.Link:
			return refuse("--link")
		case c.Parents:
			return refuse("--parents")
		case len(c.ExcludePatterns) > 0:
			return refuse("--exclude")
		case len(c.SourceContents) > 0:
			return refuse("with a here-document")
		}
	case *instructions.AddCommand:
		switch {
		case c.Link:
			return refuse("--link")
		case len(c.ExcludePatterns) > 0:
			return refuse("--exclude")
		case c.Checksum != "":
			return refuse("--checksum")
		case c.KeepGitDir != nil:
			return refuse("--keep-git-dir")
		case c.Unpack != nil:
			return refuse("--unpack")
		case len(c.SourceContents) > 0:
			return refuse("with a here-document")
		}
	}
	return nil
}
