package command

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// flagSet is the flags of one verb, in the manner of runc's command line: long names with one dash or two, values after "=" or as the
// next word, flags before or after the arguments. A verb that runs a command (stopAt 1) takes everything after its first argument as
// it is.
type flagSet struct {
	flags  []*option
	stopAt int // how many arguments end the flags; 0: none do
}

type option struct {
	name, short string
	kind        string // what its value is, for people; "" for a switch
	usage       string
	hidden      bool
	set         func(string) error
	given       bool
}

func (f *flagSet) add(names, kind, usage string, set func(string) error) *option {
	name, short, _ := strings.Cut(names, ",")
	o := &option{name: name, short: short, kind: kind, usage: usage, set: set}
	f.flags = append(f.flags, o)
	return o
}

func (f *flagSet) text(to *string, names, usage string) *option {
	return f.add(names, "value", usage, func(v string) error { *to = v; return nil })
}

func (f *flagSet) many(to *[]string, names, usage string) *option {
	return f.add(names, "value", usage, func(v string) error { *to = append(*to, v); return nil })
}

func (f *flagSet) on(to *bool, names, usage string) *option {
	return f.add(names, "", usage, func(v string) (err error) { *to, err = strconv.ParseBool(v); return err })
}

func (f *flagSet) number(to *int, names, usage string) *option {
	return f.add(names, "value", usage, func(v string) (err error) { *to, err = strconv.Atoi(v); return err })
}

func (f *flagSet) duration(to *time.Duration, names, usage string) *option {
	return f.add(names, "value", usage, func(v string) (err error) { *to, err = time.ParseDuration(v); return err })
}

// usageError is a command line that cannot be understood: the verb's help is shown with it.
type usageError struct{ error }

// helpWanted asks for help instead of the verb.
type helpWanted struct{ error }

func (f *flagSet) find(name string) *option {
	for _, o := range f.flags {
		if o.name == name || o.short != "" && o.short == name {
			return o
		}
	}
	return nil
}

// parse takes the flags out of words and returns the arguments.
func (f *flagSet) parse(words []string) (args []string, err error) {
	for len(words) > 0 {
		w := words[0]
		words = words[1:]
		if w == "--" {
			return append(args, words...), nil
		}
		if len(w) < 2 || w[0] != '-' {
			args = append(args, w)
			if f.stopAt > 0 && len(args) == f.stopAt {
				if len(words) > 0 && words[0] == "--" {
					words = words[1:]
				}
				return append(args, words...), nil
			}
			continue
		}
		name, value, hasValue := strings.Cut(strings.TrimPrefix(w[1:], "-"), "=")
		if name == "help" || name == "h" {
			return nil, helpWanted{}
		}
		o := f.find(name)
		switch {
		case o == nil:
			return nil, usageError{fmt.Errorf("flag provided but not defined: -%s", name)}
		case hasValue:
		case o.kind == "":
			value = "true"
		case len(words) == 0:
			return nil, usageError{fmt.Errorf("flag needs an argument: -%s", name)}
		default:
			value, words = words[0], words[1:]
		}
		o.given = true
		if err := o.set(value); err != nil {
			return nil, usageError{fmt.Errorf("invalid value %q for flag -%s: %w", value, name, err)}
		}
	}
	return args, nil
}
