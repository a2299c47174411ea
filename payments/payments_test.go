package payments_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"guichet/internal/id"
	"guichet/internal/jobs"
	"guichet/internal/keyed"
	"guichet/internal/mail"
	"guichet/internal/money"
	"guichet/internal/testdb"
	"guichet/ledger"
	"guichet/payments"
	"guichet/payments/bill"
	"guichet/payments/paymentstest"
	"guichet/payments/stripe"
	sim "guichet/simulators/stripe"
)

// A world is a city with a card processor behind HTTP.
type world struct {
	*paymentstest.City
	pay       *payments.Service
	processor *stripe.Client
	sim       *sim.Simulator
	url       string
	hooks     *httptest.Server
	ahead     atomic.Int64 // nanoseconds by which the processor's clock differs
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{City: paymentstest.New(t)}
	log := slog.New(slog.DiscardHandler)
	// Webhooks arrive over HTTP, as in the real service.
	w.hooks = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if err := w.pay.Receive(r.Context(), body, r.Header.Get("Stripe-Signature")); err != nil {
			rw.WriteHeader(http.StatusBadRequest)
		}
	}))
	t.Cleanup(w.hooks.Close)
	var handler http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { handler.ServeHTTP(rw, r) }))
	t.Cleanup(server.Close)
	w.url = server.URL
	var err error
	w.sim, err = sim.New(sim.Options{
		Now: func() time.Time { return w.Clock.Now().Add(time.Duration(w.ahead.Load())) }, Dir: t.TempDir(), Log: log, APIKey: "sk_test_0123456789abcdef",
		WebhookEndpoints: []sim.Endpoint{{URL: w.hooks.URL, Secret: "whsec_test0123456789"}}, PublicURL: server.URL,
	})
	if err != nil {
		t.Fatal(err)
	}
	handler = w.sim.Handler()
	t.Cleanup(func() { w.sim.Close() })
	w.processor, err = stripe.New(stripe.Config{SecretKey: "sk_test_0123456789abcdef", WebhookSecrets: []string{"whsec_test0123456789"}, URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	w.pay = w.service(t, w.processor)
	return w
}

// service is payments over a processor.
func (w *world) service(t *testing.T, processor payments.Processor) *payments.Service {
	t.Helper()
	links, err := keyed.Load(t.Context(), w.DB, w.Key, payments.CheckoutLinks)
	if err != nil {
		t.Fatal(err)
	}
	templates, err := mail.NewTemplates(payments.MailTemplates)
	if err != nil {
		t.Fatal(err)
	}
	return payments.New(payments.Parts{
		DB: w.DB, Books: w.Books, Bills: w.Bills, Departments: w.Depts, Processor: processor, Queue: w.Queue,
		Outbox: mail.New(w.DB, w.Queue, templates, w.Key, w.Clock.Now), Links: links,
		Render: func(payments.Receipt, string) ([]byte, error) { return []byte("%PDF-test"), nil }, Now: w.Clock.Now, Log: slog.New(slog.DiscardHandler),
	}, payments.Config{BaseURL: "http://localhost:1"})
}

// work starts the jobs of payments, until the test ends.
func (w *world) work(t *testing.T) {
	t.Helper()
	workers := river.NewWorkers()
	w.pay.AddWorkers(workers)
	w.Depts.AddWorkers(workers)
	queue, err := jobs.New(w.DB, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := queue.Work(t.Context(), jobs.Options{Workers: workers}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := queue.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
}

// eventually waits for a condition, or fails with what was hoped for.
func eventually(t *testing.T, hope string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if condition() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", hope)
		}
	}
}

var guest = payments.Viewer{GuestHash: id.Hash("a browser")}

// checkout opens a checkout of bills for the guest.
func (w *world) checkout(t *testing.T, bills ...bill.Bill) string {
	t.Helper()
	n := payments.NewCheckout{Channel: "web", Viewer: guest, Lang: "en"}
	for _, b := range bills {
		n.BillIDs = append(n.BillIDs, b.ID)
	}
	checkoutID, _, err := w.pay.Open(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	return checkoutID
}

// start presses the pay button and returns the processor's page.
func (w *world) start(t *testing.T, checkoutID string) string {
	t.Helper()
	page, err := w.pay.Pay(t.Context(), guest, checkoutID, "")
	if err != nil {
		t.Fatal(err)
	}
	return page
}

// card fills in the processor's page and reports whether the payer was sent on.
func card(t *testing.T, page, number string) bool {
	t.Helper()
	c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.PostForm(page, url.Values{
		"method": {"card"}, "email": {"payer@example.test"}, "number": {number},
		"expiry": {"12/34"}, "cvc": {"123"}, "name": {"Demo Payer"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusSeeOther
}

const (
	good     = "4242424242424242"
	declined = "4000000000000002"
)

// sync asks the processor, as the return page does, and returns the latest attempt.
func (w *world) sync(t *testing.T, checkoutID string) payments.Payment {
	t.Helper()
	c, err := w.pay.Checkout(t.Context(), guest, checkoutID)
	if err != nil {
		t.Fatal(err)
	}
	p, err := w.pay.Sync(t.Context(), c.Payment.ID)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (w *world) fault(t *testing.T, kind, target string) {
	t.Helper()
	resp, err := http.Post(w.url+"/_control/faults", "application/json", strings.NewReader(fmt.Sprintf(`{"kind":%q,"target":%q,"times":1}`, kind, target)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode > 299 {
		text, _ := io.ReadAll(resp.Body) //nolint:errcheck // only for the message
		t.Fatalf("plant fault %s: %d %s", kind, resp.StatusCode, text)
	}
}

func TestThreeDepartmentsArePaidAtOnce(t *testing.T) {
	w := newWorld(t)
	fine := w.Issue(t, w.Bill("parking", "parking-wrong-way", 0))
	inspection := w.Issue(t, w.Bill("permits", "inspection-extra", 0))
	water := w.Issue(t, w.Bill("water", "water-consumption", 8736))
	checkoutID := w.checkout(t, fine, inspection, water)
	page := w.start(t, checkoutID)
	if card(t, page, declined) {
		t.Fatal("a declined card led on")
	}
	if p := w.sync(t, checkoutID); p.State != payments.Pending {
		t.Errorf("after a decline the payment is %s, want pending", p.State)
	}
	if !card(t, page, good) {
		t.Fatal("a good card did not lead on")
	}
	w.work(t)
	if err := w.sim.Settle(t.Context()); err != nil { // sends the webhooks
		t.Fatal(err)
	}
	var c payments.Checkout
	eventually(t, "paid by webhook alone, with a receipt", func() bool {
		var err error
		if c, err = w.pay.Checkout(t.Context(), guest, checkoutID); err != nil {
			t.Fatal(err)
		}
		return c.Receipt != nil
	})
	total := money.Amount(5500 + 18419 + 8736)
	if c.State != "paid" || c.Payment.Amount != total || c.Receipt.Number != 1 || len(c.Receipt.Document.Departments) != 3 || c.Payment.Card.Last4 != "4242" {
		t.Errorf("state %s, amount %s, receipt %d over %d departments, card %q", c.State, c.Payment.Amount, c.Receipt.Number,
			len(c.Receipt.Document.Departments), c.Payment.Card.Last4)
	}
	for _, b := range c.Bills {
		if b.State != bill.Paid || b.Quote.Due != 0 {
			t.Errorf("bill of %s is %s with %s due", b.Department, b.State, b.Quote.Due)
		}
	}
	for path, want := range map[string]money.Amount{
		payments.Clearing: total, bill.Receivable("parking"): 0, bill.Receivable("permits"): 0,
		bill.Receivable("water"): 0, bill.Uncollected("permits"): -18419,
	} {
		if got := w.Balance(t, path); got != want {
			t.Errorf("%s holds %s, want %s", path, got, want)
		}
	}
	var sum money.Amount
	w.Do(t, func(tx pgx.Tx) error {
		lines, err := w.pay.Settlement(t.Context(), tx, c.Payment.ID)
		for _, l := range lines {
			sum += l.Net + l.Tax
		}
		return err
	})
	if sum != total {
		t.Errorf("settlement lines sum to %s, want %s", sum, total)
	}
}

func TestTheSameNewsTwiceChangesNothing(t *testing.T) {
	w := newWorld(t)
	checkoutID := w.checkout(t, w.Issue(t, w.Bill("water", "water-consumption", 1000)))
	card(t, w.start(t, checkoutID), good)
	var wg sync.WaitGroup
	c, err := w.pay.Checkout(t.Context(), guest, checkoutID)
	if err != nil {
		t.Fatal(err)
	}
	for range 8 {
		wg.Go(func() {
			if _, err := w.pay.Sync(t.Context(), c.Payment.ID); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := w.Balance(t, payments.Clearing); got != 1000 {
		t.Errorf("clearing holds %s, want 10.00", got)
	}
	if _, err := w.pay.Pay(t.Context(), guest, checkoutID, ""); !errors.Is(err, payments.ErrAlreadyPaid) {
		t.Errorf("pay again: %v, want ErrAlreadyPaid", err)
	}
}

func TestASecondClickFindsTheFirstAttempt(t *testing.T) {
	w := newWorld(t)
	checkoutID := w.checkout(t, w.Issue(t, w.Bill("water", "water-consumption", 1000)))
	pages := make([]string, 8)
	var wg sync.WaitGroup
	for i := range pages {
		wg.Go(func() {
			page, err := w.pay.Pay(t.Context(), guest, checkoutID, "")
			if err != nil {
				t.Error(err)
			}
			pages[i] = page
		})
	}
	wg.Wait()
	for _, p := range pages {
		if p != pages[0] {
			t.Errorf("two pages for one checkout: %s and %s", p, pages[0])
		}
	}
}

func TestABillBeingPaidSaysSoElsewhere(t *testing.T) {
	w := newWorld(t)
	b := w.Issue(t, w.Bill("parking", "parking-wrong-way", 0))
	first, second := w.checkout(t, b), w.checkout(t, b)
	w.start(t, first)
	_, err := w.pay.Pay(t.Context(), guest, second, "")
	var stands *payments.BillError
	if !errors.As(err, &stands) || !errors.Is(err, payments.ErrTaken) || stands.Bill.ID != b.ID {
		t.Fatalf("pay elsewhere: %v, want ErrTaken for the bill", err)
	}
	if _, err := w.Bills.Cancel(t.Context(), b.DepartmentID, b.ID, "mistake"); !errors.Is(err, bill.ErrBeingPaid) {
		t.Errorf("cancel while being paid: %v, want ErrBeingPaid", err)
	}
	if err := w.pay.Cancel(t.Context(), guest, first); err != nil {
		t.Fatal(err)
	}
	w.start(t, second)
}

func TestTwoPaymentsOfOneBillLeaveACredit(t *testing.T) {
	w := newWorld(t)
	b := w.Issue(t, w.Bill("water", "water-consumption", 1000))
	first, second := w.checkout(t, b), w.checkout(t, b)
	page := w.start(t, first)
	// The reservation runs out while the processor's page is still open: a clock
	// that disagrees, or a processor that closes late.
	if _, err := w.DB.Exec(t.Context(), `delete from payments.reservation`); err != nil {
		t.Fatal(err)
	}
	card(t, w.start(t, second), good)
	card(t, page, good)
	if p := w.sync(t, second); p.State != payments.Succeeded {
		t.Fatalf("second checkout's payment is %s", p.State)
	}
	if p := w.sync(t, first); p.State != payments.Succeeded {
		t.Fatalf("first checkout's payment is %s", p.State)
	}
	for path, want := range map[string]money.Amount{payments.Clearing: 2000, payments.Credits: -1000, bill.Receivable("water"): 0} {
		if got := w.Balance(t, path); got != want {
			t.Errorf("%s holds %s, want %s", path, got, want)
		}
	}
}

func TestAnAnswerThatNeverCameIsAskedForAgain(t *testing.T) {
	for _, kind := range []string{"cut-after", "bad-gateway", "error-500-after", "error-500"} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t)
			checkoutID := w.checkout(t, w.Issue(t, w.Bill("water", "water-consumption", 1000)))
			w.fault(t, kind, "POST /v1/checkout/sessions")
			_, err := w.pay.Pay(t.Context(), guest, checkoutID, "")
			if !errors.Is(err, payments.ErrUnknownOutcome) {
				t.Fatalf("pay: %v, want ErrUnknownOutcome", err)
			}
			c, err := w.pay.Checkout(t.Context(), guest, checkoutID)
			if err != nil || c.Payment.State != payments.Unknown {
				t.Fatalf("the payment is %v, %v; want unknown", c.Payment, err)
			}
			if !card(t, w.start(t, checkoutID), good) {
				t.Fatal("the page of the second try takes no card")
			}
			if p := w.sync(t, checkoutID); p.State != payments.Succeeded || p.ID != c.Payment.ID {
				t.Errorf("payment %s is %s, want %s succeeded", p.ID, p.State, c.Payment.ID)
			}
			if got := w.Balance(t, payments.Clearing); got != 1000 {
				t.Errorf("clearing holds %s, want 10.00", got)
			}
		})
	}
}

func TestThePollerFindsWhatWebhooksDropped(t *testing.T) {
	w := newWorld(t)
	w.fault(t, "webhook-drop", "checkout.session.completed")
	checkoutID := w.checkout(t, w.Issue(t, w.Bill("water", "water-consumption", 1000)))
	card(t, w.start(t, checkoutID), good)
	if err := w.sim.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.Clock.SetOffset(time.Minute); err != nil { // the payment has not moved for a while
		t.Fatal(err)
	}
	if err := w.pay.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, err := w.pay.Checkout(t.Context(), guest, checkoutID)
	if err != nil || c.State != "paid" {
		t.Errorf("checkout is %s, %v; want paid", c.State, err)
	}
}

func TestAnAbandonedCheckoutFreesItsBills(t *testing.T) {
	w := newWorld(t)
	b := w.Issue(t, w.Bill("water", "water-consumption", 1000))
	first := w.checkout(t, b)
	w.start(t, first)
	if err := w.Clock.SetOffset(40 * time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := w.sim.Settle(t.Context()); err != nil { // the page expires
		t.Fatal(err)
	}
	if err := w.pay.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, err := w.pay.Checkout(t.Context(), guest, first)
	if err != nil || c.Payment.State != payments.Expired || !c.Bills[0].BeingPaidUntil.IsZero() {
		t.Errorf("payment %s, bill held until %s, %v; want expired and free", c.Payment.State, c.Bills[0].BeingPaidUntil, err)
	}
	w.start(t, first) // and the payer may try again
}

func TestAmountsThatChangedAreQuotedAnew(t *testing.T) {
	w := newWorld(t)
	b := w.Issue(t, w.Bill("parking", "parking-wrong-way", 0))
	checkoutID := w.checkout(t, b)
	page := w.start(t, checkoutID)
	tomorrow := b.EarlyUntil.AddDays(1).Start().Add(time.Hour).Sub(w.Clock.Now())
	if err := w.Clock.SetOffset(tomorrow); err != nil {
		t.Fatal(err)
	}
	if _, err := w.pay.Pay(t.Context(), guest, checkoutID, ""); !errors.Is(err, payments.ErrClosed) {
		t.Fatalf("a checkout of two weeks ago: %v, want ErrClosed", err)
	}
	fresh := w.checkout(t, b)
	again := w.start(t, fresh)
	if again == page {
		t.Error("the old page is used after the early days")
	}
	card(t, again, good)
	if p := w.sync(t, fresh); p.Amount != 7500 || p.State != payments.Succeeded {
		t.Errorf("paid %s (%s), want 75.00", p.Amount, p.State)
	}
	if got := w.Balance(t, bill.Uncollected("parking")); got != -7500 {
		t.Errorf("billed, not collected %s, want -75.00: the step is in the books once", got)
	}
}

func TestWhatAViewerMayNotSeeIsNotFound(t *testing.T) {
	w := newWorld(t)
	b := w.Issue(t, w.Bill("water", "water-consumption", 1000))
	n := payments.NewCheckout{BillIDs: []string{b.ID}, Channel: "web", Viewer: guest, Lang: "en"}
	checkoutID, token, err := w.pay.Open(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]payments.Viewer{"nobody": {}, "another browser": {GuestHash: id.Hash("other")}, "another resident": {ResidentID: id.New()}} {
		if _, err := w.pay.Checkout(t.Context(), v, checkoutID); !errors.Is(err, payments.ErrNotFound) {
			t.Errorf("%s reads the checkout: %v", name, err)
		}
		if _, err := w.pay.Pay(t.Context(), v, checkoutID, ""); !errors.Is(err, payments.ErrNotFound) {
			t.Errorf("%s pays the checkout: %v", name, err)
		}
	}
	other := id.Hash("other")
	if _, err := w.pay.Enter(t.Context(), token+"x", other); !errors.Is(err, payments.ErrNotFound) {
		t.Errorf("enter with a wrong token: %v", err)
	}
	if got, err := w.pay.Enter(t.Context(), token, other); err != nil || got != checkoutID {
		t.Errorf("enter with the link: %s, %v", got, err)
	}
	if _, err := w.pay.Checkout(t.Context(), payments.Viewer{GuestHash: other}, checkoutID); err != nil {
		t.Errorf("after entering: %v", err)
	}
	foreign := payments.NewCheckout{BillIDs: []string{b.ID}, DepartmentID: w.Depart["parking"].ID, IdempotencyKey: "k", Channel: "department", Lang: "en"}
	if _, _, err := w.pay.Open(t.Context(), foreign); !errors.Is(err, bill.ErrNotFound) {
		t.Errorf("a department opens a checkout of another's bill: %v", err)
	}
}

func TestForgedStaleAndFutureWebhooksAreRefused(t *testing.T) {
	w := newWorld(t)
	checkoutID := w.checkout(t, w.Issue(t, w.Bill("water", "water-consumption", 1000)))
	card(t, w.start(t, checkoutID), good)
	if err := w.sim.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	var eventID string
	if err := w.DB.QueryRow(t.Context(), `select id from payments.processor_event order by received_at limit 1`).Scan(&eventID); err != nil {
		t.Fatal(err)
	}
	var before int
	if err := w.DB.QueryRow(t.Context(), `select count(*) from payments.processor_event`).Scan(&before); err != nil {
		t.Fatal(err)
	}
	for _, how := range []string{"signature", "old", "future", "unsigned"} {
		resp, err := http.Post(w.url+"/_control/events/"+eventID+"/forge", "application/json", strings.NewReader(`{"how":"`+how+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !strings.Contains(string(text), "400") {
			t.Errorf("%s: the service answered %s, %v; want 400", how, text, err)
		}
	}
	var after int
	if err := w.DB.QueryRow(t.Context(), `select count(*) from payments.processor_event`).Scan(&after); err != nil || after != before {
		t.Errorf("%d events kept, %d before the forgeries; %v", after, before, err)
	}
}

func TestReceiptNumbersHaveNoGapsAndNoRepeats(t *testing.T) {
	w := newWorld(t)
	const n = 12
	for range n {
		checkoutID := w.checkout(t, w.Issue(t, w.Bill("water", "water-consumption", 1000)))
		card(t, w.start(t, checkoutID), good)
		w.sync(t, checkoutID)
	}
	w.work(t)
	var numbered, last int
	eventually(t, "every payment has its receipt", func() bool {
		if err := w.DB.QueryRow(t.Context(), `select count(*), coalesce(max(number), 0) from payments.receipt`).Scan(&numbered, &last); err != nil {
			t.Fatal(err)
		}
		return numbered == n
	})
	if last != n {
		t.Errorf("%d receipts, the last is number %d", numbered, last)
	}
}

func TestReceivablesEqualOpenBills(t *testing.T) {
	w := newWorld(t)
	var paid, open []bill.Bill
	for i := range 4 {
		b := w.Issue(t, w.Bill("water", "water-consumption", money.Amount(1000+i)))
		if i%2 == 0 {
			paid = append(paid, b)
		} else {
			open = append(open, b)
		}
	}
	checkoutID := w.checkout(t, paid...)
	card(t, w.start(t, checkoutID), good)
	w.sync(t, checkoutID)
	var want money.Amount
	for _, b := range open {
		want += b.Billed
	}
	if got := w.Balance(t, bill.Receivable("water")); got != want {
		t.Errorf("receivable %s, open bills %s", got, want)
	}
	if err := ledger.NewPoster(w.DB, w.Clock.Now, ledger.PosterOptions{}).Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if findings, err := ledger.Verify(t.Context(), w.DB, w.pay.Checks()...); err != nil || len(findings) > 0 {
		t.Errorf("verify: %v, %v", findings, err)
	}
	owner := testdb.Owner(t, w.DB)
	if _, err := owner.Exec(t.Context(), `update payments.bill set paid_cents = 1 where id = $1`, open[0].ID); err != nil {
		t.Fatal(err)
	}
	findings, err := ledger.Verify(t.Context(), w.DB, w.pay.Checks()...)
	if err != nil || len(findings) != 2 {
		t.Errorf("after a cent was forged into a bill: %v, %v; want a finding for the bill and one for the receivable", findings, err)
	}
}
