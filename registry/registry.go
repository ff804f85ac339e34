// Package registry is a client of OCI distribution registries.
package registry

import (
	"log/slog"
	"net/http"
)

// Auth is what a user gives to be let in, as in Docker's X-Registry-Auth header. It is sent to the one registry it is given for, and to
// the token server which that registry names.
type Auth struct {
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
	ServerAddress string `json:"serveraddress,omitempty"`
}

// Config is the daemon's configuration of registries.
type Config struct {
	Insecure  []string // hosts, host:port or networks in CIDR form that may be spoken to without TLS or with unverified TLS; loopback always may
	Mirrors   []string // base URLs asked first for images of Docker Hub
	CertsDirs []string // folders laid out like /etc/docker/certs.d
	UserAgent string
	Transport http.RoundTripper // nil: a transport with sane time-outs
	Log       *slog.Logger
}
