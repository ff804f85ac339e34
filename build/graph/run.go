package graph

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"gantry/errdefs"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/moby/api/types/container"
)

// run takes a RUN: its program runs in a container on what there is, and what that changes is kept.
func (b *build) run(ctx context.Context, st *stage, c *instructions.RunCommand) (err error) {
	if st.image == nil {
		return errdefs.New(errdefs.InvalidParameter, "RUN needs an image to run in: there is nothing after FROM %s", scratch)
	}
	words := st.Words(c.ShellDependantCmdLine)
	if len(words) == 0 {
		return errdefs.New(errdefs.InvalidParameter, "RUN has no command")
	}
	args, counted := b.scope.Args(st.Config.Env), b.scope.CachedArgs(st.Config.Env)
	createdBy := strings.Join(words, " ")
	if len(counted) > 0 {
		createdBy = strings.Join(append(append([]string{"|" + strconv.Itoa(len(counted))}, counted...), createdBy), " ")
	}
	var id string
	defer func() {
		if id != "" { // it has failed
			err = errors.Join(err, b.finish(ctx, id, b.KeepBad))
		}
	}()
	after := func() error {
		done := id
		id = ""
		if done != "" && !b.Keep {
			b.say("Removing intermediate container %s\n", short(done))
		}
		return b.finish(ctx, done, b.Keep)
	}
	return b.keep(ctx, st, result{createdBy: createdBy, inputs: [][]string{{"run"}, words, counted}, after: after, do: func(ctx context.Context) (string, error) {
		config := &container.Config{
			Image: st.image.ID.String(), Cmd: words, Entrypoint: []string{}, Env: append(slices.Clone(st.Config.Env), args...), User: st.Config.User, WorkingDir: st.Config.WorkingDir,
			AttachStdout: true, AttachStderr: true, Healthcheck: &container.HealthConfig{Test: []string{"NONE"}},
		}
		var err error
		if id, err = b.containers.CreateStep(ctx, st.image, config, b.Host()); err != nil {
			return "", err
		}
		b.say(" ---> Running in %s\n", short(id))
		out := speaker{say: b.Output.Text}
		code, err := b.containers.RunStep(ctx, id, out.take)
		out.end()
		if err != nil {
			return "", err
		}
		if code != 0 {
			return "", &ExitError{Command: words, Code: code}
		}
		return id, nil
	}})
}

// finish removes a step's container, or leaves it to the user. Nobody gets what is left of a build that was given up.
func (b *build) finish(ctx context.Context, id string, keep bool) error {
	if keep && ctx.Err() == nil {
		return b.containers.KeepStep(id)
	}
	return b.containers.RemoveStep(context.WithoutCancel(ctx), id)
}

// speaker passes output on as text, no character in two parts. What comes from stderr is red, as docker has it.
type speaker struct {
	say  func(string)
	rest [2][]byte // the beginning of a character
}

func (s *speaker) take(stderr bool, data []byte) {
	n := 0
	if stderr {
		n = 1
	}
	data = append(s.rest[n], data...)
	end := len(data)
	for i := 1; i < utf8.UTFMax && i <= len(data); i++ {
		if c := data[len(data)-i]; utf8.RuneStart(c) {
			if !utf8.FullRune(data[len(data)-i:]) {
				end = len(data) - i
			}
			break
		}
	}
	s.rest[n] = slices.Clone(data[end:])
	s.speak(stderr, data[:end])
}

func (s *speaker) speak(stderr bool, data []byte) {
	switch {
	case len(data) == 0:
	case stderr:
		s.say("\x1b[91m" + string(data) + "\x1b[0m")
	default:
		s.say(string(data))
	}
}

// end passes on what is left.
func (s *speaker) end() {
	for n, rest := range s.rest {
		s.speak(n == 1, rest)
	}
}
