package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/keyed"
	"guichet/internal/money"
	"guichet/internal/testdb"
	"guichet/ledger"
	"guichet/payments"
	"guichet/payments/bill"
	"guichet/payments/paymentstest"
	"guichet/reconcile/sap"
)

const testAccount = "00021234567"

// A town is a city with a nightly run, and with a processor, a bank and an SAP
// that do what the test says.
type town struct {
	*paymentstest.City
	pay       *payments.Service
	processor *processor
	night     *Nightly
	inbox     string
	sap       string // directory with in, archive and answers

	statements int
	closing    money.Amount
}

func newTown(t *testing.T) *town {
	t.Helper()
	c := &town{City: paymentstest.New(t), inbox: t.TempDir(), sap: t.TempDir(), closing: 100_000_000}
	c.processor = &processor{now: c.Clock.Now, sessions: map[string]payments.Session{}}
	links, err := keyed.Load(t.Context(), c.DB, c.Key, payments.CheckoutLinks)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	c.pay = payments.New(payments.Parts{
		DB: c.DB, Books: c.Books, Bills: c.Bills, Departments: c.Depts, Processor: c.processor,
		Queue: c.Queue, Links: links, Now: c.Clock.Now, Log: log,
	}, payments.Config{BaseURL: "https://pay.example"})
	c.night = c.nightly(t, sap.Local{Dir: c.sap})
	c.loadMapping(t)
	return c
}

// nightly makes another instance over the same database.
func (c *town) nightly(t *testing.T, place sap.Place) *Nightly {
	t.Helper()
	writer, err := sap.NewWriter(sap.Settings{
		IDocType: "ACC_DOCUMENT03", Client: "100", Release: "731", SenderPort: "GUICHET", SenderSystem: "GUICHET",
		ReceiverPort: "SAPPRD", ReceiverSystem: "PRDCLNT100", User: "GUICHET", SegmentVersion: "000", TaxCondition: "MWAS", TaxKey: "MWS",
	})
	if err != nil {
		t.Fatal(err)
	}
	n, err := New(Parts{
		DB: c.DB, Books: c.Books, Payments: c.pay, Processor: c.processor, Queue: c.Queue, Writer: writer,
		Handover: sap.Handover{Place: place, Inbox: "in", Archive: "archive", Answers: "answers"}, Now: c.Clock.Now, Log: slog.New(slog.DiscardHandler),
	},
		Config{BankAccount: testAccount, Inbox: c.inbox, CompanyCode: "1000"})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (c *town) loadMapping(t *testing.T) {
	t.Helper()
	f, err := os.Open("testdata/mapping.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := c.night.LoadMapping(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

// run does the nightly run of today, which must succeed.
func (c *town) run(t *testing.T) Report {
	t.Helper()
	r, err := c.night.Run(t.Context(), c.Today())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// nextDay moves the clock by a day.
func (c *town) nextDay(t *testing.T) {
	t.Helper()
	c.processor.ahead += 24 * time.Hour
	if err := c.Clock.SetOffset(c.processor.ahead); err != nil {
		t.Fatal(err)
	}
}

// succeed pays bills in one checkout, and the money is taken.
func (c *town) succeed(t *testing.T, bills ...bill.Bill) payments.Payment {
	t.Helper()
	paymentID := c.charge(t, bills...)
	p, err := c.pay.Sync(t.Context(), paymentID)
	if err != nil || p.State != payments.Succeeded {
		t.Fatalf("payment is %s, %v", p.State, err)
	}
	return p
}

// charge lets the processor take the money for bills. We have not heard of it yet.
func (c *town) charge(t *testing.T, bills ...bill.Bill) (paymentID string) {
	t.Helper()
	guest := id.Hash(id.New())
	ids := make([]string, len(bills))
	for i, b := range bills {
		ids[i] = b.ID
	}
	checkout, _, err := c.pay.Open(t.Context(), payments.NewCheckout{BillIDs: ids, Channel: "web", Lang: "en", Viewer: payments.Viewer{GuestHash: guest}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.pay.Pay(t.Context(), payments.Viewer{GuestHash: guest}, checkout, ""); err != nil {
		t.Fatal(err)
	}
	read, err := c.pay.Checkout(t.Context(), payments.Viewer{GuestHash: guest}, checkout)
	if err != nil || read.Payment == nil {
		t.Fatalf("no payment in the checkout: %v", err)
	}
	c.processor.take(read.Payment.SessionID)
	return read.Payment.ID
}

// three bills of three departments, one of them with HST.
func (c *town) threeBills(t *testing.T) []bill.Bill {
	t.Helper()
	inspection := c.Bill("permits", "building-permit", 26_400)
	inspection.Lines = append(inspection.Lines, bill.NewLine{Fee: "inspection-extra"})
	return []bill.Bill{
		c.Issue(t, c.Bill("parking", "parking-accessible", 0)),
		c.Issue(t, inspection),
		c.Issue(t, c.Bill("water", "water-consumption", 8_736)),
	}
}

// A bankEntry is a movement the bank books: reference and text as it writes them.
type bankEntry struct {
	amount    money.Amount
	reference string
}

// statement puts today's statement into the inbox and returns its bytes.
func (c *town) statement(t *testing.T, entries ...bankEntry) []byte {
	t.Helper()
	c.statements++
	data := c.camt(c.statements, c.closing, entries...)
	for _, e := range entries {
		c.closing += e.amount
	}
	c.deliver(t, fmt.Sprintf("camt_%05d.xml", c.statements), data)
	return data
}

func (c *town) deliver(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.inbox, name), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func (c *town) camt(number int, opening money.Amount, entries ...bankEntry) []byte {
	day := c.Today()
	side := func(a money.Amount) (string, string) {
		if a < 0 {
			return (-a).String(), "DBIT"
		}
		return a.String(), "CRDT"
	}
	var ntry strings.Builder
	closing := opening
	for i, e := range entries {
		closing += e.amount
		amount, indicator := side(e.amount)
		fmt.Fprintf(&ntry, `<Ntry><NtryRef>RB%d-%d</NtryRef><Amt Ccy="CAD">%s</Amt><CdtDbtInd>%s</CdtDbtInd><Sts><Cd>BOOK</Cd></Sts>`+
			`<BookgDt><Dt>%s</Dt></BookgDt><ValDt><Dt>%s</Dt></ValDt><BkTxCd/><NtryDtls><TxDtls><Refs><EndToEndId>%s</EndToEndId></Refs></TxDtls></NtryDtls></Ntry>`,
			number, i+1, amount, indicator, day, day, e.reference)
	}
	balance := func(kind string, a money.Amount) string {
		amount, indicator := side(a)
		return fmt.Sprintf(`<Bal><Tp><CdOrPrtry><Cd>%s</Cd></CdOrPrtry></Tp><Amt Ccy="CAD">%s</Amt><CdtDbtInd>%s</CdtDbtInd><Dt><Dt>%s</Dt></Dt></Bal>`, kind, amount, indicator, day)
	}
	return fmt.Appendf(nil, `<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"><BkToCstmrStmt><GrpHdr><MsgId>M%d</MsgId></GrpHdr><Stmt>`+
		`<Id>STMT-%05d</Id><ElctrncSeqNb>%d</ElctrncSeqNb><CreDtTm>%sT23:59:00</CreDtTm><Acct><Id><Othr><Id>%s</Id></Othr></Id></Acct>%s%s%s</Stmt></BkToCstmrStmt></Document>`,
		number, number, number, day, testAccount, balance("OPBD", opening), balance("CLBD", closing), ntry.String())
}

// answer lets SAP answer about a document.
func (c *town) answer(t *testing.T, docNum, status, text, objectKey string) {
	t.Helper()
	c.processor.answers++
	at := c.Clock.Now().In(clock.Toronto).Add(time.Duration(c.processor.answers) * time.Second)
	body := fmt.Sprintf(`<ALEAUD01><IDOC><EDI_DC40><CREDAT>%s</CREDAT><CRETIM>%s</CRETIM></EDI_DC40><E1ADHDR><MESTYP_LNG>ACC_DOCUMENT</MESTYP_LNG>`+
		`<E1STATE><DOCNUM>%s</DOCNUM><STATUS>%s</STATUS><STATXT>%s</STATXT><E1PRTOB><OBJKEY>%s</OBJKEY></E1PRTOB></E1STATE></E1ADHDR></IDOC></ALEAUD01>`,
		at.Format("20060102"), at.Format("150405"), docNum, status, text, objectKey)
	if err := os.MkdirAll(filepath.Join(c.sap, "answers"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.sap, "answers", fmt.Sprintf("aleaud_%05d.xml", c.processor.answers)), []byte(body), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (c *town) readAnswers(t *testing.T) AnswersResult {
	t.Helper()
	did, err := c.night.ReadAnswers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return did
}

// documents are all documents, in order of their numbers.
func (c *town) documents(t *testing.T) []Document {
	t.Helper()
	list, err := documents(t.Context(), c.DB, `order by d.docnum limit 1000`)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// open lists the kinds of the open exceptions, oldest first.
func (c *town) openKinds(t *testing.T) string {
	t.Helper()
	list, err := OpenExceptions(t.Context(), c.DB, 100)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, e := range list {
		kinds = append(kinds, string(e.Kind))
	}
	return strings.Join(kinds, " ")
}

// onlyException returns the one open exception, with its history.
func (c *town) onlyException(t *testing.T) (Exception, []Note) {
	t.Helper()
	list, err := OpenExceptions(t.Context(), c.DB, 100)
	if err != nil || len(list) != 1 {
		t.Fatalf("%d open exceptions (%s), %v; want 1", len(list), c.openKinds(t), err)
	}
	e, notes, err := ExceptionByID(t.Context(), c.DB, list[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	return e, notes
}

// verify fails the test when the books do not hold.
func (c *town) verify(t *testing.T) {
	t.Helper()
	findings, err := Verify(t.Context(), c.DB)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		t.Errorf("verify: %s", f)
	}
}

func (c *town) balances(t *testing.T, want map[string]money.Amount) {
	t.Helper()
	for path, amount := range want {
		if got := c.Balance(t, path); got != amount {
			t.Errorf("%s holds %s, want %s", path, got, amount)
		}
	}
}

// A processor keeps what the real one would: sessions, balance transactions,
// payouts. It is the seam that payments declares; the adapter's own tests speak
// the wire.
type processor struct {
	payments.Processor // what the nightly run never calls

	now      func() time.Time
	ahead    time.Duration
	answers  int // of SAP: to name its files
	sessions map[string]payments.Session
	balance  []payments.BalanceTransaction // in no payout yet
	all      []payments.BalanceTransaction
	payouts  []payments.Payout
	lines    map[string][]payments.BalanceTransaction
	fault    error // of every call that reads
	numbered int
}

func (p *processor) OpenSession(_ context.Context, r payments.SessionRequest) (payments.Session, error) {
	s := payments.Session{
		ID: "cs_" + r.PaymentID, URL: "https://pay.example/" + r.PaymentID, State: payments.SessionOpen,
		CheckoutID: r.CheckoutID, PaymentID: r.PaymentID, Currency: money.CAD,
	}
	for _, l := range r.Lines {
		s.Amount += l.Amount
	}
	p.sessions[s.ID] = s
	return s, nil
}

func (p *processor) Session(_ context.Context, sessionID string) (payments.Session, error) {
	s, ok := p.sessions[sessionID]
	if !ok {
		return s, errors.New("no such session")
	}
	return s, nil
}

// take charges the card of a session.
func (p *processor) take(sessionID string) {
	s := p.sessions[sessionID]
	s.State, s.IntentID, s.ChargeID, s.PaidAt = payments.SessionPaid, "pi_"+s.PaymentID, "ch_"+s.PaymentID, p.now()
	p.sessions[sessionID] = s
	p.move("charge", s.ChargeID, s.IntentID, s.Amount, s.Amount*29/1000+30)
}

// move changes the balance.
func (p *processor) move(category, source, intent string, amount, fee money.Amount) payments.BalanceTransaction {
	p.numbered++
	t := payments.BalanceTransaction{
		ID: fmt.Sprintf("txn_%04d", p.numbered), Category: category, SourceID: source, IntentID: intent,
		Amount: amount, Fee: fee, Net: amount - fee, Currency: money.CAD, CreatedAt: p.now(), AvailableOn: p.now(),
	}
	p.balance, p.all = append(p.balance, t), append(p.all, t)
	return t
}

// payOut pays the balance out and says what the bank will show.
func (p *processor) payOut() (payments.Payout, bankEntry) {
	p.numbered++
	out := payments.Payout{
		ID: fmt.Sprintf("po_1Guichet%04d", p.numbered), Currency: money.CAD, State: "paid", Automatic: true, Itemised: true,
		ArrivalOn: clock.DateOf(p.now()).Time(), CreatedAt: p.now(), TraceID: fmt.Sprintf("TRACE%06d", p.numbered),
	}
	for _, t := range p.balance {
		out.Amount += t.Net
	}
	if p.lines == nil {
		p.lines = map[string][]payments.BalanceTransaction{}
	}
	p.lines[out.ID], p.balance = p.balance, nil
	p.payouts = append(p.payouts, out)
	return out, bankEntry{out.Amount, out.TraceID}
}

// page hands a list out two at a time, so that the cursor is used.
func page[T any](list []T, cursor string) ([]T, string, error) {
	from := 0
	if _, err := fmt.Sscanf(cursor, "%d", &from); cursor != "" && err != nil {
		return nil, "", err
	}
	to := min(from+2, len(list))
	if to == len(list) {
		return list[from:], "", nil
	}
	return list[from:to], fmt.Sprint(to), nil
}

func (p *processor) Payouts(_ context.Context, since time.Time, cursor string) ([]payments.Payout, string, error) {
	var list []payments.Payout
	for _, out := range p.payouts {
		if !out.CreatedAt.Before(since) {
			list = append(list, out)
		}
	}
	out, next, err := page(list, cursor)
	return out, next, errors.Join(err, p.fault)
}

func (p *processor) PayoutTransactions(_ context.Context, payoutID, cursor string) ([]payments.BalanceTransaction, string, error) {
	out, next, err := page(p.lines[payoutID], cursor)
	return out, next, errors.Join(err, p.fault)
}

func (p *processor) BalanceTransactions(_ context.Context, since time.Time, cursor string) ([]payments.BalanceTransaction, string, error) {
	var list []payments.BalanceTransaction
	for _, t := range p.all {
		if !t.CreatedAt.Before(since) {
			list = append(list, t)
		}
	}
	out, next, err := page(list, cursor)
	return out, next, errors.Join(err, p.fault)
}

func (c *town) owner(t *testing.T) *pgxpool.Pool {
	t.Helper()
	return testdb.Owner(t, c.DB)
}

func ledgerDims(department string) ledger.Dimensions {
	return ledger.Dimensions{Department: department}
}
