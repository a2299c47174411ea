package reconcile

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"guichet/internal/id"
	"guichet/internal/keyed"
	"guichet/internal/money"
	"guichet/payments"
	"guichet/payments/bill"
	"guichet/payments/paymentstest"
	"guichet/payments/stripe"
	"guichet/reconcile/sap"
	banksim "guichet/simulators/bank"
	sapsim "guichet/simulators/sap"
	stripesim "guichet/simulators/stripe"
)

// A road is a town whose processor, bank and SAP are the simulators, over HTTP,
// files and SFTP.
type road struct {
	town
	processorURL, bankURL, sapURL string
}

func newRoad(t *testing.T) *road {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	r := &road{town: town{City: paymentstest.New(t), inbox: t.TempDir(), processor: &processor{}}}
	serve := func(h func() http.Handler) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { h().ServeHTTP(w, req) }))
		t.Cleanup(s.Close)
		return s.URL
	}

	bank, err := banksim.New(banksim.Options{Now: r.Clock.Now, Dir: t.TempDir(), Log: log, Inbox: r.inbox, Account: testAccount})
	if err != nil {
		t.Fatal(err)
	}
	r.bankURL = serve(bank.Handler)

	var processor *stripesim.Simulator
	r.processorURL = serve(func() http.Handler { return processor.Handler() })
	const key = "sk_test_0123456789abcdef"
	processor, err = stripesim.New(stripesim.Options{Now: r.Clock.Now, Dir: t.TempDir(), Log: log, APIKey: key, PublicURL: r.processorURL, BankURL: r.bankURL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { processor.Close() })
	client, err := stripe.New(stripe.Config{SecretKey: key, WebhookSecrets: []string{"whsec_test0123456789"}, URL: r.processorURL})
	if err != nil {
		t.Fatal(err)
	}

	links, err := keyed.Load(t.Context(), r.DB, r.Key, payments.CheckoutLinks)
	if err != nil {
		t.Fatal(err)
	}
	r.pay = payments.New(payments.Parts{
		DB: r.DB, Books: r.Books, Bills: r.Bills, Departments: r.Depts, Processor: client,
		Queue: r.Queue, Links: links, Now: r.Clock.Now, Log: log,
	}, payments.Config{BaseURL: "https://pay.example"})
	place := r.startSAP(t, log)
	r.night = r.nightly(t, place)
	r.night.processor = client
	r.night.handover = sap.Handover{Place: place, Inbox: "inbound", Archive: "archive", Answers: "outbound"}
	r.loadMapping(t)
	return r
}

func (r *road) startSAP(t *testing.T, log *slog.Logger) sap.Place {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	s, err := sapsim.New(sapsim.Options{Now: r.Clock.Now, Dir: t.TempDir(), Log: log, ClientKey: signer.PublicKey()})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.ServeSFTP(listener) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-served; err != nil {
			t.Errorf("SFTP: %v", err)
		}
	})
	control := httptest.NewServer(s.Handler())
	t.Cleanup(control.Close)
	r.sapURL = control.URL
	place, err := sap.NewSFTP(sap.SFTPSettings{
		Address: listener.Addr().String(), User: "guichet", PrivateKey: pem.EncodeToMemory(block),
		HostKey: string(ssh.MarshalAuthorizedKey(s.HostKey())), Dir: "/",
	})
	if err != nil {
		t.Fatal(err)
	}
	return place
}

// control asks a simulator to do something and returns its answer.
func control(t *testing.T, method, address, body string) map[string]any {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode > 299 {
		t.Fatalf("%s %s %s: %d %s, %v", method, address, body, resp.StatusCode, text, err)
	}
	var out map[string]any
	if len(bytes.TrimSpace(text)) > 0 {
		if err := json.Unmarshal(text, &out); err != nil {
			t.Fatalf("%s: %s, %v", address, text, err)
		}
	}
	return out
}

// payByCard pays bills on the processor's page.
func (r *road) payByCard(t *testing.T, bills ...bill.Bill) payments.Payment {
	t.Helper()
	guest := payments.Viewer{GuestHash: id.Hash(id.New())}
	n := payments.NewCheckout{Channel: "web", Viewer: guest, Lang: "en"}
	for _, b := range bills {
		n.BillIDs = append(n.BillIDs, b.ID)
	}
	checkout, _, err := r.pay.Open(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	page, err := r.pay.Pay(t.Context(), guest, checkout, "")
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := browser.PostForm(page, url.Values{
		"method": {"card"}, "email": {"payer@example.test"}, "number": {"4242424242424242"},
		"expiry": {"12/34"}, "cvc": {"123"}, "name": {"Demo Payer"},
	})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	c, err := r.pay.Checkout(t.Context(), guest, checkout)
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.pay.Sync(t.Context(), c.Payment.ID)
	if err != nil || p.State != payments.Succeeded {
		t.Fatalf("payment %s, %v", p.State, err)
	}
	return p
}

// payOutAndClose lets the processor pay out and the bank close the day, and moves to
// the morning after.
func (r *road) payOutAndClose(t *testing.T) money.Amount {
	t.Helper()
	for range 7 { // what was charged becomes available in two business days
		r.nextDay(t)
		if out, ok := control(t, "POST", r.processorURL+"/_control/payouts/run", `{"until": "paid"}`)["payout"].(map[string]any); ok {
			arrives := time.Unix(int64(out["arrival_date"].(float64)), 0).UTC().Format(time.DateOnly)
			for r.Today().String() <= arrives {
				r.nextDay(t)
			}
			control(t, "POST", r.bankURL+"/_control/statements", `{"date": "`+arrives+`"}`)
			return money.Amount(out["amount"].(float64))
		}
	}
	t.Fatal("no payout in a week")
	return 0
}

func TestTheRoadOverEverySimulator(t *testing.T) {
	t.Parallel()
	r := newRoad(t)
	p := r.payByCard(t, r.threeBills(t)...)
	fine := r.payByCard(t, r.Issue(t, r.Bill("parking", "parking-wrong-way", 0)))
	control(t, "POST", r.processorURL+"/_control/stray", `{"kind": "charge", "amount_cents": 4200, "description": "of nobody"}`)
	// The first file is cut on the way; the second document is refused by SAP.
	control(t, "POST", r.sapURL+"/_control/faults", `{"kind": "sftp-cut", "target": "GUICHET_0000000001.idoc", "times": 1}`)
	control(t, "POST", r.sapURL+"/_control/faults", `{"kind": "reject", "target": "0000000000000002", "times": 1}`)
	paidOut := r.payOutAndClose(t)

	report, err := r.night.Run(t.Context(), r.Today())
	if err != nil {
		t.Fatal(err)
	}
	gross := p.Amount + fine.Amount
	fees := gross + 4_200 - paidOut
	r.balances(t, map[string]money.Amount{
		"assets:processor-clearing": 0, "assets:bank:main": paidOut, "expenses:processor-fees": fees,
		"liabilities:suspense:unexplained": -4_200, "liabilities:hst": -2_119,
	})
	if report.Waiting != 0 || report.Exceptions != 2 || r.openKinds(t) != string(Unexplained)+" "+string(DeliveryTrouble) {
		t.Errorf("report %+v, exceptions %s", report, r.openKinds(t))
	}
	r.verify(t)

	for range 2 { // the second delivery has nothing to do
		if _, err := r.night.Deliver(t.Context()); err != nil {
			t.Fatal(err)
		}
		control(t, "POST", r.sapURL+"/_control/poll", "")
	}
	if did := r.readAnswers(t); did.Posted != 3 || did.Rejected != 1 {
		t.Errorf("answers %+v", did)
	}
	docs := r.documents(t)
	rejected := slices.IndexFunc(docs, func(d Document) bool { return d.State == RejectedState })
	if len(docs) != 4 || rejected != 1 || docs[0].State != Posted || docs[0].SAPNumber == "" {
		t.Fatalf("documents %+v", docs)
	}
	if kinds := r.openKinds(t); kinds != string(Unexplained)+" "+string(Rejected) {
		t.Errorf("exceptions %s", kinds)
	}

	// SAP's people post it after all.
	for _, d := range control(t, "GET", r.sapURL+"/_control/documents", "")["data"].([]any) {
		d := d.(map[string]any)
		if d["double_posting"] == true {
			t.Errorf("SAP has posted %v twice", d["docnum"])
		}
		if d["docnum"] == docs[rejected].DocNum {
			control(t, "POST", r.sapURL+"/_control/documents/"+d["idoc"].(string)+"/reprocess", "")
		}
	}
	control(t, "POST", r.sapURL+"/_control/poll", "")
	if did := r.readAnswers(t); did.Posted != 1 {
		t.Errorf("answers %+v", did)
	}
	if kinds := r.openKinds(t); kinds != string(Unexplained) {
		t.Errorf("exceptions %s", kinds)
	}
	r.verify(t)
}
