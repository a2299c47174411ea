package oidc

import (
	"errors"
	"net/http"
	"strings"

	"guichet/api/session"
	"guichet/identity/provider"
)

// The grants of the token endpoint.
const (
	grantCode    = "authorization_code"
	grantRefresh = "refresh_token"
)

// token exchanges a code (RFC 6749, section 4.1.3; OpenID Connect Core, 3.1.3), a
// refresh token (section 6) or a device code (RFC 8628) for tokens.
func (h *Handler) token(w http.ResponseWriter, r clientRequest) {
	jkt, err := h.proof(w, r)
	if err != nil {
		h.clientFailed(w, r.Request, err)
		return
	}
	var t provider.Tokens
	network := session.Visitor(r.Request).Network
	switch r.form.Get("grant_type") {
	case "":
		err = invalid("grant_type is missing")
	case grantCode:
		t, err = h.provider.Redeem(r.Context(), r.client, provider.Exchange{
			Code: r.form.Get("code"), RedirectURI: r.form.Get("redirect_uri"), Verifier: r.form.Get("code_verifier"),
			Resources: r.form["resource"], JKT: jkt, Network: network,
		})
	case grantRefresh:
		t, err = h.provider.Refresh(r.Context(), r.client, provider.Renewal{
			Token: r.form.Get("refresh_token"), Scopes: strings.Fields(r.form.Get("scope")),
			Resources: r.form["resource"], JKT: jkt, Network: network,
		})
	case grantDevice:
		t, err = h.provider.Poll(r.Context(), r.client, r.form.Get("device_code"), jkt)
	default:
		err = &provider.Error{Code: "unsupported_grant_type", Description: "the grant is not offered"}
	}
	if err != nil {
		h.clientFailed(w, r.Request, err)
		return
	}
	answer := map[string]any{
		"access_token": t.Access, "token_type": "Bearer", "expires_in": int(t.ExpiresIn.Seconds()),
		"id_token": t.ID, "scope": strings.Join(t.Scopes, " "),
	}
	if t.Bound {
		answer["token_type"] = "DPoP"
	}
	if t.Refresh != "" {
		answer["refresh_token"] = t.Refresh
	}
	writeJSON(w, http.StatusOK, answer)
}

// introspect tells a client or the server of a resource what a token is worth (RFC 7662).
func (h *Handler) introspect(w http.ResponseWriter, r clientRequest) {
	if r.form.Get("token") == "" {
		h.clientFailed(w, r.Request, invalid("token is missing"))
		return
	}
	answer, err := h.provider.Introspect(r.Context(), r.client, r.form.Get("token"))
	if err != nil {
		h.broken(w, r.Request, "introspect", err)
		return
	}
	writeJSON(w, http.StatusOK, answer)
}

// revoke makes a token worthless (RFC 7009). The hint about its type is not needed: we look.
func (h *Handler) revoke(w http.ResponseWriter, r clientRequest) {
	if r.form.Get("token") == "" {
		h.clientFailed(w, r.Request, invalid("token is missing"))
		return
	}
	if err := h.provider.Revoke(r.Context(), r.client, r.form.Get("token")); err != nil {
		h.broken(w, r.Request, "revoke", err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
}

// push keeps an authorize request until the browser brings its name (RFC 9126).
func (h *Handler) push(w http.ResponseWriter, r clientRequest) {
	jkt, err := h.proof(w, r)
	if err != nil {
		h.clientFailed(w, r.Request, err)
		return
	}
	p, err := h.provider.Push(r.Context(), r.client, r.form, jkt)
	if err != nil {
		h.clientFailed(w, r.Request, err)
		return
	}
	writeJSON(w, http.StatusCreated, map[string]any{"request_uri": p.URI, "expires_in": int(p.ExpiresIn.Seconds())})
}

// userinfo answers with the claims of an access token. The token is read from the
// Authorization header and nowhere else: addresses end up in logs.
func (h *Handler) userinfo(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		w.Header().Set("Allow", "GET, POST")
		writeJSON(w, http.StatusMethodNotAllowed, map[string]string{"error": "invalid_request"})
		return
	}
	if r.URL.Query().Has("access_token") {
		h.tokenError(w, false, http.StatusBadRequest, "invalid_request")
		return
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	dpop := strings.EqualFold(scheme, "DPoP")
	if len(r.Header["Authorization"]) != 1 || !dpop && !strings.EqualFold(scheme, "Bearer") {
		h.tokenError(w, false, http.StatusUnauthorized, "") // RFC 6750: no error code when no token came
		return
	}
	claims, err := h.provider.Userinfo(r.Context(), strings.TrimSpace(token), provider.Presented{DPoP: dpop, Proofs: h.proofs(r)})
	var answer *provider.Error
	switch {
	case errors.Is(err, provider.ErrToken):
		h.tokenError(w, dpop, http.StatusUnauthorized, "invalid_token")
	case errors.As(err, &answer):
		h.tokenError(w, dpop, http.StatusUnauthorized, answer.Code)
	case err != nil:
		h.broken(w, r, "userinfo", err)
	default:
		writeJSON(w, http.StatusOK, claims)
	}
}

// tokenError answers as RFC 6750, section 3, says, or RFC 9449, section 7.1.
func (h *Handler) tokenError(w http.ResponseWriter, dpop bool, status int, code string) {
	challenge, body := `Bearer realm="guichet"`, map[string]string{}
	if dpop {
		challenge = `DPoP realm="guichet", algs="` + strings.Join(provider.ProofAlgs(), " ") + `"`
	}
	if code != "" {
		challenge += `, error="` + code + `"`
		body["error"] = code
	}
	if code == provider.UseNonce {
		w.Header().Set("DPoP-Nonce", h.provider.Nonce())
	}
	w.Header().Set("WWW-Authenticate", challenge)
	writeJSON(w, status, body)
}
