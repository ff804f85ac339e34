package docker

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/distribution/reference"
	api "github.com/moby/moby/api/types/registry"

	"gantry/registry"
)

// authOf decodes the credentials in the header X-Registry-Auth: JSON in URL-safe base64. What cannot be decoded counts as
// none, as with docker: a public image needs none.
func authOf(r *http.Request) registry.Auth {
	text := strings.TrimRight(r.Header.Get(api.AuthHeader), "=")
	if text == "" {
		return registry.Auth{}
	}
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		if data, err = base64.RawStdEncoding.DecodeString(text); err != nil {
			return registry.Auth{}
		}
	}
	var a api.AuthConfig
	if err := json.Unmarshal(data, &a); err != nil {
		return registry.Auth{}
	}
	return registryAuth(a)
}

// registryAuth translates credentials; name and password may also come joined in Auth.
func registryAuth(a api.AuthConfig) registry.Auth {
	if a.Username == "" && a.Password == "" && a.Auth != "" {
		if data, err := base64.StdEncoding.DecodeString(a.Auth); err == nil {
			a.Username, a.Password, _ = strings.Cut(strings.TrimRight(string(data), "\x00"), ":")
		}
	}
	return registry.Auth{
		Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken,
		RegistryToken: a.RegistryToken, ServerAddress: a.ServerAddress,
	}
}

// registries are the credentials of several registries, by what docker's config.json calls them.
type registries map[string]api.AuthConfig

// authsOf decodes the credentials in the header X-Registry-Config: as authOf does.
func authsOf(r *http.Request) registries {
	data, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(r.Header.Get("X-Registry-Config"), "="))
	if err != nil {
		return nil
	}
	var all registries
	if json.Unmarshal(data, &all) != nil {
		return nil
	}
	return all
}

// of returns the credentials for an image's registry.
func (a registries) of(image string) registry.Auth {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return registry.Auth{}
	}
	domain := reference.Domain(named)
	if domain == "docker.io" {
		domain = "https://index.docker.io/v1/"
	}
	return registryAuth(a[domain])
}
