package docker

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"

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
