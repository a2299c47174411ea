// Package directory stands in for the city's staff directory: a real OpenID
// Provider whose staff are demonstration data. Whoever opens its page may be any
// of them; there are no passwords, and production refuses to use it.
//
//	staff desk ──authorize──▶ page "choose a demo member" ──code──▶ staff desk
//	           ──token, userinfo──▶ ES256 or RS256, keys kept in Dir
//
// It speaks OpenID Connect Core 1.0 with the authorization code, PKCE S256
// (RFC 7636) and client secrets, issuer identification (RFC 9207), and
// RP-initiated logout. It keeps no session: every sign-in asks who you are, so
// prompt=none is always answered login_required.
//
// Claims: sub always; name and preferred_username for scope profile; email for
// scope email; groups for scope groups. They are in the ID token and in userinfo.
//
// Faults, each hitting the next sign-in of the client that is its target:
//
//	wrong-nonce     the ID token carries another nonce
//	wrong-audience  the ID token is meant for another client
//	expired         the ID token ended an hour ago
//	unknown-kid     the ID token is signed by a key that is not published
//
// and two whose target is an endpoint (configuration, jwks, authorize, token,
// userinfo, end-session):
//
//	slow            answers after the delay
//	error           answers 500
package directory

import (
	"bytes"
	"crypto/subtle"
	"embed"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"guichet/simulators/control"
)

// Options of a Directory.
type Options struct {
	Now func() time.Time
	Dir string // its own directory, made when missing
	Log *slog.Logger

	Issuer  string // where it is reached, without a slash at the end
	Clients []Client
	Staff   []Member       // default DemoStaff
	Links   []control.Link // other pages, for the head of the control page
}

// A Client is a relying party of the directory.
type Client struct {
	ID, Secret     string
	RedirectURIs   []string
	PostLogoutURIs []string
	Alg            string // of its ID tokens: ES256 (default) or RS256
}

// A Member is somebody who can sign in.
type Member struct {
	Subject  string   `json:"sub"`
	Username string   `json:"preferred_username"`
	Name     string   `json:"name"`
	Email    string   `json:"email"`
	Groups   []string `json:"groups"`
	Does     string   `json:"-"` // for the page
}

// DemoStaff are invented people, named by what they may do.
var DemoStaff = []Member{
	{"staff-1001", "finance.clerk", "Demo Finance Clerk", "finance.clerk@staff.example", []string{"guichet-finance-clerk"}, "reconciles, exports to SAP, asks for refunds"},
	{"staff-1002", "finance.approver", "Demo Finance Approver", "finance.approver@staff.example", []string{"guichet-finance-approver"}, "approves what a clerk asks for"},
	{"staff-1003", "agent.311", "Demo 311 Agent", "agent.311@staff.example", []string{"guichet-agent-311"}, "answers residents on the phone"},
	{"staff-1004", "administrator", "Demo Administrator", "administrator@staff.example", []string{"guichet-administrator"}, "sets up departments and staff"},
	{"staff-1005", "parking.supervisor", "Demo Parking Supervisor", "parking.supervisor@staff.example", []string{"guichet-department-parking", "guichet-supervisor"}, "runs the parking department's side"},
}

//go:embed templates
var templates embed.FS

// A Directory is the OpenID Provider. It may be used by many goroutines at once.
type Directory struct {
	o      Options
	site   *control.Site
	faults *control.Faults
	keys   keys

	mu    sync.Mutex
	codes map[string]grant // by code, for codeLife
}

// New opens the directory's keys in o.Dir, making them the first time.
func New(o Options) (*Directory, error) {
	if o.Staff == nil {
		o.Staff = DemoStaff
	}
	if err := check(o); err != nil {
		return nil, fmt.Errorf("open directory: %w", err)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open directory: %w", err)
	}
	faults, err := control.OpenFaults(o.Dir, o.Log,
		control.Kind{Name: "wrong-nonce", Does: "puts another nonce in the client's next ID token"},
		control.Kind{Name: "wrong-audience", Does: "means the client's next ID token for another client"},
		control.Kind{Name: "expired", Does: "gives the client an ID token that ended an hour ago"},
		control.Kind{Name: "unknown-kid", Does: "signs the client's next ID token with a key that is not published"},
		control.Kind{Name: "slow", Does: "answers at the endpoint (configuration, jwks, authorize, token, userinfo, end-session) after the delay"},
		control.Kind{Name: "error", Does: "answers 500 at the endpoint"},
	)
	if err != nil {
		return nil, fmt.Errorf("open directory: %w", err)
	}
	k, err := openKeys(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("open directory: %w", err)
	}
	return &Directory{
		o: o, faults: faults, keys: k, codes: map[string]grant{},
		site: control.NewSite("Staff directory", o.Links, templates, o.Log),
	}, nil
}

func check(o Options) error {
	if u, err := url.Parse(o.Issuer); err != nil || u.Host == "" || strings.HasSuffix(o.Issuer, "/") {
		return fmt.Errorf("issuer %q: want an absolute URL without a slash at the end", o.Issuer)
	}
	for _, c := range o.Clients {
		if c.ID == "" || c.Secret == "" || len(c.RedirectURIs) == 0 {
			return fmt.Errorf("client %q: needs an id, a secret and a redirect URI", c.ID)
		}
		if c.Alg != "" && c.Alg != "ES256" && c.Alg != "RS256" {
			return fmt.Errorf("client %q: algorithm %q: want ES256 or RS256", c.ID, c.Alg)
		}
	}
	return nil
}

// Handler serves the provider, the control page and the control API:
//
//	GET /_control/staff    {"data": [member…]}
//	*   /_control/faults   see package control
func (d *Directory) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", d.endpoint("configuration", d.configuration))
	mux.HandleFunc("GET /jwks", d.endpoint("jwks", d.jwks))
	mux.HandleFunc("GET /authorize", d.endpoint("authorize", d.authorize))
	mux.HandleFunc("POST /authorize", d.endpoint("authorize", d.authorize))
	mux.HandleFunc("POST /token", d.endpoint("token", d.token))
	mux.HandleFunc("GET /userinfo", d.endpoint("userinfo", d.userinfo))
	mux.HandleFunc("POST /userinfo", d.endpoint("userinfo", d.userinfo))
	mux.HandleFunc("GET /end-session", d.endpoint("end-session", d.endSession))
	mux.HandleFunc("POST /end-session", d.endpoint("end-session", d.endSession))
	mux.HandleFunc("GET /{$}", d.home)
	mux.HandleFunc("GET /_control/staff", func(w http.ResponseWriter, r *http.Request) {
		control.JSON(w, http.StatusOK, map[string]any{"data": d.o.Staff})
	})
	d.faults.Routes(mux)
	return d.site.Handler(mux)
}

// endpoint lets the faults at the door of an endpoint strike first.
func (d *Directory) endpoint(name string, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		// The body first: a server notices that its client has gone only after it.
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, control.MaxBody))
		if err != nil {
			http.Error(w, "the request cannot be read", http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		d.faults.Hold(r.Context(), name)
		if _, hit := d.faults.Strike("error", name); hit {
			http.Error(w, "internal error", http.StatusInternalServerError)
			return
		}
		next(w, r)
	}
}

func (d *Directory) configuration(w http.ResponseWriter, r *http.Request) {
	at := func(path string) string { return d.o.Issuer + path }
	control.JSON(w, http.StatusOK, map[string]any{
		"issuer":                                         d.o.Issuer,
		"authorization_endpoint":                         at("/authorize"),
		"token_endpoint":                                 at("/token"),
		"userinfo_endpoint":                              at("/userinfo"),
		"jwks_uri":                                       at("/jwks"),
		"end_session_endpoint":                           at("/end-session"),
		"response_types_supported":                       []string{"code"},
		"response_modes_supported":                       []string{"query"},
		"grant_types_supported":                          []string{"authorization_code"},
		"subject_types_supported":                        []string{"public"},
		"id_token_signing_alg_values_supported":          []string{"ES256", "RS256"},
		"token_endpoint_auth_methods_supported":          []string{"client_secret_basic", "client_secret_post"},
		"code_challenge_methods_supported":               []string{"S256"},
		"scopes_supported":                               []string{"openid", "profile", "email", "groups"},
		"claims_supported":                               []string{"sub", "name", "preferred_username", "email", "groups"},
		"authorization_response_iss_parameter_supported": true,
	})
}

func (d *Directory) jwks(w http.ResponseWriter, r *http.Request) {
	control.JSON(w, http.StatusOK, d.keys.public())
}

func (d *Directory) home(w http.ResponseWriter, r *http.Request) {
	d.site.Page(w, http.StatusOK, "home", struct {
		Options
		Faults *control.Faults
	}{d.o, d.faults})
}

func (d *Directory) client(id string) (Client, bool) {
	i := slices.IndexFunc(d.o.Clients, func(c Client) bool { return c.ID == id })
	if i < 0 {
		return Client{}, false
	}
	return d.o.Clients[i], true
}

func (d *Directory) member(subject string) (Member, bool) {
	i := slices.IndexFunc(d.o.Staff, func(m Member) bool { return m.Subject == subject })
	if i < 0 {
		return Member{}, false
	}
	return d.o.Staff[i], true
}

var errClient = errors.New("client authentication failed")

// authenticate proves the client by Basic or by the form, never by both (RFC
// 6749, section 2.3).
func (d *Directory) authenticate(r *http.Request) (Client, error) {
	id, secret, basic := r.BasicAuth()
	if basic {
		// Section 2.3.1: both are form-encoded inside Basic.
		var errs [2]error
		id, errs[0] = url.QueryUnescape(id)
		secret, errs[1] = url.QueryUnescape(secret)
		if errors.Join(errs[:]...) != nil || r.PostForm.Has("client_secret") {
			return Client{}, errClient
		}
	} else {
		id, secret = r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	}
	c, ok := d.client(id)
	if !ok || subtle.ConstantTimeCompare([]byte(secret), []byte(c.Secret)) != 1 {
		return Client{}, errClient
	}
	return c, nil
}
