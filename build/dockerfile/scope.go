package dockerfile

import (
	"maps"
	"slices"
	"strings"

	"gantry/errdefs"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// proxies are the build arguments that need no ARG. They do not count for the cache, nor are they in the history, unless an ARG names them.
var proxies = []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "FTP_PROXY", "ftp_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"} //nolint:gochecknoglobals // a constant

// Scope is what variables stand for at a place of a Dockerfile.
type Scope struct {
	lex      *shell.Lex
	given    map[string]*string // of the user, who may also give a name without a value
	platform map[string]string  // of the machine: TARGETARCH and so on
	meta     map[string]*string // by the ARGs before the first FROM
	args     map[string]*string // by those of the stage
	used     map[string]bool    // names that an ARG had
}

// NewScope returns the scope at the beginning of a file. given are the user's build arguments, platform those that need an ARG but no value.
func (f *File) NewScope(given map[string]*string, platform map[string]string) *Scope {
	return &Scope{lex: shell.NewLex(f.Escape), given: given, platform: platform, meta: map[string]*string{}, args: map[string]*string{}, used: map[string]bool{}}
}

// Declare takes an ARG before the first FROM.
func (s *Scope) Declare(c *instructions.ArgCommand) error { return s.declare(c, s.meta, s.outside()) }

// Arg takes an ARG of a stage, in which the environment is env.
func (s *Scope) Arg(c *instructions.ArgCommand, env []string) error {
	return s.declare(c, s.args, s.environment(env))
}

func (s *Scope) declare(c *instructions.ArgCommand, into map[string]*string, env []string) error {
	if err := s.expand(c, env); err != nil {
		return err
	}
	for _, a := range c.Args {
		s.used[a.Key] = true
		value := a.Value
		if given, ok := s.given[a.Key]; ok && given != nil {
			value = given
		} else if value == nil {
			if value = s.meta[a.Key]; value == nil {
				if p, ok := s.platform[a.Key]; ok {
					value = &p
				}
			}
		}
		into[a.Key] = value
	}
	return nil
}

// Begin forgets the ARGs of the stage before.
func (s *Scope) Begin() { s.args = map[string]*string{} }

// outside is the environment of a FROM.
func (s *Scope) outside() []string {
	var env []string
	for k, v := range s.platform {
		if _, ok := s.meta[k]; !ok {
			env = append(env, k+"="+v)
		}
	}
	return append(env, values(s.meta)...)
}

// values lists variables that have one, by name.
func values(m map[string]*string) []string {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if m[k] != nil {
			list = append(list, k+"="+*m[k])
		}
	}
	return list
}

// From replaces the variables in a word of a FROM.
func (s *Scope) From(word string) (string, error) { return s.word(word, s.outside()) }

// environment is what variables of a stage are replaced from.
func (s *Scope) environment(env []string) []string { return append(slices.Clone(env), s.Args(env)...) }

// Args lists the ARGs of a stage that have values and are not variables of its environment, and the user's proxies, by name.
func (s *Scope) Args(env []string) []string {
	all := maps.Clone(s.args)
	for _, p := range proxies {
		if v := s.given[p]; v != nil && all[p] == nil {
			all[p] = v
		}
	}
	return lacking(all, env)
}

// CachedArgs is Args without the proxies that no ARG names.
func (s *Scope) CachedArgs(env []string) []string { return lacking(s.args, env) }

func lacking(args map[string]*string, env []string) []string {
	args = maps.Clone(args)
	for _, e := range env {
		k, _, _ := strings.Cut(e, "=")
		delete(args, k)
	}
	return values(args)
}

// Unused lists the names of the user's build arguments that no ARG had.
func (s *Scope) Unused() []string {
	var names []string
	for _, k := range slices.Sorted(maps.Keys(s.given)) {
		if !s.used[k] && !slices.Contains(proxies, k) {
			names = append(names, k)
		}
	}
	return names
}

// Expand replaces the variables in the words of an instruction, where it has such.
func (s *Scope) Expand(c instructions.Command, env []string) error {
	if _, ok := c.(*instructions.ArgCommand); ok {
		return nil // by Arg
	}
	env = s.environment(env)
	if e, ok := c.(*instructions.ExposeCommand); ok {
		var ports []string
		for _, p := range e.Ports {
			words, err := s.lex.ProcessWords(p, shell.EnvsFromSlice(env))
			if err != nil {
				return errdefs.With(errdefs.InvalidParameter, err)
			}
			ports = append(ports, words...)
		}
		e.Ports = ports
		return nil
	}
	if e, ok := c.(instructions.SupportsSingleWordExpansion); ok {
		return s.expand(e, env)
	}
	return nil
}

func (s *Scope) expand(c instructions.SupportsSingleWordExpansion, env []string) error {
	return errdefs.With(errdefs.InvalidParameter, c.Expand(func(word string) (string, error) { return s.word(word, env) }))
}

func (s *Scope) word(word string, env []string) (string, error) {
	out, _, err := s.lex.ProcessWord(word, shell.EnvsFromSlice(env))
	return out, errdefs.With(errdefs.InvalidParameter, err)
}
