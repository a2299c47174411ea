package departments_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/riverqueue/river"

	"guichet/api/departments"
	"guichet/internal/id"
	"guichet/internal/jobs"
	"guichet/payments"
	"guichet/payments/bill"
)

// pay pays a checkout with a card, as the payer that the department sent there.
func (w *world) pays(t *testing.T, c departments.Checkout) payments.Payment {
	t.Helper()
	token, ok := strings.CutPrefix(c.URL, baseURL+"/c/")
	if !ok {
		t.Fatalf("the checkout's address is %q", c.URL)
	}
	payer := payments.Viewer{GuestHash: id.Hash(id.Secret())}
	checkoutID, err := w.pay.Enter(t.Context(), token, payer.GuestHash)
	must(t, err)
	page, err := w.pay.Pay(t.Context(), payer, checkoutID, "")
	must(t, err)
	browser := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := browser.PostForm(page, url.Values{
		"method": {"card"}, "email": {"payer@example.test"}, "number": {"4242424242424242"},
		"expiry": {"12/34"}, "cvc": {"123"}, "name": {"Demo Payer"},
	})
	must(t, err)
	must(t, resp.Body.Close())
	paid, err := w.pay.Checkout(t.Context(), payer, checkoutID)
	must(t, err)
	p, err := w.pay.Sync(t.Context(), paid.Payment.ID)
	must(t, err)
	return p
}

// work starts the jobs, until the test ends.
func (w *world) work(t *testing.T) {
	t.Helper()
	workers := river.NewWorkers()
	w.pay.AddWorkers(workers)
	w.Depts.AddWorkers(workers)
	queue, err := jobs.New(w.DB, slog.New(slog.DiscardHandler))
	must(t, err)
	must(t, queue.Work(t.Context(), jobs.Options{Workers: workers}))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		must(t, queue.Stop(ctx))
	})
}

func TestABillFromIssueToReceipt(t *testing.T) {
	w := newWorld(t)
	first, second, third := w.create(t), w.create(t), w.create(t)
	open := w.open(t, first.ID, second.ID)
	if open.State != "open" || open.AmountCents != 11000 || !slices.Equal(open.Bills, []string{first.ID, second.ID}) || open.Receipt != 0 {
		t.Errorf("the checkout is %+v", open)
	}
	read := func() departments.Checkout {
		return as[departments.Checkout](t, w.call(t, request{method: "GET", path: "/checkouts/" + open.ID, department: "parking"}), 200)
	}
	if again := read(); again.URL != "" {
		t.Error("reading a checkout gives the link that lets its holder pay")
	}
	if p := w.pays(t, open); p.State != payments.Succeeded {
		t.Fatalf("the payment is %s", p.State)
	}
	w.work(t)
	paid := read()
	for deadline := time.Now().Add(30 * time.Second); paid.Receipt == 0 && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		paid = read()
	}
	if paid.State != "paid" || paid.AmountCents != 0 || paid.Receipt != 1 {
		t.Errorf("after the payment the checkout is %+v", paid)
	}
	got := as[departments.Bill](t, w.call(t, request{method: "GET", path: "/bills/" + first.ID, department: "parking"}), 200)
	if got.State != bill.Paid || got.PaidCents != 5500 || got.DueCents != 0 || got.Version != 2 {
		t.Errorf("after the payment the bill is %+v", got)
	}
	cancel := func(b departments.Bill) request {
		return request{method: "POST", path: "/bills/" + b.ID + "/cancel", department: "parking", key: id.New(), body: object{"reason": "issued in error"}}
	}
	if a := w.call(t, cancel(first)); a.status != 409 || a.problem(t).Code != "wrong-state" {
		t.Errorf("cancel a paid bill: status %d: %s; want 409, wrong-state", a.status, a.body)
	}
	payer := payments.Viewer{GuestHash: id.Hash(id.Secret())}
	checkoutID, err := w.pay.Enter(t.Context(), strings.TrimPrefix(w.open(t, third.ID).URL, baseURL+"/c/"), payer.GuestHash)
	must(t, err)
	_, err = w.pay.Pay(t.Context(), payer, checkoutID, "")
	must(t, err)
	if a := w.call(t, cancel(third)); a.status != 409 || a.problem(t).Code != "being-paid" {
		t.Errorf("cancel a bill that is being paid: status %d: %s; want 409, being-paid", a.status, a.body)
	}
	must(t, w.pay.Cancel(t.Context(), payer, checkoutID))
	if a := w.call(t, cancel(third)); a.status != 200 {
		t.Errorf("cancel the bill: status %d: %s", a.status, a.body)
	}
	w.checkEvents(t, "bill.issued", "bill.paid", "bill.cancelled", "payment.succeeded")
}

// checkEvents holds every event that was recorded against the document: its type
// is described there, and so is its body.
func (w *world) checkEvents(t *testing.T, expected ...string) {
	t.Helper()
	rows, err := w.DB.Query(t.Context(), `
		select type, jsonb_build_object('id', id, 'type', type, 'timestamp', created_at, 'data', data,
			'object', jsonb_build_object('type', object_type, 'id', object_id, 'sequence', sequence))
		from department.event`)
	must(t, err)
	defer rows.Close()
	seen := map[string]bool{}
	for rows.Next() {
		var kind string
		var body json.RawMessage
		must(t, rows.Scan(&kind, &body))
		seen[kind] = true
		item := w.doc.Webhooks[kind]
		if item == nil {
			t.Errorf("the document does not describe the event %s", kind)
			continue
		}
		for _, fault := range w.faults(t, item.Post.RequestBody.Content["application/json"].Schema, string(body)) {
			t.Errorf("%s: %s: %s", kind, fault, body)
		}
	}
	must(t, rows.Err())
	for _, kind := range expected {
		if !seen[kind] {
			t.Errorf("no event %s was recorded", kind)
		}
	}
}
