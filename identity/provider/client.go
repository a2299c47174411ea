package provider

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"guichet/identity"
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
	secrets      secrets
}

var clientID = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{1,63}$`)

// Client reads an active client, or returns ErrNotFound.
func (s *Service) Client(ctx context.Context, name string) (Client, error) {
	return client(ctx, s.db, name)
}

func client(ctx context.Context, q querier, name string) (Client, error) {
	if !clientID.MatchString(name) {
		return Client{}, ErrNotFound
	}
	c := Client{ID: name}
	err := q.QueryRow(ctx, `
		select c.department_id, c.name_en, c.name_fr, d.name_en, d.name_fr, c.type, c.auth_method,
			c.secret_hash, c.old_secret_hash, c.old_secret_until, c.first_party, c.scopes, c.resources, c.id_token_alg,
			array(select u.uri from identity.client_uri u where u.client_id = c.id and u.kind = 'redirect' and u.state = 'active' order by u.uri),
			array(select u.uri from identity.client_uri u where u.client_id = c.id and u.kind = 'post-logout' and u.state = 'active' order by u.uri)
		from identity.client c join department.department d on d.id = c.department_id
		where c.id = $1 and c.state = 'active'`, name).
		Scan(&c.DepartmentID, &c.Name.EN, &c.Name.FR, &c.Department.EN, &c.Department.FR, &c.Type, &c.AuthMethod,
			&c.secrets.hash, &c.secrets.old, &c.secrets.oldUntil, &c.FirstParty, &c.Scopes, &c.Resources, &c.Alg, &c.RedirectURIs, &c.PostLogout)
	if errors.Is(err, pgx.ErrNoRows) {
		return Client{}, ErrNotFound
	}
	if err != nil {
		return Client{}, fmt.Errorf("read client %s: %w", name, err)
	}
	return c, nil
}

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

// Credentials are what a client presented at the token endpoint.
type Credentials struct {
	ClientID, Secret string
	Method           string // how: SecretBasic, SecretPost or NoSecret
}

// InvalidClient is the one answer to every failed authentication of a client.
func InvalidClient() *Error {
	return &Error{"invalid_client", "the client is unknown or did not prove to be the one it names"}
}

// Authenticate returns the client that the credentials prove. An unknown client, a
// wrong secret and a method other than the registered one get the same
// answer after the same work. Failures are counted per network, and per client and network: once there are too many,
// the answer is a *identity.LimitedError. A right secret always works, so that nobody can lock a
// department out.
func (s *Service) Authenticate(ctx context.Context, cr Credentials, v identity.Visitor) (Client, error) {
	c, err := s.Client(ctx, cr.ClientID)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Client{}, err
	}
	known := err == nil
	right := c.secrets.hold(cr.Secret, s.now())
	switch {
	case known && c.AuthMethod == cr.Method && cr.Method == NoSecret:
		return c, nil
	case known && c.AuthMethod == cr.Method && right:
		return c, nil
	}
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		// The network first: names that a stranger makes up must not fill the table of buckets.
		if err := s.people.Take(ctx, tx, "client-network", v.Network, s.people.Limits().ClientNetwork); err != nil {
			return err
		}
		return s.people.Take(ctx, tx, "client", cr.ClientID+"\x00"+v.Network, s.people.Limits().ClientFailures)
	})
	if err != nil {
		return Client{}, fmt.Errorf("authenticate client: %w", err)
	}
	return Client{}, InvalidClient()
}

// Origin returns the origin of a registered address.
func Origin(uri string) string {
	u, err := url.Parse(uri)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}
