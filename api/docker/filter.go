package docker

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"gantry/errdefs"
)

// Filters are the values a client asks for, by key; the keys' values are alternatives unless a handler says otherwise.
type Filters map[string]map[string]bool

// FiltersOf decodes the query value "filters" in either encoding: {"key":{"value":true}} or the older {"key":["value"]}.
// A key that is not accepted is an InvalidParameter in docker's words.
func FiltersOf(r *http.Request, accepted ...string) (Filters, error) {
	f, err := ParseFilters(r.Form.Get("filters"))
	if err != nil {
		return nil, err
	}
	return f, f.Validate(accepted...)
}

// ParseFilters decodes filters in either encoding; an empty text has none.
func ParseFilters(text string) (Filters, error) {
	if text == "" {
		return Filters{}, nil
	}
	f := Filters{}
	if err := json.Unmarshal([]byte(text), &f); err == nil {
		return f, nil
	}
	var older map[string][]string
	if err := json.Unmarshal([]byte(text), &older); err != nil {
		return nil, errdefs.New(errdefs.InvalidParameter, "invalid filter")
	}
	f = Filters{}
	for key, values := range older {
		f[key] = map[string]bool{}
		for _, v := range values {
			f[key][v] = true
		}
	}
	return f, nil
}

// Validate refuses keys that are not accepted.
func (f Filters) Validate(accepted ...string) error {
	for key := range f {
		if !slices.Contains(accepted, key) {
			return errdefs.New(errdefs.InvalidParameter, "invalid filter '%s'", key)
		}
	}
	return nil
}

// Has reports whether the key was given.
func (f Filters) Has(key string) bool { return len(f[key]) > 0 }

// Get returns the key's values, sorted.
func (f Filters) Get(key string) []string {
	values := make([]string, 0, len(f[key]))
	for v := range f[key] {
		values = append(values, v)
	}
	slices.Sort(values)
	return values
}

// Exact reports whether value is one of the key's values, or the key was not given.
func (f Filters) Exact(key, value string) bool { return len(f[key]) == 0 || f[key][value] }

// Prefix reports whether value begins with one of the key's values, or the key was not given.
func (f Filters) Prefix(key, value string) bool {
	if f.Exact(key, value) {
		return true
	}
	for v := range f[key] {
		if strings.HasPrefix(value, v) {
			return true
		}
	}
	return false
}

// Match reports whether one of the key's values, as a regular expression, is found in value, or the key was not given.
func (f Filters) Match(key, value string) bool {
	if f.Exact(key, value) {
		return true
	}
	for v := range f[key] {
		if re, err := regexp.Compile(v); err == nil && re.MatchString(value) {
			return true
		}
	}
	return false
}

// Labels reports whether labels has all of the key's values, each "name" or "name=value".
func (f Filters) Labels(key string, labels map[string]string) bool {
	for want := range f[key] {
		name, value, given := strings.Cut(want, "=")
		if have, ok := labels[name]; !ok || given && have != value {
			return false
		}
	}
	return true
}

// Bool returns the key's value as a boolean, or absent if it was not given.
func (f Filters) Bool(key string, absent bool) (bool, error) {
	values, ok := f[key]
	if !ok {
		return absent, nil
	}
	no, yes := values["0"] || values["false"], values["1"] || values["true"]
	if no == yes {
		if len(values) == 0 {
			return absent, errdefs.New(errdefs.InvalidParameter, "invalid filter '%s'", key)
		}
		return absent, invalidFilter(key, f.Get(key)...)
	}
	return yes, nil
}

func invalidFilter(key string, values ...string) error {
	return errdefs.New(errdefs.InvalidParameter, "%s", fmt.Sprintf("invalid filter '%s=%s'", key, values))
}
