package desk_test

import (
	"errors"
	"fmt"
	"html"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"guichet/api/web"
	"guichet/api/web/webtest"
	"guichet/identity/staff"
	"guichet/internal/id"
	"guichet/ledger"
	"guichet/reconcile"
)

// A shown page: where it is, who reads it, and what it must say in each language.
type shown struct {
	name, role, path string
	en, fr           []string
}

// pages are every page of the desk, each with all its faces.
func (s *story) pages() []shown {
	statements, err := reconcile.ListStatements(s.t.Context(), s.DB, reconcile.Page{Limit: 10})
	must(s.t, err)
	lines, err := reconcile.ListBankLines(s.t.Context(), s.DB, reconcile.LineFilter{}, reconcile.Page{Limit: 10})
	must(s.t, err)
	var explained, unexplained reconcile.LineRow
	for _, l := range lines {
		if l.PayoutID == "" {
			unexplained = l
		} else {
			explained = l
		}
	}
	inSuspense := s.openException(reconcile.Unexplained)
	entries, err := s.Books.EntriesBySource(s.t.Context(), s.DB, "payout", s.payout.ID, "", 1)
	must(s.t, err)
	unposted, err := s.Books.Statement(s.t.Context(), s.DB, "assets:receivable:water", 0, 1)
	must(s.t, err)
	clerk, agent, auditor := staff.FinanceClerk, staff.Agent311, staff.Auditor
	return []shown{
		{"today-agrees", clerk, "/desk/today?on=" + s.good.String(), []string{"Difference $0.00", "1 payout announced", "4 documents posted"}, []string{"Écart de 0,00 $", "4 documents comptabilisés"}},
		{"today", clerk, "/desk/today", []string{"Announced for this day", "Bank lines that no payout explains", "In a document that SAP has not posted", "Payout line without a payment", "Test parking"}, []string{"Annoncé pour ce jour", "Essai parking", "Relevés bancaires"}},
		{"today-quiet", auditor, "/desk/today?on=" + s.good.AddDays(-30).String(), []string{"Nothing moved on this day"}, []string{"Rien n’a bougé ce jour-là"}},
		{"payouts", clerk, "/desk/payouts", []string{s.payout.ID, s.late.ID, "Settled", "Not at the bank yet"}, []string{"Pas encore à la banque"}},
		{"payouts-none", clerk, "/desk/payouts?state=failed", []string{"Nothing here"}, []string{"Rien ici"}},
		{"payout", clerk, "/desk/payouts/" + s.payout.ID, []string{"the bank’s line carries the processor’s own reference", s.payout.TraceID, id.Group(s.first.Reference), id.Group(s.fine.Notice), "STMT-00001", "receipt "}, []string{"référence du processeur", "Règlement"}},
		{"payout-late", clerk, "/desk/payouts/" + s.late.ID, []string{"No bank line is this payout yet"}, []string{"Aucune ligne bancaire n’est encore ce versement"}},
		{"bank", clerk, "/desk/bank", []string{"STMT-00002", "1 unexplained", "All explained", "camt053_other.xml"}, []string{"Fichiers refusés", "1 inexpliquée"}},
		{"statement", clerk, "/desk/bank/statements/" + statements[0].ID, []string{"STMT-00002", "DEPOSIT COUNTER 14", "$250.00"}, []string{"Relevé STMT-00002", "250,00 $"}},
		{"lines", clerk, "/desk/bank/lines", []string{"CARD SETTLEMENT"}, []string{"Lignes bancaires"}},
		{"lines-unexplained", clerk, "/desk/bank/lines?state=unexplained", []string{"DEPOSIT COUNTER 14"}, []string{"Inexpliquée"}},
		{"lines-none", clerk, "/desk/bank/lines?on=2001-01-01", []string{"No bank line fits"}, []string{"Aucune ligne bancaire"}},
		{"line", clerk, "/desk/bank/lines/" + explained.ID, []string{"payout-reference/1", explained.PayoutID, "In the bank’s line"}, []string{"Dans la ligne de la banque"}},
		{"line-unexplained", clerk, "/desk/bank/lines/" + unexplained.ID, []string{"No payout explains this line yet"}, []string{"Aucun versement n’explique encore"}},
		{"sap", clerk, "/desk/sap", []string{"Posted", "4 of 4 documents posted", "0100000012", "Cost centre 1000/4300 is locked", "GUICHET_0000000001.idoc"}, []string{"Comptabilisé", "4 documents comptabilisés sur 4"}},
		{"sap-waiting", clerk, "/desk/sap?state=waiting", []string{"Rejected"}, []string{"Rejeté"}},
		{"sap-none", clerk, "/desk/sap?on=2001-01-01", []string{"No batch fits"}, []string{"Aucun lot"}},
		{"batch", clerk, "/desk/sap/batches/" + s.posted.BatchID, []string{"Posted", "EDI_DC40", "Delivered", "SHA-256"}, []string{"Remis", "octets"}},
		{"document", clerk, "/desk/sap/documents/" + s.posted.ID, []string{"Posted by SAP as 0100000012", "0000550100", "Document posted", "Processor’s fees"}, []string{"Comptabilisé par SAP", "Frais du processeur"}},
		{"document-rejected", clerk, "/desk/sap/documents/" + s.rejected.ID, []string{"SAP did not post it", "Cost centre 1000/4300 is locked"}, []string{"SAP ne l’a pas comptabilisé"}},
		{"exceptions", clerk, "/desk/exceptions", []string{"Payout line without a payment", "Bank line without a payout", "Statement file refused", "Rejected by SAP", "$42.00", "Finance team"}, []string{"Rejeté par SAP", "Équipe des finances"}},
		{"exceptions-none", clerk, "/desk/exceptions?owner=me", []string{"No exception fits"}, []string{"Aucune exception"}},
		{"exception-suspense", clerk, "/desk/exceptions/" + inSuspense.ID, []string{"Transfer from suspense", "revenue:parking:fines", "Assign to me"}, []string{"Virer du compte d’attente", "M’en charger"}},
		{"exception-rejected", clerk, "/desk/exceptions/" + s.openException(reconcile.Rejected).ID, []string{"Close with this reason", "Cost centre 1000/4300"}, []string{"Fermer avec cette raison"}},
		{"exception-readonly", auditor, "/desk/exceptions/" + inSuspense.ID, []string{"You can read exceptions, not change them."}, []string{"pas les modifier"}},
		{"ledger", clerk, "/desk/ledger", []string{"Balanced as of", "assets:bank:main", "Revenue", "Total"}, []string{"Équilibrée", "Revenus"}},
		{"periods", clerk, "/desk/periods", []string{"Accounting periods", "Ask to start closing"}, []string{"Périodes comptables", "Demander le début de la fermeture"}},
		{"periods-readonly", auditor, "/desk/periods", []string{"Accounting periods"}, []string{"Périodes comptables"}},
		{"ledger-none", clerk, "/desk/ledger?on=2001-01-01", []string{"Nothing has been recorded"}, []string{"Rien n’a été inscrit"}},
		{"ledger-known", clerk, "/desk/ledger?on=" + s.bad.String() + "&known=" + s.good.String() + "T23:59", []string{"This is what the log held at"}, []string{"Voici ce que contenait le journal"}},
		{"accounts", clerk, "/desk/ledger/accounts", []string{"Assets", "assets:bank:main", "credit side", "accounts"}, []string{"Actif", "côté crédit"}},
		{"accounts-department", auditor, "/desk/ledger/accounts?department=water&state=open", []string{"assets:receivable:water"}, []string{"assets:receivable:water"}},
		{"accounts-none", clerk, "/desk/ledger/accounts?type=equity", []string{"No account fits."}, []string{"Aucun compte ne correspond."}},
		{"dated", clerk, "/desk/ledger/accounts/assets:receivable:water/statement?from=" + s.good.String(), []string{"Opening balance", "Closing balance", "Payment received"}, []string{"Solde d’ouverture", "Paiement reçu"}},
		{"dated-empty", clerk, "/desk/ledger/accounts/assets:bank:main/statement?from=2001-01-01&to=2001-01-31", []string{"no line between these dates"}, []string{"aucune ligne entre ces dates"}},
		{"general", clerk, "/desk/ledger/general?from=" + s.good.String(), []string{"debits and credits are both", "assets:bank:main", "not in it yet"}, []string{"Grand livre", "la somme de tous les soldes est nulle"}},
		{"general-part", auditor, "/desk/ledger/general?from=" + s.good.String() + "&under=revenue&department=parking", []string{"revenue:parking"}, []string{"revenue:parking"}},
		{"general-none", clerk, "/desk/ledger/general?from=2001-01-01&to=2001-01-31", []string{"No account holds or moved anything"}, []string{"Aucun compte n’a de solde"}},
		{"activity", clerk, "/desk/ledger/activity?from=" + s.good.String() + "&under=revenue", []string{"Debits and credits by: Department", "Test parking", "Net"}, []string{"Débits et crédits par", "Essai parking"}},
		{"activity-more", clerk, "/desk/ledger/activity?from=" + s.good.String() + "&by=account&by=department&by=tender", []string{"assets:bank:main", "Without"}, []string{"Sans"}},
		{"activity-none", clerk, "/desk/ledger/activity?from=2001-01-01&to=2001-01-31", []string{"Nothing moved"}, []string{"Rien n’a bougé"}},
		{"journal", clerk, "/desk/ledger/journal", []string{"Payment received", "Bill issued", "Recorded from"}, []string{"Paiement reçu", "Inscrites du"}},
		{"journal-account", auditor, "/desk/ledger/journal?account=assets:bank:main&amount_from=1&amount_to=9,999.00&actor=system", []string{"Settlement"}, []string{"Règlement"}},
		{"journal-none", clerk, "/desk/ledger/journal?words=nowhere", []string{"No entry fits."}, []string{"Aucune écriture ne correspond."}},
		{"account", clerk, "/desk/ledger/accounts/assets:receivable:water", []string{"not numbered yet", "Balance now", "Payment received"}, []string{"pas encore numérotée", "Paiement reçu"}},
		{"account-empty", clerk, "/desk/ledger/accounts/liabilities:credit:payer", []string{"The account has no line."}, []string{"Le compte n’a aucune ligne."}},
		{"entry", clerk, "/desk/ledger/entries/" + entries[0].ID, []string{"Sealed in the log at position", "assets:bank:main", "Accounting month", "Audit records", "SAP’s number 01000000"}, []string{"Scellée dans le journal", "Numéro de SAP"}},
		{"entry-waiting", clerk, "/desk/ledger/entries/" + unposted.Lines[0].EntryID, []string{"sealed a few moments after"}, []string{"scellée quelques instants après"}},
		{"lookup", agent, "/desk/lookup", []string{"Looking at a person’s bill is recorded with your name"}, []string{"inscrit à votre nom"}},
		{"bill-paid", agent, "/desk/lookup/bills/" + s.fine.ID, []string{id.Group(s.fine.Notice), name, email, "Paid", "Fee parking-accessible"}, []string{"Payée", "Frais parking-accessible"}},
		{"bill-overdue", agent, "/desk/lookup/bills/" + s.open.ID, []string{"Overdue", "$450.00", "Nobody has tried to pay it."}, []string{"En retard", "450,00 $"}},
		{"bill-finance", clerk, "/desk/lookup/bills/" + s.fine.ID, []string{"Not shown to your role", "Where the money of", "SAP’s number 0100000013"}, []string{"Non montré à votre rôle", "Où est l’argent de"}},
		{"payment", agent, "/desk/lookup/payments/" + s.first.ID, []string{id.Group(s.first.Reference), "Visa ···· 4242", id.Group(s.fine.Notice)}, []string{"Carte", "Réussi"}},
		{"payment-finance", clerk, "/desk/lookup/payments/" + s.first.ID, []string{"Where the money is", s.payout.ID, "0100000014"}, []string{"Où est l’argent"}},
	}
}

var fillers = regexp.MustCompile(`\s+`)

// readable is the text of a page as a reader sees it, roughly.
func readable(page string) string {
	return strings.ReplaceAll(fillers.ReplaceAllString(html.UnescapeString(page), " "), "\u00a0", " ")
}

func TestEveryPageInBothLanguages(t *testing.T) {
	t.Parallel()
	s := tell(t)
	for _, p := range s.pages() {
		for _, lang := range web.Languages {
			t.Run(p.name+"/"+lang, func(t *testing.T) {
				sep := "?"
				if strings.Contains(p.path, "?") {
					sep = "&"
				}
				a := s.do(http.MethodGet, p.role, p.path+sep+"lang="+lang, nil)
				if a.status != http.StatusOK || a.header.Get("Content-Language") != lang+"-CA" {
					t.Fatalf("%d in %s", a.status, a.header.Get("Content-Language"))
				}
				for _, fault := range webtest.Faults(a.body) {
					t.Error(fault)
				}
				text := readable(a.body)
				for _, want := range map[string][]string{"en": p.en, "fr": p.fr}[lang] {
					if !strings.Contains(text, want) {
						t.Errorf("does not say %q", want)
					}
				}
			})
		}
	}
}

// Names of residents are for those who speak with them: no money room shows one,
// whoever reads.
func TestNoNameInTheMoneyRooms(t *testing.T) {
	t.Parallel()
	s := tell(t)
	for _, p := range s.pages() {
		body := s.page(p.role, p.path)
		frontLine := p.role == staff.Agent311
		if shows := strings.Contains(html.UnescapeString(body), name) || strings.Contains(body, email); shows && !frontLine {
			t.Errorf("%s shows the resident to %s", p.name, p.role)
		}
		if strings.Contains(body, s.residentID) {
			t.Errorf("%s shows the resident's id", p.name)
		}
	}
}

func TestWhatIsNotThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, path := range []string{
		"/desk/payouts/po_none", "/desk/payouts/po_none/lines.csv", "/desk/payouts/po_none/lines.xlsx", "/desk/payouts/po_none/lines.json", "/desk/ledger/accounts/assets:none/statement", "/desk/ledger/accounts/assets:none/statement.csv", "/desk/ledger/entries/x/lines.json", "/desk/bank/statements/" + id.New(), "/desk/bank/statements/x", "/desk/bank/lines/" + id.New(), "/desk/bank/lines/x",
		"/desk/sap/batches/" + id.New(), "/desk/sap/batches/x/file", "/desk/sap/batches/x/manifest", "/desk/sap/documents/x", "/desk/sap/documents/x/items.csv",
		"/desk/exceptions/" + id.New(), "/desk/exceptions/x", "/desk/ledger/accounts/assets:none", "/desk/ledger/accounts/assets:none/lines.csv",
		"/desk/ledger/entries/x", "/desk/ledger/entries/x/proof", "/desk/lookup/bills/" + id.New(), "/desk/lookup/bills/x", "/desk/lookup/payments/x",
	} {
		if a := w.do(http.MethodGet, staff.FinanceClerk, path, nil); a.status != http.StatusNotFound {
			t.Errorf("%s: %d, want 404", path, a.status)
		}
	}
	for path, want := range map[string]int{
		"/desk/today?on=yesterday": 400, "/desk/payouts?on=2026-13-01": 400, "/desk/ledger?on=1026-01-01": 400, "/desk/bank/lines.csv?on=x": 400, "/desk/sap?on=x": 400,
		"/desk/ledger?known=yesterday": 400, "/desk/ledger/general?from=2026-02-01&to=2026-01-01": 400, "/desk/ledger/activity?from=x": 400, "/desk/ledger/journal?entry=x": 422,
		"/desk/ledger/journal?recorded_from=2025-01-01": 422, "/desk/ledger/journal?recorded_from=2025-01-01&account=assets:bank:main": 422, "/desk/ledger/journal?account=assets:none": 422,
		"/desk/ledger/journal?amount_from=-1": 422, "/desk/ledger/journal?amount_from=ten": 422, "/desk/ledger/journal.csv?amount_from=ten": 400, "/desk/ledger/journal.csv?recorded_from=2025-01-01": 422,
		"/desk/ledger/journal?after=x": 200, "/desk/ledger/accounts/assets:bank:main/statement?after=x": 200, "/desk/ledger/activity?by=x": 200, "/desk/ledger.pdf": 404,
		"/desk/payouts?page=x": 200, "/desk/payouts?page=-1": 200, "/desk/payouts?page=999999999": 200, "/desk/exceptions?page=7": 200, "/desk/bank/lines?statement=x": 404,
		"/desk/ledger/accounts/assets:processor-clearing?before=x": 200, "/desk/today?on=2199-01-01": 200, "/desk/today": 200, "/desk/sap": 200, "/desk/exceptions?kind=%27&age=%22": 200,
	} {
		if a := w.do(http.MethodGet, staff.FinanceClerk, path, nil); a.status != want {
			t.Errorf("%s: %d, want %d", path, a.status, want)
		}
	}
}

// The four sides of a day differ exactly by what is listed, and the day before, where
// nothing is listed, not at all.
func TestTheDayAddsUp(t *testing.T) {
	t.Parallel()
	s := tell(t)
	good, err := reconcile.DayOf(t.Context(), s.DB, s.good)
	must(t, err)
	if !good.Agrees() || good.Processor.Amount != s.payout.Amount || good.SAP.Amount != s.payout.Amount {
		t.Errorf("first day %+v", good)
	}
	bad, err := reconcile.DayOf(t.Context(), s.DB, s.bad)
	must(t, err)
	if bad.Agrees() || bad.Difference() == 0 {
		t.Errorf("second day %+v", bad)
	}
	var kinds []string
	for _, i := range bad.Items {
		kinds = append(kinds, fmt.Sprintf("%s %s %s", i.Side, i.Kind, i.Amount))
	}
	water := -s.rejected.Debits
	want := []string{"bank not-booked " + (-s.late.Amount).String(), "bank unexplained " + deposit.String(), "ledger unexplained " + (-deposit).String(), "sap not-posted " + water.String()}
	if strings.Join(kinds, ", ") != strings.Join(want, ", ") {
		t.Errorf("items %v, want %v", kinds, want)
	}
	for _, side := range []string{"bank", "ledger", "sap"} {
		if rest := bad.Rest(side); rest != 0 {
			t.Errorf("%s: %s is not explained", side, rest)
		}
	}
}

// What fails at night is on the first page in the morning, with its own words.
func TestANightThatFailedIsSaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if page := readable(w.page(staff.Auditor, "/desk/today")); !strings.Contains(page, "No nightly run has begun yet.") || !strings.Contains(page, "Nothing waits for a person.") {
		t.Error("before the first night the page does not say so")
	}
	w.processor.fault = errors.New("503 from the processor")
	if _, err := w.night.Run(t.Context(), w.Today()); err == nil {
		t.Fatal("the run did not fail")
	}
	for lang, want := range map[string][]string{
		"en": {"Failed", "503 from the processor", "Tried once; it is tried again by itself."}, "fr": {"Échec", "503 from the processor", "1 tentative"},
	} {
		page := w.page(staff.Auditor, "/desk/today?lang="+lang)
		for _, fault := range webtest.Faults(page) {
			t.Error(fault)
		}
		for _, words := range want {
			if !strings.Contains(readable(page), words) {
				t.Errorf("the page does not say %q", words)
			}
		}
	}
}

func TestWhatFailsLooksLikeTheDesk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for path, role := range map[string]string{"/desk/payouts/none": staff.Auditor, "/desk/today": staff.Agent311} {
		a := w.do(http.MethodGet, role, path, nil)
		if a.status < 400 || !strings.Contains(a.body, `<body class="desk">`) || !strings.Contains(a.body, `<a href="/desk">`) {
			t.Errorf("%s: %d in another dress", path, a.status)
		}
	}
}

func TestTheAccountIsPaged(t *testing.T) {
	t.Parallel()
	s := &story{world: newWorld(t)}
	const bills = 55
	for range bills {
		s.Issue(t, s.Bill("water", "water-consumption", 1_000))
	}
	s.post()
	first := s.page(staff.Auditor, "/desk/ledger/accounts/assets:receivable:water")
	next := regexp.MustCompile(`rel="next" href="(\?before=\d+)"`).FindStringSubmatch(first)
	if next == nil || strings.Count(first, "<tr") != 51 {
		t.Fatalf("%d rows on the first page, next %v", strings.Count(first, "<tr"), next)
	}
	second := s.page(staff.Auditor, "/desk/ledger/accounts/assets:receivable:water"+next[1])
	if strings.Count(second, "<tr") != 6 || strings.Contains(second, `rel="next"`) || !strings.Contains(second, `rel="prev"`) {
		t.Errorf("%d rows on the second page", strings.Count(second, "<tr"))
	}
	balance, err := s.Books.Balance(t.Context(), s.DB, "assets:receivable:water")
	must(t, err)
	if balance != bills*1_000 || !strings.Contains(readable(first), balance.Format("en")) {
		t.Errorf("the page does not show the balance %s", balance)
	}
}

// A proof that is downloaded stands alone.
func TestTheProofOfAnEntryHolds(t *testing.T) {
	t.Parallel()
	s := &story{world: newWorld(t)}
	b := s.Issue(t, s.Bill("water", "water-consumption", 1_000))
	path := "/desk/ledger/entries/" + b.EntryID + "/proof"
	if a := s.do(http.MethodGet, staff.Auditor, path, nil); a.status != http.StatusNotFound {
		t.Errorf("before it is sealed: %d", a.status)
	}
	s.post()
	a := s.do(http.MethodGet, staff.Auditor, path, nil)
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/json" || !strings.Contains(a.header.Get("Content-Disposition"), "attachment") {
		t.Fatalf("%d, %v", a.status, a.header)
	}
	var proof ledger.Proof
	decode(t, a.body, &proof)
	if err := ledger.VerifyProof(proof, s.verifier()); err != nil {
		t.Error(err)
	}
}
