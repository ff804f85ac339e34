package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/registry"
	"github.com/moby/term"
	"github.com/spf13/pflag"
)

func loginCommand() *command {
	return &command{
		name: "login", use: "[OPTIONS] [SERVER]", short: "Authenticate to a registry", max: 1,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			l := login{app: a}
			fs.StringVarP(&l.password, "password", "p", "", "Password or Personal Access Token (PAT)")
			fs.BoolVar(&l.stdinPassword, "password-stdin", false, "Take the Password or Personal Access Token (PAT) from stdin")
			fs.StringVarP(&l.user, "username", "u", "", "Username")
			return func(ctx context.Context, args []string) error {
				server := ""
				if len(args) == 1 {
					server = args[0]
				}
				if fs.Changed("password") && l.password == "" {
					return errors.New("password is empty")
				}
				return l.run(ctx, server)
			}
		},
	}
}

type login struct {
	*app
	user, password string
	stdinPassword  bool
}

// serverKey is the key of a registry named on the command line in config.json.
func serverKey(server string) string {
	if server == "" || server == "docker.io" || server == "registry-1.docker.io" {
		return indexServer
	}
	server = strings.TrimPrefix(strings.TrimPrefix(server, "https://"), "http://")
	host, _, _ := strings.Cut(server, "/")
	return registryKey(host)
}

func (l *login) run(ctx context.Context, server string) error {
	key := serverKey(server)
	if err := l.readPassword(); err != nil {
		return err
	}
	auth := registry.AuthConfig{Username: l.user, Password: l.password, ServerAddress: key}
	c, err := l.client()
	if err != nil {
		return err
	}
	if l.user == "" && l.password == "" {
		old, err := l.credentials(ctx, key)
		if err == nil && old != nil && (old.Password != "" || old.IdentityToken != "") {
			fmt.Fprintf(l.out, "Authenticating with existing credentials... [Username: %s]\n\n", old.Username)
			if resp, err := c.RegistryLogin(ctx, *old); err == nil {
				return l.store(ctx, key, *old, resp)
			}
			fmt.Fprintln(l.err, "Login did not succeed, error: the stored credentials are not valid any more")
		}
	}
	if auth.Username == "" || auth.Password == "" {
		if err := l.ask(&auth); err != nil {
			return err
		}
	}
	resp, err := c.RegistryLogin(ctx, auth)
	if err != nil {
		return err
	}
	return l.store(ctx, key, auth, resp)
}

func (l *login) readPassword() error {
	if l.password != "" {
		fmt.Fprintln(l.err, "WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
		if l.stdinPassword {
			return errors.New("--password and --password-stdin are mutually exclusive")
		}
	}
	if !l.stdinPassword {
		return nil
	}
	if l.user == "" {
		return errors.New("the --password-stdin option requires --username to be set")
	}
	b, err := io.ReadAll(l.stdin)
	if err != nil {
		return err
	}
	l.password = strings.TrimRight(string(b), "\r\n")
	return nil
}

// ask asks the user for what is missing; the password is not shown.
func (l *login) ask(auth *registry.AuthConfig) error {
	if !l.terminalIn() {
		return errors.New("Error: Cannot perform an interactive login from a non TTY device") //nolint:staticcheck // docker's words
	}
	in := bufio.NewReader(l.stdin)
	if auth.Username == "" {
		fmt.Fprint(l.out, "Username: ")
		s, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		if auth.Username = strings.TrimSpace(s); auth.Username == "" {
			return errors.New("username is required")
		}
	}
	if auth.Password == "" {
		state, err := term.SaveState(l.stdin.Fd())
		if err != nil {
			return err
		}
		fmt.Fprint(l.out, "Password: ")
		if err := term.DisableEcho(l.stdin.Fd(), state); err != nil {
			return err
		}
		s, err := in.ReadString('\n')
		_ = term.RestoreTerminal(l.stdin.Fd(), state)
		fmt.Fprintln(l.out)
		if err != nil {
			return err
		}
		if auth.Password = strings.TrimRight(s, "\r\n"); auth.Password == "" {
			return errors.New("password is required")
		}
	}
	return nil
}

// store keeps credentials that the registry accepted.
func (l *login) store(ctx context.Context, key string, auth registry.AuthConfig, resp registry.AuthResponse) error {
	if resp.IdentityToken != "" {
		auth.Password, auth.IdentityToken = "", resp.IdentityToken
	}
	cfg := l.config()
	if helper := cfg.helper(key); helper != "" {
		secret := auth.Password
		user := auth.Username
		if auth.IdentityToken != "" {
			user, secret = "<token>", auth.IdentityToken
		}
		b, err := json.Marshal(map[string]string{"ServerURL": key, "Username": user, "Secret": secret})
		if err != nil {
			return err
		}
		if _, err := runHelper(ctx, helper, "store", b); err != nil {
			return fmt.Errorf("error saving credentials: %w", err)
		}
	} else {
		if cfg.Auths == nil {
			cfg.Auths = map[string]authEntry{}
		}
		cfg.Auths[key] = authEntry{Auth: base64.StdEncoding.EncodeToString([]byte(auth.Username + ":" + auth.Password)), IdentityToken: auth.IdentityToken}
		if err := cfg.save(); err != nil {
			return fmt.Errorf("error saving credentials: %w", err)
		}
		fmt.Fprintf(l.err, "\nWARNING! Your credentials are stored unencrypted in '%s'.\nConfigure a credential helper to remove this warning. See\nhttps://docs.docker.com/go/credential-store/\n\n", cfg.path)
	}
	if resp.Status != "" {
		fmt.Fprintln(l.out, resp.Status)
	}
	return nil
}

func logoutCommand() *command {
	return &command{
		name: "logout", use: "[SERVER]", short: "Log out from a registry", max: 1,
		setup: func(a *app, _ *pflag.FlagSet) runFunc {
			return func(ctx context.Context, args []string) error {
				server := ""
				if len(args) == 1 {
					server = args[0]
				}
				return a.logout(ctx, server)
			}
		},
	}
}

func (a *app) logout(ctx context.Context, server string) error {
	key := serverKey(server)
	cfg := a.config()
	names := []string{key, "https://" + key, "http://" + key}
	var found []string
	for _, n := range names {
		if _, ok := cfg.Auths[n]; ok {
			found = append(found, n)
		}
	}
	helper := cfg.helper(key)
	fmt.Fprintf(a.out, "Removing login credentials for %s\n", key)
	if helper != "" {
		if _, err := runHelper(ctx, helper, "erase", []byte(key)); err != nil {
			fmt.Fprintf(a.err, "WARNING: could not erase credentials:\n%s: %v\n", key, err)
		}
	}
	if len(found) == 0 {
		return nil
	}
	for _, n := range found {
		delete(cfg.Auths, n)
	}
	return cfg.save()
}

// helper is the credential helper for a registry, or empty.
func (c *configFile) helper(key string) string {
	if h, ok := c.CredHelpers[key]; ok {
		return h
	}
	return c.CredsStore
}

// runHelper runs docker-credential-NAME with a verb; what it reads and writes is the protocol of docker's credential helpers.
func runHelper(ctx context.Context, name, verb string, in []byte) ([]byte, error) {
	if strings.ContainsAny(name, "/\x00") {
		return nil, fmt.Errorf("credential helper %q: not a name", name)
	}
	cmd := exec.CommandContext(ctx, "docker-credential-"+name, verb)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		if msg := strings.TrimSpace(string(out)); msg != "" {
			return nil, fmt.Errorf("error getting credentials - err: %w, out: `%s`", err, msg)
		}
		return nil, fmt.Errorf("credential helper %s: %w", name, err)
	}
	return out, nil
}

// allCredentials returns those of every registry that config.json, or the helper for all, names.
func (a *app) allCredentials(ctx context.Context) (map[string]registry.AuthConfig, error) {
	cfg := a.config()
	names := append(slices.Collect(maps.Keys(cfg.Auths)), slices.Collect(maps.Keys(cfg.CredHelpers))...)
	if cfg.CredsStore != "" {
		var listed map[string]string // users by registries
		out, err := runHelper(ctx, cfg.CredsStore, "list", []byte("unused"))
		if err == nil {
			err = json.Unmarshal(out, &listed)
		}
		if err != nil {
			fmt.Fprintf(a.err, "WARNING: cannot list the credentials of helper %s: %v\n", cfg.CredsStore, err)
		}
		names = append(names, slices.Collect(maps.Keys(listed))...)
	}
	all := map[string]registry.AuthConfig{}
	for _, name := range names {
		key := serverKey(name)
		if _, ok := all[key]; ok {
			continue
		}
		auth, err := a.credentials(ctx, key)
		if err != nil {
			return nil, err
		}
		if auth != nil {
			all[key] = *auth
		}
	}
	return all, nil
}

// credentials returns what config.json or its helper has for a registry, or nil. A helper that fails has none, as with docker: public images need none.
func (a *app) credentials(ctx context.Context, key string) (*registry.AuthConfig, error) {
	cfg := a.config()
	if helper := cfg.helper(key); helper != "" {
		out, err := runHelper(ctx, helper, "get", []byte(key))
		if err != nil {
			if !strings.Contains(err.Error(), "credentials not found") {
				fmt.Fprintf(a.err, "WARNING: going on without credentials for %s: %v\n", key, err)
			}
			return nil, nil
		}
		var cred struct{ Username, Secret string }
		if err := json.Unmarshal(out, &cred); err != nil {
			return nil, fmt.Errorf("credential helper %s: %w", helper, err)
		}
		auth := &registry.AuthConfig{Username: cred.Username, Password: cred.Secret, ServerAddress: key}
		if cred.Username == "<token>" {
			auth.Username, auth.Password, auth.IdentityToken = "", "", cred.Secret
		}
		return auth, nil
	}
	for name, e := range cfg.Auths {
		if name != key && serverKey(name) != key {
			continue
		}
		auth := &registry.AuthConfig{Username: e.Username, Password: e.Password, ServerAddress: key, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken}
		if e.Auth != "" {
			b, err := base64.StdEncoding.DecodeString(e.Auth)
			user, pass, ok := strings.Cut(string(b), ":")
			if err != nil || !ok {
				return nil, fmt.Errorf("%s: invalid auth configuration for %s", cfg.path, name)
			}
			auth.Username, auth.Password = user, strings.Trim(pass, "\x00")
		}
		return auth, nil
	}
	return nil, nil
}
