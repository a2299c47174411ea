package resident_test

import (
	"context"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"guichet/internal/audit"
	"guichet/internal/browser"
	"guichet/internal/id"
	"guichet/internal/money"
	"guichet/payments/bill"
)

// proved makes every session one of two factors: how that is done, other tests show.
func (w *world) proved() {
	w.t.Helper()
	_, err := w.DB.Exec(w.t.Context(), `update identity.session set acr = 2`)
	must(w.t, err)
}

// An office is a business with its owner and a clerk, both signed in.
type office struct {
	*world
	owner, clerk     *visitor
	ownerID, clerkID string
	right, party     string // the owner's right, and the business
}

func newOffice(t *testing.T) office {
	t.Helper()
	o := office{world: newWorld(t)}
	o.owner, o.clerk = o.visitor(), o.visitor()
	o.ownerID = o.owner.signIn("owner@demo.example")
	o.clerkID = o.clerk.signIn("clerk@demo.example")
	o.proved()
	o.right = o.rightOf(o.owner.post("/acting/business", "name", "Boulangerie Démo", "number", "10000 0009 RT0001").expect(t, 303).location)
	must(t, o.DB.QueryRow(t.Context(), `select party_id from identity.delegation where id = $1`, o.right).Scan(&o.party))
	return o
}

func (o office) rightOf(location string) string { return strings.TrimPrefix(location, "/acting/") }

// invite fills in the form with what every test starts from, and more.
func (o office) invite(more ...string) answer {
	o.t.Helper()
	form := append([]string{"right", "bills:pay", "department", "parking", "department", "water", "per_payment", "80.00", "per_month", "100,00", "until", o.Today().AddDays(60).String()}, more...)
	return o.owner.post("/acting/invite?for="+o.right, form...)
}

// given invites the clerk by mail and accepts; it returns the clerk's right.
func (o office) given(more ...string) string {
	o.t.Helper()
	o.invite(append(more, "how", "mail", "email", "clerk@demo.example")...).expect(o.t, 200, "on its way")
	return o.rightOf(o.clerk.post(o.link(), "do", "accept").expect(o.t, 303).location)
}

func (o office) link() string {
	o.codes.mu.Lock()
	defer o.codes.mu.Unlock()
	return strings.TrimPrefix(o.codes.link, o.url)
}

// act switches a visitor to a right, or back for "".
func (v *visitor) act(right string) {
	v.w.t.Helper()
	v.post("/acting/switch", "to", right).expect(v.w.t, 303)
}

// bill issues one of the business.
func (o office) bill(department, code string, amount money.Amount) bill.Bill {
	o.t.Helper()
	return o.owned(o.party, o.Bill(department, code, amount))
}

func TestADelegatePaysForABusiness(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.work()
	right := o.given()
	fine, permit := o.bill("parking", "parking-wrong-way", 0), o.bill("permits", "inspection-extra", 0)
	own := o.owned(o.clerkID, o.Bill("water", "water-consumption", 1234))

	o.clerk.get("/").expect(t, 200, "What you owe", "$12.34")
	before := o.clerk.cookie()
	o.clerk.act(right)
	if o.clerk.cookie() == before {
		t.Error("the session's cookie stays the same when the context changes")
	}
	page := o.clerk.get("/").expect(t, 200, "What Boulangerie Démo owes", "$55.00")
	if !strings.Contains(page.body, "You are acting for") || strings.Contains(page.text(), "$12.34") || strings.Contains(page.body, permit.ID) {
		t.Errorf("the page mixes people or departments: %s", page.text())
	}
	checkout := o.clerk.post("/checkout", "bill", fine.ID).expect(t, 303).location
	o.clerk.post("/checkout", "bill", permit.ID).expect(t, 422)
	o.clerk.post("/checkout", "bill", own.ID).expect(t, 422)
	o.clerk.get(checkout).expect(t, 200, "The receipt goes to clerk@demo.example")
	back := o.clerk.card(o.clerk.post(checkout+"/pay").expect(t, 303).location, goodCard).location
	back = strings.TrimPrefix(back, o.url)
	var receipt string
	eventually(t, "the receipt", func() bool {
		receipt = link(o.clerk.get(back).body, "/receipt/")
		return receipt != ""
	})
	o.clerk.get(receipt).expect(t, 200, "Demo Résidente, for Boulangerie Démo")
	o.clerk.get(receipt+"/pdf").expect(t, 200)

	// The owner sees it too, in the business's name only.
	o.owner.get(receipt).expect(t, 404)
	o.owner.act(o.right)
	o.owner.get(receipt).expect(t, 200, "for Boulangerie Démo")
	o.owner.get("/acting/"+right).expect(t, 200, "Paid under it", "$55.00", "Began to act")
	o.clerk.act("")
	o.clerk.get(receipt).expect(t, 404)
	o.clerk.get(checkout).expect(t, 404)
	o.clerk.get("/").expect(t, 200, "$12.34")

	var mail string
	eventually(t, "the mail to who paid", func() bool {
		return o.DB.QueryRow(t.Context(), `select recipient from ops.mail where template = 'receipt'`).Scan(&mail) == nil
	})
	if mail != "resident:"+o.clerkID {
		t.Errorf("the receipt goes to %s", mail)
	}
}

// cookie is the value of the session's cookie.
func (v *visitor) cookie() string {
	v.w.t.Helper()
	req, err := http.NewRequest(http.MethodGet, v.w.url, nil)
	must(v.w.t, err)
	for _, c := range v.client.Jar.Cookies(req.URL) {
		if c.Name == "guichet" {
			return c.Value
		}
	}
	return ""
}

func TestBothPeopleAreInTheAudit(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	right := o.given()
	fine := o.bill("parking", "parking-wrong-way", 0)
	o.clerk.act(right)
	checkout := o.clerk.post("/checkout", "bill", fine.ID).expect(t, 303).location
	o.clerk.post(checkout+"/pay").expect(t, 303)
	for action, behalf := range map[string]string{
		"delegation.invited": "", "delegation.accepted": "", "delegation.used": "", "checkout.opened": o.party, "payment.created": o.party,
	} {
		var actor, onBehalf, kind string
		err := o.DB.QueryRow(t.Context(), `select actor, on_behalf_of, actor_kind from ops.audit where action = $1`, action).Scan(&actor, &onBehalf, &kind)
		want := o.clerkID
		if action == "delegation.invited" {
			want = o.ownerID
		}
		if err != nil || actor != want || onBehalf != behalf || kind != audit.Resident {
			t.Errorf("%s: by %s for %q (%s), %v; want %s for %q", action, actor, onBehalf, kind, err, want, behalf)
		}
	}
	// What the clerk does for themselves meanwhile is not the business's doing.
	o.clerk.post("/acting/business", "name", "Another").expect(t, 303)
	var n int
	must(t, o.DB.QueryRow(t.Context(), `select count(*) from ops.audit where action = 'delegation.created' and on_behalf_of <> ''`).Scan(&n))
	if n != 0 {
		t.Error("a deed of the clerk's own names the business")
	}
}

// Attack 78 of the checklist, on the pages; at the provider: TestTokensDieWithTheRight.
func TestAttack78RevokedOrAboveTheCap(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	right := o.given()
	small, large := o.bill("water", "water-consumption", 8000), o.bill("water", "water-consumption", 8001)
	other := o.bill("water", "water-consumption", 2001)
	o.clerk.act(right)
	o.clerk.post("/checkout", "bill", large.ID).expect(t, 403, "above your limit", "$80.00", "Nothing was charged")
	o.clerk.post("/checkout", "bill", small.ID, "bill", other.ID).expect(t, 403, "above your limit")
	checkout := o.clerk.post("/checkout", "bill", small.ID).expect(t, 303).location
	second := o.clerk.post("/checkout", "bill", other.ID).expect(t, 303).location
	o.clerk.post(checkout+"/pay").expect(t, 303)
	o.clerk.post(second+"/pay").expect(t, 403, "$100.00 in a month", "$80.00 of it are used")

	must(t, o.acting.Revoke(asResident(t, o.ownerID), o.ownerID, right))
	for _, try := range []func() answer{
		func() answer { return o.clerk.get("/") },
		func() answer { return o.clerk.get(checkout) },
		func() answer { return o.clerk.post("/checkout", "bill", small.ID) },
		func() answer { return o.clerk.post(second + "/pay") },
		func() answer { return o.clerk.post(checkout + "/cancel") },
		func() answer { return o.clerk.post("/acting/switch", "to", right) },
	} {
		try().expect(t, 403, "You can no longer act for them")
	}
	o.clerk.act("")
	o.clerk.get("/").expect(t, 200, "You owe nothing")
	o.clerk.get(checkout).expect(t, 404)
}

func asResident(t *testing.T, residentID string) context.Context {
	return audit.With(t.Context(), audit.Origin{Actor: residentID, ActorKind: audit.Resident})
}

func TestEndingARightClosesThePageOfTheProcessor(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	right := o.given()
	fine := o.bill("parking", "parking-wrong-way", 0)
	o.clerk.act(right)
	checkout := o.clerk.post("/checkout", "bill", fine.ID).expect(t, 303).location
	hosted := o.clerk.post(checkout+"/pay").expect(t, 303).location
	o.owner.post("/acting/"+right, "do", "end").expect(t, 303)
	if a := o.clerk.card(hosted, goodCard); a.status == http.StatusSeeOther && strings.Contains(a.location, "/return") {
		t.Errorf("paid after the right had ended: %d %s", a.status, a.location)
	}
	var state string
	must(t, o.DB.QueryRow(t.Context(), `select state from payments.payment`).Scan(&state))
	if state != "expired" && state != "cancelled" {
		t.Errorf("the payment is %s", state)
	}
	o.owner.act(o.right)
	o.owner.post("/checkout", "bill", fine.ID).expect(t, 303) // the bill is free again
}

func TestWhoMaySeeMayNotPay(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	fine := o.bill("parking", "parking-wrong-way", 0)
	o.owner.act(o.right)
	checkout := o.owner.post("/checkout", "bill", fine.ID).expect(t, 303).location
	o.invite("how", "code").expect(t, 200)
	o.owner.post("/acting/invite?for="+o.right, "right", "bills:view", "department", "parking", "until", o.Today().AddDays(9).String(), "how", "mail", "email", "clerk@demo.example").expect(t, 200)
	o.clerk.act(o.rightOf(o.clerk.post(o.link(), "do", "accept").expect(t, 303).location))
	page := o.clerk.get("/").expect(t, 200, "You may see these bills", "$55.00")
	if len(values(page.body, "bill")) != 0 {
		t.Error("the page offers to pay")
	}
	o.clerk.post("/checkout", "bill", fine.ID).expect(t, 422)
	o.clerk.get(checkout).expect(t, 200, "You may see these bills")
	o.clerk.post(checkout+"/pay").expect(t, 403, "may not do this for them")
	o.clerk.post(checkout+"/cancel").expect(t, 403)
	o.clerk.post("/pay", "notice", fine.Notice, "key", "TEST 123").expect(t, 403, "may not do this for them")
}

func TestInvitationsAtTheWire(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	stranger := o.visitor()
	stranger.signIn("stranger@demo.example")
	o.proved()
	o.invite("how", "mail", "email", "clerk@demo.example").expect(t, 200, "clerk@demo.example")
	opened := o.link()

	// A program that opens every link of a mail changes nothing, and a browser without session sees nothing.
	if a := o.visitor().get(opened); a.status != 303 || !strings.HasPrefix(a.location, "/signin?return=") {
		t.Errorf("without a session: %d %s", a.status, a.location)
	}
	for range 3 {
		o.clerk.get(opened).expect(t, 200, "Demo Résidente invites you to act for Boulangerie Démo", "$80.00")
	}
	// The same answer to another person, for a link used up, withdrawn, and made up.
	refusals := []answer{
		stranger.get(opened), stranger.post(opened, "do", "accept"),
		o.clerk.get("/acting/invitation/" + id.Secret()), o.owner.get(opened),
	}
	right := o.rightOf(o.clerk.post(opened, "do", "accept").expect(t, 303).location)
	refusals = append(refusals, o.clerk.get(opened), o.clerk.post(opened, "do", "accept"), o.clerk.post(opened, "do", "decline"))
	o.invite("how", "mail", "email", "stranger@demo.example")
	withdrawn := o.link()
	var open string
	must(t, o.DB.QueryRow(t.Context(), `select id from identity.delegation where accepted_at is null and ended_at is null`).Scan(&open))
	o.owner.post("/acting/"+open, "do", "end").expect(t, 303)
	refusals = append(refusals, stranger.get(withdrawn))
	for i, a := range refusals {
		a.expect(t, 404, "This invitation cannot be used")
		if noise := regexp.MustCompile(`/acting/invitation/[^"?]*`); noise.ReplaceAllString(a.text(), "") != noise.ReplaceAllString(refusals[0].text(), "") {
			t.Errorf("refusal %d tells more: %s", i, a.text())
		}
	}
	stranger.get("/acting/"+right).expect(t, 404)
	stranger.post("/acting/"+right, "do", "end").expect(t, 404)
	stranger.post("/acting/switch", "to", right).expect(t, 403)
	stranger.post("/acting/switch", "to", id.New()).expect(t, 403)
	stranger.post("/acting/switch", "to", "'; drop table").expect(t, 403)
}

func TestACodeIsShownTypedAndAcceptedOnce(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	page := o.invite("how", "code").expect(t, 200, "Show this code")
	code := regexp.MustCompile(`class="offer-code"><span class="ref">([^<]*)`).FindStringSubmatch(page.body)[1]
	o.clerk.get("/acting/code").expect(t, 200)
	o.clerk.post("/acting/code", "do", "look", "code", "0000 0000 00").expect(t, 404, "No open invitation has this code")
	o.clerk.post("/acting/code", "do", "look", "code", strings.ToLower(code)).expect(t, 200, "Act for Boulangerie Démo?")
	o.clerk.post("/acting/code", "do", "accept", "code", code).expect(t, 303)
	o.clerk.post("/acting/code", "do", "accept", "code", code).expect(t, 404, "No open invitation")
	o.clerk.get("/acting").expect(t, 200, "Boulangerie Démo", "By invitation")
}

func TestACodeByMailIsNotEnoughToTakeOrGiveARight(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.invite("how", "mail", "email", "clerk@demo.example").expect(t, 200)
	_, err := o.DB.Exec(t.Context(), `update identity.session set acr = 1`)
	must(t, err)
	weak := o.clerk.get(o.link()).expect(t, 200, "a passkey, or a second factor")
	if strings.Contains(weak.body, `value="accept"`) || !strings.Contains(weak.body, "/signin?level=2&amp;return=%2Facting%2Finvitation%2F") {
		t.Errorf("the page offers what it then refuses, or no way on: %s", weak.body)
	}
	o.clerk.post(o.link(), "do", "accept").expect(t, 403, "a passkey, or a second factor")
	o.invite("how", "code").expect(t, 403, "a passkey, or a second factor")
	o.owner.get("/acting/invite?for="+o.right).expect(t, 403)
}

func TestTheFormSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	for name, form := range map[string][]string{
		"Enter an amount in dollars":   {"per_payment", "ten"},
		"Enter a last day":             {"until", o.Today().AddDays(-1).String()},
		"Enter an e-mail address":      {"how", "mail", "email", "nobody"},
		"Choose at least one thing":    {"right", ""},
		"Choose at least one departm":  {"department", ""},
		"cannot give more than you ma": {"right", "root"},
	} {
		fields := map[string]string{"right": "bills:pay", "department": "parking", "until": o.Today().AddDays(9).String(), "how": "code"}
		for i := 0; i < len(form); i += 2 {
			fields[form[i]] = form[i+1]
		}
		var pairs []string
		for k, v := range fields {
			if v != "" {
				pairs = append(pairs, k, v)
			}
		}
		a := o.owner.post("/acting/invite?for="+o.right, pairs...)
		if a.status != 422 && a.status != 403 || !strings.Contains(a.text(), strings.TrimSuffix(name, " ma")) && !strings.Contains(a.text(), "There is a problem") {
			t.Errorf("%s: %d %s", name, a.status, a.text())
		}
	}
	o.owner.post("/acting/business", "name", "x", "number", "100000008").expect(t, 422, "Check the business number")
	o.owner.post("/acting/child", "name", "x", "born", "1990-01-01").expect(t, 422, "under 18")
	o.owner.post("/acting/child", "name", "x", "born", "yesterday").expect(t, 422, "under 18")
	o.owner.post("/acting/switch", "to", "\x00").expect(t, 400)
}

func TestAChildOnThePages(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	born := o.Today().AddDays(-17 * 365)
	right := o.rightOf(o.owner.post("/acting/child", "name", "Petit Démo", "born", born.String()).expect(t, 303).location)
	o.owner.act(right)
	o.owner.get("/").expect(t, 200, "Petit Démo owes nothing")
	must(t, o.Clock.SetOffset(400*24*time.Hour))
	path, _, _ := strings.Cut(o.owner.get("/signin?return=/").location, "?") // the session has ended meanwhile, too
	o.owner.post(path, "do", "email", "email", "owner@demo.example").expect(t, 303)
	o.owner.post(path, "do", "code", "code", o.codes.last()).expect(t, 303)
	o.owner.post("/acting/switch", "to", right).expect(t, 403)
}

func TestActingInBrowser(t *testing.T) {
	o := newOffice(t)
	must(t, o.Clock.SetOffset(time.Minute)) // the next codes may be asked for
	b := browser.New(t)
	page := browser.Open(t, b, o.url+"/", browser.Desktop)
	browser.Click(t, page, `main a[href^="/signin"]`)
	browser.Fill(t, page, "#email", "owner@demo.example")
	browser.Click(t, page, `button[value="email"]`)
	browser.Fill(t, page, "#code", o.codes.last())
	browser.Click(t, page, `button[value="code"]`)
	browser.Go(t, page, o.url+"/acting/invite?for="+o.right)
	look(t, page, "acting-proof")
	o.proved()
	browser.Go(t, page, o.url+"/acting")
	look(t, page, "acting-overview-owner")
	browser.Go(t, page, o.url+"/acting/business")
	look(t, page, "acting-business")
	browser.Go(t, page, o.url+"/acting/child")
	look(t, page, "acting-child")
	for _, lang := range []string{"fr", "en"} {
		browser.Go(t, page, o.url+"/acting/invite?for="+o.right+"&lang="+lang)
		see(t, page, "acting-invite-"+lang)
	}
	browser.Click(t, page, `main form .button`)
	says(t, page, "There is a problem")
	see(t, page, "acting-invite-errors-en")
	browser.Fill(t, page, "#per_payment", "250")
	browser.Fill(t, page, "#email", "clerk@demo.example")
	page.MustElement("#until").MustEval(`v => { this.value = v }`, o.Today().AddDays(60).String())
	browser.Click(t, page, `main form .button`)
	says(t, page, "The invitation is on its way")
	see(t, page, "acting-invited-en")
	browser.Go(t, page, o.url+"/acting/invite?for="+o.right)
	page.MustElement(`input[value="bills:pay"]`).MustClick()
	page.MustElement(`input[value="code"]`).MustClick()
	page.MustElement("#until").MustEval(`v => { this.value = v }`, o.Today().AddDays(60).String())
	browser.Click(t, page, `main form .button`)
	says(t, page, "Show this code")
	see(t, page, "acting-code-shown-en")

	theirs := browser.Open(t, b.MustIncognito(), o.url+o.link(), browser.Desktop)
	browser.Fill(t, theirs, "#email", "clerk@demo.example")
	browser.Click(t, theirs, `button[value="email"]`)
	browser.Fill(t, theirs, "#code", o.codes.last())
	browser.Click(t, theirs, `button[value="code"]`)
	says(t, theirs, "Act for Boulangerie Démo?", "Prove once more")
	look(t, theirs, "acting-offer-weak")
	o.proved()
	browser.Go(t, theirs, o.url+o.link())
	look(t, theirs, "acting-offer")
	browser.Click(t, theirs, `button[value="accept"]`)
	says(t, theirs, "You may act for Boulangerie Démo", "$250.00")
	look(t, theirs, "acting-right")
	o.bill("water", "water-consumption", 30000)
	o.bill("parking", "parking-wrong-way", 0)
	browser.Click(t, theirs, `main form[action="/acting/switch"] button`)
	says(t, theirs, "What Boulangerie Démo owes", "$300.00")
	look(t, theirs, "acting-home")
	must(t, theirs.MustElement(".acting-menu summary").Click("left", 1))
	see(t, theirs, "acting-menu-en")
	browser.Dark(t, theirs)
	see(t, theirs, "acting-menu-en-dark")
	browser.Light(t, theirs)
	browser.Go(t, theirs, o.url+"/acting/code")
	look(t, theirs, "acting-code")
	browser.Go(t, page, o.url+"/acting")
	look(t, page, "acting-overview-given")
	var right string
	must(t, o.DB.QueryRow(t.Context(), `select id from identity.delegation where delegate_id = $1`, o.clerkID).Scan(&right))
	browser.Go(t, page, o.url+"/acting/"+right)
	must(t, page.MustElement("main details summary").Click("left", 1))
	see(t, page, "acting-end-en")
	browser.Click(t, page, `main form .button-danger`)
	says(t, page, "Ended")
	browser.Go(t, theirs, o.url+"/")
	says(t, theirs, "You can no longer act for them")
	look(t, theirs, "acting-ended")

	if n := len(theirs.MustElements(".acting-menu summary, .acting-banner button")); n != 0 {
		t.Errorf("%d ways to switch on the page of a person who may act for nobody", n)
	}
}
