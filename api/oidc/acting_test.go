package oidc_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"guichet/identity"
	"guichet/identity/delegation"
	"guichet/identity/provider"
	"guichet/internal/clock"
)

// A proxy is a person who may act for a business at the parking department, in a browser
// that is signed in, with applications of two departments that want to know.
type proxy struct {
	*world
	b              *browser
	owner          identity.Person
	right          string
	parking, water *app
}

func newProxy(t *testing.T) proxy {
	t.Helper()
	p := proxy{world: newWorld(t)}
	scopes := provider.NewClient{FirstParty: true, Scopes: []string{"openid", "profile", "offline_access", "guichet:act"}}
	p.parking = p.app("parking-portal", p.department("parking", "Parking"), scopes)
	p.water = p.app("water-portal", p.department("water", "Water"), scopes)
	p.owner = p.person(p.browser(), "owner@example.com")
	p.b = p.browser()
	clerk := p.person(p.b, "clerk@example.com")
	business, err := p.acting.CreateBusiness(t.Context(), p.owner.ID, "Boulangerie Démo", "100000009")
	must(t, err)
	out, err := p.acting.Invite(t.Context(), delegation.Invitation{By: p.owner, Under: business, Lang: "en", Scope: delegation.Scope{
		Rights: []delegation.Right{delegation.ManageFiles}, Departments: []string{"parking"}, Until: clock.DateOf(p.now).AddDays(5),
	}})
	must(t, err)
	p.right, err = p.acting.Accept(t.Context(), delegation.Answer{By: clerk, Secret: out.Secret})
	must(t, err)
	return p
}

// person signs somebody in, who is told of the parking application, and has two factors.
func (p proxy) person(b *browser, email string) identity.Person {
	p.t.Helper()
	b.signIn(p.parking.authorizeURL(p.parking.request()), email)
	person, err := p.people.Session(p.t.Context(), b.cookie("guichet"))
	must(p.t, err)
	person.ACR = 2
	return person
}

// ask is a request for everything about acting, with more parameters.
func (p proxy) ask(a *app, more ...string) url.Values {
	return with(with(a.request(), "scope", "openid profile offline_access guichet:act"), more...)
}

// choose goes to an application and chooses for whom.
func (p proxy) choose(a *app, right string) tokens {
	p.t.Helper()
	path := p.b.startSignIn(a.authorizeURL(p.ask(a, "prompt", "select_account")))
	page := p.b.get(path)
	if page.status != http.StatusOK || !strings.Contains(page.body, `name="acting" value="`+right+`"`) {
		p.t.Fatalf("the choice does not offer %q: %d %s", right, page.status, page.body)
	}
	got := p.b.post(path, url.Values{"do": {"keep"}, "acting": {right}})
	if got.status == http.StatusOK { // the first time, a notice says what will be seen
		if !strings.Contains(got.text(), "for whom you act, in what role, and what you may do for them") {
			p.t.Fatalf("the notice does not tell: %s", got.text())
		}
		got = p.b.post(path, url.Values{"do": {"agree"}})
	}
	t := a.redeem(got.query().Get("code"))
	if t.status != http.StatusOK {
		p.t.Fatalf("no tokens: %d %s, then %d %s", got.status, got.location, t.status, t.body)
	}
	return t
}

func (p proxy) claim(t tokens) (acting, claims map[string]any) {
	p.t.Helper()
	status, claims := p.userinfo(t.AccessToken)
	if status != http.StatusOK {
		p.t.Fatalf("userinfo: %d", status)
	}
	acting, _ = claims["acting_for"].(map[string]any)
	return acting, claims
}

func TestActingForIsTold(t *testing.T) {
	t.Parallel()
	p := newProxy(t)
	cookie := p.b.cookie("guichet")
	tok := p.choose(p.parking, p.right)
	if p.b.cookie("guichet") == cookie {
		t.Error("the session keeps its cookie when the context changes")
	}
	in, claims := p.claim(tok)
	sub := claimsOf(t, tok.IDToken)["sub"]
	want := map[string]any{
		"type": "business", "id": in["id"], "name": "Boulangerie Démo", "role": "delegate", "proof": "declared",
		"rights": []any{"files:view", "files:manage"}, "until": clock.DateOf(p.now).AddDays(5).String(),
	}
	if fmt.Sprint(in) != fmt.Sprint(want) || in["id"] == sub || in["id"] == nil {
		t.Errorf("acting_for %v, want %v", in, want)
	}
	if act, _ := claims["act"].(map[string]any); act["sub"] != sub || claims["sub"] != sub {
		t.Errorf("sub %v, act %v, want the human in both", claims["sub"], claims["act"])
	}
	// The id is the department's own name for the business: the API raises bills for it.
	var party string
	must(t, p.db.QueryRow(t.Context(), `select party_id from identity.delegation where id = $1`, p.right).Scan(&party))
	owner, ok, err := p.provider.Resident(t.Context(), p.departmentID("parking"), in["id"].(string))
	if err != nil || !ok || owner != party {
		t.Errorf("the id leads to %q, %v, %v; want %s", owner, ok, err, party)
	}
	if _, ok, err = p.provider.Resident(t.Context(), p.departmentID("water"), in["id"].(string)); ok || err != nil {
		t.Errorf("another department knows the business by the same name: %v", err)
	}
	var answer map[string]any
	must(t, json.Unmarshal([]byte(p.parking.introspect(tok.AccessToken).body), &answer))
	if seen, _ := answer["acting_for"].(map[string]any); answer["active"] != true || seen["id"] != in["id"] {
		t.Errorf("introspection %v", answer)
	}
	if n := p.count(`select count(*) from ops.audit where action = 'token.issued' and on_behalf_of = $1`, party); n != 1 {
		t.Errorf("%d tokens in the audit with both people, want 1", n)
	}

	// Without the scope, or where the right does not extend to, nobody learns of it.
	plain := p.parking.redeem(p.b.again(p.parking))
	if in, claims := p.claim(plain); in != nil || claims["act"] != nil {
		t.Errorf("told without the scope: %v", claims)
	}
	got := p.b.signIn(p.water.authorizeURL(p.ask(p.water)), "clerk@example.com")
	if in, claims := p.claim(p.water.redeem(got.query().Get("code"))); in != nil {
		t.Errorf("told to a department that the right does not include: %v", claims)
	}
	// Going back to oneself is a new token too.
	if in, _ := p.claim(p.choose(p.parking, "")); in != nil {
		t.Errorf("still acting: %v", in)
	}
}

func (w *world) departmentID(code string) (id string) {
	w.t.Helper()
	must(w.t, w.db.QueryRow(w.t.Context(), `select id from department.department where code = $1`, code).Scan(&id))
	return id
}

func (w *world) count(sql string, args ...any) (n int) {
	w.t.Helper()
	must(w.t, w.db.QueryRow(w.t.Context(), sql, args...).Scan(&n))
	return n
}

// Attack 78 of the checklist, at the provider; on the pages: TestAttack78RevokedOrAboveTheCap.
func TestTokensDieWithTheRight(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(p proxy){
		"revoked":           func(p proxy) { must(p.t, p.acting.Revoke(p.t.Context(), p.owner.ID, p.right)) },
		"past its last day": func(p proxy) { p.later(6 * 24 * time.Hour) }, // refresh tokens live longer
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProxy(t)
			tok := p.choose(p.parking, p.right)
			if tok.RefreshToken == "" {
				t.Fatalf("no refresh token: %s", tok.body)
			}
			waiting := p.b.get(p.parking.authorizeURL(p.ask(p.parking))).query().Get("code")
			end(p)
			if status, _ := p.userinfo(tok.AccessToken); status != http.StatusUnauthorized {
				t.Errorf("userinfo: %d, want 401", status)
			}
			for kind, value := range map[string]string{"access": tok.AccessToken, "refresh": tok.RefreshToken} {
				if got := p.parking.introspect(value); strings.TrimSpace(got.body) != `{"active":false}` {
					t.Errorf("introspection of the %s token: %s", kind, got.body)
				}
			}
			dead(t, "refresh", p.parking.refresh(tok.RefreshToken), "invalid_grant")
			dead(t, "the code that was on its way", p.parking.redeem(waiting), "invalid_grant")
		})
	}
}

func TestForgedContextsAreRefused(t *testing.T) {
	t.Parallel()
	p := newProxy(t)
	stranger := p.browser()
	p.person(stranger, "stranger@example.com")
	for _, right := range []string{p.right, "0198c0de-0000-7000-8000-000000000000", "' or 1=1"} {
		path := stranger.startSignIn(p.parking.authorizeURL(p.ask(p.parking, "prompt", "select_account")))
		if got := stranger.post(path, url.Values{"do": {"keep"}, "acting": {right}}); got.status != http.StatusForbidden {
			t.Errorf("%s: %d %s", right, got.status, got.location)
		}
	}
	// A session whose right ended meanwhile goes on as the person alone.
	p.choose(p.parking, p.right)
	must(t, p.acting.Revoke(t.Context(), p.owner.ID, p.right))
	code := p.b.get(p.parking.authorizeURL(p.ask(p.parking))).query().Get("code")
	if in, _ := p.claim(p.parking.redeem(code)); in != nil {
		t.Errorf("acting under a right that ended: %v", in)
	}
}
