package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	oidcrp "github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"guichet/identity/staff"
)

// directoryLogout takes the directory's word that somebody has signed out of it
// (OpenID Connect Back-Channel Logout 1.0, section 2.5 to 2.8).
func (h *Handler) directoryLogout(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	v, ok := postedForm(w, r)
	if !ok || len(v["logout_token"]) != 1 {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": "invalid_request"})
		return
	}
	l, err := h.directory.logout(r.Context(), v.Get("logout_token"))
	if err != nil {
		h.log.WarnContext(r.Context(), "the directory's logout token is refused", "error", err)
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": "invalid_request"})
		return
	}
	ended, err := h.staff.LoggedOut(r.Context(), l)
	if err != nil {
		h.broken(w, r, "end sessions for the directory", err)
		return
	}
	h.log.InfoContext(r.Context(), "signed out at the directory", "sessions", ended)
	w.WriteHeader(http.StatusOK)
}

const (
	logoutEvent = "http://schemas.openid.net/event/backchannel-logout"
	logoutAge   = 2 * time.Minute // how old a logout token may be
)

// logout verifies a logout token.
func (d *directory) logout(ctx context.Context, raw string) (staff.Logout, error) {
	if err := d.discover(ctx); err != nil {
		return staff.Logout{}, err
	}
	if err := logoutType(raw); err != nil {
		return staff.Logout{}, err
	}
	token, err := d.outs.Verify(oidcrp.ClientContext(ctx, calls), raw)
	if err != nil {
		return staff.Logout{}, fmt.Errorf("verify the logout token: %w", err)
	}
	var said struct {
		Sid    string                     `json:"sid"`
		JTI    string                     `json:"jti"`
		Exp    int64                      `json:"exp"`
		Nonce  *json.RawMessage           `json:"nonce"`
		Events map[string]json.RawMessage `json:"events"`
	}
	if err := token.Claims(&said); err != nil {
		return staff.Logout{}, fmt.Errorf("read the logout token: %w", err)
	}
	var event map[string]json.RawMessage
	age := d.now().Sub(token.IssuedAt)
	switch {
	case said.Nonce != nil: // an ID token passed off as a logout token
		err = errors.New("it has a nonce")
	case json.Unmarshal(said.Events[logoutEvent], &event) != nil || event == nil:
		err = errors.New("it is not about a logout")
	case token.Subject == "" && said.Sid == "":
		err = errors.New("it names nobody")
	case said.JTI == "":
		err = errors.New("it has no jti")
	case age > logoutAge || age < -time.Minute:
		err = fmt.Errorf("it is %s old", age.Round(time.Second))
	case said.Exp != 0 && !d.now().Before(time.Unix(said.Exp, 0)):
		err = errors.New("it has expired")
	}
	if err != nil {
		return staff.Logout{}, fmt.Errorf("read the logout token: %w", err)
	}
	return staff.Logout{Issuer: token.Issuer, Subject: token.Subject, Sid: said.Sid, IssuedAt: token.IssuedAt}, nil
}

// logoutType refuses a token that says it is something else. Directories of before the
// specification's recommendation say "JWT" or nothing.
func logoutType(raw string) error {
	jws, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.ES256, jose.RS256})
	if err != nil {
		return fmt.Errorf("parse the logout token: %w", err)
	}
	switch typ, _ := jws.Signatures[0].Protected.ExtraHeaders[jose.HeaderType].(string); typ {
	case "logout+jwt", "application/logout+jwt", "JWT", "":
		return nil
	}
	return errors.New("the token is of another type")
}
