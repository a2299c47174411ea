package desk_test

import (
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"guichet/identity/staff"
	"guichet/internal/browser"
	"guichet/internal/testdb"
	"guichet/ledger"
)

// ask asks for a month to be moved.
func (w *world) ask(role, month string, to ledger.PeriodState) answer {
	return w.do(http.MethodPost, role, "/desk/periods", url.Values{"month": {month}, "to": {string(to)}})
}

var requestField = regexp.MustCompile(`name="request" value="([0-9a-f-]{36})"`)

// decide says yes or no to the first request that a role is shown.
func (w *world) decide(role, decision string) answer {
	w.t.Helper()
	found := requestField.FindStringSubmatch(w.page(role, "/desk/periods"))
	if found == nil {
		w.t.Fatalf("%s is shown nothing to decide", role)
	}
	return w.do(http.MethodPost, role, "/desk/periods/decide", url.Values{"request": {found[1]}, "decision": {decision}})
}

func (w *world) period(month string) ledger.Period {
	w.t.Helper()
	list, err := w.Books.Periods(w.t.Context(), w.DB, 100)
	must(w.t, err)
	for _, p := range list {
		if strings.HasPrefix(p.Month.String(), month) {
			return p
		}
	}
	return ledger.Period{State: ledger.PeriodOpen}
}

// A month moves when one person asks and another agrees, step by step, and is proved
// before it closes.
func TestAMonthIsClosedByTwoPersons(t *testing.T) {
	t.Parallel()
	s := tell(t)
	const clerk, approver = staff.FinanceClerk, staff.FinanceApprover
	month := s.Today().String()[:7]
	want := func(a answer, status int, text string) {
		t.Helper()
		if a.status != status || !strings.Contains(html.UnescapeString(a.body), text) {
			t.Errorf("got %d, want %d with %q\n%.3000s", a.status, status, text, a.body)
		}
	}
	want(s.ask(clerk, month, ledger.PeriodClosed), http.StatusConflict, "The month has moved")
	want(s.ask(clerk, "2026-13", ledger.PeriodClosing), http.StatusConflict, "The month has moved")
	want(s.ask(clerk, month, ledger.PeriodClosing), http.StatusSeeOther, "")
	want(s.ask(clerk, month, ledger.PeriodClosing), http.StatusConflict, "asked for already")
	if page := s.page(clerk, "/desk/periods"); requestField.MatchString(page) || !strings.Contains(page, "Asked for already") {
		t.Error("whoever asked is offered to decide")
	}
	if p := s.period(month); p.State != ledger.PeriodOpen {
		t.Errorf("the month is %s before anybody agreed", p.State)
	}
	if a := s.decide(approver, "approved"); !strings.HasPrefix(a.header.Get("Location"), "/staff/signin?fresh=1") {
		t.Errorf("a session of yesterday: %d to %q, want to be seen by the directory again", a.status, a.header.Get("Location"))
	}
	s.fresh(approver)
	s.fresh("second-approver")
	want(s.decide(approver, "refused"), http.StatusSeeOther, "")
	want(s.ask(approver, month, ledger.PeriodClosing), http.StatusSeeOther, "")
	requests := requestField.FindAllString(s.page(approver, "/desk/periods"), -1)
	if len(requests) != 0 {
		t.Error("an approver is offered to agree with herself")
	}
	// The address of the form, without the form: the database and the room refuse too.
	pending := one(t, s, `select id::text from ops.approval where decision is null`)
	want(s.do(http.MethodPost, approver, "/desk/periods/decide", url.Values{"request": {pending}, "decision": {"approved"}}), http.StatusConflict, "another person decides")
	want(s.decide("second-approver", "approved"), http.StatusSeeOther, "")
	if p := s.period(month); p.State != ledger.PeriodClosing {
		t.Errorf("the month is %s, want closing", p.State)
	}

	// What was asked for a month that has moved meanwhile is another thing.
	want(s.ask(clerk, month, ledger.PeriodClosed), http.StatusSeeOther, "")
	s.Do(t, func(tx pgx.Tx) error { return s.Books.SetPeriod(t.Context(), tx, s.Today(), ledger.PeriodOpen) })
	want(s.decide(approver, "approved"), http.StatusConflict, "The month has moved")
	s.Do(t, func(tx pgx.Tx) error { return s.Books.SetPeriod(t.Context(), tx, s.Today(), ledger.PeriodClosing) })

	// A bill that says something else than the books holds up the close, and is named.
	owner := testdb.Owner(t, s.DB)
	forge := func(by string) {
		t.Helper()
		if _, err := owner.Exec(t.Context(), `
			update payments.bill set paid_cents = paid_cents + `+by+` where id = (select id from payments.bill where state in ('open', 'part_paid') order by id limit 1)`); err != nil {
			t.Fatal(err)
		}
	}
	forge("1")
	want(s.decide(approver, "approved"), http.StatusConflict, "cannot be closed yet: receivable: assets:receivable:")
	forge("-1")
	want(s.decide(approver, "approved"), http.StatusSeeOther, "")
	p := s.period(month)
	if p.State != ledger.PeriodClosed || len(p.TrialHash) != 32 {
		t.Errorf("the month is %s with hash %x, want closed", p.State, p.TrialHash)
	}
	want(s.ask(clerk, month, ledger.PeriodOpen), http.StatusConflict, "The month has moved")
	// And so is every month before it.
	if page := s.page(clerk, "/desk/periods"); strings.Contains(page, "Ask to") {
		t.Error("a month before a closed one is offered to be moved")
	}
	want(s.ask(clerk, s.Today().AddDays(-60).String()[:7], ledger.PeriodClosing), http.StatusConflict, "The month has moved")
}

func one(t *testing.T, s *story, sql string) (id string) {
	t.Helper()
	must(t, s.DB.QueryRow(t.Context(), sql).Scan(&id))
	return id
}

// Two persons close a month in a browser.
func TestAMonthIsClosedInBrowser(t *testing.T) {
	b := browser.New(t)
	s := tell(t)
	page := browser.Open(t, b, "about:blank", browser.Desktop)
	s.signIn(page, staff.FinanceClerk)
	browser.Go(t, page, s.url+"/desk")
	browser.Click(t, page, `a[href="/desk/periods"]`)
	browser.Click(t, page, `form[action="/desk/periods"] button`)
	s.fresh(staff.FinanceApprover)
	s.signIn(page, staff.FinanceApprover)
	for _, lang := range []string{"en", "fr"} {
		browser.Go(t, page, s.url+"/desk/periods?lang="+lang)
		for name, size := range map[string]browser.Viewport{"desktop": browser.Desktop, "phone": browser.Phone} {
			browser.Resize(t, page, size)
			browser.NoSideways(t, page)
			browser.Axe(t, page)
			browser.Shot(t, page, "desk-periods-request-"+lang+"-"+name)
		}
	}
	browser.Resize(t, page, browser.Desktop)
	browser.Click(t, page, `button[value="approved"]`)
	month := s.Today().String()[:7]
	if p := s.period(month); p.State != ledger.PeriodClosing {
		t.Errorf("%s is %s, want closing", month, p.State)
	}
	browser.Axe(t, page)
}
