package provider

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/jackc/pgx/v5"
)

// ErrNotFound says that there is no active client of that name.
var ErrNotFound = errors.New("client not found")

// The types of client (RFC 6749, section 2.1, in plain words): a web application keeps
// a secret on its server; a native one runs on a person's device and cannot.
const (
	Web    = "web"
	Native = "native"
)

// How a client authenticates at the token endpoint; fixed at registration.
const (
	SecretBasic = "client_secret_basic"
	SecretPost  = "client_secret_post"
	PrivateKey  = "private_key_jwt" // an assertion signed with a key of its own
	NoSecret    = "none"
)

// Words is a name in both languages.
type Words struct{ EN, FR string }

// In returns the name in "fr", else in English.
func (w Words) In(lang string) string {
	if lang == "fr" {
		return w.FR
	}
	return w.EN
}

// A Client is an application of a department.
type Client struct {
	ID           string
	DepartmentID string
	Name         Words
	Department   Words
	Type         string
	AuthMethod   string
	FirstParty   bool // a city department's own: told about, not asked for consent
	Scopes       []string
	Resources    []string // absolute URIs the client may ask tokens for
	Alg          string   // of ID tokens
	RedirectURIs []string
	PostLogout   []string
	Policy
	secrets secrets
	known   []string // scopes that the resident it was read for was told about
}

// A Policy is what is agreed with a client beyond the usual; the zero value is the usual.
type Policy struct {
	Keys          *jose.JSONWebKeySet `json:"keys,omitempty"`           // of PrivateKey: its public keys
	AssertionAlg  string              `json:"assertion_alg,omitempty"`  // of PrivateKey: the one algorithm it signs with
	FAPI2         bool                `json:"fapi2,omitempty"`          // pushes its requests, proves possession, names us as issuer
	DPoP          DPoPPolicy          `json:"dpop,omitempty"`           // "" leaves the choice to the client
	NonceForPKCE  bool                `json:"nonce_for_pkce,omitempty"` // its library knows no PKCE; it always sends a nonce instead
	GraceSeconds  *int                `json:"grace_seconds,omitempty"`  // of a spent refresh token, 0 to 60; 10 when nil
	Serves        []string            `json:"serves,omitempty"`         // resources that it is the server of, and may introspect tokens for
	Device        bool                `json:"device,omitempty"`         // a kiosk, counter or screen that signs people in on their phone
	Place         *Words              `json:"place,omitempty"`          // of a device: where it stands
	LogoutURI     string              `json:"logout_uri,omitempty"`     // takes back-channel logout tokens
	LogoutPrivate bool                `json:"logout_private,omitempty"` // LogoutURI may lead into a private network
}

// equal reports whether two policies say the same. Values that cannot be written equal none.
func (p Policy) equal(q Policy) bool {
	a, err1 := json.Marshal(p)
	b, err2 := json.Marshal(q)
	return err1 == nil && err2 == nil && bytes.Equal(a, b)
}

// A DPoPPolicy is whether a client must prove possession of a key (RFC 9449).
type DPoPPolicy string

const (
	DPoPRequired DPoPPolicy = "required"
	DPoPNonce    DPoPPolicy = "nonce" // required, with a nonce of ours in each proof
)

// grace is how long a spent refresh token still gives its successor.
func (c Client) grace() time.Duration {
	if c.GraceSeconds == nil {
		return 10 * time.Second
	}
	return time.Duration(*c.GraceSeconds) * time.Second
}

var clientID = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{1,63}$`)

// Client reads an active client, or returns ErrNotFound.
func (s *Service) Client(ctx context.Context, name string) (Client, error) {
	return client(ctx, s.db, name, "")
}

// ClientFor reads an active client together with what a resident ("" for nobody) has
// been told of it: Decide and DecideAfter want it for their person.
func (s *Service) ClientFor(ctx context.Context, name, residentID string) (Client, error) {
	return client(ctx, s.db, name, residentID)
}

func client(ctx context.Context, q querier, name, residentID string) (Client, error) {
	if !clientID.MatchString(name) {
		return Client{}, ErrNotFound
	}
	c := Client{ID: name}
	err := q.QueryRow(ctx, clientSQL, name, residentID).
		Scan(&c.DepartmentID, &c.Name.EN, &c.Name.FR, &c.Department.EN, &c.Department.FR, &c.Type, &c.AuthMethod,
			&c.secrets.hash, &c.secrets.old, &c.secrets.oldUntil, &c.FirstParty, &c.Scopes, &c.Resources, &c.Alg, &c.Policy, &c.RedirectURIs, &c.PostLogout, &c.known)
	if errors.Is(err, pgx.ErrNoRows) {
		return Client{}, ErrNotFound
	}
	if err != nil {
		return Client{}, fmt.Errorf("read client %s: %w", name, err)
	}
	return c, nil
}

// The last column is what the resident was told. For a city department's client it
// counts what the department's other first-party clients told; everybody else needs consent to
// exactly this client.
const clientSQL = `
select c.department_id, c.name_en, c.name_fr, d.name_en, d.name_fr, c.type, c.auth_method, c.secret_hash, c.old_secret_hash, c.old_secret_until,
	c.first_party, c.scopes, c.resources, c.id_token_alg, c.policy,
	array(select u.uri from identity.client_uri u where u.client_id = c.id and u.kind = 'redirect' and u.state = 'active' order by u.uri),
	array(select u.uri from identity.client_uri u where u.client_id = c.id and u.kind = 'post-logout' and u.state = 'active' order by u.uri),
	array(select distinct scope from identity.consent k
		join identity.client o on o.id = k.client_id
		cross join unnest(k.scopes) scope
		where k.resident_id = nullif($2, '')::uuid and k.withdrawn_at is null
			and ((o.id = c.id and k.kind = 'consent') or (c.first_party and o.first_party and o.department_id = c.department_id)))
from identity.client c join department.department d on d.id = c.department_id
where c.id = $1 and c.state = 'active'`

// redirects reports whether answers may go to uri: byte for byte one of the registered
// ones. A native client's loopback address may have any port (RFC 8252, section 7.3).
func (c Client) redirects(uri string) bool {
	if slices.Contains(c.RedirectURIs, uri) {
		return true
	}
	if c.Type != Native {
		return false
	}
	bare, ok := withoutPort(uri)
	return ok && slices.ContainsFunc(c.RedirectURIs, func(have string) bool {
		registered, ok := withoutPort(have)
		return ok && registered == bare
	})
}

// withoutPort takes the port out of "http://127.0.0.1:PORT/..." and of the IPv6 form,
// touching no other byte.
func withoutPort(uri string) (string, bool) {
	for _, host := range []string{"http://127.0.0.1", "http://[::1]"} {
		rest, ok := strings.CutPrefix(uri, host)
		if !ok {
			continue
		}
		if digits, ok := strings.CutPrefix(rest, ":"); ok {
			path := strings.TrimLeft(digits, "0123456789")
			if n := len(digits) - len(path); n == 0 || n > 5 {
				return "", false
			}
			rest = path
		}
		return host + rest, strings.HasPrefix(rest, "/")
	}
	return "", false
}

// granted returns what of the wish exists and the client may have. Unknown scopes are
// dropped (OpenID Connect Core 3.1.2.1); the token answer says what was granted.
func (c Client) granted(wish []string) []string {
	var out []string
	for _, scope := range Scopes() {
		if slices.Contains(wish, scope) && slices.Contains(c.Scopes, scope) {
			out = append(out, scope)
		}
	}
	return out
}

// resources checks the resource parameters (RFC 8707): all registered, or invalid_target.
func (c Client) resources(wish []string) ([]string, error) {
	out := []string{}
	for _, r := range wish {
		if r == "" {
			continue
		}
		if !slices.Contains(c.Resources, r) {
			return nil, &Error{"invalid_target", "a resource is not registered for the client"}
		}
		if !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	return out, nil
}

// Origin returns the origin of a registered address.
func Origin(uri string) string {
	u, err := url.Parse(uri)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}
