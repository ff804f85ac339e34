package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"text/template"
	"unicode"
	"unicode/utf8"
)

const formatHelp = `Format output using a custom template:
'table':            Print output in table format with column headers (default)
'table TEMPLATE':   Print output in table format using the given Go template
'json':             Print in JSON format
'TEMPLATE':         Print output using the given Go template.
Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates`

const inspectFormatHelp = `Format output using a custom template:
'json':             Print in JSON format
'TEMPLATE':         Print output using the given Go template.
Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates`

// funcs are the functions of docker's templates.
func funcs() template.FuncMap {
	return template.FuncMap{
		"json":     toJSON,
		"split":    strings.Split,
		"join":     join,
		"title":    title,
		"lower":    strings.ToLower,
		"upper":    strings.ToUpper,
		"pad":      func(s string, before, after int) string { return pad(s, before, after) },
		"truncate": truncate,
	}
}

// headerFuncs are those functions as they apply to column headers: what would change a value leaves a header alone.
func headerFuncs() template.FuncMap {
	same := func(v string) string { return v }
	return template.FuncMap{
		"json":     same,
		"title":    same,
		"lower":    same,
		"upper":    same,
		"truncate": func(v string, _ int) string { return v },
		"join":     func(v string, _ string) string { return v },
		"split":    func(v, _ string) string { return v },
		"pad":      func(v string, before, after int) string { return pad(v, before, after) },
	}
}

// join is strings.Join of what a list of the server's JSON has, too.
func join(list any, separator string) (string, error) {
	switch list := list.(type) {
	case []string:
		return strings.Join(list, separator), nil
	case []any:
		texts := make([]string, len(list))
		for i, v := range list {
			texts[i] = fmt.Sprint(v)
		}
		return strings.Join(texts, separator), nil
	case nil:
		return "", nil
	}
	return "", fmt.Errorf("join: %T is no list of texts", list)
}

func toJSON(v any) (string, error) {
	if raw, ok := v.(json.RawMessage); ok {
		return string(raw), nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return strings.TrimSuffix(b.String(), "\n"), err
}

func pad(s string, before, after int) string {
	if s == "" {
		return s
	}
	return strings.Repeat(" ", max(before, 0)) + s + strings.Repeat(" ", max(after, 0))
}

// truncate cuts s to n runes.
func truncate(s string, n int) string {
	r := []rune(s)
	if n < 0 || len(r) <= n {
		return s
	}
	return string(r[:n])
}

// ellipsis cuts s to n columns, the last of them an ellipsis where something was cut.
func ellipsis(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	if n <= 1 {
		return truncate(s, n)
	}
	return truncate(s, n-1) + "…"
}

// title makes the first letter of each word upper case.
func title(s string) string {
	prev := ' '
	return strings.Map(func(r rune) rune {
		first := !unicode.IsLetter(prev) && !unicode.IsDigit(prev) && prev != '_' && prev != '\''
		prev = r
		if first {
			return unicode.ToTitle(r)
		}
		return r
	}, s)
}

// headers gives each field of a row the header of its column.
type headers map[string]string

// Label is the header of {{.Label "name"}}.
func (h headers) Label(name string) string {
	s := name[strings.LastIndex(name, ".")+1:]
	return strings.NewReplacer("-", " ", "_", " ").Replace(s)
}

// format is a --format, resolved.
type format struct {
	table bool
	text  string // template
}

// resolveFormat turns the value of --format into a template. table is the default table's, quiet that of --quiet.
func resolveFormat(value, table, quiet string, isQuiet bool) format {
	unescape := strings.NewReplacer(`\t`, "\t", `\n`, "\n")
	switch {
	case isQuiet && (value == "" || value == "table" || value == "raw"):
		return format{text: quiet}
	case value == "" || value == "table":
		return format{table: true, text: table}
	case value == "json":
		return format{text: "{{json .}}"}
	case strings.HasPrefix(value, "table"):
		return format{table: true, text: unescape.Replace(strings.TrimSpace(value[len("table"):]))}
	}
	return format{text: unescape.Replace(value)}
}

// uses reports whether the template mentions a field.
func (f format) uses(field string) bool {
	return strings.Contains(f.text, "."+field) || strings.Contains(f.text, "json .")
}

func parseTemplate(text string) (*template.Template, error) {
	t, err := template.New("").Funcs(funcs()).Parse(text)
	if err != nil {
		return nil, err
	}
	return t, nil
}

// printRows prints rows, each a struct whose fields are the template's.
func printRows[T any](w io.Writer, f format, h headers, rows []T) error {
	t, err := parseTemplate(f.text)
	if err != nil {
		return fmt.Errorf("failed to parse template: %w", err)
	}
	// A whole row's JSON has < and > escaped, as docker's has; that of a field has not.
	t.Funcs(template.FuncMap{"json": func(v any) (string, error) {
		if _, ok := v.(T); ok {
			b, err := json.Marshal(v)
			return string(b), err
		}
		return toJSON(v)
	}})
	var out bytes.Buffer
	for _, r := range rows {
		if err := t.Execute(&out, r); err != nil {
			return fmt.Errorf("failed to execute template: %w", err)
		}
		out.WriteByte('\n')
	}
	if !f.table {
		_, err = w.Write(out.Bytes())
		return err
	}
	var page bytes.Buffer // a tabwriter writes each cell by itself
	tw := tabwriter.NewWriter(&page, 10, 1, 3, ' ', 0)
	head, err := t.Clone()
	if err != nil {
		return err
	}
	var line bytes.Buffer
	if err := head.Funcs(headerFuncs()).Execute(&line, h); err != nil {
		return fmt.Errorf("failed to execute template: %w", err)
	}
	fmt.Fprintln(tw, line.String())
	if _, err := tw.Write(out.Bytes()); err != nil {
		return err
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	_, err = page.WriteTo(w)
	return err
}

// shortID cuts an ID to docker's 12 digits, without the algorithm's name.
func shortID(id string) string {
	if _, rest, ok := strings.Cut(id, ":"); ok {
		id = rest
	}
	if len(id) > 12 {
		id = id[:12]
	}
	return id
}

// yesNo prints a bool as docker's tables do.
func yesNo(b bool) string {
	if b {
		return "true"
	}
	return "false"
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// naturalLess orders names so that numbers in them count by value: net2 before net10.
func naturalLess(a, b string) bool {
	digits := func(s string) int {
		n := 0
		for n < len(s) && s[n] >= '0' && s[n] <= '9' {
			n++
		}
		return n
	}
	for a != "" && b != "" {
		x, y := digits(a), digits(b)
		if x == 0 || y == 0 {
			if a[0] != b[0] {
				return a[0] < b[0]
			}
			a, b = a[1:], b[1:]
			continue
		}
		p, q := strings.TrimLeft(a[:x], "0"), strings.TrimLeft(b[:y], "0")
		if len(p) != len(q) {
			return len(p) < len(q)
		}
		if p != q {
			return p < q
		}
		a, b = a[x:], b[y:]
	}
	return len(a) < len(b)
}
