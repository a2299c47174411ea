package directory

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"guichet/internal/id"
)

// codeLife is how long a code waits for its client.
const codeLife = time.Minute

// maxCodes bounds the codes that wait; whoever fills it must wait for the oldest.
const maxCodes = 10_000

// grant is what a code stands for.
type grant struct {
	client    string
	redirect  string
	challenge string
	nonce     string
	scopes    []string
	member    Member
	signedIn  time.Time
	expires   time.Time
}

// request is an authorization request that passed its checks.
type request struct {
	client                            Client
	redirect, state, nonce, challenge string
	scopes                            []string
}

var challengeForm = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`) // a base64url SHA-256

// authorize shows the choice of demo staff, or, when one was chosen, sends the
// browser back with a code. It keeps nothing between the two: the form carries
// the whole request, which is checked again.
func (d *Directory) authorize(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		d.refuse(w, "The request cannot be read.")
		return
	}
	req, problem := d.request(r.Form)
	switch {
	case req.redirect == "":
		// Nobody proved where the browser may be sent: it stays here.
		d.refuse(w, problem)
	case problem != "":
		d.sendBack(w, r, req, url.Values{"error": {problem}})
	case r.Method == http.MethodPost && r.PostForm.Has("subject"):
		d.signIn(w, r, req)
	default:
		r.Form.Del("subject") // the form's own buttons name one
		d.site.Page(w, http.StatusOK, "choose", struct {
			Client string
			Staff  []Member
			Params url.Values
		}{req.client.ID, d.o.Staff, r.Form})
	}
}

// request checks the parameters. While redirect is empty, problem is a sentence
// for the page; after that it is an error code for the client.
func (d *Directory) request(f url.Values) (req request, problem string) {
	for _, name := range []string{"client_id", "redirect_uri"} {
		if len(f[name]) > 1 {
			return req, "The parameter " + name + " is given twice."
		}
	}
	c, ok := d.client(f.Get("client_id"))
	if !ok {
		return req, "The application is not registered with this directory."
	}
	if !slices.Contains(c.RedirectURIs, f.Get("redirect_uri")) {
		return req, "The application is not registered with this return address."
	}
	req = request{
		client: c, redirect: f.Get("redirect_uri"), state: f.Get("state"), nonce: f.Get("nonce"),
		challenge: f.Get("code_challenge"), scopes: strings.Fields(f.Get("scope")),
	}
	for _, values := range f {
		if len(values) > 1 {
			return req, "invalid_request"
		}
	}
	switch {
	case f.Get("response_type") != "code":
		return req, "unsupported_response_type"
	case f.Has("response_mode") && f.Get("response_mode") != "query":
		return req, "invalid_request"
	case f.Has("request") || f.Has("request_uri"):
		return req, "request_not_supported"
	case !slices.Contains(req.scopes, "openid"):
		return req, "invalid_scope"
	case f.Get("code_challenge_method") != "S256" || !challengeForm.MatchString(req.challenge):
		return req, "invalid_request"
	case f.Get("prompt") == "none":
		return req, "login_required" // there are no sessions
	}
	return req, ""
}

func (d *Directory) signIn(w http.ResponseWriter, r *http.Request, req request) {
	m, ok := d.member(r.PostForm.Get("subject"))
	if !ok {
		d.sendBack(w, r, req, url.Values{"error": {"access_denied"}})
		return
	}
	now := d.o.Now()
	code := id.Secret()
	d.mu.Lock()
	for c, g := range d.codes {
		if now.After(g.expires) {
			delete(d.codes, c)
		}
	}
	full := len(d.codes) >= maxCodes
	if !full {
		d.codes[code] = grant{
			client: req.client.ID, redirect: req.redirect, challenge: req.challenge, nonce: req.nonce,
			scopes: req.scopes, member: m, signedIn: now, expires: now.Add(codeLife),
		}
	}
	d.mu.Unlock()
	if full {
		d.sendBack(w, r, req, url.Values{"error": {"temporarily_unavailable"}})
		return
	}
	d.sendBack(w, r, req, url.Values{"code": {code}})
}

// sendBack redirects to the client with its state untouched and the issuer named
// (RFC 9207).
func (d *Directory) sendBack(w http.ResponseWriter, r *http.Request, req request, answer url.Values) {
	u, err := url.Parse(req.redirect)
	if err != nil {
		d.refuse(w, "The application's return address cannot be read.")
		return
	}
	q := u.Query()
	for k, v := range answer {
		q[k] = v
	}
	if req.state != "" {
		q.Set("state", req.state)
	}
	q.Set("iss", d.o.Issuer)
	u.RawQuery = q.Encode()
	http.Redirect(w, r, u.String(), http.StatusSeeOther)
}

// refuse answers on a page of our own.
func (d *Directory) refuse(w http.ResponseWriter, sentence string) {
	d.site.Page(w, http.StatusBadRequest, "message", message{"This sign-in cannot go on", sentence})
}

type message struct{ Title, Text string }

// endSession has no session to end. It says so, or sends the browser back to an
// address registered for the client that the hint or client_id names.
func (d *Directory) endSession(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		d.refuse(w, "The request cannot be read.")
		return
	}
	clientID := r.Form.Get("client_id")
	if hint := r.Form.Get("id_token_hint"); hint != "" {
		// Expired hints are fine (RP-Initiated Logout 1.0, section 2).
		var claims struct {
			Audience string `json:"aud"`
		}
		if err := d.keys.verify(hint, "JWT", &claims); err != nil || (clientID != "" && clientID != claims.Audience) {
			d.refuse(w, "The sign-out request names a session of somebody else.")
			return
		}
		clientID = claims.Audience
	}
	back := r.Form.Get("post_logout_redirect_uri")
	if back == "" {
		d.site.Page(w, http.StatusOK, "message", message{"You are signed out", "The directory keeps no session: the next sign-in asks again who you are."})
		return
	}
	c, ok := d.client(clientID)
	u, err := url.Parse(back)
	if !ok || err != nil || !slices.Contains(c.PostLogoutURIs, back) {
		d.refuse(w, "The application is not registered with this return address.")
		return
	}
	if state := r.Form.Get("state"); state != "" {
		q := u.Query()
		q.Set("state", state)
		u.RawQuery = q.Encode()
	}
	http.Redirect(w, r, u.String(), http.StatusSeeOther)
}
