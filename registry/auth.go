package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"gantry/errdefs"
)

const (
	maxToken      = 1 << 20 // bytes of a token server's answer
	maxChallenges = 16
	maxScopes     = 8                // that a host asks for
	maxScope      = 512              // bytes of one
	tokenLife     = 60 * time.Second // when the token server does not say
)

// errNoCredentials is not of kind Unauthorized, as with Docker: at that its client would ask the user for a name and a password.
var errNoCredentials = errors.New("no basic auth credentials")

// challenge is one demand of a WWW-Authenticate header.
type challenge struct {
	scheme string // lower case
	params map[string]string
}

// token lets its bearer in until it expires.
type token struct {
	value   string
	expires time.Time
}

// parseChallenges reads the WWW-Authenticate headers (RFC 9110, 11.6.1), leaving out what is malformed.
func parseChallenges(h http.Header) []challenge {
	var found []challenge
	for _, line := range h.Values("Www-Authenticate") {
		for rest := line; rest != "" && len(found) < maxChallenges; {
			var c challenge
			var ok bool
			if c, rest, ok = parseChallenge(rest); !ok {
				break
			}
			found = append(found, c)
		}
	}
	return found
}

func parseChallenge(s string) (c challenge, rest string, ok bool) {
	s = strings.TrimLeft(s, " \t,")
	scheme, s := takeToken(s)
	if scheme == "" {
		return c, "", false
	}
	c = challenge{strings.ToLower(scheme), map[string]string{}}
	for {
		s = strings.TrimLeft(s, " \t")
		name, after := takeToken(s)
		after = strings.TrimLeft(after, " \t")
		if name == "" || !strings.HasPrefix(after, "=") {
			return c, s, true // the end, or the next scheme
		}
		value, after, good := takeValue(strings.TrimLeft(after[1:], " \t"))
		if !good {
			return c, "", true
		}
		c.params[strings.ToLower(name)] = value
		after = strings.TrimLeft(after, " \t")
		if !strings.HasPrefix(after, ",") {
			return c, after, true
		}
		s = after[1:]
	}
}

func takeToken(s string) (tok, rest string) {
	i := strings.IndexFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`()<>@,;:\"/[]?={}`, r)
	})
	if i < 0 {
		return s, ""
	}
	return s[:i], s[i:]
}

func takeValue(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		value, rest = takeToken(s)
		return value, rest, value != ""
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			if i++; i == len(s) {
				return "", "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

// challenged takes note of new demands and reports whether it makes sense to try again. A host may keep a repository under another name than it is asked for by, as mirrors of
// several registries do, and then names that in its demand; it gets no token for more than the request is for.
func (h *host) challenged(c []challenge, scope []string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.tokens, h.tokenKey(scope))
	if len(c) == 0 {
		return false
	}
	h.challenges = c
	for _, c := range c {
		for _, wanted := range strings.Fields(c.params["scope"]) {
			wanted = narrow(wanted, scope)
			if wanted != "" && !slices.Contains(scope, wanted) && !slices.Contains(h.scopes, wanted) && len(h.scopes) < maxScopes {
				h.scopes = append(h.scopes, wanted)
			}
		}
	}
	return true
}

// narrow returns what a host demands, "repository:NAME:ACTIONS", with those actions only that one of the scopes of a request has; empty when it is nothing of the kind.
func narrow(wanted string, scope []string) string {
	name, ok := strings.CutPrefix(wanted, "repository:")
	i := strings.LastIndexByte(name, ':')
	if !ok || i <= 0 || len(wanted) > maxScope {
		return ""
	}
	var actions []string
	for action := range strings.SplitSeq(name[i+1:], ",") {
		if (action == "pull" || action == "push") && slices.ContainsFunc(scope, func(s string) bool { return strings.Contains(s[strings.LastIndexByte(s, ':')+1:], action) }) {
			actions = append(actions, action)
		}
	}
	if len(actions) == 0 {
		return ""
	}
	return "repository:" + name[:i] + ":" + strings.Join(actions, ",")
}

// tokenKey is what a token for a scope is kept by. The caller holds mu.
func (h *host) tokenKey(scope []string) string {
	return strings.Join(append(slices.Clip(scope), h.scopes...), " ")
}

// authorize sets the Authorization header that the host has asked for.
func (h *host) authorize(ctx context.Context, req *http.Request, scope []string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.auth.RegistryToken != "" {
		req.Header.Set("Authorization", "Bearer "+h.auth.RegistryToken)
		return nil
	}
	var missing error
	for _, c := range h.challenges {
		switch c.scheme {
		case "bearer":
			t, err := h.bearer(ctx, c, scope)
			if err != nil {
				return err
			}
			req.Header.Set("Authorization", "Bearer "+t)
			return nil
		case "basic":
			if h.auth.Username == "" { // a token may be had without
				missing = fmt.Errorf("%s %q: %w", title(req.Method), bare(req.URL.String()), errNoCredentials)
				continue
			}
			req.SetBasicAuth(h.auth.Username, h.auth.Password)
			return nil
		}
	}
	return missing
}

// title writes a method as Go's HTTP errors do.
func title(method string) string { return method[:1] + strings.ToLower(method[1:]) }

// bearer returns a token for the scope, from memory or from the token server. The caller holds mu.
func (h *host) bearer(ctx context.Context, c challenge, scope []string) (string, error) {
	key := h.tokenKey(scope)
	if t, ok := h.tokens[key]; ok && h.now().Before(t.expires) {
		return t.value, nil
	}
	t, _, err := h.fetchToken(ctx, c, append(slices.Clip(scope), h.scopes...), false)
	if err != nil {
		return "", err
	}
	h.tokens[key] = t
	return t.value, nil
}

// fetchToken asks the token server that a challenge names. offline asks for a refresh token too, which may not be given.
func (h *host) fetchToken(ctx context.Context, c challenge, scope []string, offline bool) (t token, refresh string, err error) {
	realm, err := h.realmOf(c)
	if err != nil {
		return t, "", err
	}
	req, err := h.tokenRequest(ctx, realm, c.params["service"], scope, offline)
	if err != nil {
		return t, "", err
	}
	resp, err := h.tokenClient(realm).Do(req)
	if err != nil {
		return t, "", errdefs.With(errdefs.Unavailable, clean(err))
	}
	defer drop(resp)
	if resp.StatusCode != http.StatusOK {
		return t, "", answer(resp)
	}
	data, err := h.client.readAll(ctx, resp, maxToken)
	if err != nil {
		return t, "", err
	}
	var a struct {
		Token        string `json:"token"`
		AccessToken  string `json:"access_token"`
		RefreshToken string `json:"refresh_token"`
		ExpiresIn    int    `json:"expires_in"`
	}
	if err := json.Unmarshal(data, &a); err != nil {
		return t, "", errdefs.New(errdefs.Unavailable, "read token from %s: %w", realm.Host, err)
	}
	if t.value = a.Token; t.value == "" {
		t.value = a.AccessToken
	}
	if t.value == "" {
		return t, "", errdefs.New(errdefs.Unauthorized, "authorization server did not include a token in the response")
	}
	life := time.Duration(a.ExpiresIn) * time.Second
	if life < tokenLife {
		life = tokenLife
	}
	t.expires = h.now().Add(life - life/10)
	return t, a.RefreshToken, nil
}

// realmOf checks the token server's address. Credentials go to the first one that the registry names, over TLS unless the registry itself is insecure.
func (h *host) realmOf(c challenge) (*url.URL, error) {
	realm, err := url.Parse(c.params["realm"])
	if err != nil || realm.Host == "" || realm.User != nil || realm.Scheme != "https" && realm.Scheme != "http" {
		return nil, errdefs.New(errdefs.Unauthorized, "registry %s names the token server %q, which is no URL of http or https without name and password", h.name, bare(c.params["realm"]))
	}
	own := realm.Scheme + "://" + realm.Host
	if realm.Scheme == "http" && h.base.Scheme == "https" && !h.insecure {
		return nil, errdefs.New(errdefs.Unauthorized, "registry %s names the token server %q, which has no TLS", h.name, own)
	}
	if h.realm == "" {
		h.realm = own
	}
	if h.realm != own && h.auth != (Auth{}) {
		return nil, errdefs.New(errdefs.Unauthorized, "registry %s names another token server than before: %q", h.name, own)
	}
	return realm, nil
}

func (h *host) tokenRequest(ctx context.Context, realm *url.URL, service string, scope []string, offline bool) (*http.Request, error) {
	if h.auth.IdentityToken != "" {
		form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {h.auth.IdentityToken}, "client_id": {"docker"}, "service": {service}, "scope": {strings.Join(scope, " ")}}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(form.Encode()))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("User-Agent", h.client.c.UserAgent)
		return req, nil
	}
	q := realm.Query()
	if service != "" {
		q.Set("service", service)
	}
	for _, s := range scope {
		q.Add("scope", s)
	}
	if h.auth.Username != "" {
		q.Set("account", h.auth.Username)
	}
	if offline {
		q.Set("offline_token", "true")
		q.Set("client_id", "docker")
	}
	target := *realm
	target.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", h.client.c.UserAgent)
	if h.auth.Username != "" {
		req.SetBasicAuth(h.auth.Username, h.auth.Password)
	}
	return req, nil
}

// tokenClient follows no redirect: it would take the credentials along. The registry's authorities are trusted for its token server as well.
func (h *host) tokenClient(realm *url.URL) *http.Client {
	certs := h.certs
	if realm.Host != h.base.Host {
		own := h.client.certificates(realm.Host, h.insecure || h.client.insecure(realm.Host))
		certs = certs.elsewhere()
		certs.insecure, certs.folders = own.insecure, own.folders
	}
	return &http.Client{
		Transport:     h.client.transport(realm.Host, certs),
		Timeout:       2 * h.client.c.Stall,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Login tries credentials and returns an identity token, if the registry gives one, that stands for the password from then on. Errors: Unauthorized.
func (c *Client) Login(ctx context.Context, auth Auth) (identity string, err error) {
	domain := loginDomain(auth.ServerAddress)
	_, origin, err := c.hostsConfig(domain)
	if err != nil {
		return "", err
	}
	h := c.originOf(domain, origin, auth)
	if err := h.ping(ctx); err != nil {
		return "", err
	}
	h.mu.Lock()
	i := slices.IndexFunc(h.challenges, func(c challenge) bool { return c.scheme == "bearer" })
	if i >= 0 {
		var t token
		if t, identity, err = h.fetchToken(ctx, h.challenges[i], nil, auth.IdentityToken == ""); err == nil {
			h.tokens[""] = t
		}
	}
	h.mu.Unlock()
	if err != nil {
		return "", loginError(h, err)
	}
	resp, err := h.do(ctx, request{method: http.MethodGet})
	if err != nil {
		return "", loginError(h, err)
	}
	defer drop(resp)
	if resp.StatusCode != http.StatusOK {
		return "", errdefs.New(errdefs.Unauthorized, "login attempt to %s failed with status: %s", h.base.JoinPath(h.root, "/"), resp.Status)
	}
	return identity, nil
}

func loginError(h *host, err error) error {
	if errdefs.Is(err, errdefs.Unauthorized) {
		return errdefs.New(errdefs.Unauthorized, "Get %q: %w", h.base.JoinPath(h.root, "/").String(), err)
	}
	return err
}

// loginDomain returns the domain of a server address, which for Docker Hub is a URL of an older interface.
func loginDomain(address string) string {
	address = strings.TrimPrefix(strings.TrimPrefix(address, "https://"), "http://")
	address, _, _ = strings.Cut(address, "/")
	switch address {
	case "", "index.docker.io", hubHost:
		return hubDomain
	default:
		return address
	}
}
