package oidc

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"time"

	oidcrp "github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-chi/chi/v5"
	"golang.org/x/oauth2"

	"guichet/api/session"
	"guichet/identity"
	"guichet/identity/provider"
	"guichet/internal/id"
)

// A Partner is an organisation whose sign-in counts here: a bank, the province. What it
// says of its own levels is translated by the table, never taken over.
type Partner struct {
	Key          string         `json:"key"` // in addresses and audit
	NameEN       string         `json:"name_en"`
	NameFR       string         `json:"name_fr"`
	Issuer       string         `json:"issuer"`
	ClientID     string         `json:"client_id"`
	ClientSecret string         `json:"client_secret"`
	Levels       map[string]int `json:"levels"`  // the partner's acr → 1 or 2; others count as 1
	Proofed      []string       `json:"proofed"` // the partner's acr that mean a proved identity
}

// Name is the partner's name.
func (p Partner) Name() provider.Words { return provider.Words{EN: p.NameEN, FR: p.NameFR} }

var partnerKey = regexp.MustCompile(`^[a-z0-9-]{1,40}$`)

// ReadPartners reads the list of partners, JSON, that an operator keeps in a file; no path,
// no partners. The file holds secrets: one that others may read is refused.
func ReadPartners(path string) ([]Partner, error) {
	if path == "" {
		return nil, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read partners: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("read partners: %s may be read by others: chmod 600 %s", path, path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read partners: %w", err)
	}
	var partners []Partner
	if err := json.Unmarshal(text, &partners); err != nil {
		return nil, fmt.Errorf("read partners: %s is no list of partners: %w", path, err)
	}
	return partners, checkPartners(partners)
}

func checkPartners(partners []Partner) error {
	seen := map[string]bool{}
	for _, p := range partners {
		if !partnerKey.MatchString(p.Key) || p.NameEN == "" || p.NameFR == "" || p.Issuer == "" || p.ClientID == "" || seen[p.Key] || seen[p.Issuer] {
			return fmt.Errorf("partner %q: key, names, issuer and client are needed, and each once", p.Key)
		}
		for acr, level := range p.Levels {
			if level != 1 && level != 2 {
				return fmt.Errorf("partner %s: %s maps to level %d, want 1 or 2", p.Key, acr, level)
			}
		}
		seen[p.Key], seen[p.Issuer] = true, true
	}
	return nil
}

// vouched translates what a partner's ID token says.
func (p Partner) vouched(token *oidcrp.IDToken) (identity.Vouched, error) {
	var said struct {
		ACR string `json:"acr"`
	}
	if err := token.Claims(&said); err != nil {
		return identity.Vouched{}, fmt.Errorf("read the ID token: %w", err)
	}
	u := identity.Vouched{Issuer: token.Issuer, Subject: token.Subject, Level: max(p.Levels[said.ACR], 1)}
	for _, acr := range p.Proofed {
		u.Proofed = u.Proofed || acr == said.ACR && said.ACR != ""
	}
	return u, nil
}

// toPartner sends the browser of a sign-in to a partner.
func (h *Handler) toPartner(w http.ResponseWriter, r *http.Request, f flow, key string) {
	v, err := h.people.BeginPartner(r.Context(), identity.PartnerVisit{Partner: key, Pending: f.ID}, f.browser, nil)
	h.goToPartner(w, r, v, err)
}

// linkPartner sends a signed-in person to a partner, to link it to the account.
func (h *Handler) linkPartner(w http.ResponseWriter, r *http.Request) {
	p, ok := session.Resident(r.Context())
	if !ok {
		h.see(w, r, "/signin?return=/account/security")
		return
	}
	browser := h.sessions.SignInBrowser(r)
	if browser == "" {
		browser = id.Secret()
	}
	v, err := h.people.BeginPartner(r.Context(), identity.PartnerVisit{Partner: chi.URLParam(r, "key")}, browser, &p)
	if errors.Is(err, identity.ErrStepUp) {
		h.see(w, r, "/signin?level=2&return=/account/security")
		return
	}
	h.sessions.SetSignInBrowser(w, browser)
	h.goToPartner(w, r, v, err)
}

func (h *Handler) goToPartner(w http.ResponseWriter, r *http.Request, v identity.PartnerVisit, err error) {
	if err != nil {
		h.pendingFailed(w, r, err)
		return
	}
	d := h.partner(v.Partner)
	if d == nil {
		h.pendingFailed(w, r, identity.ErrNoPending)
		return
	}
	if err := d.discover(r.Context()); err != nil {
		h.log.ErrorContext(r.Context(), "sign-in at a partner", "partner", v.Partner, "error", err)
		h.site.Fail(w, r, http.StatusServiceUnavailable, "oidc.partner.unreachable")
		return
	}
	h.see(w, r, d.oauth.AuthCodeURL(v.State, oidcrp.Nonce(v.Nonce), oauth2.S256ChallengeOption(v.Verifier)))
}

// partnerCallback takes a partner's answer.
func (h *Handler) partnerCallback(w http.ResponseWriter, r *http.Request) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || repeated(q) {
		h.site.Fail(w, r, http.StatusBadRequest, "")
		return
	}
	browser := h.sessions.SignInBrowser(r)
	v, err := h.people.TakePartner(r.Context(), q.Get("state"), browser)
	if err != nil {
		h.pendingFailed(w, r, err)
		return
	}
	d := h.partner(v.Partner)
	if d == nil { // taken off the list meanwhile
		h.pendingFailed(w, r, identity.ErrNoPending)
		return
	}
	if q.Get("error") != "" {
		h.site.Fail(w, r, http.StatusForbidden, "oidc.partner.refused")
		return
	}
	_, token, err := d.verify(r.Context(), q, v.Nonce, v.Verifier)
	var u identity.Vouched
	if err == nil {
		u, err = d.vouched(token)
	}
	if err != nil {
		h.log.WarnContext(r.Context(), "the partner's answer is refused", "partner", v.Partner, "error", err)
		h.site.Fail(w, r, http.StatusForbidden, "oidc.partner.answer")
		return
	}
	if v.Pending == "" {
		h.linked(w, r, v, u)
		return
	}
	in, err := h.people.SignInByPartner(r.Context(), u, identity.CodeTry{Pending: v.Pending, Browser: browser, Session: h.sessions.ResidentToken(r), Visitor: session.Visitor(r)})
	switch {
	case errors.Is(err, identity.ErrUnlinked):
		h.site.Fail(w, r, http.StatusForbidden, "oidc.partner.unlinked")
	case err != nil:
		h.pendingFailed(w, r, err)
	default:
		if in.Token != "" {
			h.sessions.SetResident(w, in.Token)
		}
		h.onward(w, r, in.Pending)
	}
}

// linked keeps a link, for the person who asked for it and is still signed in.
func (h *Handler) linked(w http.ResponseWriter, r *http.Request, v identity.PartnerVisit, u identity.Vouched) {
	p, ok := session.Resident(r.Context())
	if !ok || p.ID != v.ResidentID {
		h.pendingFailed(w, r, provider.ErrOtherPerson)
		return
	}
	switch err := h.people.LinkPartner(r.Context(), p, u, session.Visitor(r)); {
	case errors.Is(err, identity.ErrLinkedElsewhere):
		h.site.Fail(w, r, http.StatusConflict, "oidc.partner.elsewhere")
	case errors.Is(err, identity.ErrStepUp):
		h.see(w, r, "/signin?level=2&return=/account/security")
	case err != nil:
		h.pendingFailed(w, r, err)
	default:
		h.see(w, r, "/account/security?done=added")
	}
}

// relying is what it takes to rely on one partner.
type relying struct {
	Partner
	directory
}

func newPartners(partners []Partner, callback string, now func() time.Time) []*relying {
	var all []*relying
	for _, p := range partners {
		r := &relying{Partner: p}
		r.Directory, r.callback, r.now = Directory{Issuer: p.Issuer, ClientID: p.ClientID, ClientSecret: p.ClientSecret}, callback, now
		all = append(all, r)
	}
	return all
}

// partner returns the partner of a key, or nil.
func (h *Handler) partner(key string) *relying {
	for _, p := range h.partners {
		if p.Key == key {
			return p
		}
	}
	return nil
}
