package dockerfile

import (
	"maps"
	"slices"
	"strings"

	"gantry/errdefs"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// changing are the words that `docker commit` and `docker import` take: those that touch nothing but the configuration.
var changing = []string{"cmd", "entrypoint", "env", "expose", "healthcheck", "label", "onbuild", "shell", "stopsignal", "user", "volume", "workdir"} //nolint:gochecknoglobals // a constant

// Change applies instructions, as `docker commit --change` and `docker import --change` take them, to a configuration, whose maps and lists may be shared with others.
// Variables stand for what the environment has at that place. Errors: InvalidParameter.
func Change(config dockerspec.DockerOCIImageConfig, lines []string) (dockerspec.DockerOCIImageConfig, error) {
	if len(lines) == 0 {
		return config, nil
	}
	text := strings.Join(lines, "\n")
	if len(text) > MaxSize {
		return config, errdefs.New(errdefs.InvalidParameter, "the changes have more than %d bytes", MaxSize)
	}
	result, err := parse([]byte(text))
	if err != nil {
		return config, err
	}
	s := State{Config: config}
	s.Config.Env, s.Config.OnBuild = slices.Clone(config.Env), slices.Clone(config.OnBuild)
	s.Config.Labels, s.Config.Volumes, s.Config.ExposedPorts = maps.Clone(config.Labels), maps.Clone(config.Volumes), maps.Clone(config.ExposedPorts)
	scope := (&File{Escape: result.EscapeToken}).NewScope(nil, nil)
	for _, node := range result.AST.Children {
		if word := strings.ToLower(node.Value); !slices.Contains(changing, word) {
			return config, errdefs.New(errdefs.InvalidParameter, "%s is not a valid change command", word)
		}
		c, err := instructions.ParseCommand(node)
		if err != nil {
			return config, errdefs.With(errdefs.InvalidParameter, err)
		}
		if err := scope.Expand(c, s.Config.Env); err != nil {
			return config, err
		}
		if _, err := s.Apply(c); err != nil {
			return config, err
		}
	}
	return s.Config, nil
}
