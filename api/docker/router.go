package docker

import (
	"net/http"
	"strings"
)

// routes finds the handler of a method and path. The standard multiplexer cannot: docker's paths have names with
// slashes in their middle ("/images/registry.example/app/json").
type routes struct {
	exact    map[string]Handler  // "GET /images/json"
	patterns map[string][]*route // by method and first segment: "GET images"
}

type route struct {
	segments []string // literal, "{name}" or "{name...}", which takes one or more segments and stands at most once
	handler  Handler
}

// add registers a handler. A pattern's segments are literals, {name} for one segment or {name...} for one or more.
// Literal patterns win over others; among those the first registered wins.
func (rs *routes) add(method, pattern string, h Handler) {
	if !strings.Contains(pattern, "{") {
		if rs.exact == nil {
			rs.exact = map[string]Handler{}
		}
		rs.exact[method+" "+pattern] = h
		return
	}
	segments := strings.Split(strings.TrimPrefix(pattern, "/"), "/")
	if rs.patterns == nil {
		rs.patterns = map[string][]*route{}
	}
	key := method + " " + segments[0]
	rs.patterns[key] = append(rs.patterns[key], &route{segments, h})
}

// find returns the handler for the request, or nil, and sets the request's path values.
func (rs *routes) find(r *http.Request, path string) Handler {
	if h := rs.exact[r.Method+" "+path]; h != nil {
		return h
	}
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for _, route := range rs.patterns[r.Method+" "+segments[0]] {
		if values := route.match(segments); values != nil {
			for i := 0; i < len(values); i += 2 {
				r.SetPathValue(values[i], values[i+1])
			}
			return route.handler
		}
	}
	return nil
}

// match returns names and values in turn, or nil if the path is another.
func (rt *route) match(path []string) []string {
	extra := len(path) - len(rt.segments) // what {name...} takes beyond one segment
	if extra < 0 {
		return nil
	}
	values := make([]string, 0, 4)
	i := 0
	for _, segment := range rt.segments {
		name, variable := strings.CutPrefix(segment, "{")
		if !variable {
			if path[i] != segment {
				return nil
			}
			i++
			continue
		}
		name = strings.TrimSuffix(name, "}")
		n := 1
		if base, many := strings.CutSuffix(name, "..."); many {
			name, n, extra = base, 1+extra, 0
		}
		value := strings.Join(path[i:i+n], "/")
		if value == "" {
			return nil
		}
		values = append(values, name, value)
		i += n
	}
	if extra != 0 {
		return nil
	}
	return values
}
