package registry

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// What hosts.toml needs of TOML 1.0: tables, bare, quoted and dotted keys, strings of one line, integers, booleans and arrays. Inline tables, arrays of tables, dates, floats
// and strings of several lines are refused.

const (
	maxTOML   = 1 << 20 // bytes
	maxTables = 1000
	maxNested = 8 // arrays
	maxKeys   = 8 // parts of a dotted key
)

// tomlTable is one table in the order of the file; the first has no path.
type tomlTable struct {
	path   []string
	values map[string]any // string, int64, bool or []any
}

// tomlParser goes through a document once.
type tomlParser struct {
	rest string
	line int
}

// parseTOML returns the tables of a document.
func parseTOML(data []byte) ([]tomlTable, error) {
	if len(data) > maxTOML {
		return nil, fmt.Errorf("file has more than %d bytes", maxTOML)
	}
	if !utf8.Valid(data) {
		return nil, fmt.Errorf("file is not UTF-8")
	}
	p := &tomlParser{rest: strings.ReplaceAll(string(data), "\r\n", "\n"), line: 1}
	tables, err := p.document()
	if err != nil {
		return nil, fmt.Errorf("line %d: %w", p.line, err)
	}
	return tables, nil
}

func (p *tomlParser) document() ([]tomlTable, error) {
	tables := []tomlTable{{values: map[string]any{}}}
	seen := map[string]bool{}
	for p.skip(true); p.rest != ""; p.skip(true) {
		if strings.HasPrefix(p.rest, "[[") {
			return nil, fmt.Errorf("arrays of tables are not supported")
		}
		if p.take('[') {
			path, err := p.key()
			if err != nil {
				return nil, err
			}
			if p.skip(false); !p.take(']') {
				return nil, fmt.Errorf("the name of a table has no end")
			}
			id := fmt.Sprintf("%q", path)
			if seen[id] {
				return nil, fmt.Errorf("table %s is there twice", strings.Join(path, "."))
			}
			if seen[id] = true; len(tables) == maxTables {
				return nil, fmt.Errorf("more than %d tables", maxTables)
			}
			tables = append(tables, tomlTable{path, map[string]any{}})
		} else if err := p.pair(tables[len(tables)-1].values); err != nil {
			return nil, err
		}
		if p.skip(false); p.rest != "" && !strings.HasPrefix(p.rest, "\n") {
			return nil, fmt.Errorf("more on the line than is expected")
		}
	}
	return tables, nil
}

// pair reads key = value.
func (p *tomlParser) pair(into map[string]any) error {
	path, err := p.key()
	if err != nil {
		return err
	}
	if p.skip(false); !p.take('=') {
		return fmt.Errorf("a key has no value")
	}
	p.skip(false)
	v, err := p.value(0)
	if err != nil {
		return err
	}
	name := strings.Join(path, ".")
	if _, ok := into[name]; ok {
		return fmt.Errorf("key %s is there twice", name)
	}
	into[name] = v
	return nil
}

// skip goes over blanks and comments, and over ends of lines too if lines says so.
func (p *tomlParser) skip(lines bool) {
	for {
		p.rest = strings.TrimLeft(p.rest, " \t")
		if strings.HasPrefix(p.rest, "#") {
			end := strings.IndexByte(p.rest, '\n')
			if end < 0 {
				end = len(p.rest)
			}
			p.rest = p.rest[end:]
		}
		if !lines || !p.take('\n') {
			return
		}
		p.line++
	}
}

func (p *tomlParser) take(c byte) bool {
	if p.rest == "" || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

// key reads a key, whose parts are joined by dots.
func (p *tomlParser) key() ([]string, error) {
	var path []string
	for {
		p.skip(false)
		var part string
		var err error
		if strings.HasPrefix(p.rest, `"`) || strings.HasPrefix(p.rest, `'`) {
			if part, err = p.text(); err != nil {
				return nil, err
			}
		} else {
			n := strings.IndexFunc(p.rest, func(r rune) bool {
				return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-'
			})
			if n < 0 {
				n = len(p.rest)
			}
			if n == 0 {
				return nil, fmt.Errorf("a key is expected")
			}
			part, p.rest = p.rest[:n], p.rest[n:]
		}
		if path = append(path, part); len(path) > maxKeys {
			return nil, fmt.Errorf("a key has more than %d parts", maxKeys)
		}
		if p.skip(false); !p.take('.') {
			return path, nil
		}
	}
}

func (p *tomlParser) value(depth int) (any, error) {
	switch {
	case p.rest == "":
		return nil, fmt.Errorf("a value is expected")
	case strings.HasPrefix(p.rest, `"`), strings.HasPrefix(p.rest, `'`):
		return p.text()
	case p.take('['):
		return p.array(depth + 1)
	case p.rest[0] == '{':
		return nil, fmt.Errorf("inline tables are not supported")
	}
	n := strings.IndexAny(p.rest, " \t\n,]#")
	if n < 0 {
		n = len(p.rest)
	}
	var word string
	word, p.rest = p.rest[:n], p.rest[n:]
	switch word {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	i, err := strconv.ParseInt(strings.ReplaceAll(word, "_", ""), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%.40q is no string, integer, boolean or array", word)
	}
	return i, nil
}

func (p *tomlParser) array(depth int) (any, error) {
	if depth > maxNested {
		return nil, fmt.Errorf("arrays are nested too deep")
	}
	list := []any{}
	for {
		if p.skip(true); p.take(']') {
			return list, nil
		}
		v, err := p.value(depth)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
		if p.skip(true); !p.take(',') {
			if !p.take(']') {
				return nil, fmt.Errorf("an array has no end")
			}
			return list, nil
		}
	}
}

// text reads a basic or literal string of one line.
func (p *tomlParser) text() (string, error) {
	quote := p.rest[0]
	if strings.HasPrefix(p.rest, strings.Repeat(string(quote), 3)) {
		return "", fmt.Errorf("strings of several lines are not supported")
	}
	var b strings.Builder
	for i := 1; i < len(p.rest); i++ {
		c := p.rest[i]
		switch {
		case c == quote:
			p.rest = p.rest[i+1:]
			return b.String(), nil
		case c < ' ' && c != '\t' || c == 0x7f:
			return "", fmt.Errorf("a string has no end on its line")
		case c == '\\' && quote == '"':
			n, err := unescape(&b, p.rest[i+1:])
			if err != nil {
				return "", err
			}
			i += n
		default:
			b.WriteByte(c)
		}
	}
	return "", fmt.Errorf("a string has no end")
}

// unescape writes what an escape sequence, without its backslash, stands for, and returns its length.
func unescape(b *strings.Builder, s string) (int, error) {
	if s == "" {
		return 0, fmt.Errorf("a string has no end")
	}
	if i := strings.IndexByte(`btnfr"\`, s[0]); i >= 0 {
		b.WriteByte("\b\t\n\f\r\"\\"[i])
		return 1, nil
	}
	digits := map[byte]int{'u': 4, 'U': 8}[s[0]]
	if digits == 0 || len(s) <= digits {
		return 0, fmt.Errorf("a string has an unknown escape sequence")
	}
	r, err := strconv.ParseUint(s[1:1+digits], 16, 32)
	if err != nil || !utf8.ValidRune(rune(r)) || r > utf8.MaxRune {
		return 0, fmt.Errorf("a string has an unknown escape sequence")
	}
	b.WriteRune(rune(r))
	return 1 + digits, nil
}
