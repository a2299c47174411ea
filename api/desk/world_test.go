package desk_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"golang.org/x/mod/sumdb/note"

	"guichet/api/desk"
	"guichet/api/session"
	"guichet/api/web"
	"guichet/identity"
	"guichet/identity/delegation"
	"guichet/identity/staff"
	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/jobs"
	"guichet/internal/keyed"
	"guichet/internal/mail"
	"guichet/internal/money"
	"guichet/ledger"
	"guichet/payments"
	"guichet/payments/bill"
	"guichet/payments/paymentstest"
	"guichet/reconcile"
	"guichet/reconcile/sap"
)

const (
	bankAccount = "00021234567"
)

// A world is a city with its nights and its desk behind real HTTP, on a real
// database.
type world struct {
	*paymentstest.City
	t         *testing.T
	url       string
	router    chi.Router
	staff     *staff.Service
	people    *identity.Service
	acting    *delegation.Service
	pay       *payments.Service
	night     *reconcile.Nightly
	processor *processor
	mail      *mailbox

	inbox, sap string // directories
	statements int
	closing    money.Amount
	tokens     map[string]string // of staff sessions, by role
}

// mailbox keeps the codes that identity sends.
type mailbox struct{ last mail.Message }

func (m *mailbox) Enqueue(_ context.Context, _ pgx.Tx, msg mail.Message) error {
	m.last = msg
	return nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{City: paymentstest.New(t), t: t, mail: &mailbox{}, inbox: t.TempDir(), sap: t.TempDir(), closing: 100_000_000, tokens: map[string]string{}}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	w.processor = &processor{now: w.Clock.Now, sessions: map[string]payments.Session{}, lines: map[string][]payments.BalanceTransaction{}}
	links, err := keyed.Load(t.Context(), w.DB, w.Key, payments.CheckoutLinks)
	must(t, err)
	templates, err := mail.NewTemplates(payments.MailTemplates)
	must(t, err)
	w.pay = payments.New(payments.Parts{
		DB: w.DB, Books: w.Books, Bills: w.Bills, Departments: w.Depts, Processor: w.processor, Queue: w.Queue,
		Outbox: mail.New(w.DB, w.Queue, templates, w.Key, w.Clock.Now), Links: links, Now: w.Clock.Now, Log: log,
		Render: func(payments.Receipt, string) ([]byte, error) { return []byte("%PDF-1.7"), nil },
	}, payments.Config{BaseURL: "https://pay.example"})
	w.newNightly(log)
	w.people, err = identity.New(t.Context(), w.DB, identity.Config{Now: w.Clock.Now, BaseURL: "http://localhost", Master: w.Key, Mail: w.mail})
	must(t, err)
	suggest := map[string][]staff.Suggestion{"parking-agent": {{Role: staff.Agent311, DepartmentCode: "parking"}}, "parking-finance": {{Role: staff.FinanceClerk, DepartmentCode: "parking"}}, "second-approver": {{Role: staff.FinanceApprover}}}
	for _, role := range staff.Roles() {
		suggest[role] = []staff.Suggestion{{Role: role}}
	}
	w.acting, err = delegation.New(t.Context(), w.DB, delegation.Config{People: w.people, Mail: w.mail, Master: w.Key, Now: w.Clock.Now, BaseURL: "https://pay.example.ca"})
	must(t, err)
	w.staff = staff.New(w.DB, staff.Config{Now: w.Clock.Now, Suggest: suggest})
	w.serve(log)
	return w
}

func (w *world) newNightly(log *slog.Logger) {
	w.t.Helper()
	writer, err := sap.NewWriter(sap.Settings{
		IDocType: "ACC_DOCUMENT03", Client: "100", Release: "731", SenderPort: "GUICHET", SenderSystem: "GUICHET",
		ReceiverPort: "SAPPRD", ReceiverSystem: "PRDCLNT100", User: "GUICHET", SegmentVersion: "000", TaxCondition: "MWAS", TaxKey: "MWS",
	})
	must(w.t, err)
	w.night, err = reconcile.New(reconcile.Parts{
		DB: w.DB, Books: w.Books, Payments: w.pay, Processor: w.processor, Queue: w.Queue, Writer: writer,
		Handover: sap.Handover{Place: sap.Local{Dir: w.sap}, Inbox: "in", Archive: "archive", Answers: "answers"}, Now: w.Clock.Now, Log: log,
	},
		reconcile.Config{BankAccount: bankAccount, Inbox: w.inbox, CompanyCode: "1000"})
	must(w.t, err)
	_, err = w.night.LoadMapping(w.t.Context(), strings.NewReader(mapping))
	must(w.t, err)
}

const mapping = `account,tax,valid_from,gl_account,object_kind,object_number,tax_code,text
assets:bank:main,,2020-01-01,0000101000,,,,Card settlement
assets:processor-clearing,,2020-01-01,internal,,,,
liabilities:billed-not-collected:*,,2020-01-01,internal,,,,
liabilities:hst,,2020-01-01,0000210500,,,A1,HST payable
liabilities:suspense:unexplained,,2020-01-01,0000219000,,,,Unexplained
expenses:processor-fees,,2020-01-01,0000550100,cost-centre,0000004900,,Card processing fees
revenue:parking:*,,2020-01-01,0000430100,cost-centre,0000004100,A0,Parking fines
revenue:permits:*,hst,2020-01-01,0000430200,cost-centre,0000004200,A1,Permits and inspections
revenue:permits:*,exempt,2020-01-01,0000430200,cost-centre,0000004200,A0,Permits and inspections
revenue:water:*,,2020-01-01,0000430300,cost-centre,0000004300,A0,Water and wastewater
`

func (w *world) serve(log *slog.Logger) {
	w.t.Helper()
	var handler http.Handler
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { handler.ServeHTTP(rw, r) }))
	w.t.Cleanup(srv.Close)
	w.url = srv.URL
	site := web.New(web.Options{BaseURL: srv.URL, Dev: true, Log: log, Viewer: desk.Viewer})
	sessions, err := session.New(session.Options{BaseURL: srv.URL, Residents: w.people, Staff: w.staff, Site: site, Log: log})
	must(w.t, err)
	h := desk.New(desk.Options{
		DB: w.DB, Books: w.Books, Nightly: w.night, Departments: w.Depts, People: w.people, Acting: w.acting, Staff: w.staff,
		Sessions: sessions, Site: site, Now: w.Clock.Now, Log: log,
	})
	w.router = chi.NewRouter()
	h.Routes(w.router)
	w.router.Handle("/static/*", site.Static())
	handler = http.NewCrossOriginProtection().Handler(w.router)
}

// as returns the session token of a member of staff with a role, or of a group.
func (w *world) as(role string) string {
	w.t.Helper()
	if token, ok := w.tokens[role]; ok {
		return token
	}
	names := map[string]string{staff.FinanceClerk: "Demo Finance Clerk", staff.FinanceApprover: "Demo Finance Approver", staff.Agent311: "Demo 311 Agent", staff.Auditor: "Demo Auditor"}
	name := names[role]
	if name == "" {
		name = "Member " + role
	}
	token, err := w.staff.SignedIn(w.t.Context(), staff.Upstream{
		Issuer: "https://directory.example", Subject: role, Name: name,
		Email: role + "@city.example", Groups: []string{role},
	}, "", identity.Visitor{Network: "203.0.113.0/24"})
	must(w.t, err)
	w.tokens[role] = token
	return token
}

// member is the signed-in member of a role.
func (w *world) member(role string) staff.Member {
	w.t.Helper()
	m, err := w.staff.Session(w.t.Context(), w.as(role))
	must(w.t, err)
	return m
}

// An answer is what the desk said.
type answer struct {
	status int
	header http.Header
	body   string
}

var browserLike = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// do sends a request as a role; "" is nobody.
func (w *world) do(method, role, path string, form url.Values) answer {
	w.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, body)
	must(w.t, err)
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if role != "" {
		req.AddCookie(&http.Cookie{Name: "guichet-staff", Value: w.as(role)})
	}
	res, err := browserLike.Do(req)
	must(w.t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	must(w.t, err)
	return answer{res.StatusCode, res.Header, string(text)}
}

// page gets a page that must be there.
func (w *world) page(role, path string) string {
	w.t.Helper()
	a := w.do(http.MethodGet, role, path, nil)
	if a.status != http.StatusOK {
		w.t.Fatalf("GET %s as %s: %d\n%s", path, role, a.status, a.body)
	}
	return a.body
}

// resident makes an account and returns its id.
func (w *world) resident(name, email string) string {
	w.t.Helper()
	ctx, here := w.t.Context(), identity.Visitor{Network: "203.0.113.0/24"}
	p, browser, err := w.people.Begin(ctx, identity.NewPending{ReturnPath: "/"}, "")
	must(w.t, err)
	must(w.t, w.people.AskCode(ctx, identity.CodeRequest{Pending: p.ID, Browser: browser, Email: email, Lang: "fr", Visitor: here}))
	_, err = w.people.TryCode(ctx, identity.CodeTry{Pending: p.ID, Browser: browser, Code: w.mail.last.Data["code"], Visitor: here})
	must(w.t, err)
	in, err := w.people.Register(ctx, identity.Registration{Pending: p.ID, Browser: browser, Name: name, Lang: "fr", Visitor: here})
	must(w.t, err)
	return in.ResidentID
}

// charge pays bills in one checkout.
func (w *world) charge(bills ...bill.Bill) payments.Payment {
	w.t.Helper()
	ctx, viewer := w.t.Context(), payments.Viewer{GuestHash: id.Hash(id.New())}
	ids := make([]string, len(bills))
	for i, b := range bills {
		ids[i] = b.ID
	}
	checkout, _, err := w.pay.Open(ctx, payments.NewCheckout{BillIDs: ids, Channel: "web", Lang: "en", Viewer: viewer})
	must(w.t, err)
	_, err = w.pay.Pay(ctx, viewer, checkout, "")
	must(w.t, err)
	c, err := w.pay.Checkout(ctx, viewer, checkout)
	must(w.t, err)
	w.processor.take(c.Payment.SessionID)
	p, err := w.pay.Sync(ctx, c.Payment.ID)
	must(w.t, err)
	if p.State != payments.Succeeded {
		w.t.Fatalf("payment is %s", p.State)
	}
	return p
}

// receipts numbers the receipts that are due.
func (w *world) receipts() {
	w.t.Helper()
	queue, err := jobs.New(w.DB, slog.New(slog.DiscardHandler))
	must(w.t, err)
	workers := river.NewWorkers()
	w.pay.AddWorkers(workers)
	must(w.t, queue.Work(w.t.Context(), jobs.Options{Workers: workers}))
	deadline := time.After(30 * time.Second)
	for {
		var missing int
		must(w.t, w.DB.QueryRow(w.t.Context(), `
			select count(*) from payments.payment p where p.state = 'succeeded'
				and not exists (select from payments.receipt r where r.payment_id = p.id)`).Scan(&missing))
		if missing == 0 {
			break
		}
		select {
		case <-deadline:
			w.t.Fatalf("%d payments have no receipt", missing)
		case <-time.After(20 * time.Millisecond):
		}
	}
	must(w.t, queue.Stop(w.t.Context()))
}

// night runs the nightly job of today.
func (w *world) runNight() reconcile.Report {
	w.t.Helper()
	r, err := w.night.Run(w.t.Context(), w.Today())
	must(w.t, err)
	return r
}

func (w *world) nextDay() {
	w.t.Helper()
	w.processor.ahead += 24 * time.Hour
	must(w.t, w.Clock.SetOffset(w.processor.ahead))
	w.tokens = map[string]string{} // nobody stays signed in overnight
}

// post carries entries into the accounts and seals them.
func (w *world) post() {
	w.t.Helper()
	ctx := w.t.Context()
	var poster *ledger.Poster
	w.Do(w.t, func(tx pgx.Tx) error {
		signer, _, err := w.Books.LogKey(ctx, tx, w.Key, "pay.example")
		poster = ledger.NewPoster(w.DB, w.Clock.Now, ledger.PosterOptions{Signer: signer})
		return err
	})
	must(w.t, poster.Drain(ctx))
}

// verifier checks what post has sealed.
func (w *world) verifier() note.Verifier {
	w.t.Helper()
	var public string
	w.Do(w.t, func(tx pgx.Tx) (err error) {
		_, public, err = w.Books.LogKey(w.t.Context(), tx, w.Key, "pay.example")
		return err
	})
	v, err := note.NewVerifier(public)
	must(w.t, err)
	return v
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	must(t, json.Unmarshal([]byte(text), into))
}

// A bankEntry is a movement that the bank books.
type bankEntry struct {
	amount          money.Amount
	reference, text string
}

// statement puts today's statement into the inbox.
func (w *world) statement(entries ...bankEntry) {
	w.t.Helper()
	w.statements++
	day, opening := w.Today(), w.closing
	side := func(a money.Amount) (string, string) {
		if a < 0 {
			return (-a).String(), "DBIT"
		}
		return a.String(), "CRDT"
	}
	var ntry strings.Builder
	for i, e := range entries {
		w.closing += e.amount
		amount, indicator := side(e.amount)
		fmt.Fprintf(&ntry, `<Ntry><NtryRef>RB%d-%d</NtryRef><Amt Ccy="CAD">%s</Amt><CdtDbtInd>%s</CdtDbtInd><Sts><Cd>BOOK</Cd></Sts>`+
			`<BookgDt><Dt>%s</Dt></BookgDt><ValDt><Dt>%s</Dt></ValDt><BkTxCd/><NtryDtls><TxDtls><Refs><EndToEndId>%s</EndToEndId></Refs></TxDtls></NtryDtls><AddtlNtryInf>%s</AddtlNtryInf></Ntry>`,
			w.statements, i+1, amount, indicator, day, day, e.reference, e.text)
	}
	balance := func(kind string, a money.Amount) string {
		amount, indicator := side(a)
		return fmt.Sprintf(`<Bal><Tp><CdOrPrtry><Cd>%s</Cd></CdOrPrtry></Tp><Amt Ccy="CAD">%s</Amt><CdtDbtInd>%s</CdtDbtInd><Dt><Dt>%s</Dt></Dt></Bal>`, kind, amount, indicator, day)
	}
	w.deliver(fmt.Sprintf("camt053_%s.xml", day), fmt.Sprintf(`<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"><BkToCstmrStmt><GrpHdr><MsgId>M%[1]d</MsgId></GrpHdr><Stmt>`+
		`<Id>STMT-%05[1]d</Id><ElctrncSeqNb>%[1]d</ElctrncSeqNb><CreDtTm>%[2]sT23:59:00</CreDtTm><Acct><Id><Othr><Id>%[3]s</Id></Othr></Id></Acct>%[4]s%[5]s%[6]s</Stmt></BkToCstmrStmt></Document>`,
		w.statements, day, bankAccount, balance("OPBD", opening), balance("CLBD", w.closing), ntry.String()))
}

func (w *world) deliver(name, text string) {
	w.t.Helper()
	must(w.t, os.WriteFile(filepath.Join(w.inbox, name), []byte(text), 0o644))
}

// answer lets SAP answer about a document.
func (w *world) answer(docNum, status, text, sapNumber string) {
	w.t.Helper()
	w.processor.answers++
	at := w.Clock.Now().In(clock.Toronto).Add(time.Duration(w.processor.answers) * time.Second)
	key := ""
	if sapNumber != "" {
		key = "BKPFF" + sapNumber + "10002026  PRDCLNT100"
	}
	body := fmt.Sprintf(`<ALEAUD01><IDOC><EDI_DC40><CREDAT>%s</CREDAT><CRETIM>%s</CRETIM></EDI_DC40><E1ADHDR><MESTYP_LNG>ACC_DOCUMENT</MESTYP_LNG>`+
		`<E1STATE><DOCNUM>%s</DOCNUM><STATUS>%s</STATUS><STATYP>S</STATYP><STAMID>RW</STAMID><STAMNO>605</STAMNO><STATXT>%s</STATXT><E1PRTOB><OBJKEY>%s</OBJKEY></E1PRTOB></E1STATE></E1ADHDR></IDOC></ALEAUD01>`,
		at.Format("20060102"), at.Format("150405"), docNum, status, text, key)
	dir := filepath.Join(w.sap, "answers")
	must(w.t, os.MkdirAll(dir, 0o755))
	must(w.t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("aleaud_%05d.xml", w.processor.answers)), []byte(body), 0o644))
}

// documents are those of the newest batch.
func (w *world) documents() []reconcile.Document {
	w.t.Helper()
	batches, err := reconcile.Batches(w.t.Context(), w.DB, 1)
	must(w.t, err)
	if len(batches) == 0 {
		w.t.Fatal("there is no batch")
	}
	list, err := reconcile.DocumentsOf(w.t.Context(), w.DB, batches[0].ID)
	must(w.t, err)
	return list
}

// openException is the one open exception of a kind.
func (w *world) openException(kind reconcile.Kind) reconcile.Exception {
	w.t.Helper()
	list, err := reconcile.OpenExceptions(w.t.Context(), w.DB, 100)
	must(w.t, err)
	for _, e := range list {
		if e.Kind == kind {
			return e
		}
	}
	w.t.Fatalf("no exception %s is open", kind)
	return reconcile.Exception{}
}

// A processor keeps what the real one would. It is the seam that payments declares;
// the adapter's own tests speak the wire.
type processor struct {
	payments.Processor // what nobody here calls

	now      func() time.Time
	ahead    time.Duration
	answers  int // of SAP: to name its files
	sessions map[string]payments.Session
	balance  []payments.BalanceTransaction // in no payout yet
	all      []payments.BalanceTransaction
	payouts  []payments.Payout
	lines    map[string][]payments.BalanceTransaction
	numbered int
	fault    error // of the list of payouts
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
	s.Card = payments.Card{Brand: "visa", Last4: "4242", Funding: "credit"}
	p.sessions[sessionID] = s
	p.move("charge", s.ChargeID, s.IntentID, s.Amount, s.Amount*29/1000+30)
}

// move changes the balance.
func (p *processor) move(category, source, intent string, amount, fee money.Amount) {
	p.numbered++
	t := payments.BalanceTransaction{
		ID: fmt.Sprintf("txn_1GuichetDemo%04d", p.numbered), Category: category, SourceID: source, IntentID: intent,
		Amount: amount, Fee: fee, Net: amount - fee, Currency: money.CAD, CreatedAt: p.now(), AvailableOn: p.now(),
	}
	p.balance, p.all = append(p.balance, t), append(p.all, t)
}

// payOut pays the balance out and says what the bank will show.
func (p *processor) payOut() (payments.Payout, bankEntry) {
	p.numbered++
	out := payments.Payout{
		ID: fmt.Sprintf("po_1GuichetDemo%04d", p.numbered), Currency: money.CAD, State: "paid", Automatic: true, Itemised: true,
		ArrivalOn: clock.DateOf(p.now()).Time(), CreatedAt: p.now(), TraceID: fmt.Sprintf("TRACE%06d", p.numbered),
	}
	for _, t := range p.balance {
		out.Amount += t.Net
	}
	p.lines[out.ID], p.balance = p.balance, nil
	p.payouts = append(p.payouts, out)
	return out, bankEntry{out.Amount, out.TraceID, "CARD SETTLEMENT"}
}

func (p *processor) Payouts(_ context.Context, since time.Time, _ string) (list []payments.Payout, _ string, _ error) {
	for _, out := range p.payouts {
		if !out.CreatedAt.Before(since) {
			list = append(list, out)
		}
	}
	return list, "", p.fault
}

func (p *processor) PayoutTransactions(_ context.Context, payoutID, _ string) ([]payments.BalanceTransaction, string, error) {
	return p.lines[payoutID], "", nil
}

func (p *processor) BalanceTransactions(_ context.Context, since time.Time, _ string) (list []payments.BalanceTransaction, _ string, _ error) {
	for _, t := range p.all {
		if !t.CreatedAt.Before(since) {
			list = append(list, t)
		}
	}
	return list, "", nil
}
