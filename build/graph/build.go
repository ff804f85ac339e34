package graph

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"

	"gantry/build/dockerfile"
	"gantry/build/tree"
	"gantry/errdefs"
	"gantry/image"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	ignoreFile = ".dockerignore"
	maxIgnore  = 1 << 20 // bytes
)

// ExitError is the error of a RUN whose program failed.
type ExitError struct {
	Command []string
	Code    int
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("The command '%s' returned a non-zero code: %d", strings.Join(e.Command, " "), e.Code)
}

// build is one build under way.
type build struct {
	*Service
	Request
	files  *tree.Tree // the context
	file   *dockerfile.File
	scope  *dockerfile.Scope
	step   int
	steps  int
	stages []*stage
	hold   *image.Hold // on all images that it uses
}

// stage is a FROM and what follows it.
type stage struct {
	dockerfile.State
	name  string
	image *image.Image // so far; nil: nothing yet, as after FROM scratch
}

// Build builds an image and gives it its names. It reads the context to its end before the first output. Errors: InvalidParameter, NotImplemented, Forbidden by the image policy, ExitError, and those of
// pulls and containers.
func (s *Service) Build(ctx context.Context, r Request) (_ *image.Image, err error) {
	b := &build{Service: s, Request: r, hold: s.images.Hold()}
	defer b.hold.Close()
	if b.files, err = s.readContext(ctx, r.Context); err != nil {
		return nil, fmt.Errorf("build context: %w", err)
	}
	defer func() { err = errors.Join(err, b.files.Close()) }()
	if b.file, err = b.read(); err != nil {
		return nil, err
	}
	if err := b.ignore(); err != nil {
		return nil, err
	}
	b.steps = b.file.Steps()
	b.scope = b.file.NewScope(r.Args, platformArgs(r.Platform))
	return b.solve(ctx)
}

// read finds and reads the Dockerfile.
func (b *build) read() (*dockerfile.File, error) {
	name := b.Dockerfile
	if name == "" {
		name = "Dockerfile"
	}
	data, err := b.files.ReadFile(name, dockerfile.MaxSize)
	if err != nil && b.Dockerfile == "" && errdefs.Is(err, errdefs.NotFound) {
		data, err = b.files.ReadFile("dockerfile", dockerfile.MaxSize)
	}
	if errdefs.Is(err, errdefs.NotFound) {
		return nil, errdefs.New(errdefs.InvalidParameter, "Cannot locate specified Dockerfile: %s", name)
	}
	if err != nil {
		return nil, err
	}
	if len(data) == 0 {
		return nil, errdefs.New(errdefs.InvalidParameter, "the Dockerfile (%s) cannot be empty", name)
	}
	f, err := dockerfile.Parse(data)
	if err != nil {
		return nil, err
	}
	if b.Target != "" {
		if err := f.Until(b.Target); err != nil {
			return nil, err
		}
	}
	f.Label(b.Labels)
	return f, nil
}

// ignore takes away from the context what its .dockerignore names.
func (b *build) ignore() error {
	data, err := b.files.ReadFile(ignoreFile, maxIgnore)
	if errdefs.Is(err, errdefs.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	patterns, err := ignorefile.ReadAll(strings.NewReader(string(data)))
	if err != nil {
		return errdefs.New(errdefs.InvalidParameter, "%s: %w", ignoreFile, err)
	}
	if len(patterns) == 0 {
		return nil
	}
	m, err := patternmatcher.New(patterns)
	if err != nil {
		return errdefs.New(errdefs.InvalidParameter, "%s: %w", ignoreFile, err)
	}
	return b.files.Remove(func(name string) (bool, error) {
		matched, err := m.MatchesOrParentMatches(name)
		return !matched, errdefs.With(errdefs.InvalidParameter, err)
	})
}

func (b *build) say(format string, args ...any) { b.Output.Text(fmt.Sprintf(format, args...)) }

// announce says which step begins.
func (b *build) announce(code string) {
	b.step++
	b.say("Step %d/%d : %s\n", b.step, b.steps, code)
}

// solve takes all steps.
func (b *build) solve(ctx context.Context) (*image.Image, error) {
	for _, n := range b.Notes {
		b.say("[Warning] %s\n", n)
	}
	for i := range b.file.Args {
		c := &b.file.Args[i]
		b.announce(c.String())
		if err := b.scope.Declare(c); err != nil {
			return nil, err
		}
	}
	for i := range b.file.Stages {
		if err := b.stage(ctx, &b.file.Stages[i]); err != nil {
			return nil, err
		}
	}
	last := b.stages[len(b.stages)-1].image
	if last == nil {
		return nil, errdefs.New(errdefs.InvalidParameter, "No image was generated. Is your Dockerfile empty?")
	}
	if unused := b.scope.Unused(); len(unused) > 0 {
		b.say("[Warning] One or more build-args %v were not consumed\n", unused)
	}
	b.say("Successfully built %s\n", short(last.ID.Encoded()))
	for _, tag := range b.Tags {
		if err := b.images.Tag(ctx, last.ID.String(), tag); err != nil {
			return nil, err
		}
		b.say("Successfully tagged %s\n", familiar(tag))
	}
	return last, nil
}

// stage takes the steps of one stage.
func (b *build) stage(ctx context.Context, from *instructions.Stage) error {
	b.announce(from.SourceCode)
	b.scope.Begin()
	st := &stage{name: from.Name}
	if err := b.from(ctx, st, from); err != nil {
		return err
	}
	b.stages = append(b.stages, st)
	if st.image != nil {
		b.done(st)
	}
	triggers := st.Config.OnBuild
	st.Config.OnBuild = nil
	if n := len(triggers); n > 0 {
		b.say("# Executing %d build %s\n", n, plural("trigger", n))
	}
	for _, t := range triggers {
		c, err := dockerfile.Trigger(t)
		if err != nil {
			return fmt.Errorf("ONBUILD trigger of %s: %w", from.BaseName, err)
		}
		if err := b.take(ctx, st, c); err != nil {
			return err
		}
	}
	for _, c := range from.Commands {
		b.announce(fmt.Sprint(c))
		if err := b.take(ctx, st, c); err != nil {
			return err
		}
	}
	if st.image != nil {
		b.Output.Image(st.image.ID)
	}
	return nil
}

func plural(word string, n int) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

// done says what a step has come to.
func (b *build) done(st *stage) { b.say(" ---> %s\n", short(st.image.ID.Encoded())) }

func short(id string) string { return id[:min(12, len(id))] }

// take takes one step.
func (b *build) take(ctx context.Context, st *stage, c instructions.Command) error {
	if err := ctx.Err(); err != nil {
		return errdefs.With(errdefs.Canceled, err)
	}
	if err := b.scope.Expand(c, st.Config.Env); err != nil {
		return err
	}
	switch c := c.(type) {
	case *instructions.RunCommand:
		return b.run(ctx, st, c)
	case *instructions.CopyCommand:
		return b.copy(ctx, st, source{word: "COPY", paths: c.SourcePaths, to: c.DestPath, from: c.From, chown: c.Chown, chmod: c.Chmod})
	case *instructions.AddCommand:
		return b.copy(ctx, st, source{word: "ADD", paths: c.SourcePaths, to: c.DestPath, chown: c.Chown, chmod: c.Chmod, add: true})
	case *instructions.ArgCommand:
		defaults := make([]string, len(c.Args))
		if err := b.scope.Arg(c, st.Config.Env); err != nil {
			return err
		}
		for i, a := range c.Args {
			defaults[i] = a.Key
			if a.Value != nil {
				defaults[i] += "=" + *a.Value
			}
		}
		return b.note(ctx, st, "ARG "+strings.Join(defaults, " "))
	}
	comment, err := st.Apply(c)
	if err != nil {
		return err
	}
	if _, ok := c.(*instructions.WorkdirCommand); ok {
		return b.workdir(ctx, st, comment)
	}
	return b.note(ctx, st, comment)
}

// result is what a step is known by and how it is done.
type result struct {
	createdBy string
	inputs    any // what the step depends on beyond that, the configuration and the parent
	// do does the step and returns the key of the snapshot that has the changed files, or "".
	do func(ctx context.Context) (snapshot string, err error)
	// after is called once that is stored; nil: nothing is left.
	after func() error
}

// note takes a step that changes no file.
func (b *build) note(ctx context.Context, st *stage, comment string) error {
	return b.keep(ctx, st, result{createdBy: dockerfile.Comment(" " + comment)})
}

// keep finds what a step has come to in an earlier build, or does it, and goes on from there.
func (b *build) keep(ctx context.Context, st *stage, r result) error {
	digest, err := digestOf(st, b.Platform, r)
	if err != nil {
		return err
	}
	if !b.NoCache {
		if found := b.images.Stepped(parentOf(st), digest); found != nil && b.hold.Keep(found) == nil {
			b.say(" ---> Using cache\n")
			st.image = found
			b.done(st)
			return nil
		}
	}
	o := image.StepOptions{Parent: st.image, Platform: b.Platform, Step: digest, Config: st.Config, Author: st.Author, CreatedBy: r.createdBy, Hold: b.hold}
	if r.do != nil {
		if o.Snapshot, err = r.do(ctx); err != nil {
			return err
		}
	}
	if st.image, err = b.images.Step(ctx, o); err != nil {
		return err
	}
	if r.after != nil {
		if err := r.after(); err != nil {
			return err
		}
	}
	b.done(st)
	return nil
}

// parentOf is the ID of the image that a step stands on; empty for none.
func parentOf(st *stage) digest.Digest {
	if st.image == nil {
		return ""
	}
	return st.image.ID
}

// digestOf is the digest of all that a step depends on but its parent. The platform is the parent's, where there is one.
func digestOf(st *stage, platform *ocispec.Platform, r result) (digest.Digest, error) {
	if st.image != nil {
		platform = nil
	}
	raw, err := json.Marshal(struct {
		Config            dockerspec.DockerOCIImageConfig
		Author, CreatedBy string
		Platform          *ocispec.Platform
		Inputs            any
	}{st.Config, st.Author, r.createdBy, platform, r.inputs})
	if err != nil {
		return "", fmt.Errorf("encode step: %w", err)
	}
	return digest.FromBytes(raw), nil
}

// workdir makes the working directory, where it is not there.
func (b *build) workdir(ctx context.Context, st *stage, comment string) error {
	var work *image.Workspace
	defer func() { b.close(ctx, work) }()
	return b.keep(ctx, st, result{createdBy: dockerfile.Comment(" " + comment), do: func(ctx context.Context) (string, error) {
		var err error
		if work, err = b.workspace(ctx, st); err != nil {
			return "", err
		}
		made, err := makeFolder(work.Root, path.Clean(st.Config.WorkingDir))
		if err = errors.Join(err, work.Unmount()); err != nil || !made {
			return "", err
		}
		return work.Key, nil
	}})
}
