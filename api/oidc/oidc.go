// Package oidc speaks OpenID Connect on both of its sides: as provider to the
// departments' applications, and as relying party to the city's staff directory.
// The pages of signing in belong to it.
//
//	application ──authorize──▶ /signin/{id} pages ──code──▶ application ──token, userinfo──▶
//	staff desk ──/staff/signin──▶ directory ──/staff/callback──▶ staff desk
//
// Protocol in, calls of identity out: what is decided, identity/provider and
// identity/staff decide. Discovery advertises what works and nothing else; the
// issuer is the configured one, whatever a request claims its host to be.
//
// Pages work without JavaScript. A page of a sign-in in progress shows nothing to a
// browser that did not begin it, and nothing changes on GET but the sign-in itself.
package oidc

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"guichet/api/session"
	"guichet/api/web"
	"guichet/department"
	"guichet/identity"
	"guichet/identity/provider"
	"guichet/identity/staff"
)

// Options are what a Handler needs.
type Options struct {
	Issuer      string // the base URL of this service, without a slash at the end
	Provider    *provider.Service
	People      *identity.Service
	Staff       *staff.Service
	Sessions    *session.Sessions
	Site        *web.Site
	Directory   Directory
	Partners    []Partner           // whose sign-in counts for residents
	Departments *department.Service // how their sign-in pages look
	Now         func() time.Time
	Log         *slog.Logger
}

// A Handler serves the endpoints and pages. It may be used by many goroutines at once.
type Handler struct {
	issuer      string
	provider    *provider.Service
	people      *identity.Service
	staff       *staff.Service
	sessions    *session.Sessions
	site        *web.Site
	directory   directory
	partners    []*relying
	departments *department.Service
	now         func() time.Time
	log         *slog.Logger
	metadata    document
}

//go:embed templates locale
var files embed.FS

// New registers the pages with the site.
func New(o Options) (*Handler, error) {
	u, err := url.Parse(o.Issuer)
	if err != nil || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("oidc: issuer %q: want scheme and host only", o.Issuer)
	}
	h := &Handler{
		issuer: o.Issuer, provider: o.Provider, people: o.People, staff: o.Staff, sessions: o.Sessions, site: o.Site,
		departments: o.Departments, now: o.Now, log: o.Log,
	}
	h.directory.Directory, h.directory.now = o.Directory, o.Now
	h.directory.callback = o.Issuer + "/staff/callback"
	if err := checkPartners(o.Partners); err != nil {
		return nil, fmt.Errorf("oidc: %w", err)
	}
	h.partners = newPartners(o.Partners, o.Issuer+"/partner/callback", o.Now)
	if h.metadata, err = newDocument(h.discovery()); err != nil {
		return nil, fmt.Errorf("oidc: %w", err)
	}
	o.Site.Register("oidc", files)
	return h, nil
}

// Routes mounts everything. The routes that need to know who is there load the
// sessions themselves.
func (h *Handler) Routes(r chi.Router) {
	r.Get("/.well-known/openid-configuration", h.metadata.serve)
	r.Get("/.well-known/oauth-authorization-server", h.metadata.serve)
	r.Get("/oidc/jwks", h.jwks)
	r.HandleFunc("/oidc/token", h.asClient(h.token))
	r.HandleFunc("/oidc/par", h.secretOnly(h.push))
	r.HandleFunc("/oidc/introspect", h.secretOnly(h.introspect))
	r.HandleFunc("/oidc/revoke", h.asClient(h.revoke))
	r.HandleFunc("/oidc/device_authorization", h.asClient(h.askDevice))
	r.HandleFunc("/oidc/userinfo", h.userinfo)
	r.Post("/staff/backchannel-logout", h.directoryLogout)
	r.Get("/branding/{department}/{version}/band.css", h.brandStyle)
	r.Get("/branding/{department}/{version}/logo", h.brandLogo)
	r.Group(func(r chi.Router) {
		r.Use(h.sessions.Load)
		r.Get("/oidc/authorize", h.authorize)
		r.Post("/oidc/authorize", h.authorizePost)
		r.Get("/oidc/logout", h.logout)
		r.Post("/oidc/logout", h.logoutPost)
		r.With(session.RequireResident).Get("/device", h.device)
		r.With(session.RequireResident).Post("/device", h.devicePost)
		r.Get("/signin", h.begin)
		r.Get("/signin/{id}", h.show)
		r.Post("/signin/{id}", h.act)
		r.Post("/signin/{id}/passkey", h.passkeyOptions)
		r.Get("/partner/callback", h.partnerCallback)
		r.Post("/partner/{key}/link", h.linkPartner)
		r.Post("/signout", h.signOut)
		r.Get("/signed-out", h.signedOut)
		r.Get("/staff/signin", h.staffSignIn)
		r.Get("/staff/callback", h.staffCallback)
		r.Post("/staff/signout", h.staffSignOut)
		r.Get("/staff/break-glass", h.breakGlassPage)
		r.Post("/staff/break-glass", h.breakGlass)
	})
}

// CrossSite lists the routes, as patterns of net/http, that other sites' forms and
// programs may post to: they carry their own proof or change nothing. All others stay
// behind http.CrossOriginProtection.
func CrossSite() []string {
	return []string{
		"POST /oidc/authorize", "POST /oidc/token", "POST /oidc/par", "POST /oidc/introspect", "POST /oidc/revoke", "POST /oidc/device_authorization",
		"POST /oidc/userinfo", "POST /oidc/logout", "POST /staff/backchannel-logout",
	}
}

// discovery is the provider's description of itself (OpenID Connect Discovery 1.0,
// RFC 8414).
func (h *Handler) discovery() map[string]any {
	secrets := []string{provider.SecretBasic, provider.SecretPost, provider.PrivateKey}
	public := append(slices.Clone(secrets), provider.NoSecret)
	return map[string]any{
		"issuer":                                h.issuer,
		"authorization_endpoint":                h.issuer + "/oidc/authorize",
		"pushed_authorization_request_endpoint": h.issuer + "/oidc/par",
		"token_endpoint":                        h.issuer + "/oidc/token",
		"userinfo_endpoint":                     h.issuer + "/oidc/userinfo",
		"introspection_endpoint":                h.issuer + "/oidc/introspect",
		"revocation_endpoint":                   h.issuer + "/oidc/revoke",
		"device_authorization_endpoint":         h.issuer + "/oidc/device_authorization",
		"jwks_uri":                              h.issuer + "/oidc/jwks",
		"end_session_endpoint":                  h.issuer + "/oidc/logout",
		"scopes_supported":                      provider.Scopes(),
		"claims_supported":                      []string{"sub", "auth_time", "acr", "amr", "sid", "name", "locale", "updated_at", "email", "email_verified", "acting_for", "act"},
		"claim_types_supported":                 []string{"normal"},
		"response_types_supported":              []string{"code"},
		"response_modes_supported":              []string{"query"},
		"grant_types_supported":                 []string{grantCode, grantRefresh, grantDevice},
		"code_challenge_methods_supported":      []string{"S256"},
		"prompt_values_supported":               []string{"none", "login", "consent", "select_account", "create"},
		"subject_types_supported":               []string{"pairwise"},
		"id_token_signing_alg_values_supported": provider.Algs(),
		"dpop_signing_alg_values_supported":     provider.ProofAlgs(),
		"acr_values_supported":                  provider.ACRs(),
		"ui_locales_supported":                  []string{"en-CA", "fr-CA"},

		"token_endpoint_auth_methods_supported":                    public,
		"token_endpoint_auth_signing_alg_values_supported":         provider.AssertionAlgs(),
		"introspection_endpoint_auth_methods_supported":            secrets,
		"introspection_endpoint_auth_signing_alg_values_supported": provider.AssertionAlgs(),
		"revocation_endpoint_auth_methods_supported":               public,
		"revocation_endpoint_auth_signing_alg_values_supported":    provider.AssertionAlgs(),

		"backchannel_logout_supported":         true,
		"backchannel_logout_session_supported": true,

		"authorization_response_iss_parameter_supported": true,
		"claims_parameter_supported":                     true,
		"request_parameter_supported":                    false,
		"request_uri_parameter_supported":                false, // the default is true; pushed requests are another matter (RFC 9126, section 5)
	}
}

// A document is JSON that anybody may read and keep for a while.
type document struct {
	body []byte
	etag string
}

func newDocument(v any) (document, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return document{}, err
	}
	sum := sha256.Sum256(body)
	return document{body, `"` + hex.EncodeToString(sum[:16]) + `"`}, nil
}

func (d document) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "public, max-age=3600")
	w.Header().Set("ETag", d.etag)
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.Header.Get("If-None-Match") == d.etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Write(d.body)
}

func (h *Handler) jwks(w http.ResponseWriter, r *http.Request) {
	set, err := h.provider.JWKS(r.Context())
	if err != nil {
		h.broken(w, r, "read keys", err)
		return
	}
	d, err := newDocument(set)
	if err != nil {
		h.broken(w, r, "write keys", err)
		return
	}
	d.serve(w, r)
}

// writeJSON answers a program.
func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Pragma", "no-cache")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	body, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("oidc: write %T as JSON: %v", v, err))
	}
	// With its length said, the answer is whole for the reader before the handler ends.
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body) // a reader who has gone away is nobody's error
}

// broken answers a program when the fault is ours.
func (h *Handler) broken(w http.ResponseWriter, r *http.Request, what string, err error) {
	h.log.ErrorContext(r.Context(), what, "error", err)
	writeJSON(w, http.StatusInternalServerError, map[string]string{"error": "server_error"})
}

// brokenPage answers a person when the fault is ours.
func (h *Handler) brokenPage(w http.ResponseWriter, r *http.Request, what string, err error) {
	h.log.ErrorContext(r.Context(), what, "error", err)
	h.site.Fail(w, r, http.StatusInternalServerError, "")
}

// limited sets Retry-After when err says that a limit was met.
func limited(w http.ResponseWriter, err error) bool {
	var l *identity.LimitedError
	if !errors.As(err, &l) {
		return false
	}
	w.Header().Set("Retry-After", fmt.Sprint(int(l.After.Seconds())))
	return true
}

// isForm reports whether a body is of the one kind that OAuth takes.
func isForm(r *http.Request) bool {
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	return strings.EqualFold(strings.TrimSpace(kind), "application/x-www-form-urlencoded")
}
