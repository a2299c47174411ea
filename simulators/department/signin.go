package department

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"guichet/internal/id"
)

// pending is a sign-in that this browser began.
type pending struct {
	state, nonce, verifier string
	expires                time.Time
}

// session is a resident who is signed in at one department. Its subject is
// pairwise: no other department knows the resident by it.
type session struct {
	department string
	Subject    string
	Name       string
	idToken    string
	expires    time.Time
}

const (
	pendingLife = 10 * time.Minute
	sessionLife = 8 * time.Hour
	maxEntries  = 10_000 // of each map
)

// Cookies carry the department's name: those of localhost are shared by all ports.
func pendingCookie(d Department) string { return "demo_" + d.Code + "_signin" }
func sessionCookie(d Department) string { return "demo_" + d.Code + "_session" }

func (a *App) setCookie(w http.ResponseWriter, d Department, name, value string, life time.Duration) {
	c := &http.Cookie{
		Name: name, Value: value, Path: "/" + d.Code, MaxAge: int(life.Seconds()), HttpOnly: true, SameSite: http.SameSiteLaxMode,
		Secure: strings.HasPrefix(a.o.URL, "https://"),
	}
	if value == "" {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

func (a *App) oauth(p *oidc.Provider, d Department) *oauth2.Config {
	return &oauth2.Config{
		ClientID: d.ClientID, ClientSecret: d.ClientSecret, RedirectURL: a.o.URL + "/" + d.Code + "/callback",
		Endpoint: p.Endpoint(), Scopes: []string{oidc.ScopeOpenID, "profile", "email"},
	}
}

// login begins a sign-in: authorization code, PKCE S256, state and nonce.
func (a *App) login(w http.ResponseWriter, r *http.Request, d Department) {
	p, err := a.oidcProvider(r.Context())
	if err != nil {
		a.fail(w, r, d, http.StatusBadGateway, "signInDown", err)
		return
	}
	x := pending{state: id.Secret(), nonce: id.Secret(), verifier: oauth2.GenerateVerifier(), expires: a.o.Now().Add(pendingLife)}
	key := id.Secret()
	a.mu.Lock()
	sweep(a.pending, a.o.Now(), func(x pending) time.Time { return x.expires })
	a.pending[key] = x
	a.mu.Unlock()
	a.setCookie(w, d, pendingCookie(d), key, pendingLife)
	http.Redirect(w, r, a.oauth(p, d).AuthCodeURL(x.state, oidc.Nonce(x.nonce), oauth2.S256ChallengeOption(x.verifier),
		oauth2.SetAuthURLParam("ui_locales", a.lang(r)+"-CA")), http.StatusSeeOther)
}

// sweep drops what has expired, and everything when there is too much of it.
func sweep[T any](m map[string]T, now time.Time, expires func(T) time.Time) {
	for k, v := range m {
		if now.After(expires(v)) || len(m) >= maxEntries {
			delete(m, k)
		}
	}
}

var errCancelled = errors.New("the provider sent an error")

// callback ends a sign-in. What the provider sent back is used only by the browser
// that began it, once.
func (a *App) callback(w http.ResponseWriter, r *http.Request, d Department) {
	s, err := a.signIn(r, d)
	a.setCookie(w, d, pendingCookie(d), "", 0)
	switch {
	case errors.Is(err, errCancelled):
		a.fail(w, r, d, http.StatusOK, "cancelled", err)
		return
	case err != nil:
		a.fail(w, r, d, http.StatusBadRequest, "signInFailed", err)
		return
	}
	key := id.Secret()
	a.mu.Lock()
	sweep(a.sessions, a.o.Now(), func(s session) time.Time { return s.expires })
	a.sessions[key] = s
	a.mu.Unlock()
	a.setCookie(w, d, sessionCookie(d), key, sessionLife)
	http.Redirect(w, r, "/"+d.Code, http.StatusSeeOther)
}

func (a *App) signIn(r *http.Request, d Department) (session, error) {
	x, err := a.takePending(r, d)
	if err != nil {
		return session{}, err
	}
	q := r.URL.Query()
	if subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(x.state)) != 1 {
		return session{}, errors.New("another state came back")
	}
	if q.Get("iss") != a.o.Issuer { // RFC 9207: the answer of another provider is not ours
		return session{}, fmt.Errorf("the answer names the issuer %q", q.Get("iss"))
	}
	if e := q.Get("error"); e != "" {
		return session{}, fmt.Errorf("%w: %s", errCancelled, e)
	}
	ctx := oidc.ClientContext(r.Context(), a.http)
	p, err := a.oidcProvider(ctx)
	if err != nil {
		return session{}, err
	}
	cfg := a.oauth(p, d)
	token, err := cfg.Exchange(ctx, q.Get("code"), oauth2.VerifierOption(x.verifier))
	if err != nil {
		return session{}, fmt.Errorf("exchange the code: %w", err)
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return session{}, errors.New("the token answer has no ID token")
	}
	idToken, err := p.Verifier(&oidc.Config{ClientID: d.ClientID, Now: a.o.Now}).Verify(ctx, raw)
	if err != nil {
		return session{}, fmt.Errorf("verify the ID token: %w", err)
	}
	if subtle.ConstantTimeCompare([]byte(idToken.Nonce), []byte(x.nonce)) != 1 {
		return session{}, errors.New("the ID token has another nonce")
	}
	info, err := p.UserInfo(ctx, cfg.TokenSource(ctx, token))
	if err != nil {
		return session{}, fmt.Errorf("ask userinfo: %w", err)
	}
	if info.Subject != idToken.Subject {
		return session{}, errors.New("userinfo speaks of somebody else")
	}
	var claims struct {
		Name string `json:"name"`
	}
	if err := info.Claims(&claims); err != nil {
		return session{}, fmt.Errorf("read userinfo: %w", err)
	}
	name := claims.Name
	if name == "" {
		name = info.Email
	}
	return session{department: d.Code, Subject: idToken.Subject, Name: name, idToken: raw, expires: a.o.Now().Add(sessionLife)}, nil
}

// takePending gives the sign-in that this browser began, and forgets it.
func (a *App) takePending(r *http.Request, d Department) (pending, error) {
	c, err := r.Cookie(pendingCookie(d))
	if err != nil {
		return pending{}, errors.New("this browser began no sign-in")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	x, ok := a.pending[c.Value]
	delete(a.pending, c.Value)
	if !ok || a.o.Now().After(x.expires) {
		return pending{}, errors.New("the sign-in is over or unknown")
	}
	return x, nil
}

// session gives the resident whose browser asks.
func (a *App) session(r *http.Request, d Department) (session, bool) {
	c, err := r.Cookie(sessionCookie(d))
	if err != nil {
		return session{}, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	s, ok := a.sessions[c.Value]
	return s, ok && s.department == d.Code && !a.o.Now().After(s.expires)
}

// logout ends the session here, and then at the provider (RP-Initiated Logout 1.0)
// when it offers that.
func (a *App) logout(w http.ResponseWriter, r *http.Request, d Department) {
	home := "/" + d.Code
	s, ok := a.session(r, d)
	if c, err := r.Cookie(sessionCookie(d)); err == nil {
		a.mu.Lock()
		delete(a.sessions, c.Value)
		a.mu.Unlock()
	}
	a.setCookie(w, d, sessionCookie(d), "", 0)
	var offer struct {
		End string `json:"end_session_endpoint"`
	}
	p, err := a.oidcProvider(r.Context())
	if err == nil {
		err = p.Claims(&offer)
	}
	end, parseErr := url.Parse(offer.End)
	if !ok || err != nil || parseErr != nil || offer.End == "" {
		http.Redirect(w, r, home, http.StatusSeeOther)
		return
	}
	q := end.Query()
	q.Set("id_token_hint", s.idToken)
	q.Set("client_id", d.ClientID)
	q.Set("post_logout_redirect_uri", a.o.URL+home)
	end.RawQuery = q.Encode()
	http.Redirect(w, r, end.String(), http.StatusSeeOther)
}
