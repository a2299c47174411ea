package directory

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"guichet/internal/id"
	"guichet/simulators/control"
)

// tokenLife is how long ID and access tokens last.
const tokenLife = 10 * time.Minute

// token exchanges a code for tokens (RFC 6749, section 4.1.3; OpenID Connect Core
// 1.0, section 3.1.3).
func (d *Directory) token(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil || !control.IsForm(r) || r.URL.RawQuery != "" {
		oauthError(w, http.StatusBadRequest, "invalid_request")
		return
	}
	for _, values := range r.PostForm {
		if len(values) > 1 {
			oauthError(w, http.StatusBadRequest, "invalid_request")
			return
		}
	}
	c, err := d.authenticate(r)
	if err != nil {
		if _, _, basic := r.BasicAuth(); basic {
			w.Header().Set("WWW-Authenticate", `Basic realm="directory"`)
		}
		oauthError(w, http.StatusUnauthorized, "invalid_client")
		return
	}
	if r.PostForm.Get("grant_type") != "authorization_code" {
		oauthError(w, http.StatusBadRequest, "unsupported_grant_type")
		return
	}
	g, ok := d.redeem(r, c)
	if !ok {
		oauthError(w, http.StatusBadRequest, "invalid_grant")
		return
	}
	access, idToken, err := d.tokens(c, g)
	if err != nil {
		d.o.Log.Error("write tokens", "error", err)
		oauthError(w, http.StatusInternalServerError, "server_error")
		return
	}
	control.JSON(w, http.StatusOK, map[string]any{
		"access_token": access, "token_type": "Bearer", "expires_in": int(tokenLife.Seconds()),
		"id_token": idToken, "scope": strings.Join(g.scopes, " "),
	})
}

func oauthError(w http.ResponseWriter, status int, code string) {
	control.JSON(w, status, map[string]string{"error": code})
}

// redeem takes the grant of the code out, whoever asks: a code that came into the
// wrong hands is worth nothing afterwards.
func (d *Directory) redeem(r *http.Request, c Client) (grant, bool) {
	code := r.PostForm.Get("code")
	d.mu.Lock()
	g, ok := d.codes[code]
	delete(d.codes, code)
	d.mu.Unlock()
	sum := sha256.Sum256([]byte(r.PostForm.Get("code_verifier")))
	challenge := base64.RawURLEncoding.EncodeToString(sum[:])
	return g, ok && g.client == c.ID && g.redirect == r.PostForm.Get("redirect_uri") && !d.o.Now().After(g.expires) &&
		subtle.ConstantTimeCompare([]byte(challenge), []byte(g.challenge)) == 1
}

// accessClaims make an access token that survives a restart (RFC 9068).
type accessClaims struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"`
	Audience string `json:"aud"`
	Client   string `json:"client_id"`
	Scope    string `json:"scope"`
	ID       string `json:"jti"`
	Issued   int64  `json:"iat"`
	Expires  int64  `json:"exp"`
}

func (d *Directory) tokens(c Client, g grant) (access, idToken string, err error) {
	alg := jose.ES256
	if c.Alg != "" {
		alg = jose.SignatureAlgorithm(c.Alg)
	}
	key, ok := d.keys.of(alg)
	if !ok {
		return "", "", errors.New("no key for " + string(alg))
	}
	now := d.o.Now()
	access, err = sign(key, "at+jwt", accessClaims{
		Issuer: d.o.Issuer, Subject: g.member.Subject, Audience: d.o.Issuer, Client: c.ID,
		Scope: strings.Join(g.scopes, " "), ID: id.New(), Issued: now.Unix(), Expires: now.Add(tokenLife).Unix(),
	})
	if err != nil {
		return "", "", err
	}
	// OpenID Connect Core 1.0, section 3.1.3.6: the left half of the hash.
	half := sha256.Sum256([]byte(access))
	claims := claimsOf(g.member, g.scopes)
	claims["iss"], claims["aud"] = d.o.Issuer, c.ID
	claims["iat"], claims["exp"] = now.Unix(), now.Add(tokenLife).Unix()
	claims["auth_time"] = g.signedIn.Unix()
	claims["at_hash"] = base64.RawURLEncoding.EncodeToString(half[:16])
	if g.nonce != "" {
		claims["nonce"] = g.nonce
	}
	if key, err = d.spoil(c.ID, claims, key); err != nil {
		return "", "", err
	}
	idToken, err = sign(key, "JWT", claims)
	return access, idToken, err
}

// spoil lets the planted faults of the client's ID token strike.
func (d *Directory) spoil(client string, claims map[string]any, key jose.JSONWebKey) (jose.JSONWebKey, error) {
	if _, hit := d.faults.Strike("wrong-nonce", client); hit {
		claims["nonce"] = id.Secret()
	}
	if _, hit := d.faults.Strike("wrong-audience", client); hit {
		claims["aud"] = "another-client"
	}
	if _, hit := d.faults.Strike("expired", client); hit {
		ended := d.o.Now().Add(-time.Hour)
		claims["iat"], claims["exp"] = ended.Add(-tokenLife).Unix(), ended.Unix()
	}
	if _, hit := d.faults.Strike("unknown-kid", client); hit {
		return newKey(jose.SignatureAlgorithm(key.Algorithm))
	}
	return key, nil
}

// claimsOf says about a member what the scopes ask for.
func claimsOf(m Member, scopes []string) map[string]any {
	claims := map[string]any{"sub": m.Subject}
	if slices.Contains(scopes, "profile") {
		claims["name"], claims["preferred_username"] = m.Name, m.Username
	}
	if slices.Contains(scopes, "email") {
		claims["email"], claims["email_verified"] = m.Email, true
	}
	if slices.Contains(scopes, "groups") {
		claims["groups"] = m.Groups
	}
	return claims
}

// userinfo answers for the access token in the Authorization header.
func (d *Directory) userinfo(w http.ResponseWriter, r *http.Request) {
	var claims accessClaims
	token, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	err := errors.New("no bearer token")
	if bearer {
		err = d.keys.verify(token, "at+jwt", &claims)
	}
	m, known := d.member(claims.Subject)
	if err != nil || !known || claims.Issuer != d.o.Issuer || claims.Audience != d.o.Issuer || d.o.Now().Unix() >= claims.Expires {
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		oauthError(w, http.StatusUnauthorized, "invalid_token")
		return
	}
	control.JSON(w, http.StatusOK, claimsOf(m, strings.Fields(claims.Scope)))
}
