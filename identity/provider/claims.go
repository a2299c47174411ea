package provider

import (
	"fmt"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4/json" // reads names case by case, and no name twice

	"guichet/identity"
)

const acrPrefix = "urn:guichet:acr:"

// ACR writes a level of assurance as departments see it.
func ACR(level int) string { return fmt.Sprint(acrPrefix, level) }

// ACRs lists the levels that a sign-in here can reach.
func ACRs() []string {
	var out []string
	for _, level := range identity.Levels() {
		out = append(out, ACR(level))
	}
	return out
}

// acrLevel reads what ACR writes; 0 for anything else.
func acrLevel(text string) int {
	switch rest, ok := strings.CutPrefix(text, acrPrefix); {
	case !ok:
		return 0
	case rest == "1", rest == "2", rest == "3":
		return int(rest[0] - '0')
	}
	return 0
}

// wishedACR is the first level of the list that a sign-in can reach (best first).
func wishedACR(values []string) int {
	for _, v := range values {
		if level := acrLevel(v); level > 0 && slices.Contains(identity.Levels(), level) {
			return level
		}
	}
	return 0
}

// met reports whether a person's level satisfies the order of the client. A higher
// level includes the lower ones.
func (r Request) met(level int) bool { return r.NeedACR == nil || level >= slices.Min(r.NeedACR) }

// WantACR is the level that the sign-in page should lead to.
func (r Request) WantACR() int {
	if r.NeedACR != nil {
		return max(r.ACR, slices.Min(r.NeedACR))
	}
	return r.ACR
}

// stated is the level in the answer: the person's, or the highest one named in the
// order that it includes (OpenID Connect Core 5.5.1.1: one of the values).
func (r Request) stated(level int) int {
	best := 0
	for _, l := range r.NeedACR {
		if l <= level {
			best = max(best, l)
		}
	}
	if best == 0 {
		return level
	}
	return best
}

// unmet is the answer to an essential acr that the person did not reach.
func unmet() *Error {
	return &Error{"unmet_authentication_requirements", "the person did not reach the level asked for"}
}

// claimScope says by which scope a claim may be had.
var claimScope = map[string]string{
	"name": ScopeProfile, "locale": ScopeProfile, "updated_at": ScopeProfile,
	"email": ScopeEmail, "email_verified": ScopeEmail,
}

// readClaims reads the claims parameter (OpenID Connect Core, section 5.5). Claims we do not
// know, or the client may not have, are left out, as the standard wants; those of every
// ID token need not be asked for.
func (r *Request) readClaims(c Client, text string) error {
	type wish struct {
		Essential bool  `json:"essential"`
		Value     any   `json:"value"`
		Values    []any `json:"values"`
	}
	var in struct {
		IDToken  map[string]*wish `json:"id_token"`
		Userinfo map[string]*wish `json:"userinfo"`
	}
	if err := json.Unmarshal([]byte(text), &in); err != nil {
		return invalidRequest("claims is not what OpenID Connect Core 5.5 describes")
	}
	pick := func(from map[string]*wish) (out []string) {
		for name := range from {
			if scope, ok := claimScope[name]; ok && slices.Contains(c.Scopes, scope) {
				out = append(out, name)
			}
		}
		slices.Sort(out)
		return out
	}
	r.IDClaims, r.InfoClaims = pick(in.IDToken), pick(in.Userinfo)
	if acr := in.IDToken["acr"]; acr != nil {
		if acr.Value != nil {
			acr.Values = append(acr.Values, acr.Value)
		}
		if err := r.needACR(acr.Essential, acr.Values); err != nil {
			return err
		}
	}
	for _, from := range []map[string]*wish{in.IDToken, in.Userinfo} {
		if sub := from["sub"]; sub != nil && sub.Value != nil {
			text, ok := sub.Value.(string)
			if !ok || r.HintSub != "" && r.HintSub != text {
				return invalidRequest("the request names two people")
			}
			r.HintSub = text
		}
	}
	return nil
}

func (r *Request) needACR(essential bool, values []any) error {
	var texts []string
	for _, v := range values {
		text, ok := v.(string)
		if !ok {
			return invalidRequest("acr in claims wants text")
		}
		texts = append(texts, text)
	}
	switch {
	case len(texts) == 0:
	case !essential:
		r.ACR = max(r.ACR, wishedACR(texts))
	default:
		for _, t := range texts {
			if level := acrLevel(t); level > 0 {
				r.NeedACR = append(r.NeedACR, level)
			}
		}
		if r.NeedACR == nil {
			return unmet()
		}
	}
	return nil
}

// sees are the scopes that say what the client will see: those it asked for, and those
// behind the single claims it asked for.
func (r Request) sees() []string {
	out := slices.Clone(r.Scopes)
	for _, claim := range slices.Concat(r.IDClaims, r.InfoClaims) {
		if scope := claimScope[claim]; !slices.Contains(out, scope) {
			out = append(out, scope)
		}
	}
	return out
}

// Sees lists what a page tells the person: every scope beyond the bare sub that says
// something about them or, where they are asked, that they may refuse.
func (r Request) Sees(c Client) []string {
	return slices.DeleteFunc(r.sees(), func(scope string) bool {
		return scope == ScopeOpenID || scope == ScopeOffline && c.FirstParty
	})
}

// limit takes out of the request what the person did not leave ticked.
func (r *Request) limit(ticked []string) {
	r.Scopes = slices.DeleteFunc(r.Scopes, func(scope string) bool {
		return scope != ScopeOpenID && !slices.Contains(ticked, scope)
	})
	drop := func(claim string) bool { return !slices.Contains(ticked, claimScope[claim]) }
	r.IDClaims, r.InfoClaims = slices.DeleteFunc(r.IDClaims, drop), slices.DeleteFunc(r.InfoClaims, drop)
}

// allClaims are what we can say about a resident. What is not known is left out.
func allClaims(r identity.Resident) map[string]any {
	claims := map[string]any{"name": r.Name, "locale": r.Lang + "-CA", "updated_at": r.UpdatedAt.Unix()}
	if r.Email != "" {
		claims["email"] = r.Email
		claims["email_verified"] = true // an address is kept only once proved
	}
	return claims
}

// someClaims are those that the scopes cover or that were asked for one by one.
func someClaims(r identity.Resident, scopes, names []string) map[string]any {
	claims := allClaims(r)
	for name := range claims {
		if !slices.Contains(scopes, claimScope[name]) && !slices.Contains(names, name) {
			delete(claims, name)
		}
	}
	return claims
}
