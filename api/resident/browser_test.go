package resident_test

import (
	"strings"
	"testing"

	"github.com/go-rod/rod"

	"guichet/internal/browser"
	"guichet/payments/bill"
)

// look checks what a page looks like: axe-core on the desktop and the phone, in both
// languages, nothing wider than its window, and a picture of each. It ends in
// English on the desktop. The page must be one that may be opened again.
func look(t *testing.T, page *rod.Page, name string) {
	t.Helper()
	info, err := page.Info()
	must(t, err)
	address, _, _ := strings.Cut(info.URL, "?")
	for _, lang := range []string{"fr", "en"} {
		browser.Go(t, page, address+"?lang="+lang)
		see(t, page, name+"-"+lang)
	}
}

// see is look for a page as it stands, which cannot be opened again: the answer to a form.
func see(t *testing.T, page *rod.Page, name string) {
	t.Helper()
	for _, v := range []struct {
		name string
		size browser.Viewport
	}{{"phone", browser.Phone}, {"desktop", browser.Desktop}} {
		browser.Resize(t, page, v.size)
		browser.Axe(t, page)
		browser.NoSideways(t, page)
		browser.Shot(t, page, "resident-"+name+"-"+v.name)
	}
}

// says fails the test unless the page's main part holds the words.
func says(t *testing.T, page *rod.Page, words ...string) {
	t.Helper()
	text := browser.Text(t, page, "main")
	for _, word := range words {
		if !strings.Contains(strings.ReplaceAll(text, "\u00a0", " "), word) {
			t.Errorf("the page does not say %q: %s", word, text)
		}
	}
}

// payByCard fills in the processor's hosted page.
func payByCard(t *testing.T, page *rod.Page, number string) {
	t.Helper()
	for name, text := range map[string]string{"email": "payer@example.test", "number": number, "expiry": "12/34", "cvc": "123", "name": "Demo Payer"} {
		browser.Fill(t, page, `input[name="`+name+`"]`, text)
	}
	browser.Click(t, page, `form:has(input[name="number"]) button`)
}

func TestGuestInBrowser(t *testing.T) {
	w := newWorld(t)
	w.work()
	fine := w.Issue(t, w.Bill("parking", "parking-wrong-way", 0))
	page := browser.Open(t, browser.New(t), w.url+"/", browser.Desktop)
	look(t, page, "welcome")
	browser.Go(t, page, w.url+"/pay")
	look(t, page, "find")

	browser.Click(t, page, "main form button")
	says(t, page, "There is a problem", "Enter the notice number")
	see(t, page, "find-errors-en")
	browser.Fill(t, page, "#notice", strings.ToLower(fine.Notice))
	browser.Fill(t, page, "#key", "wrong")
	browser.Click(t, page, "main form button")
	says(t, page, "We found no notice")
	see(t, page, "find-unknown-en")

	browser.Fill(t, page, "#key", "test 123")
	browser.Click(t, page, "main form button")
	says(t, page, "Check before you pay", "$55.00")
	look(t, page, "review-guest")
	browser.Fill(t, page, "#email", "nobody")
	browser.Click(t, page, `form[action$="/pay"] button`)
	see(t, page, "review-error-en")
	browser.Fill(t, page, "#email", "guest@example.ca")
	browser.Click(t, page, `form[action$="/pay"] button`) // under the page's own policy: form-action
	payByCard(t, page, declinedCard)
	must(t, page.NavigateBack())
	browser.Go(t, page, checkoutOf(t, w, fine))
	says(t, page, "You have begun to pay")
	look(t, page, "review-resume")
	browser.Go(t, page, checkoutOf(t, w, fine)+"/return?still=1")
	says(t, page, "We are confirming your payment")
	see(t, page, "outcome-waiting-en")

	browser.Go(t, page, checkoutOf(t, w, fine))
	browser.Click(t, page, `form[action$="/pay"] button`)
	payByCard(t, page, goodCard)
	says(t, page, "Payment received", "$55.00")
	eventually(t, "the receipt's link, by the page's own looking again", func() bool {
		has, _, err := page.Has(`a[href^="/receipt/"]`)
		return err == nil && has
	})
	look(t, page, "outcome-paid")
	browser.Click(t, page, `main a.button-large`)
	look(t, page, "receipt-guest")
	w.seal()
	browser.Go(t, page, browser.Text(t, page, `.card-tint a[href*="/verify/"]`))
	says(t, page, "This receipt is real", "sealed")
	look(t, page, "verify")
	browser.Go(t, page, w.url+"/verify")
	look(t, page, "verify-form")

	browser.Go(t, page, w.url+"/pay")
	browser.Fill(t, page, "#notice", fine.Notice)
	browser.Fill(t, page, "#key", "test 123")
	browser.Click(t, page, "main form button")
	says(t, page, "is paid")
	see(t, page, "find-paid-en")
	browser.Go(t, page, w.url+"/nowhere")
	look(t, page, "not-found")
}

// checkoutOf is the address of the last checkout of a bill.
func checkoutOf(t *testing.T, w *world, b bill.Bill) (address string) {
	t.Helper()
	must(t, w.DB.QueryRow(t.Context(), `
		select checkout_id::text from payments.checkout_bill where bill_id = $1 order by checkout_id desc limit 1`, b.ID).Scan(&address))
	return w.url + "/checkout/" + address
}

func TestResidentInBrowser(t *testing.T) {
	w := newWorld(t)
	w.work()
	page := browser.Open(t, browser.New(t), w.url+"/", browser.Desktop)
	browser.Click(t, page, `main a[href^="/signin"]`)
	see(t, page, "signin-email-en")
	browser.Fill(t, page, "#email", "resident@demo.example")
	browser.Click(t, page, `button[value="email"]`)
	see(t, page, "signin-code-en")
	browser.Fill(t, page, "#code", w.codes.last())
	browser.Click(t, page, `button[value="code"]`)
	browser.Fill(t, page, "#name", "Demo Résidente")
	see(t, page, "signin-name-en")
	browser.Click(t, page, `button[value="profile"]`)
	says(t, page, "You owe nothing")
	look(t, page, "home-empty")

	lea := w.residentID()
	w.owned(lea, w.Bill("parking", "parking-wrong-way", 0))
	overdue := w.Bill("water", "water-consumption", 18743)
	overdue.IssuedOn, overdue.DueOn = w.Today().AddDays(-40), w.Today().AddDays(-3)
	w.owned(lea, overdue)
	soon := w.Bill("permits", "inspection-extra", 0)
	soon.DueOn = w.Today().AddDays(4)
	w.owned(lea, soon)
	taken := w.owned(lea, w.Bill("parking", "parking-accessible", 0))
	other := w.visitor()
	other.post(other.find(taken)+"/pay").expect(t, 303)

	browser.Go(t, page, w.url+"/")
	says(t, page, "All 3 bills", "Being paid right now", "Overdue since")
	look(t, page, "home")
	browser.Dark(t, page)
	see(t, page, "home-en-dark")
	browser.Light(t, page)
	must(t, page.MustElement(`.bill input`).Click("left", 1)) // one left out: the total of all goes away, by CSS alone
	says(t, page, "You left some out")
	see(t, page, "home-some-en")
	must(t, page.MustElement(`.bill input`).Click("left", 1))

	browser.Click(t, page, `.bills-form button`)
	says(t, page, "Check before you pay", "The receipt goes to resident@demo.example", "$426.62")
	look(t, page, "review-three")
	browser.Click(t, page, `form[action$="/pay"] button`)
	browser.Shot(t, page, "processor-page")
	payByCard(t, page, goodCard)
	says(t, page, "Payment received", "$426.62")
	eventually(t, "the receipt's link", func() bool {
		has, _, err := page.Has(`a[href^="/receipt/"]`)
		return err == nil && has
	})
	browser.Click(t, page, `main a.button-large`)
	says(t, page, "HST number", "Total paid")
	look(t, page, "receipt-three")
	browser.Dark(t, page)
	see(t, page, "receipt-three-en-dark")
	browser.Print(t, page)
	browser.Shot(t, page, "resident-receipt-three-en-print")
	browser.Light(t, page)
	browser.Go(t, page, w.url+"/")
	look(t, page, "home-paid")
}

func TestTroubleInBrowser(t *testing.T) {
	w := newWorld(t)
	fine := w.Issue(t, w.Bill("parking", "parking-wrong-way", 0))
	b := browser.New(t)
	page := browser.Open(t, b, w.url+"/pay", browser.Desktop)
	browser.Fill(t, page, "#notice", fine.Notice)
	browser.Fill(t, page, "#key", "test 123")
	browser.Click(t, page, "main form button")
	other := w.visitor()
	elsewhere := other.find(fine)
	other.post(elsewhere+"/pay").expect(t, 303)
	browser.Click(t, page, `form[action$="/pay"] button`)
	says(t, page, "Somebody else is paying this bill right now")
	see(t, page, "review-taken-en")
	browser.Go(t, page, checkoutOf(t, w, fine))
	other.post(elsewhere+"/cancel").expect(t, 200)

	w.fault("bad-gateway-after", "POST /v1/checkout/sessions")
	browser.Go(t, page, w.url+"/pay")
	browser.Fill(t, page, "#notice", fine.Notice)
	browser.Fill(t, page, "#key", "test 123")
	browser.Click(t, page, "main form button")
	browser.Click(t, page, `form[action$="/pay"] button`)
	says(t, page, "The payment page did not open")
	see(t, page, "review-unanswered-en")
	browser.Click(t, page, `form[action$="/pay"] button`)
	browser.Go(t, page, checkoutOf(t, w, fine))
	browser.Click(t, page, `form[action$="/cancel"] button`)
	says(t, page, "You stopped the payment")
	see(t, page, "cancelled-en")
	browser.Go(t, page, checkoutOf(t, w, fine)+"/return")
	says(t, page, "Nothing was charged")
	see(t, page, "outcome-expired-en")
}
