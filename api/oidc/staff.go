package oidc

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	oidcrp "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"guichet/api/session"
	"guichet/identity/staff"
)

// A Directory is the city's staff directory, or a partner, as an OpenID Provider. Without an
// issuer nobody of the staff can sign in.
type Directory struct {
	Issuer, ClientID, ClientSecret string
	GroupsScope                    string // asked for beside openid, profile, email; "" for none
	FreshACR                       string // demanded of a fresh proof, such as phishing-resistant; "" for none
}

// tokenAge is how old an answer of the directory may be.
const tokenAge = 10 * time.Minute

// directory is the relying party. What the directory says of itself is read at the first
// sign-in and kept, so that the service starts when the directory is down.
type directory struct {
	Directory
	callback string
	now      func() time.Time

	mu     sync.Mutex
	ready  bool
	oauth  oauth2.Config
	tokens *oidcrp.IDTokenVerifier
	outs   *oidcrp.IDTokenVerifier // of logout tokens
	info   *oidcrp.Provider
	iss    bool // the directory promises iss in its answers
}

// calls talks to the directory: bounded in time, and it goes where it is told, not
// where an answer redirects.
var calls = &http.Client{
	Timeout:       10 * time.Second,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func (d *directory) discover(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ready {
		return nil
	}
	if d.Issuer == "" {
		return errors.New("no staff directory is configured")
	}
	// The key set keeps this context for later calls: it must not end with the request.
	p, err := oidcrp.NewProvider(oidcrp.ClientContext(context.WithoutCancel(ctx), calls), d.Issuer)
	if err != nil {
		return fmt.Errorf("read the directory's configuration: %w", err)
	}
	var more struct {
		Iss bool `json:"authorization_response_iss_parameter_supported"`
	}
	if err := p.Claims(&more); err != nil {
		return fmt.Errorf("read the directory's configuration: %w", err)
	}
	scopes := []string{oidcrp.ScopeOpenID, "profile", "email"}
	if d.GroupsScope != "" {
		scopes = append(scopes, d.GroupsScope)
	}
	d.oauth = oauth2.Config{
		ClientID: d.ClientID, ClientSecret: d.ClientSecret, Endpoint: p.Endpoint(), RedirectURL: d.callback, Scopes: scopes,
	}
	checks := oidcrp.Config{ClientID: d.ClientID, Now: d.now, SupportedSigningAlgs: []string{oidcrp.ES256, oidcrp.RS256}}
	d.tokens = p.Verifier(&checks)
	logout := checks
	logout.SkipExpiryCheck = true // exp is not required of them; their age is
	d.outs = p.Verifier(&logout)
	d.info, d.iss, d.ready = p, more.Iss, true
	return nil
}

// staffSignIn sends the browser to the directory; with fresh=1 the directory must let
// the person prove again who they are.
func (h *Handler) staffSignIn(w http.ResponseWriter, r *http.Request) {
	back := session.LocalPath(r.URL.Query().Get("return"))
	if back == "/" {
		back = "/desk"
	}
	if err := h.directory.discover(r.Context()); err != nil {
		h.log.ErrorContext(r.Context(), "staff sign-in", "error", err)
		h.site.Fail(w, r, http.StatusServiceUnavailable, "oidc.staff.unreachable")
		return
	}
	p, err := h.staff.Begin(r.Context(), staff.Wanted{ReturnPath: back, Fresh: r.URL.Query().Get("fresh") != ""})
	if err != nil {
		h.brokenPage(w, r, "staff sign-in", err)
		return
	}
	h.sessions.SetDirectoryBrowser(w, p.Browser)
	options := []oauth2.AuthCodeOption{oidcrp.Nonce(p.Nonce), oauth2.S256ChallengeOption(p.Verifier)}
	if p.Fresh {
		options = append(options, oauth2.SetAuthURLParam("prompt", "login"), oauth2.SetAuthURLParam("max_age", "0"))
		if h.directory.FreshACR != "" {
			options = append(options, oauth2.SetAuthURLParam("acr_values", h.directory.FreshACR))
		}
	}
	to := h.directory.oauth.AuthCodeURL(p.State, options...)
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// staffCallback takes the directory's answer.
func (h *Handler) staffCallback(w http.ResponseWriter, r *http.Request) {
	v, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || repeated(v) {
		h.site.Fail(w, r, http.StatusBadRequest, "")
		return
	}
	p, err := h.staff.Take(r.Context(), v.Get("state"), h.sessions.DirectoryBrowser(r))
	if errors.Is(err, staff.ErrNoPending) {
		h.site.Fail(w, r, http.StatusBadRequest, "oidc.fail.pending")
		return
	}
	if err != nil {
		h.brokenPage(w, r, "staff sign-in", err)
		return
	}
	h.sessions.SetDirectoryBrowser(w, "")
	if v.Get("error") != "" {
		h.site.Fail(w, r, http.StatusForbidden, "oidc.staff.refused")
		return
	}
	u, err := h.directory.answer(r.Context(), v, p)
	if errors.Is(err, errNotFresh) {
		h.log.WarnContext(r.Context(), "the directory's answer is no fresh proof", "error", err)
		h.site.Fail(w, r, http.StatusForbidden, "oidc.staff.not_fresh")
		return
	}
	if err != nil {
		h.log.WarnContext(r.Context(), "the directory's answer is refused", "error", err)
		h.site.Fail(w, r, http.StatusBadGateway, "oidc.staff.answer")
		return
	}
	token, err := h.staff.SignedIn(r.Context(), u, h.sessions.StaffToken(r), session.Visitor(r))
	switch {
	case errors.Is(err, staff.ErrNoRole), errors.Is(err, staff.ErrSuspended):
		h.site.Fail(w, r, http.StatusForbidden, "oidc.staff.norole")
	case err != nil:
		h.brokenPage(w, r, "staff sign-in", err)
	default:
		h.sessions.SetStaff(w, token)
		h.see(w, r, p.ReturnPath)
	}
}

// errNotFresh says that the directory was asked to let somebody prove who they are, and
// does not say that it did.
var errNotFresh = errors.New("the directory does not say that the person has just proved who they are")

// answer exchanges the code and checks everything that the directory says.
func (d *directory) answer(ctx context.Context, v url.Values, p staff.Pending) (staff.Upstream, error) {
	tokens, token, err := d.verify(ctx, v, p.Nonce, p.Verifier)
	if err != nil {
		return staff.Upstream{}, err
	}
	ctx = oidcrp.ClientContext(ctx, calls)
	u := staff.Upstream{Issuer: token.Issuer, Subject: token.Subject}
	if err := d.proof(token, p, &u); err != nil {
		return staff.Upstream{}, err
	}
	claims := struct {
		Name   *string   `json:"name"`
		Email  *string   `json:"email"`
		Groups *[]string `json:"groups"`
	}{&u.Name, &u.Email, &u.Groups}
	if err := token.Claims(&claims); err != nil {
		return staff.Upstream{}, fmt.Errorf("read the ID token: %w", err)
	}
	if u.Name == "" { // some directories tell names at userinfo only
		info, err := d.info.UserInfo(ctx, oauth2.StaticTokenSource(tokens))
		if err != nil {
			return staff.Upstream{}, fmt.Errorf("ask userinfo: %w", err)
		}
		if info.Subject != token.Subject {
			return staff.Upstream{}, errors.New("userinfo speaks of somebody else")
		}
		if err := info.Claims(&claims); err != nil {
			return staff.Upstream{}, fmt.Errorf("read userinfo: %w", err)
		}
	}
	return u, nil
}

// verify exchanges the code of an answer and checks whose it is, for whom, and how old.
func (d *directory) verify(ctx context.Context, v url.Values, nonce, verifier string) (*oauth2.Token, *oidcrp.IDToken, error) {
	if err := d.discover(ctx); err != nil { // this instance may not have begun the sign-in
		return nil, nil, err
	}
	if iss := v.Get("iss"); iss != d.Issuer && (d.iss || iss != "") {
		return nil, nil, errors.New("the answer names another issuer") // mix-up, RFC 9207
	}
	ctx = oidcrp.ClientContext(ctx, calls)
	tokens, err := d.oauth.Exchange(ctx, v.Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		return nil, nil, fmt.Errorf("exchange the code: %w", err)
	}
	raw, _ := tokens.Extra("id_token").(string)
	token, err := d.tokens.Verify(ctx, raw)
	if err != nil {
		return nil, nil, fmt.Errorf("verify the ID token: %w", err)
	}
	if subtle.ConstantTimeCompare([]byte(token.Nonce), []byte(nonce)) != 1 {
		return nil, nil, errors.New("the ID token has another nonce")
	}
	if age := d.now().Sub(token.IssuedAt); age > tokenAge || age < -time.Minute {
		return nil, nil, fmt.Errorf("the ID token is %s old", age.Round(time.Second))
	}
	return tokens, token, nil
}

// proof reads when, how and in which session of the directory somebody proved who they
// are, and refuses an answer that was to be fresh and is not.
func (d *directory) proof(token *oidcrp.IDToken, p staff.Pending, u *staff.Upstream) error {
	var said struct {
		AuthTime int64  `json:"auth_time"`
		ACR      string `json:"acr"`
		Sid      string `json:"sid"`
	}
	if err := token.Claims(&said); err != nil {
		return fmt.Errorf("read the ID token: %w", err)
	}
	u.Sid = said.Sid
	if said.AuthTime != 0 {
		u.ProvedAt = time.Unix(said.AuthTime, 0)
	}
	age := d.now().Sub(u.ProvedAt)
	switch {
	case age < -time.Minute: // a proof in the future would stay fresh for longer than it should
		return errors.New("the ID token's auth_time is to come")
	case !p.Fresh:
		return nil
	case age > staff.FreshFor:
		return fmt.Errorf("%w: auth_time is missing or old", errNotFresh)
	case d.FreshACR != "" && said.ACR != d.FreshACR:
		return fmt.Errorf("%w: it is not of the kind that was asked for", errNotFresh)
	}
	return nil
}

// staffSignOut ends the staff session. The directory's own session is the
// directory's business.
func (h *Handler) staffSignOut(w http.ResponseWriter, r *http.Request) {
	if m, ok := session.Staff(r.Context()); ok {
		if err := h.staff.EndSession(r.Context(), m); err != nil {
			h.brokenPage(w, r, "staff sign-out", err)
			return
		}
	}
	h.sessions.SetStaff(w, "")
	h.see(w, r, "/signed-out")
}
