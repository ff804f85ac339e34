package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"

	"gantry/client"
)

// listValue is a flag that may be given several times. check, when set, may refuse or change a value.
type listValue struct {
	values *[]string
	check  func(string) (string, error)
	kind   string // shown in the help; "" means list
	text   string // default shown in the help
}

func (l *listValue) Set(v string) error {
	if l.check != nil {
		var err error
		if v, err = l.check(v); err != nil {
			return err
		}
	}
	*l.values = append(*l.values, v)
	return nil
}

func (l *listValue) Type() string {
	if l.kind != "" {
		return l.kind
	}
	return "list"
}

func (l *listValue) String() string { return l.text }

// mapValue is a flag of key=value pairs that may be given several times.
type mapValue struct {
	values *map[string]string
	check  func(string) (string, error)
}

func (m *mapValue) Set(v string) error {
	if m.check != nil {
		var err error
		if v, err = m.check(v); err != nil {
			return err
		}
	}
	k, val, _ := strings.Cut(v, "=")
	if *m.values == nil {
		*m.values = map[string]string{}
	}
	(*m.values)[k] = val
	return nil
}
func (m *mapValue) Type() string   { return "map" }
func (m *mapValue) String() string { return "map[]" }

// bytesValue is a size such as 64m.
type bytesValue struct {
	n         *int64
	unlimited bool // -1 is accepted
}

func (b *bytesValue) Set(v string) error {
	if b.unlimited && v == "-1" {
		*b.n = -1
		return nil
	}
	n, err := units.RAMInBytes(v)
	if err != nil {
		return err
	}
	*b.n = n
	return nil
}
func (b *bytesValue) Type() string   { return "bytes" }
func (b *bytesValue) String() string { return "" }

// cpusValue is a number of CPUs such as 1.5, kept in billionths.
type cpusValue struct{ nano *int64 }

func (c *cpusValue) Set(v string) error {
	r, ok := new(big.Rat).SetString(v)
	if !ok || len(v) > 64 || strings.ContainsAny(v, "eE") {
		return fmt.Errorf("failed to parse %v as a rational number", v)
	}
	n := r.Mul(r, big.NewRat(1e9, 1))
	if !n.IsInt() || !n.Num().IsInt64() {
		return errors.New("value is too precise")
	}
	*c.nano = n.Num().Int64()
	return nil
}
func (c *cpusValue) Type() string   { return "decimal" }
func (c *cpusValue) String() string { return "" }

// ulimitValue is a limit such as nofile=1024:2048. The last one of a name counts.
type ulimitValue struct{ limits *[]*container.Ulimit }

func (u *ulimitValue) Set(v string) error {
	l, err := units.ParseUlimit(v)
	if err != nil {
		return err
	}
	for i, old := range *u.limits {
		if old.Name == l.Name {
			(*u.limits)[i] = l
			return nil
		}
	}
	*u.limits = append(*u.limits, l)
	slices.SortFunc(*u.limits, func(a, b *container.Ulimit) int { return strings.Compare(a.Name, b.Name) })
	return nil
}
func (u *ulimitValue) Type() string   { return "ulimit" }
func (u *ulimitValue) String() string { return "[]" }

// filterValue collects --filter key=value.
type filterValue struct{ filters client.Filters }

func (f filterValue) Set(v string) error {
	if v == "" {
		return nil
	}
	k, val, ok := strings.Cut(v, "=")
	if !ok {
		return errors.New("bad format of filter (expected name=value)")
	}
	f.filters.Add(strings.ToLower(strings.TrimSpace(k)), strings.TrimSpace(val))
	return nil
}
func (f filterValue) Type() string   { return "filter" }
func (f filterValue) String() string { return "" }

// checkEnv completes NAME with the value it has here; one that is not set stays bare, for removal from the image's.
func checkEnv(lookup func(string) (string, bool)) func(string) (string, error) {
	return func(v string) (string, error) {
		name, _, ok := strings.Cut(v, "=")
		if name == "" {
			return "", errors.New("invalid environment variable: " + v)
		}
		if ok {
			return v, nil
		}
		if val, set := lookup(v); set {
			return v + "=" + val, nil
		}
		return v, nil
	}
}

// checkLabel refuses a label without a name.
func checkLabel(v string) (string, error) {
	name, _, _ := strings.Cut(v, "=")
	if strings.TrimSpace(name) == "" {
		return "", fmt.Errorf("invalid label '%s': empty name", v)
	}
	return v, nil
}

// parseKeyValueFile parses a file of NAME=value lines. Empty lines and those that start with # are skipped; a bare NAME takes its
// value from lookup and is left out when that has none. Values are taken as they are, quotes included.
func parseKeyValueFile(name string, r io.Reader, lookup func(string) (string, bool)) ([]string, error) {
	var out []string
	s := bufio.NewScanner(r)
	for n := 1; s.Scan(); n++ {
		b := s.Bytes()
		if !utf8.Valid(b) {
			return nil, fmt.Errorf("invalid env file (%s): invalid utf8 bytes at line %d: %v", name, n, b)
		}
		if n == 1 {
			b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
		}
		line := strings.TrimLeftFunc(string(b), unicode.IsSpace)
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if key == "" {
			return nil, fmt.Errorf("invalid env file (%s): no variable name on line '%s'", name, line)
		}
		if strings.ContainsAny(key, " \t") {
			return nil, fmt.Errorf("invalid env file (%s): variable '%s' contains whitespaces", name, key)
		}
		if ok {
			out = append(out, key+"="+value)
			continue
		}
		if v, set := lookup(key); set {
			out = append(out, key+"="+v)
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("invalid env file (%s): %w", name, err)
	}
	return out, nil
}

// readKeyValueFiles reads such files, and appends the values given on the command line.
func readKeyValueFiles(files, given []string, lookup func(string) (string, bool)) ([]string, error) {
	var out []string
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		kv, err := parseKeyValueFile(path, f, lookup)
		_ = f.Close()
		if err != nil {
			return nil, err
		}
		out = append(out, kv...)
	}
	return append(out, given...), nil
}

// keyValues makes a map of key=value strings; a bare key has the empty value.
func keyValues(in []string) map[string]string {
	out := make(map[string]string, len(in))
	for _, kv := range in {
		k, v, _ := strings.Cut(kv, "=")
		out[k] = v
	}
	return out
}

// lookupEnv is os.LookupEnv on the program's environment.
func (a *app) lookupEnv(name string) (string, bool) {
	v := a.getenv(name)
	if v != "" {
		return v, true
	}
	return os.LookupEnv(name)
}

// parseRestartPolicy parses name[:max-retries].
func parseRestartPolicy(s string) (container.RestartPolicy, error) {
	var p container.RestartPolicy
	if s == "" {
		return p, nil
	}
	name, count, ok := strings.Cut(s, ":")
	if name == "" {
		return p, errors.New("invalid restart policy format: no policy provided before colon")
	}
	if ok {
		n, err := strconv.Atoi(count)
		if err != nil {
			return p, errors.New("invalid restart policy format: maximum retry count must be an integer")
		}
		p.MaximumRetryCount = n
	}
	p.Name = container.RestartPolicyMode(name)
	return p, nil
}
