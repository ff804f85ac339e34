package image

import (
	"encoding/json"
	"maps"
	"strconv"
	"strings"
	"time"

	"gantry/errdefs"
	"gantry/linux/signal"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

const maxChange = 64 << 10 // bytes of one instruction

// change applies Dockerfile instructions, as `docker commit --change` and `docker import --change` take them, to a configuration.
func change(config *dockerspec.DockerOCIImageConfig, instructions []string) error {
	for _, line := range instructions {
		if len(line) > maxChange {
			return errdefs.New(errdefs.InvalidParameter, "change has more than %d bytes", maxChange)
		}
		word, rest := cutSpace(strings.TrimSpace(line))
		if word == "" {
			continue
		}
		if err := instruct(config, strings.ToUpper(word), rest); err != nil {
			return errdefs.With(errdefs.InvalidParameter, err)
		}
	}
	return nil
}

func cutSpace(s string) (first, rest string) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimSpace(s[i:])
}

func instruct(c *dockerspec.DockerOCIImageConfig, word, rest string) error {
	switch {
	case rest != "" || word == "CMD" || word == "ENTRYPOINT":
	case word == "WORKDIR" || word == "USER" || word == "STOPSIGNAL":
		return errdefs.New(errdefs.InvalidParameter, "%s requires exactly one argument", word)
	default:
		return errdefs.New(errdefs.InvalidParameter, "%s requires at least one argument", word)
	}
	switch word {
	case "CMD":
		c.Cmd = command(rest, c.Shell)
	case "ENTRYPOINT":
		c.Entrypoint = command(rest, c.Shell)
	case "ENV":
		return pairs(word, rest, func(k, v string) { c.Env = SetEnv(c.Env, k, v) })
	case "LABEL":
		if c.Labels == nil {
			c.Labels = map[string]string{}
		} else {
			c.Labels = maps.Clone(c.Labels)
		}
		return pairs(word, rest, func(k, v string) { c.Labels[k] = v })
	case "EXPOSE":
		ports := set(c.ExposedPorts)
		for _, p := range strings.Fields(rest) {
			if err := Expose(ports, p); err != nil {
				return err
			}
		}
		c.ExposedPorts = ports
	case "VOLUME":
		volumes := set(c.Volumes)
		for _, v := range list(rest) {
			if v = strings.TrimSpace(v); v == "" {
				return errdefs.New(errdefs.InvalidParameter, "VOLUME specified can not be an empty string")
			}
			volumes[v] = struct{}{}
		}
		c.Volumes = volumes
	case "USER":
		c.User = unquote(rest)
	case "WORKDIR":
		dir := unquote(rest)
		if !strings.HasPrefix(dir, "/") {
			dir = strings.TrimSuffix(c.WorkingDir, "/") + "/" + dir
		}
		c.WorkingDir = dir
	case "STOPSIGNAL":
		c.StopSignal = unquote(rest)
		_, err := signal.Parse(c.StopSignal)
		return err
	case "SHELL":
		var shell []string
		if err := json.Unmarshal([]byte(rest), &shell); err != nil || len(shell) == 0 {
			return errdefs.New(errdefs.InvalidParameter, "SHELL requires the arguments to be in JSON form")
		}
		c.Shell = shell
	case "ONBUILD":
		switch trigger, _ := cutSpace(rest); strings.ToUpper(trigger) {
		case "ONBUILD":
			return errdefs.New(errdefs.InvalidParameter, "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
		case "MAINTAINER", "FROM":
			return errdefs.New(errdefs.InvalidParameter, "%s isn't allowed as an ONBUILD trigger", strings.ToUpper(trigger))
		}
		c.OnBuild = append(append([]string{}, c.OnBuild...), rest)
	case "HEALTHCHECK":
		h, err := healthcheck(rest)
		if err != nil {
			return err
		}
		c.Healthcheck = h
	default:
		return errdefs.New(errdefs.InvalidParameter, "%s is not a valid change command", strings.ToLower(word))
	}
	return nil
}

// command reads the JSON or the shell form of CMD and ENTRYPOINT.
func command(rest string, shell []string) []string {
	var words []string
	if strings.HasPrefix(rest, "[") && json.Unmarshal([]byte(rest), &words) == nil {
		return words
	}
	if rest == "" {
		return nil
	}
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return append(append([]string{}, shell...), rest)
}

// list reads the JSON form of a list, or words.
func list(rest string) []string {
	var words []string
	if strings.HasPrefix(rest, "[") && json.Unmarshal([]byte(rest), &words) == nil {
		return words
	}
	return strings.Fields(rest)
}

// pairs reads "k=v k2='v 2'" or, as one pair, "k v".
func pairs(word, rest string, add func(k, v string)) error {
	words, err := split(rest)
	if err != nil {
		return err
	}
	if !strings.Contains(words[0], "=") {
		k, v := cutSpace(rest)
		if v == "" {
			return errdefs.New(errdefs.InvalidParameter, "%s must have two arguments", word)
		}
		add(k, v)
		return nil
	}
	for _, w := range words {
		k, v, ok := strings.Cut(w, "=")
		if !ok || k == "" {
			return errdefs.New(errdefs.InvalidParameter, "Syntax error - can't find = in %q. Must be of the form: name=value", w)
		}
		add(k, v)
	}
	return nil
}

// split cuts words at spaces that are neither quoted nor escaped, and takes the quotes and backslashes away.
func split(s string) ([]string, error) {
	var words []string
	var word strings.Builder
	quote, started := byte(0), false
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && quote != '\'' && i+1 < len(s):
			i++
			started = true
			if quote == '"' && s[i] != '"' && s[i] != '\\' && s[i] != '$' {
				word.WriteByte('\\')
			}
			word.WriteByte(s[i])
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteByte(c)
		case c == '"' || c == '\'':
			quote, started = c, true
		case c == ' ' || c == '\t':
			if started {
				words = append(words, word.String())
			}
			word.Reset()
			started = false
		default:
			started = true
			word.WriteByte(c)
		}
	}
	if quote != 0 {
		return nil, errdefs.New(errdefs.InvalidParameter, "unexpected end of statement while looking for matching %c", quote)
	}
	if started {
		words = append(words, word.String())
	}
	if len(words) == 0 {
		return nil, errdefs.New(errdefs.InvalidParameter, "empty argument")
	}
	return words, nil
}

func unquote(s string) string {
	words, err := split(s)
	if err != nil || len(words) != 1 {
		return s
	}
	return words[0]
}

// SetEnv returns an environment with a variable set; env stays as it is.
func SetEnv(env []string, k, v string) []string {
	out := append([]string{}, env...)
	for i, e := range out {
		if name, _, _ := strings.Cut(e, "="); name == k {
			out[i] = k + "=" + v
			return out
		}
	}
	return append(out, k+"="+v)
}

// Expose adds a port "80", "80/udp" or a range "80-90/tcp".
func Expose(ports map[string]struct{}, spec string) error {
	span, proto, ok := strings.Cut(spec, "/")
	if !ok {
		proto = "tcp"
	}
	first, last, ranged := strings.Cut(span, "-")
	if !ranged {
		last = first
	}
	from, err1 := strconv.ParseUint(first, 10, 16)
	to, err2 := strconv.ParseUint(last, 10, 16)
	proto = strings.ToLower(proto)
	if err1 != nil || err2 != nil || from > to || proto != "tcp" && proto != "udp" && proto != "sctp" {
		return errdefs.New(errdefs.InvalidParameter, "invalid containerPort: %s", spec)
	}
	for p := from; p <= to; p++ {
		ports[strconv.FormatUint(p, 10)+"/"+proto] = struct{}{}
	}
	return nil
}

// healthcheck reads "NONE" or "[--interval=1s ...] CMD ...".
func healthcheck(rest string) (*dockerspec.HealthcheckConfig, error) {
	h := &dockerspec.HealthcheckConfig{}
	for strings.HasPrefix(rest, "--") {
		var flag string
		flag, rest = cutSpace(rest)
		name, value, _ := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
		if name == "retries" {
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 {
				return nil, errdefs.New(errdefs.InvalidParameter, "--retries must be at least 1 (not %s)", value)
			}
			h.Retries = n
			continue
		}
		d, err := time.ParseDuration(value)
		if err != nil || d < time.Millisecond {
			return nil, errdefs.New(errdefs.InvalidParameter, "Interval %q cannot be less than 1ms", name)
		}
		switch name {
		case "interval":
			h.Interval = d
		case "timeout":
			h.Timeout = d
		case "start-period":
			h.StartPeriod = d
		case "start-interval":
			h.StartInterval = d
		default:
			return nil, errdefs.New(errdefs.InvalidParameter, "Unknown flag: %s", name)
		}
	}
	kind, command := cutSpace(rest)
	switch strings.ToUpper(kind) {
	case "NONE":
		h.Test = []string{"NONE"}
	case "CMD":
		var words []string
		switch {
		case strings.HasPrefix(command, "[") && json.Unmarshal([]byte(command), &words) == nil:
			h.Test = append([]string{"CMD"}, words...)
		case command != "":
			h.Test = []string{"CMD-SHELL", command}
		default:
			return nil, errdefs.New(errdefs.InvalidParameter, "Missing command after HEALTHCHECK CMD")
		}
	default:
		return nil, errdefs.New(errdefs.InvalidParameter, "Unknown type %q in HEALTHCHECK (try CMD)", kind)
	}
	return h, nil
}

// set copies a set, so that a configuration that is shared is not changed.
func set(m map[string]struct{}) map[string]struct{} {
	c := make(map[string]struct{}, len(m))
	for k := range m {
		c[k] = struct{}{}
	}
	return c
}
