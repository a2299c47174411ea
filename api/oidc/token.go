package oidc

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"guichet/api/session"
	"guichet/identity/provider"
)

// token exchanges a code (RFC 6749, section 4.1.3; OpenID Connect Core, 3.1.3).
func (h *Handler) token(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		writeJSON(w, http.StatusMethodNotAllowed, map[string]string{"error": "invalid_request"})
		return
	}
	v, ok := postedForm(w, r)
	if !ok {
		h.tokenFailed(w, r, &provider.Error{Code: "invalid_request", Description: "want a form in the body and nothing in the address"})
		return
	}
	for name, values := range v {
		if len(values) > 1 && name != "resource" {
			h.tokenFailed(w, r, &provider.Error{Code: "invalid_request", Description: "a parameter is repeated"})
			return
		}
	}
	creds, err := credentials(r, v)
	if err != nil {
		h.tokenFailed(w, r, err)
		return
	}
	c, err := h.provider.Authenticate(r.Context(), creds, session.Visitor(r))
	if err != nil {
		h.tokenFailed(w, r, err)
		return
	}
	switch v.Get("grant_type") {
	case "":
		h.tokenFailed(w, r, &provider.Error{Code: "invalid_request", Description: "grant_type is missing"})
		return
	case "authorization_code":
	default:
		h.tokenFailed(w, r, &provider.Error{Code: "unsupported_grant_type", Description: "only authorization_code is offered"})
		return
	}
	t, err := h.provider.Redeem(r.Context(), c, provider.Exchange{
		Code: v.Get("code"), RedirectURI: v.Get("redirect_uri"), Verifier: v.Get("code_verifier"), Resources: v["resource"],
	})
	if err != nil {
		h.tokenFailed(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"access_token": t.Access, "token_type": "Bearer", "expires_in": int(t.ExpiresIn.Seconds()),
		"id_token": t.ID, "scope": strings.Join(t.Scopes, " "),
	})
}

// credentials finds who the client says it is, and by which one of the ways it proves it.
func credentials(r *http.Request, v url.Values) (provider.Credentials, error) {
	body := provider.Credentials{ClientID: v.Get("client_id"), Secret: v.Get("client_secret"), Method: provider.NoSecret}
	if v.Has("client_secret") {
		body.Method = provider.SecretPost
	}
	if v.Has("client_assertion") || v.Has("client_assertion_type") {
		return body, provider.InvalidClient()
	}
	header := r.Header["Authorization"]
	if len(header) == 0 {
		return body, nil
	}
	name, secret, ok := r.BasicAuth()
	if len(header) > 1 || !ok {
		return body, provider.InvalidClient()
	}
	// RFC 6749, section 2.3.1: both are form-encoded before they are joined.
	name, err1 := url.QueryUnescape(name)
	secret, err2 := url.QueryUnescape(secret)
	switch {
	case body.Method != provider.NoSecret:
		return body, &provider.Error{Code: "invalid_request", Description: "the client authenticated in two ways"}
	case err1 != nil || err2 != nil:
		return body, provider.InvalidClient()
	case body.ClientID != "" && body.ClientID != name:
		return body, &provider.Error{Code: "invalid_request", Description: "client_id is not the one that authenticated"}
	}
	return provider.Credentials{ClientID: name, Secret: secret, Method: provider.SecretBasic}, nil
}

// tokenFailed answers in the form of RFC 6749, section 5.2, and keeps the reason for
// the client's people.
func (h *Handler) tokenFailed(w http.ResponseWriter, r *http.Request, err error) {
	var answer *provider.Error
	switch {
	case limited(w, err):
		writeJSON(w, http.StatusTooManyRequests, map[string]string{"error": "invalid_client", "error_description": provider.InvalidClient().Description})
	case errors.As(err, &answer):
		if answer.Code == "invalid_client" && r.Header.Get("Authorization") != "" {
			w.Header().Set("WWW-Authenticate", `Basic realm="guichet"`)
		}
		tokenError(w, answer)
	default:
		h.broken(w, r, "token", err)
	}
	_ = http.NewResponseController(w).Flush() // a writer that cannot flush answers at the end
	h.note(r, atToken, err)
}

func tokenError(w http.ResponseWriter, e *provider.Error) {
	status := http.StatusBadRequest
	if e.Code == "invalid_client" {
		status = http.StatusUnauthorized
	}
	writeJSON(w, status, map[string]string{"error": e.Code, "error_description": e.Description})
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
		bearerError(w, http.StatusBadRequest, "invalid_request")
		return
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if len(r.Header["Authorization"]) != 1 || !strings.EqualFold(scheme, "Bearer") {
		bearerError(w, http.StatusUnauthorized, "") // RFC 6750: no error code when no token came
		return
	}
	claims, err := h.provider.Userinfo(r.Context(), strings.TrimSpace(token))
	if errors.Is(err, provider.ErrToken) {
		bearerError(w, http.StatusUnauthorized, "invalid_token")
		return
	}
	if err != nil {
		h.broken(w, r, "userinfo", err)
		return
	}
	writeJSON(w, http.StatusOK, claims)
}

// bearerError answers as RFC 6750, section 3, says.
func bearerError(w http.ResponseWriter, status int, code string) {
	challenge, body := `Bearer realm="guichet"`, map[string]string{}
	if code != "" {
		challenge += `, error="` + code + `"`
		body["error"] = code
	}
	w.Header().Set("WWW-Authenticate", challenge)
	writeJSON(w, status, body)
}
