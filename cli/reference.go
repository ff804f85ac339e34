package cli

import (
	"errors"
	"fmt"
	"strings"
)

// reference is the name of an image: domain/path[:tag][@digest].
type reference struct {
	domain string // registry, with port; docker.io when none was named
	path   string // repository in it
	tag    string
	digest string
}

var errReference = errors.New("invalid reference format")

// parseReference parses an image's name and completes it as docker does: busybox is docker.io/library/busybox. The grammar is
// that of the distribution project.
func parseReference(s string) (reference, error) {
	var r reference
	if s == "" {
		return r, errReference
	}
	if isHex64(s) {
		return r, fmt.Errorf("invalid repository name (%s), cannot specify 64-byte hexadecimal strings", s)
	}
	name, digest, hasDigest := strings.Cut(s, "@")
	if hasDigest {
		if !validDigest(digest) {
			return r, errReference
		}
		r.digest = digest
	}
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		r.tag, name = name[i+1:], name[:i]
		if !validTag(r.tag) {
			return r, errReference
		}
	}
	r.domain, r.path = splitDomain(name)
	if low := strings.ToLower(r.path); low != r.path {
		if !validPath(low) {
			return r, errReference
		}
		return r, fmt.Errorf("%w: repository name (%s) must be lowercase", errReference, r.path)
	}
	if !validPath(r.path) || !validDomain(r.domain) {
		return r, errReference
	}
	if len(r.domain)+1+len(r.path) > 255 {
		return r, errors.New("repository name must not be more than 255 characters")
	}
	return r, nil
}

func splitDomain(name string) (domain, path string) {
	const hub = "docker.io"
	domain, path, ok := strings.Cut(name, "/")
	if !ok || !strings.ContainsAny(domain, ".:") && domain != "localhost" && strings.ToLower(domain) == domain {
		domain, path = hub, name
	}
	if domain == "index.docker.io" {
		domain = hub
	}
	if domain == hub && !strings.Contains(path, "/") {
		path = "library/" + path
	}
	return domain, path
}

// familiar returns the repository's name without what docker's users leave out.
func (r reference) familiar() string {
	if r.domain != "docker.io" {
		return r.domain + "/" + r.path
	}
	return strings.TrimPrefix(r.path, "library/")
}

// String returns the familiar name with tag and digest.
func (r reference) String() string {
	s := r.familiar()
	if r.tag != "" {
		s += ":" + r.tag
	}
	if r.digest != "" {
		s += "@" + r.digest
	}
	return s
}

// registryKey is the key of the registry's credentials in config.json.
func (r reference) registryKey() string { return registryKey(r.domain) }

// indexServer is the key under which docker keeps the credentials of Docker Hub.
const indexServer = "https://index.docker.io/v1/"

func registryKey(domain string) string {
	if domain == "docker.io" || domain == "index.docker.io" {
		return indexServer
	}
	return domain
}

func isHex64(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

func validDigest(s string) bool {
	alg, hex, ok := strings.Cut(s, ":")
	if !ok || alg == "" || len(hex) < 32 || strings.Trim(strings.ToLower(hex), "0123456789abcdef") != "" {
		return false
	}
	for i, c := range alg {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || !(c >= '0' && c <= '9' || strings.ContainsRune("+.-_", c))) {
			return false
		}
	}
	return true
}

func validTag(s string) bool {
	if s == "" || len(s) > 128 || s[0] == '.' || s[0] == '-' {
		return false
	}
	for _, c := range s {
		if !alphanumeric(c) && !(c >= 'A' && c <= 'Z') && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

func alphanumeric(c rune) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

func validPath(s string) bool {
	for _, part := range strings.Split(s, "/") {
		if !validComponent(part) {
			return false
		}
	}
	return true
}

// validComponent checks alphanumerics with single separators between: one period, one or two underscores, or any number of dashes.
func validComponent(s string) bool {
	if s == "" || !alphanumeric(rune(s[0])) || !alphanumeric(rune(s[len(s)-1])) {
		return false
	}
	sep := ""
	for _, c := range s {
		if alphanumeric(c) {
			if sep != "" && sep != "." && sep != "_" && sep != "__" && strings.Trim(sep, "-") != "" {
				return false
			}
			sep = ""
			continue
		}
		if c != '.' && c != '_' && c != '-' {
			return false
		}
		sep += string(c)
	}
	return true
}

func validDomain(s string) bool {
	host, port := s, ""
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 || strings.Trim(s[1:end], "0123456789abcdefABCDEF:") != "" {
			return false
		}
		host, port = "v6", s[end+1:]
	} else if i := strings.IndexByte(s, ':'); i >= 0 {
		host, port = s[:i], s[i:]
	}
	if port != "" && (len(port) < 2 || port[0] != ':' || strings.Trim(port[1:], "0123456789") != "") {
		return false
	}
	for _, label := range strings.Split(host, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range strings.ToLower(label) {
			if !alphanumeric(c) && c != '-' {
				return false
			}
		}
	}
	return true
}
