// Package attributes works out what every message of a container's log carries besides its text: the options labels, labels-regex,
// env, env-regex and tag. The daemon does that before the start, so that the shim need not link templates and regular expressions.
package attributes

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"text/template"

	"gantry/errdefs"
	"gantry/logs"
)

// Resolve checks the options of c and returns it with its Attributes, and without the labels and environment they came from.
func Resolve(c logs.Config) (logs.Config, error) {
	if err := logs.Validate(c); err != nil {
		return c, err
	}
	found, err := attributes(c)
	if err != nil {
		return c, err
	}
	c.Attributes, c.Labels, c.Env = found, nil, nil
	return c, nil
}

func attributes(c logs.Config) (map[string]string, error) {
	if len(c.Options) == 0 || c.Driver == logs.None {
		return nil, nil
	}
	found := map[string]string{}
	environment := map[string]string{}
	for _, pair := range c.Env {
		if key, value, ok := strings.Cut(pair, "="); ok {
			environment[key] = value
		}
	}
	for _, source := range []struct {
		from   map[string]string
		option string
	}{{c.Labels, "labels"}, {environment, "env"}} {
		if names, ok := c.Options[source.option]; ok {
			for name := range strings.SplitSeq(names, ",") {
				if value, ok := source.from[name]; ok {
					found[name] = value
				}
			}
		}
		if expression, ok := c.Options[source.option+"-regex"]; ok && expression != "" {
			match, err := regexp.Compile(expression)
			if err != nil {
				return nil, errdefs.New(errdefs.InvalidParameter, "log opt %s-regex: %w", source.option, err)
			}
			for name, value := range source.from {
				if match.MatchString(name) {
					found[name] = value
				}
			}
		}
	}
	tag, err := expand(c.Options["tag"], c)
	if err != nil {
		return nil, err
	}
	if tag != "" {
		found["tag"] = tag
	}
	return found, nil
}

// container is what a tag template sees, with Docker's names.
type container struct {
	ID, FullID           string
	Name                 string
	ImageName            string
	ImageID, ImageFullID string
	DaemonName           string
	Hostname             string
}

func expand(text string, c logs.Config) (string, error) {
	if text == "" {
		return "", nil
	}
	t, err := template.New("log-tag").Funcs(functions()).Parse(text)
	if err != nil {
		return "", errdefs.New(errdefs.InvalidParameter, "log opt tag: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		return "", errdefs.New(errdefs.Internal, "log opt tag: %w", err)
	}
	var b strings.Builder
	err = t.Execute(&b, container{
		ID: short(c.ContainerID), FullID: c.ContainerID, Name: strings.TrimPrefix(c.Name, "/"), ImageName: c.Image,
		ImageID: short(strings.TrimPrefix(c.ImageID, "sha256:")), ImageFullID: c.ImageID, DaemonName: "gantry", Hostname: host,
	})
	if err != nil {
		return "", errdefs.New(errdefs.InvalidParameter, "log opt tag: %w", err)
	}
	return b.String(), nil
}

func short(id string) string { return id[:min(12, len(id))] }

// functions are those that Docker's templates have.
func functions() template.FuncMap {
	return template.FuncMap{
		"json": func(v any) string {
			b, err := json.Marshal(v)
			if err != nil {
				return ""
			}
			return string(b)
		},
		"split": strings.Split,
		"join":  strings.Join,
		"lower": strings.ToLower,
		"upper": strings.ToUpper,
		"truncate": func(s string, n int) string {
			if n < 0 || n >= len(s) {
				return s
			}
			return s[:n]
		},
	}
}
