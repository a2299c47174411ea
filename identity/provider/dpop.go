package provider

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json" // reads names case by case, and no name twice
)

// proofAlgs are the algorithms of proofs of possession.
var proofAlgs = []jose.SignatureAlgorithm{jose.ES256, jose.EdDSA}

// ProofAlgs lists them for discovery.
func ProofAlgs() []string { return algNames(proofAlgs) }

const (
	proofAge  = 60 * time.Second // before and after now
	nonceSlot = 5 * time.Minute  // a nonce is good in its slot and in the next one
)

// Proofs are the DPoP headers of one request (RFC 9449), and what they must be about.
type Proofs struct {
	Headers     []string
	Method, URL string
}

func invalidProof(description string) *Error { return &Error{"invalid_dpop_proof", description} }

// UseNonce is the answer that a client's next proof must carry a nonce of ours.
const UseNonce = "use_dpop_nonce"

// Nonce is the one to put into proofs now. Every instance makes the same one.
func (s *Service) Nonce() string { return s.nonceAt(s.now()) }

func (s *Service) nonceAt(at time.Time) string {
	slot := strconv.FormatInt(at.Unix()/int64(nonceSlot/time.Second), 10)
	return base64.RawURLEncoding.EncodeToString(s.short.Sum("dpop-nonce\x00" + slot))
}

// Proof returns the thumbprint of the key that a request to a client's endpoint proves,
// "" when it proves none and need not.
func (s *Service) Proof(ctx context.Context, c Client, p Proofs) (jkt string, err error) {
	if len(p.Headers) == 0 {
		if c.DPoP != "" {
			return "", invalidProof("this client has to prove possession of its key")
		}
		return "", nil
	}
	return s.proof(ctx, p, c.DPoP == DPoPNonce, "")
}

// proof checks one proof (RFC 9449, section 4.3). ath is the hash of the access token it
// goes with, "" where there is none.
func (s *Service) proof(ctx context.Context, p Proofs, nonce bool, ath string) (jkt string, err error) {
	if len(p.Headers) != 1 {
		return "", invalidProof("want one proof")
	}
	// The parser refuses every algorithm but ours, and a private key in the header.
	jws, err := jose.ParseSignedCompact(p.Headers[0], proofAlgs)
	if err != nil {
		return "", invalidProof("the proof is no JWT signed with an algorithm of ours")
	}
	header := jws.Signatures[0].Protected
	if header.ExtraHeaders[jose.HeaderType] != "dpop+jwt" || header.JSONWebKey == nil || !header.JSONWebKey.IsPublic() {
		return "", invalidProof("the proof is not of its type or holds no public key")
	}
	if k, ok := header.JSONWebKey.Key.(*ecdsa.PublicKey); ok && k.Curve != elliptic.P256() {
		return "", invalidProof("the key is on another curve")
	}
	body, err := jws.Verify(header.JSONWebKey.Key)
	if err != nil {
		return "", invalidProof("the proof is not signed with the key it holds")
	}
	thumb, err := header.JSONWebKey.Thumbprint(crypto.SHA256)
	if err != nil {
		return "", invalidProof("the key has no thumbprint")
	}
	jkt = base64.RawURLEncoding.EncodeToString(thumb)
	return jkt, s.checkProof(ctx, body, proofWanted{p, jkt, ath, nonce})
}

// proofWanted is what the claims of a proof must say.
type proofWanted struct {
	Proofs
	jkt, ath string
	nonce    bool
}

func (s *Service) checkProof(ctx context.Context, body []byte, want proofWanted) error {
	var c struct {
		Jti   string   `json:"jti"`
		Htm   string   `json:"htm"`
		Htu   string   `json:"htu"`
		Iat   *float64 `json:"iat"`
		Ath   string   `json:"ath"`
		Nonce string   `json:"nonce"`
	}
	if err := json.Unmarshal(body, &c); err != nil || c.Iat == nil || c.Jti == "" || len(c.Jti) > 512 {
		return invalidProof("the proof lacks a claim")
	}
	now := s.now()
	age := now.Sub(time.Unix(int64(*c.Iat), 0))
	switch {
	case c.Htm != want.Method, !sameURL(c.Htu, want.URL):
		return invalidProof("the proof is for another request")
	case age > proofAge, age < -proofAge:
		return invalidProof("the proof is not of now")
	case subtle.ConstantTimeCompare([]byte(c.Ath), []byte(want.ath)) != 1:
		return invalidProof("the proof is for another token")
	case want.nonce && c.Nonce != s.nonceAt(now) && c.Nonce != s.nonceAt(now.Add(-nonceSlot)):
		return &Error{UseNonce, "put the nonce of the DPoP-Nonce header into the proof"}
	}
	fresh, err := s.once(ctx, "dpop", want.jkt, c.Jti, now.Add(2*proofAge))
	if err == nil && !fresh {
		return invalidProof("the proof was used before")
	}
	return err
}

// sameURL compares without query and fragment, and the host in any case (RFC 3986, 6.2.2).
func sameURL(got, want string) bool {
	u, err := url.Parse(got)
	if err != nil {
		return false
	}
	return strings.ToLower(u.Scheme)+"://"+strings.ToLower(u.Host)+u.EscapedPath() == strings.ToLower(Origin(want))+strings.TrimPrefix(want, Origin(want))
}

// A Presented token is how an access token came: as Bearer, or as DPoP with its proof.
type Presented struct {
	DPoP bool
	Proofs
}

// CheckProof refuses a token that came otherwise than it was given: a bound one without
// the proof of its key, an unbound one as DPoP. Errors are ErrToken and *Error.
func (s *Service) CheckProof(ctx context.Context, a Access, token string, p Presented) error {
	if (a.JKT != "") != p.DPoP {
		return ErrToken
	}
	if !p.DPoP {
		return nil
	}
	sum := sha256.Sum256([]byte(token))
	jkt, err := s.proof(ctx, p.Proofs, a.DPoP == DPoPNonce, base64.RawURLEncoding.EncodeToString(sum[:]))
	if err == nil && jkt != a.JKT {
		return ErrToken
	}
	return err
}
