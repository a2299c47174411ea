package provider

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"guichet/internal/id"
)

const (
	pushedPrefix = "urn:ietf:params:oauth:request_uri:"
	pushedLife   = 60 * time.Second // until it is opened; then it lives as long as the sign-in
)

// A Pushed is a request that waits for the browser (RFC 9126).
type Pushed struct {
	URI       string
	ExpiresIn time.Duration
}

// Push checks a request of an authenticated client, in everything that authorize would,
// and keeps it. jkt is the key proved beside it, "" for none.
func (s *Service) Push(ctx context.Context, c Client, v url.Values, jkt string) (Pushed, error) {
	r := Request{ClientID: c.ID}
	if v.Get("request_uri") != "" {
		return Pushed{}, invalidRequest("request_uri cannot be pushed")
	}
	if len(v["client_id"]) > 1 || len(v["redirect_uri"]) > 1 {
		return Pushed{}, invalidRequest("a parameter is repeated")
	}
	if r.RedirectURI = v.Get("redirect_uri"); !c.redirects(r.RedirectURI) {
		return Pushed{}, invalidRequest("redirect_uri is not registered for the client")
	}
	r.State = []byte(v.Get("state"))
	if err := s.check(ctx, c, v, &r); err != nil {
		return Pushed{}, err
	}
	switch {
	case r.JKT == "":
		r.JKT = jkt
	case jkt != "" && jkt != r.JKT:
		return Pushed{}, invalidProof("dpop_jkt is not the key of the proof")
	}
	packed, err := r.Pack()
	if err != nil {
		return Pushed{}, err
	}
	secret, now := id.Secret(), s.now()
	_, err = s.db.Exec(ctx, `
		insert into identity.pushed_request (hash, client_id, request, created_at, expires_at) values ($1, $2, $3, $4, $5)`,
		id.Hash(secret), c.ID, packed, now, now.Add(pushedLife))
	if err != nil {
		return Pushed{}, fmt.Errorf("keep pushed request: %w", err)
	}
	return Pushed{URI: pushedPrefix + secret, ExpiresIn: pushedLife}, nil
}

// ErrPushed says that a request_uri of ours opens nothing: unknown, of another client,
// too old, or answered already.
var ErrPushed = errors.New("no such pushed request")

// IsPushed reports whether a request_uri has the form of ours. Any other would have to be fetched.
func IsPushed(uri string) bool { return strings.HasPrefix(uri, pushedPrefix) }

// An Opened is a pushed request in the browser: for the first time, or, when Pending is
// not empty, again while its sign-in goes on.
type Opened struct {
	Request Request
	Pending string
	hash    []byte
}

// Open takes a pushed request from a browser. What else stands in the address does
// not count. Each is opened once; after that it only leads back to its sign-in.
func (s *Service) Open(ctx context.Context, v url.Values, residentID string) (Client, Opened, error) {
	clientID, err := single(v, "client_id")
	if err != nil {
		return Client{}, Opened{}, ErrClient
	}
	uri, err := single(v, "request_uri")
	if err != nil {
		return Client{}, Opened{}, ErrPushed
	}
	c, err := s.ClientFor(ctx, clientID, residentID)
	if errors.Is(err, ErrNotFound) {
		return Client{}, Opened{}, ErrClient
	}
	if err != nil {
		return Client{}, Opened{}, err
	}
	o := Opened{hash: id.Hash(strings.TrimPrefix(uri, pushedPrefix))}
	var packed []byte
	err = s.db.QueryRow(ctx, `
		update identity.pushed_request set opened_at = $3
		where hash = $1 and client_id = $2 and opened_at is null and expires_at > $3
		returning request`, o.hash, c.ID, s.now()).Scan(&packed)
	if isNone(err) {
		err = s.db.QueryRow(ctx, `
			select pending_id from identity.pushed_request where hash = $1 and client_id = $2 and pending_id is not null`,
			o.hash, c.ID).Scan(&o.Pending)
		if isNone(err) {
			return c, o, ErrPushed
		}
		return c, o, err
	}
	if err != nil {
		return c, o, fmt.Errorf("open pushed request: %w", err)
	}
	if o.Request, err = Unpack(packed); err != nil {
		return c, o, err
	}
	if !c.redirects(o.Request.RedirectURI) { // removed since
		return c, o, ErrRedirectURI
	}
	return c, o, nil
}

// Bind ties an opened request to the sign-in that will answer it.
func (s *Service) Bind(ctx context.Context, o Opened, pendingID string) error {
	_, err := s.db.Exec(ctx, `
		update identity.pushed_request set pending_id = $2, expires_at = greatest(expires_at, $3) where hash = $1`,
		o.hash, pendingID, s.now().Add(time.Hour)) // the longest that a sign-in may take
	if err != nil {
		return fmt.Errorf("bind pushed request: %w", err)
	}
	return nil
}
