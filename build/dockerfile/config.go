package dockerfile

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"gantry/errdefs"
	"gantry/linux/signal"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// State is what a stage has made of an image's configuration so far.
type State struct {
	Config dockerspec.DockerOCIImageConfig // nobody else's
	Author string
	cmdSet bool // in this stage
}

// Apply does what an instruction says about the configuration, after its variables have been replaced, and returns docker's comment for the history. What RUN, COPY, ADD and WORKDIR do to
// files, and ARG to the scope, is not its business. Errors: InvalidParameter.
func (s *State) Apply(c instructions.Command) (comment string, err error) {
	config := &s.Config
	switch c := c.(type) {
	case *instructions.EnvCommand:
		comment = "ENV"
		for _, kv := range c.Env {
			if kv.Key == "" {
				return "", errdefs.New(errdefs.InvalidParameter, "ENV names can not be blank")
			}
			config.Env = setEnv(config.Env, kv.Key, kv.Value)
			comment += " " + kv.String()
		}
	case *instructions.LabelCommand:
		comment = "LABEL"
		if config.Labels == nil {
			config.Labels = map[string]string{}
		}
		for _, kv := range c.Labels {
			if kv.Key == "" {
				return "", errdefs.New(errdefs.InvalidParameter, "LABEL names can not be blank")
			}
			config.Labels[kv.Key] = kv.Value
			comment += " " + kv.String()
		}
	case *instructions.MaintainerCommand:
		s.Author = c.Maintainer
		comment = "MAINTAINER " + c.Maintainer
	case *instructions.WorkdirCommand:
		if c.Path == "" {
			return "", errdefs.New(errdefs.InvalidParameter, "cannot normalize nothing: WORKDIR is empty")
		}
		if dir := c.Path; path.IsAbs(dir) {
			config.WorkingDir = path.Clean(dir)
		} else {
			config.WorkingDir = path.Join("/", config.WorkingDir, dir)
		}
		comment = "WORKDIR " + config.WorkingDir
	case *instructions.UserCommand:
		config.User = c.User
		comment = "USER " + c.User
	case *instructions.CmdCommand:
		config.Cmd, s.cmdSet = s.Words(c.ShellDependantCmdLine), true
		comment = "CMD " + quote(config.Cmd)
	case *instructions.EntrypointCommand:
		config.Entrypoint = s.Words(c.ShellDependantCmdLine)
		if !s.cmdSet { // that of the base is for the entry point of the base
			config.Cmd = nil
		}
		comment = "ENTRYPOINT " + quote(config.Entrypoint)
	case *instructions.ExposeCommand:
		if config.ExposedPorts == nil {
			config.ExposedPorts = map[string]struct{}{}
		}
		for _, p := range c.Ports {
			if err := expose(config.ExposedPorts, p); err != nil {
				return "", err
			}
		}
		ports := slices.Clone(c.Ports)
		slices.Sort(ports)
		comment = "EXPOSE " + strings.Join(ports, " ")
	case *instructions.VolumeCommand:
		if config.Volumes == nil {
			config.Volumes = map[string]struct{}{}
		}
		for _, v := range c.Volumes {
			if v == "" {
				return "", errdefs.New(errdefs.InvalidParameter, "VOLUME specified can not be an empty string")
			}
			config.Volumes[v] = struct{}{}
		}
		comment = "VOLUME " + quote(c.Volumes)
	case *instructions.StopSignalCommand:
		if _, err := signal.Parse(c.Signal); err != nil {
			return "", errdefs.With(errdefs.InvalidParameter, err)
		}
		config.StopSignal = c.Signal
		comment = "STOPSIGNAL " + c.Signal
	case *instructions.HealthCheckCommand:
		config.Healthcheck = c.Health
		comment = "HEALTHCHECK " + quote(c.Health.Test)
	case *instructions.ShellCommand:
		config.Shell = c.Shell
		comment = "SHELL " + quote(c.Shell)
	case *instructions.OnbuildCommand:
		config.OnBuild = append(slices.Clip(config.OnBuild), c.Expression)
		comment = "ONBUILD " + c.Expression
	default:
		return "", errdefs.New(errdefs.NotImplemented, "%s is not supported", strings.ToUpper(c.Name()))
	}
	return comment, nil
}

// Shell is what runs the shell form of RUN, CMD and ENTRYPOINT.
func (s *State) Shell() []string {
	if len(s.Config.Shell) > 0 {
		return s.Config.Shell
	}
	return []string{"/bin/sh", "-c"}
}

// Words is the command line of an instruction.
func (s *State) Words(c instructions.ShellDependantCmdLine) []string {
	if c.PrependShell {
		return append(slices.Clone(s.Shell()), strings.Join(c.CmdLine, " "))
	}
	return slices.Clone(c.CmdLine)
}

// Comment is how docker's history calls an instruction that runs nothing.
func Comment(text string) string { return "/bin/sh -c #(nop) " + text }

// quote lists words as docker's history does: ["a" "b"].
func quote(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = `"` + w + `"`
	}
	return "[" + strings.Join(quoted, " ") + "]"
}

// setEnv returns an environment with a variable set; env stays as it is.
func setEnv(env []string, k, v string) []string {
	out := append([]string{}, env...)
	for i, e := range out {
		if name, _, _ := strings.Cut(e, "="); name == k {
			out[i] = k + "=" + v
			return out
		}
	}
	return append(out, k+"="+v)
}

// expose adds a port "80", "80/udp" or a range "80-90/tcp".
func expose(ports map[string]struct{}, spec string) error {
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
