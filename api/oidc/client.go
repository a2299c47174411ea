package oidc

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"guichet/api/session"
	"guichet/identity/provider"
	"guichet/internal/audit"
)

// A clientRequest is a form that a client's server posted, and who proved to be its sender.
type clientRequest struct {
	*http.Request
	form   url.Values
	client provider.Client
}

// asClient serves an endpoint for clients: a form by POST, nothing in the address, no
// parameter twice, and the client authenticated.
func (h *Handler) asClient(next func(http.ResponseWriter, clientRequest)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			writeJSON(w, http.StatusMethodNotAllowed, map[string]string{"error": "invalid_request"})
			return
		}
		v, ok := postedForm(w, r)
		if !ok {
			h.clientFailed(w, r, invalid("want a form in the body and nothing in the address"))
			return
		}
		for name, values := range v {
			if len(values) > 1 && name != "resource" {
				h.clientFailed(w, r, invalid("a parameter is repeated"))
				return
			}
		}
		creds, err := credentials(r, v)
		if err != nil {
			h.clientFailed(w, r, err)
			return
		}
		c, err := h.provider.Authenticate(r.Context(), creds, session.Visitor(r))
		if err != nil {
			h.clientFailed(w, r, err)
			return
		}
		o := audit.From(r.Context())
		o.Actor, o.ActorKind = c.ID, audit.Department
		next(w, clientRequest{r.WithContext(audit.With(r.Context(), o)), v, c})
	}
}

// secretOnly refuses clients that prove nothing: whoever knows the name could ask.
func (h *Handler) secretOnly(next func(http.ResponseWriter, clientRequest)) http.HandlerFunc {
	return h.asClient(func(w http.ResponseWriter, r clientRequest) {
		if r.client.AuthMethod == provider.NoSecret {
			h.clientFailed(w, r.Request, provider.InvalidClient())
			return
		}
		next(w, r)
	})
}

func invalid(description string) *provider.Error {
	return &provider.Error{Code: "invalid_request", Description: description}
}

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// credentials finds who the client says it is, and by which one of the ways it proves it.
func credentials(r *http.Request, v url.Values) (provider.Credentials, error) {
	body := provider.Credentials{ClientID: v.Get("client_id"), Secret: v.Get("client_secret"), Method: provider.NoSecret}
	twice := &provider.Error{Code: "invalid_request", Description: "the client authenticated in two ways"}
	if v.Has("client_secret") {
		body.Method = provider.SecretPost
	}
	if v.Has("client_assertion") || v.Has("client_assertion_type") {
		if body.Method != provider.NoSecret {
			return body, twice
		}
		if v.Get("client_assertion_type") != assertionType {
			return body, provider.InvalidClient()
		}
		body.Method, body.Assertion = provider.PrivateKey, v.Get("client_assertion")
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
		return body, twice
	case err1 != nil || err2 != nil:
		return body, provider.InvalidClient()
	case body.ClientID != "" && body.ClientID != name:
		return body, invalid("client_id is not the one that authenticated")
	}
	return provider.Credentials{ClientID: name, Secret: secret, Method: provider.SecretBasic}, nil
}

// clientFailed answers in the form of RFC 6749, section 5.2, and keeps the reason for
// the client's people.
func (h *Handler) clientFailed(w http.ResponseWriter, r *http.Request, err error) {
	var answer *provider.Error
	switch {
	case limited(w, err):
		writeJSON(w, http.StatusTooManyRequests, map[string]string{"error": "invalid_client", "error_description": provider.InvalidClient().Description})
	case errors.As(err, &answer):
		if answer.Code == "invalid_client" && r.Header.Get("Authorization") != "" {
			w.Header().Set("WWW-Authenticate", `Basic realm="guichet"`)
		}
		if answer.Code == provider.UseNonce {
			w.Header().Set("DPoP-Nonce", h.provider.Nonce())
		}
		clientError(w, answer)
	default:
		h.broken(w, r, r.URL.Path, err)
	}
	_ = http.NewResponseController(w).Flush() // a writer that cannot flush answers at the end
	h.note(r, strings.TrimPrefix(r.URL.Path, "/oidc/"), err)
}

func clientError(w http.ResponseWriter, e *provider.Error) {
	status := http.StatusBadRequest
	if e.Code == "invalid_client" {
		status = http.StatusUnauthorized
	}
	writeJSON(w, status, map[string]string{"error": e.Code, "error_description": e.Description})
}

// proof returns the key that a client's request proves, and gives it the nonce for the
// next one.
func (h *Handler) proof(w http.ResponseWriter, r clientRequest) (string, error) {
	if r.client.DPoP == provider.DPoPNonce {
		w.Header().Set("DPoP-Nonce", h.provider.Nonce())
	}
	return h.provider.Proof(r.Context(), r.client, h.proofs(r.Request))
}

// proofs are the request's DPoP headers, and the address they have to name: as the
// world knows it, whatever a proxy made of it.
func (h *Handler) proofs(r *http.Request) provider.Proofs {
	return provider.Proofs{Headers: r.Header.Values("DPoP"), Method: r.Method, URL: h.issuer + r.URL.Path}
}
