package stripe_test

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	api "github.com/stripe/stripe-go/v76"
)

func TestPaying(t *testing.T) {
	w := newWorld(t)
	s := w.session(11300)
	page := w.get(s.URL)
	for _, want := range []string{`lang="en"`, "Parking fine 26-118204", "$113.00", `href="https://guichet.example/back"`, `autocomplete="cc-number"`, "4242 4242 4242 4242"} {
		if !strings.Contains(page.body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	done := w.post(s.URL, card("4242 4242 4242 4242"))
	eq(t, "status", done.status, http.StatusSeeOther)
	eq(t, "leads to", done.to, "https://guichet.example/done?s="+s.ID)

	got := w.read(s.ID)
	eq(t, "status", got.Status, api.CheckoutSessionStatusComplete)
	eq(t, "payment status", got.PaymentStatus, api.CheckoutSessionPaymentStatusPaid)
	eq(t, "payer", got.CustomerDetails.Email+" "+got.CustomerDetails.Name, "payer@demo.example Demo Payer")
	pi := got.PaymentIntent
	eq(t, "intent", pi.Status, api.PaymentIntentStatusSucceeded)
	eq(t, "received", pi.AmountReceived, 11300)
	eq(t, "intent metadata", pi.Metadata["payment"], "p1")
	ch := pi.LatestCharge
	eq(t, "charge", ch.Status, api.ChargeStatusSucceeded)
	c := ch.PaymentMethodDetails.Card
	eq(t, "card", string(c.Brand)+" "+c.Last4+" "+string(c.Funding), "visa 4242 credit")
	eq(t, "events", joined(types(w.settle())), "payment_intent.created charge.succeeded payment_intent.succeeded checkout.session.completed")

	t.Run("again leads on and takes nothing", func(t *testing.T) {
		again := w.post(s.URL, card("4242424242424242"))
		eq(t, "leads to", again.to, done.to)
		eq(t, "page says so", strings.Contains(w.get(s.URL).body, "This payment is complete"), true)
		eq(t, "events", joined(types(w.settle())), "")
	})
	t.Run("sessions are found by intent", func(t *testing.T) {
		it := w.client.CheckoutSessions.List(&api.CheckoutSessionListParams{PaymentIntent: &pi.ID})
		if !it.Next() || it.CheckoutSession().ID != s.ID || it.Next() {
			t.Errorf("list by %s does not give the session alone", pi.ID)
		}
	})
}

func TestPayingTwiceAtOnceChargesOnce(t *testing.T) {
	w := newWorld(t)
	s := w.session(1000)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if r, err := browser.PostForm(s.URL, card("4242424242424242")); err != nil {
				t.Error(err)
			} else {
				r.Body.Close()
				eq(t, "status", r.StatusCode, http.StatusSeeOther)
			}
		})
	}
	wg.Wait()
	n := 0
	for it := w.client.Charges.List(&api.ChargeListParams{}); it.Next(); {
		n++
	}
	eq(t, "charges", n, 1)
}

func TestDeclinedCards(t *testing.T) {
	for number, tt := range map[string]struct{ says, code string }{
		"4000000000000002": {"Your card was declined.", "generic_decline"},
		"4000000000009995": {"Your card has insufficient funds.", "insufficient_funds"},
		"4000000000000069": {"Your card has expired.", "expired_card"},
		"4111111111111111": {"this simulator takes test cards only", "test_mode_live_card"},
	} {
		t.Run(tt.code, func(t *testing.T) {
			w := newWorld(t)
			s := w.session(1000)
			page := w.post(s.URL, card(number))
			eq(t, "status", page.status, http.StatusUnprocessableEntity)
			if !strings.Contains(page.body, tt.says) || !strings.Contains(page.body, `role="alert"`) {
				t.Errorf("the page does not say %q", tt.says)
			}
			if !strings.Contains(page.body, `value="payer@demo.example"`) || strings.Contains(page.body, `value="`+number) {
				t.Error("the page must keep the e-mail and forget the card")
			}
			got := w.read(s.ID)
			eq(t, "session", got.Status, api.CheckoutSessionStatusOpen)
			eq(t, "intent", got.PaymentIntent.Status, api.PaymentIntentStatusRequiresPaymentMethod)
			eq(t, "decline code", string(got.PaymentIntent.LastPaymentError.DeclineCode), tt.code)
			eq(t, "charge", got.PaymentIntent.LatestCharge.Status, api.ChargeStatusFailed)
			eq(t, "balance", got.PaymentIntent.LatestCharge.BalanceTransaction == nil, true)
			eq(t, "events", joined(types(w.settle())), "payment_intent.created charge.failed payment_intent.payment_failed")

			eq(t, "second try", w.post(s.URL, card("4242424242424242")).status, http.StatusSeeOther)
			after := w.read(s.ID)
			eq(t, "intent is the same", after.PaymentIntent.ID, got.PaymentIntent.ID)
			eq(t, "intent", after.PaymentIntent.Status, api.PaymentIntentStatusSucceeded)
		})
	}
}

func TestWrongFieldsNeverReachTheCard(t *testing.T) {
	w := newWorld(t)
	s := w.session(1000)
	for name, tt := range map[string]struct{ field, value, id string }{
		"a number that fails its check digit": {"number", "4242424242424241", "number"},
		"an expiry that has passed":           {"expiry", "02/26", "expiry"},
		"a month that is none":                {"expiry", "13/29", "expiry"},
		"a short security code":               {"cvc", "12", "cvc"},
		"an e-mail that is none":              {"email", "ada", "email"},
		"no name":                             {"name", " ", "name"},
	} {
		t.Run(name, func(t *testing.T) {
			form := card("4242424242424242")
			form.Set(tt.field, tt.value)
			page := w.post(s.URL, form)
			eq(t, "status", page.status, http.StatusUnprocessableEntity)
			if !strings.Contains(page.body, `aria-describedby="`+tt.id+`-wrong"`) {
				t.Errorf("field %s is not marked", tt.id)
			}
		})
	}
	if got := w.read(s.ID); got.PaymentIntent != nil {
		t.Error("an attempt was made")
	}
	form := card("4242424242424242")
	form.Set("expiry", "03/26") // valid to the end of the month
	eq(t, "the last valid month", w.post(s.URL, form).status, http.StatusSeeOther)
}

func TestThreeDSecure(t *testing.T) {
	for _, number := range []string{"4000002500003155", "4000000000003220"} {
		t.Run(number[12:], func(t *testing.T) {
			w := newWorld(t)
			s := w.session(2000)
			asked := w.post(s.URL, card(number))
			eq(t, "leads to", asked.to, "/c/pay/"+s.ID+"/3ds")
			eq(t, "intent", w.read(s.ID).PaymentIntent.Status, api.PaymentIntentStatusRequiresAction)
			if p := w.get(s.URL + "/3ds"); !strings.Contains(p.body, "Complete") || !strings.Contains(p.body, number[12:]) {
				t.Error("the page does not ask")
			}
			failed := w.post(s.URL+"/3ds", url.Values{"outcome": {"fail"}})
			eq(t, "status", failed.status, http.StatusUnprocessableEntity)
			eq(t, "says", strings.Contains(failed.body, "We could not confirm that it is you"), true)
			got := w.read(s.ID)
			eq(t, "error", string(got.PaymentIntent.LastPaymentError.Code), "payment_intent_authentication_failure")
			eq(t, "charged", got.PaymentIntent.LatestCharge == nil, true)

			w.post(s.URL, card(number))
			done := w.post(s.URL+"/3ds", url.Values{"outcome": {"complete"}})
			eq(t, "leads to", done.to, "https://guichet.example/done?s="+s.ID)
			got = w.read(s.ID)
			eq(t, "payment status", got.PaymentStatus, api.CheckoutSessionPaymentStatusPaid)
			eq(t, "authenticated", string(got.PaymentIntent.LatestCharge.PaymentMethodDetails.Card.ThreeDSecure.Result), "authenticated")
			eq(t, "events", joined(types(w.settle())), "payment_intent.created payment_intent.requires_action payment_intent.payment_failed payment_intent.requires_action charge.succeeded payment_intent.succeeded checkout.session.completed")
		})
	}
}

func TestPreAuthorisedDebit(t *testing.T) {
	for account, tt := range map[string]struct {
		wait   time.Duration
		intent api.PaymentIntentStatus
		status api.CheckoutSessionPaymentStatus
		events string
	}{
		"000123456789": {0, "succeeded", "paid", "charge.succeeded payment_intent.succeeded checkout.session.async_payment_succeeded"},
		"000222222227": {0, "requires_payment_method", "unpaid", "charge.failed payment_intent.payment_failed checkout.session.async_payment_failed"},
		"900123456789": {3 * time.Minute, "succeeded", "paid", "charge.succeeded payment_intent.succeeded checkout.session.async_payment_succeeded"},
		"900222222227": {3 * time.Minute, "requires_payment_method", "unpaid", "charge.failed payment_intent.payment_failed checkout.session.async_payment_failed"},
	} {
		t.Run(account, func(t *testing.T) {
			w := newWorld(t)
			s := w.session(5000)
			eq(t, "status", w.post(s.URL, debit(account)).status, http.StatusSeeOther)
			begun := "payment_intent.created charge.pending payment_intent.processing checkout.session.completed"
			if tt.wait == 0 {
				eq(t, "events", joined(types(w.settle())), begun+" "+tt.events)
			} else {
				eq(t, "events", joined(types(w.settle())), begun)
				got := w.read(s.ID)
				eq(t, "session", got.Status, api.CheckoutSessionStatusComplete)
				eq(t, "payment status", got.PaymentStatus, api.CheckoutSessionPaymentStatusUnpaid)
				eq(t, "intent", got.PaymentIntent.Status, api.PaymentIntentStatusProcessing)
				w.move(tt.wait)
				eq(t, "later events", joined(types(w.settle())), tt.events)
			}
			got := w.read(s.ID)
			eq(t, "session", got.Status, api.CheckoutSessionStatusComplete)
			eq(t, "payment status", got.PaymentStatus, tt.status)
			eq(t, "intent", got.PaymentIntent.Status, tt.intent)
			if tt.status == "paid" {
				eq(t, "fee", got.PaymentIntent.LatestCharge.BalanceTransaction.Fee, 90)
				eq(t, "type", got.PaymentIntent.LatestCharge.BalanceTransaction.Type, api.BalanceTransactionTypePayment)
			}
		})
	}
}

func TestPageSpeaksFrench(t *testing.T) {
	w := newWorld(t)
	p := w.params(123450)
	p.Locale = api.String("fr-CA")
	p.CustomerEmail = api.String("ada@exemple.ca")
	s, err := w.client.CheckoutSessions.New(p)
	if err != nil {
		t.Fatal(err)
	}
	page := w.get(s.URL)
	for _, want := range []string{`lang="fr"`, "Numéro de carte", "1\u00a0234,50\u00a0$", "Retour", `value="ada@exemple.ca" required readonly`} {
		if !strings.Contains(page.body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	declined := w.post(s.URL, card("4000000000009995"))
	if !strings.Contains(declined.body, "Les fonds de votre carte sont insuffisants") {
		t.Error("the decline is not in French")
	}
	w.post(s.URL, card("4242424242424242"))
	eq(t, "e-mail cannot be changed", w.read(s.ID).CustomerDetails.Email, "ada@exemple.ca")
}

func TestExpiredSessionTakesNothing(t *testing.T) {
	w := newWorld(t)
	s := w.session(1000)
	w.post(s.URL, card("4000000000000002"))
	w.move(time.Hour)
	page := w.post(s.URL, card("4242424242424242"))
	eq(t, "status", page.status, http.StatusGone)
	eq(t, "says", strings.Contains(page.body, "This page has expired"), true)
	got := w.read(s.ID)
	eq(t, "session", got.Status, api.CheckoutSessionStatusExpired)
	eq(t, "intent", got.PaymentIntent.Status, api.PaymentIntentStatusCanceled)
	eq(t, "unknown session", w.get(w.url+"/c/pay/cs_test_none").status, http.StatusNotFound)
}

func TestManualCapture(t *testing.T) {
	w := newWorld(t)
	begin := func() *api.CheckoutSession {
		t.Helper()
		p := w.params(8000)
		p.PaymentIntentData.CaptureMethod = api.String("manual")
		s, err := w.client.CheckoutSessions.New(p)
		if err != nil {
			t.Fatal(err)
		}
		w.post(s.URL, card("4242424242424242"))
		w.settle()
		got := w.read(s.ID)
		eq(t, "intent", got.PaymentIntent.Status, api.PaymentIntentStatusRequiresCapture)
		eq(t, "payment status", got.PaymentStatus, api.CheckoutSessionPaymentStatusUnpaid)
		eq(t, "capturable", got.PaymentIntent.AmountCapturable, 8000)
		return got
	}
	t.Run("a part is captured and the rest released", func(t *testing.T) {
		s := begin()
		_, err := w.client.PaymentIntents.Capture(s.PaymentIntent.ID, &api.PaymentIntentCaptureParams{AmountToCapture: api.Int64(8001)})
		eq(t, "more than was held", code(err), "400 invalid_request_error amount_too_large")
		pi, err := w.client.PaymentIntents.Capture(s.PaymentIntent.ID, &api.PaymentIntentCaptureParams{AmountToCapture: api.Int64(5000)})
		if err != nil {
			t.Fatal(err)
		}
		eq(t, "received", pi.AmountReceived, 5000)
		eq(t, "events", joined(types(w.settle())), "charge.captured payment_intent.succeeded")
		got := w.read(s.ID)
		eq(t, "payment status", got.PaymentStatus, api.CheckoutSessionPaymentStatusPaid)
		eq(t, "on our balance", got.PaymentIntent.LatestCharge.BalanceTransaction.Amount, 5000)
	})
	t.Run("all is released on cancel", func(t *testing.T) {
		s := begin()
		pi, err := w.client.PaymentIntents.Cancel(s.PaymentIntent.ID, nil)
		if err != nil {
			t.Fatal(err)
		}
		eq(t, "intent", pi.Status, api.PaymentIntentStatusCanceled)
		eq(t, "events", joined(types(w.settle())), "charge.refunded payment_intent.canceled")
		_, err = w.client.PaymentIntents.Capture(pi.ID, nil)
		eq(t, "capture afterwards", code(err), "400 invalid_request_error payment_intent_unexpected_state")
	})
	t.Run("all is released after seven days", func(t *testing.T) {
		s := begin()
		w.move(7 * 24 * time.Hour)
		eq(t, "events", joined(types(w.settle())), "charge.expired charge.refunded payment_intent.canceled")
		eq(t, "intent", w.read(s.ID).PaymentIntent.Status, api.PaymentIntentStatusCanceled)
	})
	t.Run("the intent of an open session ends with the session", func(t *testing.T) {
		s := w.session(1000)
		w.post(s.URL, card("4000000000000002"))
		_, err := w.client.PaymentIntents.Cancel(w.read(s.ID).PaymentIntent.ID, nil)
		eq(t, "cancel", code(err), "400 invalid_request_error payment_intent_unexpected_state")
	})
}

func TestCardNumbersAreNeverStored(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	w.open(dir)
	numbers := []string{"4242424242424242", "4000000000000002", "5105105105105100", "4111111111111111", "4242424242424241"}
	for _, n := range numbers {
		w.post(w.session(1000).URL, card(n))
	}
	pending := w.session(1000)
	w.post(pending.URL, card("4000000000003220")) // 3-D Secure under way
	w.post(w.session(1000).URL, debit("000123456789"))
	w.settle()
	numbers = append(numbers, "4000000000003220", "000123456789")

	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) < 2 {
		t.Fatalf("state in %s: %v %v", dir, files, err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range numbers {
			if strings.Contains(string(b), n) {
				t.Errorf("%s holds the number ending in %s", filepath.Base(name), n[len(n)-4:])
			}
		}
	}
	for _, n := range numbers {
		if strings.Contains(w.log.String(), n) {
			t.Errorf("the log holds the number ending in %s", n[len(n)-4:])
		}
	}
}
