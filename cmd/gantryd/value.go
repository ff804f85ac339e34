package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"gantry/archive"
)

// value is one option's target: it takes the text of a flag or the JSON of daemon.json. It is a pflag.Value.
type value struct {
	kind   string // what --help shows as the type
	set    func(text string) error
	decode func(raw json.RawMessage) error
	show   func() string
}

func (v *value) Set(text string) error { return v.set(text) }
func (v *value) String() string        { return v.show() }
func (v *value) Type() string          { return v.kind }

// strict decodes raw as a T and nothing else, with an error that names the wanted type.
func strict[T any](raw json.RawMessage, want string) (T, error) {
	var t T
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&t); err != nil || string(raw) == "null" {
		if strings.HasPrefix(fmt.Sprint(err), "json: unknown field") {
			return t, err
		}
		return t, fmt.Errorf("must be %s", want)
	}
	return t, nil
}

// of returns a value whose JSON is a T, in words what want says.
func of[T any](kind, want string, set func(string) error, take func(T) error, show func() string) *value {
	return &value{kind: kind, set: set, show: show, decode: func(raw json.RawMessage) error {
		t, err := strict[T](raw, want)
		if err != nil {
			return err
		}
		return take(t)
	}}
}

// keys shows a map by its keys, elements a list, whole anything.
func keys[V any](p *map[string]V) func() string {
	return func() string { return fmt.Sprint(slices.Sorted(maps.Keys(*p))) }
}

// reserved refuses the names of the built-in runtime: docker's for its own, and ours.
func reserved(runtime string) error {
	if runtime == "runc" || runtime == "gantry" {
		return fmt.Errorf("runtime name '%s' is reserved", runtime)
	}
	return nil
}

func elements[T any](p *[]T) func() string {
	return func() string {
		if len(*p) == 0 {
			return ""
		}
		return fmt.Sprint(*p)
	}
}

func whole[T any](p *T) func() string { return func() string { return fmt.Sprint(*p) } }

// copied takes over what an object of daemon.json has.
func copied[V any](p *map[string]V) func(map[string]V) error {
	return func(all map[string]V) error { maps.Copy(*p, all); return nil }
}

// plain returns a value of one thing that parse reads.
func plain[T any](kind, want string, p *T, parse func(string) (T, error)) *value {
	set := func(text string) (err error) { *p, err = parse(text); return err }
	return of(kind, want, set, func(t T) error { *p = t; return nil }, whole(p))
}

func boolean(p *bool) *value { return plain("bool", "true or false", p, strconv.ParseBool) }

func text(p *string) *value {
	return plain("string", "a string", p, func(s string) (string, error) { return s, nil })
}

// packing takes a kind of compression with an optional level: "zstd:9".
func packing(p *archive.Packing) *value {
	set := func(text string) (err error) { *p, err = archive.ParsePacking(text); return err }
	return of("string", "a string", set, set, whole(p))
}

func number(p *int64) *value {
	return plain("int", "a whole number", p, func(s string) (int64, error) { return strconv.ParseInt(s, 0, 64) })
}

// size takes a number of bytes with an optional unit: "64m", "1GiB".
func size(p *int64) *value {
	set := func(text string) error {
		n, err := parseSize(text)
		if err == nil {
			*p = n
		}
		return err
	}
	return &value{
		kind: "bytes",
		set:  set,
		decode: func(raw json.RawMessage) error {
			if n, err := strict[int64](raw, ""); err == nil {
				*p = n
				return nil
			}
			s, err := strict[string](raw, "a number of bytes or a string such as \"64m\"")
			if err != nil {
				return err
			}
			return set(s)
		},
		show: func() string {
			switch {
			case *p != 0 && *p%(1<<30) == 0:
				return fmt.Sprintf("%dGiB", *p>>30)
			case *p != 0 && *p%(1<<20) == 0:
				return fmt.Sprintf("%dMiB", *p>>20)
			default:
				return fmt.Sprintf("%dB", *p)
			}
		},
	}
}

func parseSize(text string) (int64, error) {
	lower := strings.ToLower(strings.TrimSpace(text))
	end := strings.IndexFunc(lower, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if end < 0 {
		end = len(lower)
	}
	n, err := strconv.ParseFloat(lower[:end], 64)
	if err != nil {
		return 0, fmt.Errorf("invalid size: '%s'", text)
	}
	unit := strings.TrimSpace(lower[end:])
	unit = strings.TrimSuffix(strings.TrimSuffix(unit, "b"), "i")
	shift := strings.Index("kmgtp", unit)
	switch {
	case unit == "":
		shift = 0
	case len(unit) != 1 || shift < 0:
		return 0, fmt.Errorf("invalid suffix: '%s'", lower[end:])
	default:
		shift = 10 * (shift + 1)
	}
	if n *= float64(int64(1) << shift); n >= 1<<63 {
		return 0, fmt.Errorf("invalid size: '%s'", text)
	}
	return int64(n), nil
}

func address(p *netip.Addr) *value {
	set := func(text string) error {
		a, err := netip.ParseAddr(strings.TrimSpace(text))
		if err != nil {
			return fmt.Errorf("failed to parse IP: %q", text)
		}
		*p = a
		return nil
	}
	return &value{
		kind: "ip",
		set:  set,
		decode: func(raw json.RawMessage) error {
			s, err := strict[string](raw, "an IP address in a string")
			if err != nil || s == "" {
				return err
			}
			return set(s)
		},
		show: func() string {
			if !p.IsValid() {
				return ""
			}
			return p.String()
		},
	}
}

// list takes one more element for each flag, and an array in daemon.json. check may be nil.
func list(p *[]string, check func(string) error) *value {
	set := func(text string) error {
		if check != nil {
			if err := check(text); err != nil {
				return err
			}
		}
		*p = append(*p, text)
		return nil
	}
	return of("list", "an array of strings", set, func(all []string) error {
		*p = nil
		for _, s := range all {
			if err := set(s); err != nil {
				return err
			}
		}
		return nil
	}, elements(p))
}

func addresses(p *[]netip.Addr) *value {
	var texts []string
	v := list(&texts, func(text string) error {
		a, err := netip.ParseAddr(strings.TrimSpace(text))
		if err != nil {
			return fmt.Errorf("IP address is not correctly formatted: %s", text)
		}
		*p = append(*p, a)
		return nil
	})
	decode := v.decode
	v.decode = func(raw json.RawMessage) error { *p = nil; return decode(raw) }
	return v
}

// mapping takes "key=value" for each flag, and an object of strings in daemon.json.
func mapping(p *map[string]string) *value {
	return of("map", "an object whose values are strings", func(text string) error {
		key, val, _ := strings.Cut(text, "=")
		(*p)[key] = val
		return nil
	}, copied(p), whole(p))
}

func switches(p *map[string]bool) *value {
	return of("map", "an object whose values are true or false", func(text string) error {
		key, val, given := strings.Cut(text, "=")
		on := true
		if given {
			var err error
			if on, err = strconv.ParseBool(val); err != nil {
				return err
			}
		}
		(*p)[key] = on
		return nil
	}, copied(p), whole(p))
}

// optionsByDriver takes "driver=key=value" for each flag, and an object of objects in daemon.json.
func optionsByDriver(p *map[string]map[string]string) *value {
	return of("mapmap", "an object of objects whose values are strings", func(text string) error {
		driver, rest, _ := strings.Cut(text, "=")
		key, val, ok := strings.Cut(rest, "=")
		if !ok {
			return fmt.Errorf("invalid value %q for map option, should be key1=key2=value", text)
		}
		if (*p)[driver] == nil {
			(*p)[driver] = map[string]string{}
		}
		(*p)[driver][key] = val
		return nil
	}, copied(p), whole(p))
}

// ulimits takes "name=soft[:hard]" for each flag.
func ulimits(p *map[string]ulimit) *value {
	names := []string{"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack"}
	check := func(u ulimit) error {
		if !slices.Contains(names, u.Name) {
			return fmt.Errorf("invalid ulimit type: %s", u.Name)
		}
		if u.Hard != -1 && (u.Soft == -1 || u.Soft > u.Hard) {
			return fmt.Errorf("ulimit soft limit must be less than or equal to hard limit: %s=%d:%d", u.Name, u.Soft, u.Hard)
		}
		return nil
	}
	return of("ulimit", "an object of {\"Name\", \"Hard\", \"Soft\"}", func(text string) error {
		name, limits, ok := strings.Cut(text, "=")
		softText, hardText, both := strings.Cut(limits, ":")
		if !both {
			hardText = softText
		}
		soft, err1 := strconv.ParseInt(softText, 10, 64)
		hard, err2 := strconv.ParseInt(hardText, 10, 64)
		if !ok || err1 != nil || err2 != nil {
			return fmt.Errorf("invalid ulimit argument: %s", text)
		}
		u := ulimit{Name: name, Soft: soft, Hard: hard}
		if err := check(u); err != nil {
			return err
		}
		(*p)[name] = u
		return nil
	}, func(all map[string]ulimit) error {
		for name, u := range all {
			if u.Name == "" {
				u.Name = name
			}
			if err := check(u); err != nil {
				return err
			}
			(*p)[name] = u
		}
		return nil
	}, keys(p))
}

// runtimes takes "name=path" for each flag.
func runtimes(p *map[string]runtimeConfig) *value {
	return of("runtime", "an object of {\"path\", \"runtimeArgs\", \"runtimeType\", \"options\"}", func(text string) error {
		name, path, ok := strings.Cut(text, "=")
		name, path = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(path)
		if !ok || name == "" || path == "" {
			return fmt.Errorf("invalid runtime argument: %s", text)
		}
		if err := reserved(name); err != nil {
			return err
		}
		if _, taken := (*p)[name]; taken {
			return fmt.Errorf("runtime '%s' was already defined", name)
		}
		(*p)[name] = runtimeConfig{Path: path}
		return nil
	}, func(all map[string]runtimeConfig) error {
		for name, r := range all {
			if err := reserved(name); err != nil {
				return err
			}
			switch {
			case r.Path == "" && r.Type == "":
				return fmt.Errorf("runtime %s: either a runtimeType or a path must be configured", name)
			case r.Path != "" && r.Type != "":
				return fmt.Errorf("runtime %s: cannot configure both path and runtimeType", name)
			}
		}
		maps.Copy(*p, all)
		return nil
	}, keys(p))
}

// addressPools takes "base=10.0.0.0/8,size=24" for each flag.
func addressPools(p *[]addressPool) *value {
	check := func(pool addressPool) error {
		if !pool.Base.IsValid() || pool.Base != pool.Base.Masked() || pool.Size < pool.Base.Bits() || pool.Size > pool.Base.Addr().BitLen() {
			return fmt.Errorf("invalid default-address-pool: base %s, size %d", pool.Base, pool.Size)
		}
		return nil
	}
	return of("pool-options", "an array of {\"base\", \"size\"}", func(text string) error {
		fields, err := csv.NewReader(strings.NewReader(text)).Read()
		if err != nil {
			return err
		}
		var pool addressPool
		for _, field := range fields {
			key, val, ok := strings.Cut(field, "=")
			if !ok {
				return fmt.Errorf("invalid field '%s' must be a key=value pair", field)
			}
			switch strings.ToLower(key) {
			case "base":
				if pool.Base, err = netip.ParsePrefix(val); err != nil {
					return fmt.Errorf("invalid base prefix %q: %w", val, err)
				}
			case "size":
				if pool.Size, err = strconv.Atoi(val); err != nil {
					return fmt.Errorf("invalid size value: %q (must be integer): %w", val, err)
				}
			default:
				return fmt.Errorf("unexpected key '%s' in '%s'", key, field)
			}
		}
		if err := check(pool); err != nil {
			return err
		}
		*p = append(*p, pool)
		return nil
	}, func(all []addressPool) error {
		for _, pool := range all {
			if err := check(pool); err != nil {
				return err
			}
		}
		*p = all
		return nil
	}, elements(p))
}

// object keeps a JSON object as it is; it has no flag.
func object(p *json.RawMessage) *value {
	return &value{
		kind: "object",
		set:  func(string) error { return errors.New("only daemon.json can set this") },
		decode: func(raw json.RawMessage) error {
			if _, err := strict[map[string]json.RawMessage](raw, "an object"); err != nil {
				return err
			}
			*p = raw
			return nil
		},
		show: func() string { return string(*p) },
	}
}
