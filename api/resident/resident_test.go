package resident_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"guichet/api/resident"
	"guichet/identity"
	"guichet/internal/id"
)

func TestGuestPaysANotice(t *testing.T) {
	w := newWorld(t)
	w.work()
	fine := w.Issue(t, w.Bill("parking", "parking-wrong-way", 0))
	v := w.visitor()
	checkout := v.find(fine)
	v.get(checkout).expect(t, 200, "Test parking", "$55.00", "You save $20.00 by paying on or before")

	v.post(checkout+"/pay", "email", "not an address").expect(t, 422, "Enter an e-mail address")
	page := v.post(checkout+"/pay", "email", "guest@example.ca").expect(t, 303).location
	if !strings.HasPrefix(page, w.simURL) {
		t.Fatalf("the pay button leads to %s", page)
	}
	if again := v.post(checkout+"/pay").expect(t, 303).location; again != page {
		t.Errorf("a second click leads to %s, the first to %s", again, page)
	}
	v.get(checkout).expect(t, 200, "You have begun to pay", "Continue to the payment page")
	v.get(checkout+"/return").expect(t, 200, "We are confirming your payment", "Do not pay again")

	if a := v.card(page, declinedCard); a.status == http.StatusSeeOther {
		t.Fatalf("a declined card led to %s", a.location)
	}
	back := v.card(page, goodCard).expect(t, 303).location
	if back != w.url+checkout+"/return" {
		t.Fatalf("the processor sends back to %s", back)
	}
	v.get(back).expect(t, 200, "Payment received", "$55.00")
	var receipt string
	eventually(t, "a receipt on the return page", func() bool {
		a := v.get(back)
		receipt = link(a.body, "/receipt/")
		return receipt != ""
	})
	v.get(receipt).expect(t, 200, "Receipt no. 1", "Visa card ending in 4242", "Fee parking-wrong-way", "$55.00")
	v.get(receipt+"?lang=fr").expect(t, 200, "Reçu nº 1", "Carte Visa se terminant par 4242", "Frais parking-wrong-way", "55,00 $")
	pdf := v.get(receipt + "/pdf")
	if !strings.HasPrefix(pdf.body, "%PDF-") || pdf.header.Get("Content-Disposition") != `attachment; filename="recu-1.pdf"` {
		t.Errorf("PDF %q as %q", pdf.body[:8], pdf.header.Get("Content-Disposition"))
	}

	// What is paid cannot be paid again, and says when it was.
	v.get(checkout).expect(t, 303)
	v.post(checkout+"/pay").expect(t, 303)
	w.visitor().post("/pay", "notice", fine.Notice, "key", "test123").expect(t, 200, "is paid", "It was paid on")

	// Another browser sees nothing of it, whatever it asks for.
	stranger := w.visitor()
	for _, path := range []string{checkout, checkout + "/return", receipt, receipt + "/pdf", receipt + "/proof"} {
		stranger.get(path).expect(t, 404)
	}
	for _, path := range []string{checkout + "/pay", checkout + "/cancel"} {
		stranger.post(path).expect(t, 404)
	}
	stranger.get("/checkout/not-an-id").expect(t, 404)
}

func TestFindingANotice(t *testing.T) {
	w := newWorld(t)
	fine := w.Issue(t, w.Bill("parking", "parking-wrong-way", 0))
	slip := fine.Notice[:9] + string("23456789"[strings.IndexByte("23456789", fine.Notice[9])+1&7])
	v := w.visitor()
	v.post("/pay").expect(t, 422, "Enter the notice number", "Enter the licence plate")
	v.post("/pay", "notice", slip, "key", "TEST 123").expect(t, 422, "There is a slip in the notice number")
	unknown := v.post("/pay", "notice", id.Code(9), "key", "TEST 123").expect(t, 404, "We found no notice")
	wrong := v.post("/pay", "notice", fine.Notice, "key", "OTHER").expect(t, 404, "We found no notice")
	if neutral(unknown.body) != neutral(wrong.body) {
		t.Error("an unknown notice and a wrong second factor are told apart")
	}
	for _, secret := range []string{"55.00", "Test parking", fine.ID} {
		if strings.Contains(wrong.text(), secret) {
			t.Errorf("before the match the page says %q", secret)
		}
	}
	// As people type: lower case, spaces, O for 0.
	typed := strings.ToLower(strings.ReplaceAll(id.Group(fine.Notice), "0", "O"))
	v.post("/pay", "notice", typed, "key", " test-123 ").expect(t, 303)

	if _, err := w.Bills.Cancel(t.Context(), fine.DepartmentID, fine.ID, "issued in error"); err != nil {
		t.Fatal(err)
	}
	v.post("/pay", "notice", fine.Notice, "key", "TEST 123").expect(t, 200, "There is nothing to pay on notice")
}

func TestTheLinkOfABillBringsItsNumber(t *testing.T) {
	w := newWorld(t)
	a := w.visitor().get("/pay?notice=7K3M-92QX-DA").expect(t, 200)
	if !strings.Contains(a.body, `value="7K3M-92QX-DA"`) || strings.Contains(a.body, "<details class=\"after-actions\" open") {
		t.Errorf("the number is not in the form, or the page takes it for an error: %s", a.body)
	}
	if a := w.visitor().get(`/pay?notice=%22%3E%3Cscript%3E`).expect(t, 200); strings.Contains(a.body, "<script>") {
		t.Error("the number is not escaped")
	}
}

func TestGuessingIsLimited(t *testing.T) {
	w := newWorld(t, func(o *resident.Options) {
		o.Limits = resident.Limits{Notice: identity.Limit{Burst: 3, Per: time.Hour}, Network: identity.Limit{Burst: 5, Per: time.Hour}}
	})
	fine := w.Issue(t, w.Bill("parking", "parking-wrong-way", 0))
	v := w.visitor()
	for range 3 {
		v.post("/pay", "notice", fine.Notice, "key", "GUESS").expect(t, 404)
	}
	a := v.post("/pay", "notice", fine.Notice, "key", "TEST 123").expect(t, 429, "Too many attempts")
	if a.header.Get("Retry-After") == "" {
		t.Error("429 without Retry-After")
	}
	for range 2 {
		v.post("/pay", "notice", id.Code(9), "key", "GUESS").expect(t, 404)
	}
	v.post("/pay", "notice", id.Code(9), "key", "GUESS").expect(t, 429)
	var noted int
	must(t, w.DB.QueryRow(t.Context(), `select count(*) from ops.audit where action = 'notice.limited' and object_id = $1`, fine.Notice).Scan(&noted))
	if noted != 1 {
		t.Errorf("%d audit rows of the refusal, want 1", noted)
	}
}

func TestAStrangerExhaustsANoticeOnlyForHimself(t *testing.T) {
	w := newWorld(t, func(o *resident.Options) {
		o.Limits = resident.Limits{Notice: identity.Limit{Burst: 3, Per: time.Hour}, Total: identity.Limit{Burst: 5, Per: time.Hour}}
	})
	fine := w.Issue(t, w.Bill("parking", "parking-wrong-way", 0))
	stranger := w.visitorAt("127.0.1.1")
	for range 3 {
		stranger.post("/pay", "notice", fine.Notice, "key", "GUESS").expect(t, 404)
	}
	stranger.post("/pay", "notice", fine.Notice, "key", "GUESS").expect(t, 429)
	w.visitor().post("/pay", "notice", fine.Notice, "key", "TEST 123").expect(t, 303)
	// All strangers together guess no more than the total.
	w.visitorAt("127.0.2.1").post("/pay", "notice", fine.Notice, "key", "GUESS").expect(t, 404)
	w.visitorAt("127.0.3.1").post("/pay", "notice", fine.Notice, "key", "GUESS").expect(t, 429)
}

// The next person at a shared device must not find what the one before was paying.
func TestSigningOutTakesEverythingAlong(t *testing.T) {
	w := newWorld(t)
	v := w.visitor()
	asGuest := v.find(w.Issue(t, w.Bill("parking", "parking-wrong-way", 0)))
	lea := v.signIn("resident@demo.example")
	owned := w.owned(lea, w.Bill("water", "water-consumption", 8736))
	asResident := v.post("/checkout", "bill", owned.ID).expect(t, 303).location
	found := v.find(w.Issue(t, w.Bill("parking", "parking-wrong-way", 0)))
	for _, path := range []string{asGuest, asResident, found} {
		v.get(path).expect(t, 200)
	}

	// A session that ended by itself leaves the guest's cookie, which opens the guest's only.
	at, err := url.Parse(w.url)
	must(t, err)
	var guest *http.Cookie
	for _, c := range v.client.Jar.Cookies(at) {
		if c.Name == "guichet-guest" {
			guest = c
		}
	}
	later := w.visitor()
	later.client.Jar.SetCookies(at, []*http.Cookie{guest})
	later.get(asGuest).expect(t, 200)
	later.get(asResident).expect(t, 404)
	later.get(found).expect(t, 404)

	v.post("/signout").expect(t, 303)
	for _, path := range []string{asGuest, asResident, found} {
		v.get(path).expect(t, 404)
	}
}

func TestResidentPaysThreeDepartmentsAtOnce(t *testing.T) {
	w := newWorld(t)
	w.work()
	v := w.visitor()
	v.get("/").expect(t, 200, "Sign in or create an account")
	lea := v.signIn("resident@demo.example")
	v.get("/").expect(t, 200, "You owe nothing")
	w.owned(lea, w.Bill("parking", "parking-wrong-way", 0))
	w.owned(lea, w.Bill("permits", "inspection-extra", 0))
	w.owned(lea, w.Bill("water", "water-consumption", 8736))
	foreign := w.Issue(t, w.Bill("water", "water-consumption", 100))

	home := v.get("/").expect(t, 200, "All 3 bills", "$326.55", "to save $20.00", "Test permits")
	bills := values(home.body, "bill")
	if len(bills) != 3 {
		t.Fatalf("%d bills to choose from", len(bills))
	}
	v.post("/checkout").expect(t, 422, "Choose at least one bill to pay")
	v.post("/checkout", "bill", foreign.ID).expect(t, 422, "What you owe has changed")
	v.post("/checkout", "bill", foreign.ID, "from", "01930000-0000-7000-8000-000000000000").expect(t, 404)

	checkout := v.post("/checkout", "bill", bills[0], "bill", bills[1], "bill", bills[2], "bill", bills[2]).expect(t, 303).location
	v.get(checkout).expect(t, 200, "HST (13%) $21.19", "Total $326.55", "The receipt goes to resident@demo.example")
	page := v.post(checkout+"/pay").expect(t, 303).location
	v.get("/").expect(t, 200, "Being paid right now", "Go back to your payment")
	v.get(v.card(page, goodCard).expect(t, 303).location).expect(t, 200, "Payment received", "$326.55")
	eventually(t, "the receipt in the list", func() bool { return strings.Contains(v.get("/").text(), "No. 1") })
	home = v.get("/").expect(t, 200, "You owe nothing", "Test parking, Test permits, Test water")
	v.get(link(home.body, "/receipt/")).expect(t, 200, "HST number: 00000 0000 RT0001", "Total paid")
}

func TestTwoPayersOfOneBill(t *testing.T) {
	w := newWorld(t)
	fine := w.Issue(t, w.Bill("parking", "parking-wrong-way", 0))
	first, second := w.visitor(), w.visitor()
	one, two := first.find(fine), second.find(fine)
	page := first.post(one+"/pay").expect(t, 303).location
	second.get(two).expect(t, 200, "Somebody else is paying this bill right now")
	second.post(two+"/pay").expect(t, 409, "Somebody else is paying this bill right now")
	// The first gives up: the bill is free.
	first.post(one+"/cancel").expect(t, 200, "You stopped the payment", "Nothing was charged")
	first.get(one).expect(t, 200, "Your last attempt did not go through")
	if a := first.card(page, goodCard); a.status == http.StatusSeeOther {
		t.Errorf("the page of a stopped payment still takes money and leads to %s", a.location)
	}
	page = second.post(two+"/pay").expect(t, 303).location
	second.get(second.card(page, goodCard).expect(t, 303).location).expect(t, 200, "Payment received")
	first.get(one).expect(t, 200, "This bill was paid on")
	first.post(one+"/pay").expect(t, 409, "This bill was paid on")
}

func TestOneBillOfThreeIsTaken(t *testing.T) {
	w := newWorld(t)
	v := w.visitor()
	lea := v.signIn("resident@demo.example")
	fine := w.owned(lea, w.Bill("parking", "parking-wrong-way", 0))
	water := w.owned(lea, w.Bill("water", "water-consumption", 8736))
	checkout := v.post("/checkout", "bill", fine.ID, "bill", water.ID).expect(t, 303).location
	other := w.visitor()
	other.post(other.find(fine)+"/pay").expect(t, 303)
	a := v.get(checkout).expect(t, 200, "Somebody else is paying", "Go on with the other bill", "$87.36")
	if got := values(a.body, "bill"); len(got) != 1 || got[0] != water.ID {
		t.Fatalf("the button goes on with %v, want the water bill", got)
	}
	v.get("/").expect(t, 200, "Being paid right now")
	rest := v.post("/checkout", "from", strings.TrimPrefix(checkout, "/checkout/"), "bill", water.ID).expect(t, 303).location
	v.post(rest+"/pay").expect(t, 303)
}

func TestProcessorDoesNotAnswer(t *testing.T) {
	w := newWorld(t)
	v := w.visitor()
	checkout := v.find(w.Issue(t, w.Bill("parking", "parking-wrong-way", 0)))
	w.fault("bad-gateway-after", "POST /v1/checkout/sessions")
	a := v.post(checkout+"/pay").expect(t, 503, "The payment page did not open", "it cannot charge you twice")
	if a.header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	v.post(checkout+"/pay").expect(t, 303)
}

func TestEnds(t *testing.T) {
	w := newWorld(t)
	v := w.visitor()
	checkout := v.find(w.Issue(t, w.Bill("parking", "parking-wrong-way", 0)))
	v.get(checkout+"/return").expect(t, 303) // nothing was tried: back to the checkout
	v.post(checkout+"/pay").expect(t, 303)
	v.get(checkout+"/pay").expect(t, 303) // the address of a form, opened

	a := v.get(checkout+"/return").expect(t, 200)
	if want := "2; url=" + checkout + "/return?n=1"; a.header.Get("Refresh") != want {
		t.Errorf("the page looks again with %q, want %q", a.header.Get("Refresh"), want)
	}
	for _, still := range []string{"?still=1", "?n=25", "?n=-1"} {
		if a := v.get(checkout+"/return"+still).expect(t, 200, "Look again"); a.header.Get("Refresh") != "" {
			t.Errorf("%s: the page goes on looking by itself", still)
		}
	}
	must(t, w.Clock.SetOffset(40*time.Minute)) // the processor's page closes by itself
	v.get(checkout+"/return").expect(t, 200, "The payment page has closed", "Nothing was charged")
	v.get(checkout).expect(t, 200, "Your last attempt did not go through", "Pay $55.00")
	must(t, w.Clock.SetOffset(25*time.Hour))
	v.get(checkout).expect(t, 410, "This checkout has ended")
	v.post(checkout+"/pay").expect(t, 303)
}

func TestVerify(t *testing.T) {
	w := newWorld(t)
	w.work()
	v := w.visitor()
	checkout := v.find(w.Issue(t, w.Bill("parking", "parking-wrong-way", 0)))
	v.get(v.card(v.post(checkout+"/pay").expect(t, 303).location, goodCard).location).expect(t, 200, "Payment received")
	var receipt string
	eventually(t, "a receipt", func() bool { receipt = link(v.get(checkout+"/return").body, "/receipt/"); return receipt != "" })
	var code string
	must(t, w.DB.QueryRow(t.Context(), `select verify_code from payments.receipt`).Scan(&code))

	anybody := w.visitor()
	anybody.get("/verify").expect(t, 200, "Verification code")
	anybody.get("/verify?code=0001").expect(t, 422, "There is a slip in the code")
	anybody.get("/verify/"+id.Group(id.Code(15))).expect(t, 404, "The City has issued no receipt with this code")
	at := anybody.get("/verify?code="+strings.ToLower(code)).expect(t, 303).location
	anybody.get(at).expect(t, 200, "This receipt is real", "will be sealed in a moment", "$55.00")
	v.get(receipt+"/proof").expect(t, 404)
	w.seal()
	page := anybody.get(at).expect(t, 200, "its entry is sealed", "$55.00")
	for _, personal := range []string{"4242", "Visa", "parking", "TEST"} {
		if strings.Contains(page.text(), personal) {
			t.Errorf("anybody can read %q", personal)
		}
	}
	if a := v.get(receipt + "/proof"); a.status != 200 || a.header.Get("Content-Type") != "application/json" || !strings.Contains(a.body, `"path"`) {
		t.Errorf("proof: %d %s", a.status, a.body)
	}
}

func TestFormsOfOtherSitesAreRefused(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"/pay", "/checkout", "/checkout/x/pay", "/checkout/x/cancel"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.url+path, nil)
		must(t, err)
		req.Header.Set("Sec-Fetch-Site", "cross-site")
		resp, err := http.DefaultClient.Do(req)
		must(t, err)
		resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %d, want 403", path, resp.StatusCode)
		}
	}
}

func TestDepartmentsLinkLeadsToTheCheckoutAndBack(t *testing.T) {
	w := newWorld(t)
	checkoutID, token := w.fromDepartment(w.Issue(t, w.Bill("permits", "inspection-extra", 0)))
	v := w.visitor()
	v.get("/c/wrong").expect(t, 404)
	v.get("/checkout/"+checkoutID).expect(t, 404)
	checkout := v.get("/c/"+token).expect(t, 303).location
	if checkout != "/checkout/"+checkoutID {
		t.Fatalf("the link leads to %s", checkout)
	}
	page := v.post(checkout+"/pay").expect(t, 303).location
	a := v.get(v.card(page, goodCard).location).expect(t, 200, "Go back to Test permits")
	if !strings.Contains(a.body, `href="https://permits.example.ca/done"`) {
		t.Error("no link back to the department")
	}
}
