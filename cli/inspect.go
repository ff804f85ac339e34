package cli

import (
	"bytes"
	"context"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/pflag"

	"gantry/client"
)

// kind is a kind of object that can be inspected.
type kind struct {
	name string
	get  func(ctx context.Context, c *client.Client, ref string) (json.RawMessage, error)
	typ  reflect.Type // the API's type, which templates may name the fields of
}

func containerKind(size bool) kind {
	return kind{"container", func(ctx context.Context, c *client.Client, ref string) (json.RawMessage, error) {
		q := url.Values{}
		if size {
			q.Set("size", "1")
		}
		return c.Raw(ctx, q, "containers", ref, "json")
	}, reflect.TypeFor[container.InspectResponse]()}
}

func imageKind(platform string) kind {
	return kind{"image", func(ctx context.Context, c *client.Client, ref string) (json.RawMessage, error) {
		q := url.Values{}
		if platform != "" {
			q.Set("platform", platform)
		}
		return c.Raw(ctx, q, "images", ref, "json")
	}, reflect.TypeFor[image.InspectResponse]()}
}

func networkKind(verbose bool) kind {
	return kind{"network", func(ctx context.Context, c *client.Client, ref string) (json.RawMessage, error) {
		q := url.Values{}
		if verbose {
			q.Set("verbose", "true")
		}
		return c.Raw(ctx, q, "networks", ref)
	}, reflect.TypeFor[network.Inspect]()}
}

func volumeKind() kind {
	return kind{"volume", func(ctx context.Context, c *client.Client, ref string) (json.RawMessage, error) {
		return c.Raw(ctx, nil, "volumes", ref)
	}, reflect.TypeFor[volume.Volume]()}
}

func inspectCommand() *command {
	return &command{
		name: "inspect", use: "[OPTIONS] NAME|ID [NAME|ID...]", short: "Return low-level information on Docker objects", min: 1, max: -1,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			var text, typ string
			var size bool
			fs.StringVarP(&text, "format", "f", "", inspectFormatHelp)
			fs.BoolVarP(&size, "size", "s", false, "Display total file sizes if the type is container")
			fs.StringVar(&typ, "type", "", "Only inspect objects of the given type")
			return func(ctx context.Context, args []string) error {
				all := []kind{containerKind(size), imageKind(""), networkKind(false), volumeKind()}
				if !fs.Changed("type") {
					return a.inspect(ctx, text, args, all)
				}
				for _, k := range all {
					if k.name == typ {
						return a.inspect(ctx, text, args, []kind{k})
					}
				}
				if typ == "" {
					return errors.New(`type is empty: must be one of "config", "container", "image", "network", "node", "plugin", "secret", "service", "task", "volume"`)
				}
				return fmt.Errorf(`unknown type: %q: must be one of "config", "container", "image", "network", "node", "plugin", "secret", "service", "task", "volume"`, typ)
			}
		},
	}
}

func containerInspectCommand() *command {
	return &command{
		name: "inspect", use: "[OPTIONS] CONTAINER [CONTAINER...]", short: "Display detailed information on one or more containers", min: 1, max: -1,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			text := fs.StringP("format", "f", "", inspectFormatHelp)
			size := fs.BoolP("size", "s", false, "Display total file sizes")
			return func(ctx context.Context, args []string) error {
				return a.inspect(ctx, *text, args, []kind{containerKind(*size)})
			}
		},
	}
}

func imageInspectCommand() *command {
	return &command{
		name: "inspect", use: "[OPTIONS] IMAGE [IMAGE...]", short: "Display detailed information on one or more images", min: 1, max: -1,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			text := fs.StringP("format", "f", "", inspectFormatHelp)
			platform := fs.String("platform", "", "Inspect a specific platform of the multi-platform image.\nIf the image or the server is not multi-platform capable, the command will error out if the platform does not match.\n'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)")
			return func(ctx context.Context, args []string) error {
				p, err := platformJSON(*platform)
				if err != nil {
					return err
				}
				return a.inspect(ctx, *text, args, []kind{imageKind(p)})
			}
		},
	}
}

// inspect prints the objects that refs name, each of the first kind that has it.
func (a *app) inspect(ctx context.Context, text string, refs []string, kinds []kind) error {
	asJSON := text == "json"
	if asJSON {
		text = ""
	}
	side := rawSides{}
	var tmpl *template.Template
	if text != "" {
		var err error
		if tmpl, err = template.New("").Funcs(funcs()).Funcs(template.FuncMap{"json": side.json}).Parse(text); err != nil {
			return &exitError{code: 64, msg: "template parsing error: " + err.Error(), err: err}
		}
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	var out bytes.Buffer
	var found []json.RawMessage
	var failed []string
	for _, ref := range refs {
		raw, k, err := lookup(ctx, c, ref, kinds)
		if err == nil && tmpl != nil {
			err = executeInspect(&out, tmpl, side, raw, k)
		}
		if err != nil {
			var ce *client.ConnectionError
			if errors.As(err, &ce) {
				return err
			}
			failed = append(failed, err.Error())
			continue
		}
		found = append(found, raw)
	}
	if asJSON {
		writeList(&out, found)
		out.WriteByte('\n')
	} else if tmpl == nil {
		if err := indentList(&out, found); err != nil {
			return err
		}
	} else if out.Len() == 0 {
		out.WriteByte('\n')
	}
	if _, err := a.out.Write(out.Bytes()); err != nil {
		return err
	}
	if len(failed) > 0 {
		return &exitError{code: 1, msg: strings.Join(failed, "\n")}
	}
	return nil
}

func lookup(ctx context.Context, c *client.Client, ref string, kinds []kind) (json.RawMessage, kind, error) {
	for _, k := range kinds {
		raw, err := k.get(ctx, c, ref)
		if err == nil {
			return raw, k, nil
		}
		if len(kinds) == 1 || !client.IsStatus(err, client.StatusNotFound) {
			return nil, k, err
		}
	}
	return nil, kind{}, fmt.Errorf("Error: No such object: %s", ref) //nolint:staticcheck // docker's words
}

func writeList(b *bytes.Buffer, list []json.RawMessage) {
	b.WriteByte('[')
	for i, raw := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(bytes.TrimSpace(raw))
	}
	b.WriteByte(']')
}

func indentList(out *bytes.Buffer, list []json.RawMessage) error {
	if len(list) == 0 {
		out.WriteString("[]\n")
		return nil
	}
	var all bytes.Buffer
	writeList(&all, list)
	if err := json.Indent(out, all.Bytes(), "", "    "); err != nil {
		return fmt.Errorf("decode answer: %w", err)
	}
	b := bytes.TrimRight(out.Bytes(), "\n ")
	out.Truncate(len(b))
	out.WriteByte('\n')
	return nil
}

// executeInspect runs a template over an object. Its fields may be named as in the JSON or as in the API's Go types, and those that
// the JSON lacks have the type's zero value.
func executeInspect(out *bytes.Buffer, tmpl *template.Template, side rawSides, raw json.RawMessage, k kind) error {
	v, err := side.decode(raw)
	if err != nil {
		return fmt.Errorf("decode answer: %w", err)
	}
	v = complete(v, k.typ)
	strict, err := tmpl.Clone()
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := strict.Option("missingkey=error").Execute(&b, v); err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	b.WriteByte('\n')
	_, err = b.WriteTo(out)
	return err
}

// object is a decoded JSON object that is a struct in Go. Under fieldOrder it has the names of the struct's fields.
type object map[string]any

const fieldOrder = "\x00fields"

// String writes the object as fmt writes the struct.
func (o object) String() string {
	names, _ := o[fieldOrder].([]string)
	values := make([]string, len(names))
	for i, n := range names {
		values[i] = fmt.Sprint(o[n])
	}
	return "{" + strings.Join(values, " ") + "}"
}

// complete returns decoded JSON with the names of the Go type's fields beside those of the JSON, with the JSON's value or the
// type's zero.
func complete(v any, t reflect.Type) any {
	if v == nil {
		if isText(t) {
			return ""
		}
		return reflect.Zero(t).Interface()
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch v := v.(type) {
	case []any:
		if t.Kind() == reflect.Slice || t.Kind() == reflect.Array {
			for i, e := range v {
				v[i] = complete(e, t.Elem())
			}
		}
	case map[string]any:
		switch t.Kind() {
		case reflect.Map:
			for k, e := range v {
				v[k] = complete(e, t.Elem())
			}
		case reflect.Struct:
			o := object(v)
			o[fieldOrder] = completeStruct(o, t)
			return o
		}
	}
	return v
}

// completeStruct does so for the fields of a struct and returns their names.
func completeStruct(m object, t reflect.Type) []string {
	var names []string
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			e := f.Type
			if e.Kind() == reflect.Pointer {
				e = e.Elem()
			}
			names = append(names, completeStruct(m, e)...)
			continue
		}
		if !f.IsExported() || name == "-" {
			continue
		}
		if name == "" {
			name = f.Name
		}
		val, ok := m[name]
		val = complete(val, f.Type)
		if ok {
			m[name] = val
		}
		if _, ok := m[f.Name]; !ok {
			m[f.Name] = val
		}
		names = append(names, f.Name)
	}
	return names
}

// isText reports whether a type is a string in JSON though it is none in Go, such as an address.
func isText(t reflect.Type) bool {
	return t.Kind() != reflect.Pointer && t.Implements(reflect.TypeFor[encoding.TextMarshaler]()) && t != reflect.TypeFor[time.Time]()
}

// rawSides remembers the JSON that decoded values were made of, so that {{json .Config}} writes it in the server's order.
type rawSides map[rawSide]json.RawMessage

// rawSide identifies a map or slice.
type rawSide struct {
	p uintptr
	n int // length of a slice; 0 for a map, which may have got more keys since
}

func sideOf(v any) (rawSide, bool) {
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Map:
		return rawSide{p: r.Pointer()}, true
	case reflect.Slice:
		return rawSide{r.Pointer(), r.Len()}, r.Len() > 0
	}
	return rawSide{}, false
}

// decode decodes JSON to maps, slices, strings, numbers and bools.
func (s rawSides) decode(raw json.RawMessage) (any, error) {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return nil, errors.New("empty JSON value")
	}
	switch raw[0] {
	case '{':
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(raw, &fields); err != nil {
			return nil, err
		}
		m := make(map[string]any, len(fields))
		for k, v := range fields {
			d, err := s.decode(v)
			if err != nil {
				return nil, err
			}
			m[k] = d
		}
		s.remember(m, raw)
		return m, nil
	case '[':
		var items []json.RawMessage
		if err := json.Unmarshal(raw, &items); err != nil {
			return nil, err
		}
		l := make([]any, len(items))
		for i, v := range items {
			var err error
			if l[i], err = s.decode(v); err != nil {
				return nil, err
			}
		}
		s.remember(l, raw)
		return l, nil
	case '"':
		var str string
		err := json.Unmarshal(raw, &str)
		return str, err
	case 't', 'f':
		return string(raw) == "true", nil
	case 'n':
		return nil, nil
	}
	if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		return n, nil
	}
	return strconv.ParseFloat(string(raw), 64)
}

func (s rawSides) remember(v any, raw json.RawMessage) {
	if side, ok := sideOf(v); ok {
		s[side] = raw
	}
}

// json is the template's function of that name.
func (s rawSides) json(v any) (string, error) {
	if side, ok := sideOf(v); ok {
		if raw, ok := s[side]; ok {
			var b bytes.Buffer
			err := json.Compact(&b, raw)
			return b.String(), err
		}
	}
	return toJSON(v)
}
