package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"guichet/identity"
)

// ErrClient and ErrRedirectURI say that the request cannot be trusted with an answer:
// the person is told on a page, and nobody is redirected.
var (
	ErrClient      = errors.New("unknown client")
	ErrRedirectURI = errors.New("the redirect address is not registered for the client")
)

// A Request is an authorize request that has been checked.
type Request struct {
	ClientID    string
	RedirectURI string
	State       []byte // bytes, because it goes back as it came, whatever it is
	Nonce       string
	Scopes      []string // known, and allowed for the client
	Resources   []string // RFC 8707
	Challenge   string
	JKT         string   // dpop_jkt: the key that the code will be bound to
	IDClaims    []string // asked for by the claims parameter, in the ID token
	InfoClaims  []string // and at userinfo
	None        bool     // prompt
	Login       bool
	Consent     bool
	Select      bool
	Create      bool
	MaxAge      *time.Duration
	ACR         int    // acr_values: a wish, 0 for none
	NeedACR     []int  // acr as an essential claim: an order; nil for none
	HintSub     string // from id_token_hint: who the client believes it is
	LoginHint   string
	Lang        string // from ui_locales: "en", "fr", or "" for no wish we can meet
}

// Check reads an authorize request in the order that the protocol wants. On
// ErrClient and ErrRedirectURI there is no answer to the client; with any *Error the returned Request
// holds the proved redirect address and the state to answer with. residentID is who is signed
// in, "" for nobody.
func (s *Service) Check(ctx context.Context, v url.Values, residentID string) (Client, Request, error) {
	var r Request
	clientID, err := single(v, "client_id")
	if err != nil {
		return Client{}, r, ErrClient
	}
	c, err := s.ClientFor(ctx, clientID, residentID)
	if errors.Is(err, ErrNotFound) {
		return Client{}, r, ErrClient
	}
	if err != nil {
		return Client{}, r, err
	}
	uri, err := single(v, "redirect_uri")
	if err != nil || !c.redirects(uri) {
		return Client{}, r, ErrRedirectURI
	}
	r.ClientID, r.RedirectURI = c.ID, uri
	if len(v["state"]) == 1 {
		r.State = []byte(v.Get("state"))
	}
	if c.FAPI2 {
		return c, r, invalidRequest("this client has to push its requests")
	}
	return c, r, s.check(ctx, c, v, &r)
}

// check reads what comes after the redirect address has been proved.
func (s *Service) check(ctx context.Context, c Client, v url.Values, r *Request) error {
	for name, values := range v {
		if len(values) > 1 && name != "resource" { // RFC 8707 lets this one repeat
			return invalidRequest("a parameter is repeated")
		}
	}
	switch {
	case v.Get("request") != "":
		return &Error{"request_not_supported", "request objects are not supported"}
	case v.Get("request_uri") != "":
		return &Error{"request_uri_not_supported", "request_uri is not supported"}
	case v.Get("response_type") == "":
		return invalidRequest("response_type is missing")
	case v.Get("response_type") != "code":
		return &Error{"unsupported_response_type", "only the code flow is offered"}
	case v.Get("response_mode") != "" && v.Get("response_mode") != "query":
		return invalidRequest("only the query response mode is offered")
	}
	r.Scopes = c.granted(strings.Fields(v.Get("scope")))
	if !slices.Contains(r.Scopes, ScopeOpenID) {
		return &Error{"invalid_scope", "the scope must contain openid"}
	}
	r.Nonce = v.Get("nonce")
	if !utf8.ValidString(r.Nonce) || strings.ContainsRune(r.Nonce, 0) || len(r.Nonce) > 1024 {
		return invalidRequest("nonce is not text of reasonable length")
	}
	var err error
	if r.Challenge, err = c.challenge(v); err != nil {
		return err
	}
	if r.JKT = v.Get("dpop_jkt"); r.JKT != "" && !sha256Text(r.JKT) {
		return invalidRequest("dpop_jkt is not a thumbprint")
	}
	if r.Resources, err = c.resources(v["resource"]); err != nil {
		return err
	}
	return s.checkPerson(ctx, c, v, r)
}

// checkPerson reads what the client asks of the person: prompts, age of the proof, hints.
func (s *Service) checkPerson(ctx context.Context, c Client, v url.Values, r *Request) error {
	prompts := strings.Fields(v.Get("prompt"))
	for _, p := range prompts {
		switch p {
		case "none":
			r.None = true
		case "login":
			r.Login = true
		case "consent":
			r.Consent = true
		case "select_account":
			r.Select = true
		case "create":
			r.Create = true
		default:
			return invalidRequest("prompt has a value that is not offered")
		}
	}
	if r.None && len(prompts) > 1 {
		return invalidRequest("prompt=none stands alone")
	}
	if text := v.Get("max_age"); text != "" {
		n, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return invalidRequest("max_age is not a number of seconds")
		}
		age := time.Duration(n) * time.Second
		r.MaxAge = &age
	}
	if token := v.Get("id_token_hint"); token != "" {
		hint, err := s.hint(ctx, token)
		if errors.Is(err, ErrHint) || err == nil && hint.clientID != c.ID {
			return invalidRequest("id_token_hint is not an ID token given to this client")
		}
		if err != nil {
			return err
		}
		r.HintSub = hint.sub
	}
	r.ACR = wishedACR(strings.Fields(v.Get("acr_values")))
	if text := v.Get("claims"); text != "" {
		if err := r.readClaims(c, text); err != nil {
			return err
		}
	}
	if email, err := identity.ParseEmail(v.Get("login_hint")); err == nil {
		r.LoginHint = email
	}
	r.Lang = locale(v.Get("ui_locales"))
	return nil
}

// single returns a parameter that must be there once.
func single(v url.Values, name string) (string, error) {
	if len(v[name]) != 1 || v[name][0] == "" {
		return "", invalidRequest(name + " is missing or repeated")
	}
	return v[name][0], nil
}

// challenge reads the PKCE challenge (RFC 7636), "" for a client that was let off it.
func (c Client) challenge(v url.Values) (string, error) {
	text := v.Get("code_challenge")
	switch {
	case text == "" && c.NonceForPKCE && v.Get("nonce") != "" && v.Get("code_challenge_method") == "":
		return "", nil
	case text == "":
		return "", invalidRequest("code_challenge is missing: PKCE is required")
	case v.Get("code_challenge_method") != "S256":
		return "", invalidRequest("code_challenge_method must be S256")
	case !sha256Text(text):
		return "", invalidRequest("code_challenge is not a SHA-256 in base64url")
	}
	return text, nil
}

// sha256Text reports whether text can be a SHA-256 in base64url: 43 characters.
func sha256Text(text string) bool {
	return len(text) == 43 && strings.IndexFunc(text, notBase64URL) < 0
}

func notBase64URL(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
}

// locale returns the first language of the list that we speak (BCP 47 tags, best first).
func locale(tags string) string {
	for _, tag := range strings.Fields(tags) {
		primary, _, _ := strings.Cut(strings.ToLower(tag), "-")
		if primary == "en" || primary == "fr" {
			return primary
		}
	}
	return ""
}

// Next is what an authorize request needs.
type Next int

const (
	SignIn Next = iota + 1 // the person must prove who they are, or more than they did
	StepUp                 // a factor is missing, and only that is asked for
	Choose                 // the person picks: this account or another
	Ask                    // the person must be told, or asked, what the department will see
	Answer                 // a code can be issued
)

// Decide says what a request needs before it can be answered, with person nil when
// nobody is signed in; the client was read for that person. With prompt=none it returns
// an *Error instead of SignIn, StepUp, Choose or Ask.
func (s *Service) Decide(ctx context.Context, c Client, r Request, person *identity.Person) (Next, error) {
	top := slices.Max(identity.Levels())
	if person != nil {
		top = person.Top()
	}
	if !r.met(top) && (person == nil || !r.met(person.ACR)) {
		return 0, unmet()
	}
	ok := person != nil && !r.Login && !r.Create
	if ok && r.MaxAge != nil {
		// OpenID Connect Core 3.1.2.1: max_age=0 is like prompt=login.
		ok = *r.MaxAge > 0 && s.now().Sub(person.SignedInAt) <= *r.MaxAge
	}
	if ok && r.HintSub != "" {
		same, err := s.isSubject(ctx, c, r.HintSub, person.ID)
		if err != nil {
			return 0, err
		}
		ok = same
	}
	// A level that is a wish is worth a question, not worth a refusal.
	short := ok && (!r.met(person.ACR) || person.ACR < min(r.ACR, top) && !r.None)
	switch {
	case (!ok || short) && r.None:
		return 0, &Error{"login_required", "the person has to sign in"}
	case !ok:
		return SignIn, nil
	case short:
		return StepUp, nil
	case r.Select:
		return Choose, nil
	}
	return s.afterProof(c, r)
}

// DecideAfter is Decide for a person who has signed in for this very request, or who
// needed not to: how long they then read the page does not count.
func (s *Service) DecideAfter(ctx context.Context, c Client, r Request, person identity.Person) (Next, error) {
	if r.HintSub != "" {
		same, err := s.isSubject(ctx, c, r.HintSub, person.ID)
		if err != nil {
			return 0, err
		}
		if !same {
			return 0, &Error{"login_required", "another person signed in than the one asked for"}
		}
	}
	if !r.met(person.ACR) {
		return 0, unmet()
	}
	return s.afterProof(c, r)
}

func (s *Service) afterProof(c Client, r Request) (Next, error) {
	if c.told(r.sees()) && !r.Consent {
		return Answer, nil
	}
	if r.None {
		return 0, &Error{"consent_required", "the person has to be told what the client will see"}
	}
	return Ask, nil
}

// Pack writes the form in which a Request waits in a pending sign-in.
func (r Request) Pack() ([]byte, error) { return json.Marshal(r) }

// Unpack reads what Pack wrote.
func Unpack(b []byte) (Request, error) {
	var r Request
	if err := json.Unmarshal(b, &r); err != nil {
		return Request{}, fmt.Errorf("read authorize request: %w", err)
	}
	return r, nil
}

// A Reply is the answer that goes back to the client through the browser.
type Reply struct {
	RedirectURI string
	State       []byte
	Code        string
	Err         *Error
}

// URL returns the address to send the browser to. iss is in every answer, so that a
// client which uses several providers notices a mix-up (RFC 9207).
func (a Reply) URL(issuer string) string {
	q := url.Values{"iss": {issuer}}
	if a.Err != nil {
		q.Set("error", a.Err.Code)
		q.Set("error_description", a.Err.Description)
	} else {
		q.Set("code", a.Code)
	}
	if len(a.State) > 0 {
		q.Set("state", string(a.State))
	}
	// The registered address stays as it is, byte for byte, also its own query.
	sep := "?"
	if strings.Contains(a.RedirectURI, "?") {
		sep = "&"
	}
	return a.RedirectURI + sep + q.Encode()
}
