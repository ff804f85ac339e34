package cli

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeHelper is a credential helper that keeps what it is given in files beside it.
const fakeHelper = `#!/bin/sh
cd "$(dirname "$0")" || exit 1
case "$1" in
store) cat > stored; sed 's/.*"ServerURL":"\([^"]*\)".*/\1/' stored > server;;
erase) cat > erased; rm -f stored;;
list) echo "{\"$(cat server)\":\"me\"}";;
get)
	read -r key
	if test -e stored && test "$key" = "$(cat server)"; then cat stored; else echo "credentials not found in native keychain"; exit 1; fi;;
esac
`

// Credentials of docker's helpers are used, kept and erased as docker does, for one registry or for all; none is left in config.json.
func TestCredentialHelpers(t *testing.T) {
	for _, c := range []struct{ name, config, token string }{
		{"store for all", `{"credsStore":"fake"}`, ""},
		{"helper for one", `{"credsStore":"other","credHelpers":{"reg.example:5000":"fake"}}`, ""},
		{"identity token", `{"credsStore":"fake"}`, "identity"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bin, dir := t.TempDir(), t.TempDir()
			if err := os.WriteFile(filepath.Join(bin, "docker-credential-fake"), []byte(fakeHelper), 0o700); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
			path := filepath.Join(dir, "config.json")
			if err := os.WriteFile(path, []byte(c.config), 0o600); err != nil {
				t.Fatal(err)
			}
			var sent, configs string
			s := newServer(t, map[string]http.HandlerFunc{
				"POST /auth":  answer(200, `{"Status":"Login Succeeded","IdentityToken":"`+c.token+`"}`),
				"HEAD /_ping": answer(200, ""),
				"POST /build": func(w http.ResponseWriter, r *http.Request) {
					data, _ := base64.URLEncoding.DecodeString(r.Header.Get("X-Registry-Config"))
					configs = string(data)
					answer(200, `{"aux":{"ID":"sha256:0"}}`)(w, r)
				},
				"POST /images/create": func(w http.ResponseWriter, r *http.Request) {
					sent = r.Header.Get("X-Registry-Auth")
					answer(200, `{"status":"Status: done"}`)(w, r)
				},
			})
			if got := run(t, s, "--config", dir, "login", "-u", "me", "-p", "pw", "reg.example:5000"); got.code != 0 || strings.Contains(got.stderr, "unencrypted") {
				t.Fatalf("%+v", got)
			}
			pull := func(ref string) map[string]string {
				t.Helper()
				sent = ""
				if got := run(t, s, "--config", dir, "pull", ref); got.code != 0 {
					t.Fatalf("%+v", got)
				}
				data, err := base64.URLEncoding.DecodeString(sent)
				if err != nil {
					t.Fatal(err)
				}
				var auth map[string]string
				if len(data) > 0 {
					if err := json.Unmarshal(data, &auth); err != nil {
						t.Fatal(err)
					}
				}
				return auth
			}
			auth := pull("reg.example:5000/app:1")
			if c.token == "" && (auth["username"] != "me" || auth["password"] != "pw") || c.token != "" && (auth["identitytoken"] != c.token || auth["password"] != "") {
				t.Errorf("sent %v", auth)
			}
			if data, err := os.ReadFile(path); err != nil || strings.Contains(string(data), "auths") {
				t.Errorf("%s %v", data, err)
			}
			if c.config == `{"credsStore":"fake"}` {
				if auth := pull("another.example/app:1"); auth["username"] != "" || auth["password"] != "" || auth["identitytoken"] != "" {
					t.Errorf("another registry is sent %v", auth)
				}
			}
			build := t.TempDir()
			if err := os.WriteFile(filepath.Join(build, "Dockerfile"), []byte("FROM reg.example:5000/app:1\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if run(t, s, "--config", dir, "build", build); !strings.Contains(configs, "reg.example:5000") {
				t.Errorf("a build is sent %s", configs)
			}
			if got := run(t, s, "--config", dir, "logout", "reg.example:5000"); got.code != 0 {
				t.Errorf("%+v", got)
			}
			if erased, err := os.ReadFile(filepath.Join(bin, "erased")); err != nil || string(erased) != "reg.example:5000" {
				t.Errorf("%q %v", erased, err)
			}
			if auth := pull("reg.example:5000/app:1"); auth["username"] != "" || auth["identitytoken"] != "" {
				t.Errorf("sent %v after the logout", auth)
			}
		})
	}
}

// A helper that is not there, or fails, keeps nobody from a public image.
func TestBrokenHelper(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"credsStore":"nosuch","credHelpers":{"other.example":"nosuch"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM app:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newServer(t, map[string]http.HandlerFunc{"HEAD /_ping": answer(200, ""), "POST /images/create": answer(200, `{"status":"Status: done"}`), "POST /build": answer(200, `{"aux":{"ID":"sha256:0"}}`)})
	for _, args := range [][]string{{"pull", "reg.example/app:1"}, {"build", dir}} {
		got := run(t, s, append([]string{"--config", dir}, args...)...)
		if got.code != 0 || !strings.Contains(got.stderr, "WARNING: ") || !strings.Contains(got.stderr, "docker-credential-nosuch") {
			t.Errorf("%v: %+v", args, got)
		}
	}
}
