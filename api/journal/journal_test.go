package journal_test

import (
	"fmt"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5"

	"guichet/api/web"
	"guichet/api/web/webtest"
	"guichet/identity/staff"
	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/ledger"
	"guichet/ledger/manual"
)

// access says who may use what, a second time on purpose: whoever opens a route to more
// people must say so twice. fresh: only after a fresh proof.
var access = map[string]struct {
	roles []string
	fresh bool
}{
	"GET /desk/journal":            {watching, false},
	"GET /desk/journal/new":        {making, false},
	"POST /desk/journal/new":       {making, false},
	"GET /desk/journal/{id}":       {watching, false},
	"GET /desk/journal/{id}/edit":  {making, false},
	"POST /desk/journal/{id}/edit": {making, false},

	"POST /desk/journal/{id}/lines": {making, false}, "POST /desk/journal/{id}/files": {making, false}, "POST /desk/journal/{id}/detach": {making, false},
	"GET /desk/journal/{id}/files/{file}": {watching, false}, "POST /desk/journal/{id}/submit": {making, false}, "POST /desk/journal/{id}/back": {making, false},
	"POST /desk/journal/{id}/withdraw": {making, false}, "GET /desk/journal/{id}/decide": {deciding, true}, "POST /desk/journal/{id}/decide": {deciding, true},
	"GET /desk/journal/{id}/{deed}": {watching, false},
}

var (
	watching = []string{staff.FinanceClerk, staff.FinanceApprover, staff.Auditor}
	making   = []string{staff.FinanceClerk, staff.FinanceApprover}
	deciding = []string{staff.FinanceApprover}
)

func TestEveryRouteNamesItsRoles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	seen := 0
	must(t, chi.Walk(w.router, func(method, pattern string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		if strings.HasPrefix(pattern, "/static") {
			return nil
		}
		seen++
		allowed, ok := access[method+" "+pattern]
		if !ok {
			t.Errorf("%s %s is not in the table of access", method, pattern)
			return nil
		}
		path := strings.NewReplacer("{id}", id.New(), "{file}", id.New(), "{deed}", "submit").Replace(pattern)
		do := func(who string) answer {
			if method == http.MethodGet {
				return w.get(who, path)
			}
			return w.post(who, path, url.Values{"draft": {id.New()}})
		}
		if to := do("").header.Get("Location"); !strings.HasPrefix(to, "/staff/signin?return=%2Fdesk") {
			t.Errorf("%s %s: nobody is sent to %q", method, pattern, to)
		}
		for _, role := range staff.Roles() {
			got := do(role)
			if may := got.status != http.StatusForbidden; may != slices.Contains(allowed.roles, role) || got.status >= 500 {
				t.Errorf("%s %s: %s: %d", method, pattern, role, got.status)
			}
			if !allowed.fresh || !slices.Contains(allowed.roles, role) {
				continue
			}
			now := w.tokens[role]
			w.tokens[role] = w.signIn(role, w.now.Add(-time.Hour))
			if to := do(role).header.Get("Location"); !strings.HasPrefix(to, "/staff/signin?fresh=1") {
				t.Errorf("%s %s: a forgotten screen is sent to %q", method, pattern, to)
			}
			w.tokens[role] = now
		}
		return nil
	}))
	if seen != len(access) {
		t.Errorf("%d routes, %d in the table of access", seen, len(access))
	}
}

// A role for one department opens nothing here.
func TestARoleForADepartmentIsNotEnough(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.as(clerk)
	w.in(func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), `
			with d as (insert into department.department (id, code, name_en, name_fr, created_at) values ($1, 'water', 'Water', 'Eau', $2) returning id)
			update identity.staff_role set department_id = null where false`, id.New(), w.now)
		if err != nil {
			return err
		}
		var water string
		if err := tx.QueryRow(t.Context(), `select id::text from department.department where code = 'water'`).Scan(&water); err != nil {
			return err
		}
		if err := w.staff.Revoke(t.Context(), tx, w.id(clerk), staff.Role{Name: staff.FinanceClerk}, "test"); err != nil {
			return err
		}
		return w.staff.Grant(t.Context(), tx, w.id(clerk), staff.Role{Name: staff.FinanceClerk, Department: water}, "test")
	})
	w.tokens[clerk] = w.signIn(clerk, w.now)
	if a := w.get(clerk, "/desk/journal"); a.status != http.StatusForbidden {
		t.Errorf("%d", a.status)
	}
}

// entry is a form that can be submitted.
func entry(change func(url.Values)) url.Values {
	v := url.Values{
		"draft": {id.New()}, "effective_on": {"2026-05-31"}, "reason": {"accrual"}, "description": {"Rent, May"}, "explanation": {"Billed in June"},
		"account-1": {"expenses:rent"}, "debit-1": {"1,200.50"}, "cost_centre-1": {"4100"}, "account-2": {"accrued"}, "credit-2": {"1 200,50 $"},
	}
	if change != nil {
		change(v)
	}
	return v
}

// create makes a draft of the clerk's.
func (w *world) create(form url.Values) manual.Paper {
	w.t.Helper()
	a := w.post(clerk, "/desk/journal/new", form)
	if a.status != http.StatusSeeOther {
		w.t.Fatalf("%d\n%s", a.status, a.body)
	}
	return w.paper(form.Get("draft"))
}

func (w *world) paper(draftID string) manual.Paper {
	w.t.Helper()
	p, err := w.manual.Get(w.t.Context(), w.db, draftID)
	must(w.t, err)
	return p
}

func (w *world) submitted(change func(url.Values)) manual.Paper {
	w.t.Helper()
	p := w.create(entry(change))
	if a := w.post(clerk, at(p, "submit"), version(p)); a.status != http.StatusSeeOther {
		w.t.Fatalf("submit: %d\n%s", a.status, readable(a.body))
	}
	return w.paper(p.ID)
}

func at(p manual.Paper, deed string) string { return "/desk/journal/" + p.ID + "/" + deed }

func version(p manual.Paper) url.Values { return url.Values{"version": {fmt.Sprint(p.Version)}} }

func decision(p manual.Paper, decision, why string) url.Values {
	v := version(p)
	v.Set("decision", decision)
	v.Set("why", why)
	return v
}

var fillers = regexp.MustCompile(`(<[^>]*>|\s)+`)

func readable(page string) string {
	return strings.ReplaceAll(html.UnescapeString(fillers.ReplaceAllString(page, " ")), "\u00a0", " ")
}

func (w *world) says(a answer, status int, want ...string) {
	w.t.Helper()
	text := readable(a.body)
	if a.status != status {
		w.t.Errorf("status %d, want %d: %.600s", a.status, status, text)
	}
	for _, s := range want {
		if !strings.Contains(text, s) {
			w.t.Errorf("does not say %q: %s", s, text)
		}
	}
}

func TestFromDraftToTheBooks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	form := entry(nil)
	p := w.create(form)
	w.create(form) // the button was pressed twice
	if p.Content.Lines[0].Debit != 120050 || p.Content.Lines[1].Credit != 120050 || p.Content.Lines[1].Account != "liabilities:accrued" || p.Content.Lines[0].Dimensions.CostCentre != "4100" {
		t.Fatalf("%+v", p.Content)
	}
	w.says(w.get(clerk, "/desk/journal"), 200, "Rent, May", "Draft", "Mine (1)")
	w.says(w.get(clerk, "/desk/journal/"+p.ID), 200, "Balanced: $1,200.50", "Rent of offices", "Submit for approval")
	for range 2 { // and again
		if a := w.post(clerk, at(p, "submit"), version(p)); a.status != http.StatusSeeOther {
			t.Fatalf("submit: %d", a.status)
		}
	}
	w.says(w.get(approver, "/desk/journal?list=submitted"), 200, "Rent, May", "Demo clerk", "Waiting for approval (1)")
	w.says(w.get(approver, at(p, "decide")), 200, "Approve and post", "Before", "$1,200.50", "Billed in June")
	for range 2 { // a double click: the second answer is as good as the first
		if a := w.post(approver, at(p, "decide"), decision(p, "approve", "")); a.status != http.StatusSeeOther {
			t.Fatalf("approve: %d %s", a.status, readable(a.body))
		}
	}
	p = w.paper(p.ID)
	w.says(w.get(clerk, "/desk/journal/"+p.ID), 200, "Approved by Demo approver and posted", "Entry in the books")
	if sum, err := w.books.Balance(t.Context(), w.db, "expenses:rent"); err != nil || sum != 120050 {
		t.Errorf("the account holds %s, %v", sum, err)
	}
	// The other checker still has the page open.
	w.says(w.post(second, at(p, "decide"), decision(p, "approve", "")), http.StatusConflict, "Nothing was done: the entry is posted already (Demo approver).")
	w.says(w.post(second, at(p, "decide"), decision(p, "refuse", "no")), http.StatusConflict, "posted already")
	// And the maker goes back in the browser to the form of before.
	w.says(w.post(clerk, at(p, "edit"), entry(func(v url.Values) { v.Set("version", "1") })), http.StatusConflict, "posted already")
}

func TestTwoCheckersAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.submitted(nil)
	w.as(approver)
	w.as(second)
	answers := make([]answer, 2)
	var wg sync.WaitGroup
	for i, who := range []string{approver, second} {
		wg.Go(func() { answers[i] = w.post(who, at(p, "decide"), decision(p, "approve", "")) })
	}
	wg.Wait()
	if codes := []int{answers[0].status, answers[1].status}; !slices.Contains(codes, http.StatusSeeOther) || !slices.Contains(codes, http.StatusConflict) {
		t.Errorf("answered %d", codes)
	}
	var entries int
	must(t, w.db.QueryRow(t.Context(), `select count(*) from ledger.journal_entry`).Scan(&entries))
	if entries != 1 {
		t.Errorf("%d entries", entries)
	}
}

func TestWhoWroteItDoesNotDecide(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	form := entry(nil)
	if a := w.post(approver, "/desk/journal/new", form); a.status != http.StatusSeeOther {
		t.Fatalf("%d", a.status)
	}
	p := w.paper(form.Get("draft"))
	if a := w.post(approver, at(p, "submit"), version(p)); a.status != http.StatusSeeOther {
		t.Fatalf("%d", a.status)
	}
	if page := w.page(approver, at(p, "decide")); strings.Contains(page, `name="decision"`) {
		t.Error("the maker is offered to decide")
	}
	w.says(w.post(approver, at(p, "decide"), decision(p, "approve", "")), http.StatusForbidden, "Who wrote the entry cannot decide about it.")
	w.says(w.post(clerk, at(p, "withdraw"), version(p)), http.StatusForbidden, "Only who wrote the entry may do this.")
}

func TestRefusedChangedAndSubmittedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.submitted(nil)
	w.says(w.post(approver, at(p, "decide"), decision(p, "refuse", " ")), http.StatusUnprocessableEntity, "Write why it is refused.")
	w.says(w.post(approver, at(p, "decide"), decision(p, "", "")), http.StatusUnprocessableEntity, "Approve or refuse.")
	if a := w.post(approver, at(p, "decide"), decision(p, "refuse", "Wrong cost centre")); a.status != http.StatusSeeOther {
		t.Fatalf("%d", a.status)
	}
	w.says(w.get(clerk, "/desk/journal/"+p.ID), 200, "Refused", "Wrong cost centre", "Demo approver")
	w.says(w.get(clerk, at(p, "edit")), 200, "Save draft")
	edited := entry(func(v url.Values) { v.Set("version", "1"); v.Set("cost_centre-1", "4200") })
	if a := w.post(clerk, at(p, "edit"), edited); a.status != http.StatusSeeOther {
		t.Fatalf("%d %s", a.status, readable(a.body))
	}
	w.says(w.post(clerk, at(p, "edit"), edited), http.StatusConflict, "The entry was changed meanwhile")
	old := p
	p = w.paper(p.ID)
	if a := w.post(clerk, at(p, "submit"), version(p)); a.status != http.StatusSeeOther {
		t.Fatalf("%d", a.status)
	}
	w.says(w.post(approver, at(p, "decide"), decision(old, "approve", "")), http.StatusConflict, "The entry was changed meanwhile")
	if a := w.post(clerk, at(p, "back"), version(p)); a.status != http.StatusSeeOther {
		t.Fatalf("%d", a.status)
	}
	w.says(w.post(approver, at(p, "decide"), decision(p, "approve", "")), http.StatusConflict, "a draft again (Demo clerk)")
	if a := w.post(clerk, at(p, "withdraw"), version(p)); a.status != http.StatusSeeOther {
		t.Fatalf("%d", a.status)
	}
	w.says(w.get(clerk, "/desk/journal?list=withdrawn"), 200, "Rent, May", "Given up")
}

func TestTheFormSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, tt := range map[string]struct {
		change func(url.Values)
		want   string
	}{
		"no such account":      {func(v url.Values) { v.Set("account-1", "holidays") }, "Line 1: no account fits."},
		"two accounts fit":     {func(v url.Values) { v.Set("account-1", "rent") }, "Line 1: 2 accounts fit. Which one: expenses:rent, expenses:rentals?"},
		"an amount of letters": {func(v url.Values) { v.Set("debit-1", "12x") }, "Line 1: write an amount such as 1,234.50."},
		"a negative amount":    {func(v url.Values) { v.Set("debit-1", "-12.00") }, "Line 1: write an amount"},
		"no date":              {func(v url.Values) { v.Set("effective_on", "31 May") }, "Write a date such as"},
		"another reason":       {func(v url.Values) { v.Set("reason", "revenge") }, "choose the kind of entry"},
		"a novel":              {func(v url.Values) { v.Set("explanation", strings.Repeat("a", 2001)) }, "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			form := entry(tt.change)
			a := w.post(clerk, "/desk/journal/new", form)
			w.says(a, http.StatusUnprocessableEntity, tt.want)
			if !strings.Contains(a.body, `value="1 200,50 $"`) {
				t.Error("what was typed is lost")
			}
		})
	}
	p := w.create(entry(func(v url.Values) { v.Del("credit-2"); v.Del("account-2"); v.Set("description", "") }))
	w.says(w.get(clerk, "/desk/journal/"+p.ID), 200, "Out of balance: $1,200.50 too much on the debit side", "at least two lines are needed", "write the description")
	w.says(w.post(clerk, at(p, "submit"), version(p)), http.StatusUnprocessableEntity, "Something is missing")
	if got := w.post(clerk, "/desk/journal/new", url.Values{"draft": {"x"}}); got.status != http.StatusBadRequest {
		t.Errorf("a draft without an id: %d", got.status)
	}
}

func TestLinesByCSV(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.create(entry(nil))
	csv := func(text string) url.Values { v := version(w.paper(p.ID)); v.Set("csv", text); return v }
	w.says(w.post(clerk, at(p, "lines"), csv("account,debit\nexpenses:rent,x\n,5\n")), http.StatusUnprocessableEntity, "Row 2: write an amount", "Row 3 has no account")
	for text, want := range map[string]string{
		"": "The first row must name the columns", "account,colour\n": "There is no column colour.", "account,debit\nexpenses:rent\n": "Row 2 is not CSV",
		"account,debit\n" + strings.Repeat("expenses:rent,1\n", 1001): "at most 1,000 lines",
	} {
		w.says(w.post(clerk, at(p, "lines"), csv(text)), http.StatusUnprocessableEntity, want)
	}
	var b strings.Builder
	b.WriteString("account,debit,credit,cost_centre\n")
	for range 40 {
		b.WriteString("expenses:rent,10.00,,4100\n")
	}
	b.WriteString("liabilities:accrued,,400.00,\n")
	if a := w.post(clerk, at(p, "lines"), csv(b.String())); a.status != http.StatusSeeOther {
		t.Fatalf("%d %s", a.status, readable(a.body))
	}
	w.says(w.get(clerk, at(p, "edit")), 200, "The draft has 41 lines.")
	again := entry(func(v url.Values) {
		v.Set("version", "2")
		v.Set("long", "41")
		v.Set("description", "Rent, all offices")
	})
	if a := w.post(clerk, at(p, "edit"), again); a.status != http.StatusSeeOther {
		t.Fatalf("%d %s", a.status, readable(a.body))
	}
	if got := w.paper(p.ID); len(got.Content.Lines) != 41 || got.Content.Out() != 0 || got.Content.Description != "Rent, all offices" {
		t.Errorf("%d lines, out by %s, %q", len(got.Content.Lines), got.Content.Out(), got.Content.Description)
	}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.create(entry(nil))
	w.says(w.upload(clerk, p.ID, "1", "x.html", []byte("<script>alert(1)</script>")), http.StatusUnprocessableEntity, "Choose a PDF, PNG")
	w.says(w.upload(clerk, p.ID, "1", "x.pdf", nil), http.StatusUnprocessableEntity, "up to 10 MB")
	w.says(w.upload(clerk, p.ID, "1", "x.pdf", append([]byte("%PDF-"), make([]byte, 10<<20)...)), http.StatusUnprocessableEntity, "up to 10 MB")
	w.says(w.upload(clerk, p.ID, "9", "x.pdf", []byte("%PDF-1.7")), http.StatusConflict, "changed meanwhile")
	w.says(w.post(clerk, at(p, "files"), version(p)), http.StatusUnprocessableEntity, "Choose a file")
	if a := w.upload(clerk, p.ID, "1", "bail été.pdf", []byte("%PDF-1.7 lease")); a.status != http.StatusSeeOther {
		t.Fatalf("%d", a.status)
	}
	p = w.paper(p.ID)
	f := p.Content.Files[0]
	a := w.get(auditor, at(p, "files/"+f.ID))
	if a.status != 200 || a.body != "%PDF-1.7 lease" || a.header.Get("Content-Type") != "application/pdf" || !strings.HasPrefix(a.header.Get("Content-Disposition"), "attachment;") {
		t.Errorf("%d %v %q", a.status, a.header, a.body)
	}
	if a := w.get(auditor, at(w.create(entry(nil)), "files/"+f.ID)); a.status != http.StatusNotFound {
		t.Errorf("from another draft: %d", a.status)
	}
	remove := version(p)
	remove.Set("file", f.ID)
	if a := w.post(clerk, at(p, "detach"), remove); a.status != http.StatusSeeOther || len(w.paper(p.ID).Content.Files) != 0 {
		t.Errorf("detach: %d", a.status)
	}
}

func TestWarningsOfAReview(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, to := range []ledger.PeriodState{ledger.PeriodClosing, ledger.PeriodClosed} {
		w.in(func(tx pgx.Tx) error {
			return w.books.SetPeriod(t.Context(), tx, clock.Date{Year: 2026, Month: 4, Day: 1}, to)
		})
	}
	p := w.create(entry(func(v url.Values) {
		v.Set("effective_on", "2026-04-15")
		v.Set("undo_on", "2026-06-30")
		v.Set("account-1", "assets:receivable:water")
	}))
	w.says(w.get(clerk, "/desk/journal/"+p.ID), 200, "takes no more entries. It will be booked on May 1, 2026", "kept equal to bills", "has not ticked", "takes it back on June 30, 2026")
	w.says(w.post(clerk, at(p, "submit"), version(p)), http.StatusUnprocessableEntity, "Tick that the accounts")
	ticked := entry(func(v url.Values) {
		v.Set("version", "1")
		v.Set("effective_on", "2026-04-15")
		v.Set("undo_on", "2026-06-30")
		v.Set("account-1", "assets:receivable:water")
		v.Set("tick", "yes")
	})
	if a := w.post(clerk, at(p, "edit"), ticked); a.status != http.StatusSeeOther {
		t.Fatalf("%d", a.status)
	}
	p = w.paper(p.ID)
	if a := w.post(clerk, at(p, "submit"), version(p)); a.status != http.StatusSeeOther {
		t.Fatalf("%d %s", a.status, readable(a.body))
	}
	w.says(w.post(approver, at(p, "decide"), decision(p, "approve", "")), http.StatusUnprocessableEntity, "Tick that the accounts")
	yes := decision(p, "approve", "asked billing")
	yes.Set("tick", "yes")
	if a := w.post(approver, at(p, "decide"), yes); a.status != http.StatusSeeOther {
		t.Fatalf("%d %s", a.status, readable(a.body))
	}
	low := w.create(entry(func(v url.Values) { v.Set("account-2", "assets:float") }))
	w.says(w.get(clerk, "/desk/journal/"+low.ID), 200, "assets:float would have -$1,200.50, and must have at least $0.00.")
}

func TestReverseAndCorrectFromAnEntry(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.submitted(nil)
	if a := w.post(approver, at(p, "decide"), decision(p, "approve", "")); a.status != http.StatusSeeOther {
		t.Fatalf("%d", a.status)
	}
	posted := w.paper(p.ID).Entry
	w.says(w.get(clerk, "/desk/journal/new?reverse="+posted), 200, "Reverse an entry", posted)
	page := w.page(clerk, "/desk/journal/new?reverse="+posted)
	if !strings.Contains(page, `name="credit-1" value="1200.50"`) || !strings.Contains(page, `name="cost_centre-1" value="4100"`) {
		t.Error("the lines are not the opposite ones")
	}
	part := entry(func(v url.Values) {
		v.Set("mode", "reversal")
		v.Set("of", posted)
		v.Set("reason", "correction")
		for name, value := range map[string]string{"debit-1": "", "credit-1": "200.50", "debit-2": "200.50", "credit-2": ""} {
			v.Set(name, value)
		}
	})
	r := w.create(part)
	if a := w.post(clerk, at(r, "submit"), version(r)); a.status != http.StatusSeeOther {
		t.Fatalf("%d %s", a.status, readable(a.body))
	}
	if a := w.post(approver, at(r, "decide"), decision(r, "approve", "")); a.status != http.StatusSeeOther {
		t.Fatalf("%d %s", a.status, readable(a.body))
	}
	e, err := w.books.Entry(t.Context(), w.db, w.paper(r.ID).Entry)
	if err != nil || e.Reverses != posted {
		t.Errorf("%+v, %v", e, err)
	}
	w.says(w.get(clerk, "/desk/journal/new?correct="+posted), 200, "Correct an entry")
	if a := w.get(clerk, "/desk/journal/new?reverse="+id.New()); a.status != http.StatusNotFound {
		t.Errorf("an entry that is not there: %d", a.status)
	}
}

// Every page in both languages, complete and without traces of missing values.
func TestPagesInBothLanguages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	draft := w.create(entry(func(v url.Values) { v.Set("debit-1", "5") }))
	waiting := w.submitted(func(v url.Values) { v.Set("undo_on", "2026-06-30") })
	for _, lang := range web.Languages {
		for _, p := range []struct{ who, path, en, fr string }{
			{clerk, "/desk/journal", "Mine (1)", "Les miennes (1)"},
			{clerk, "/desk/journal?list=posted", "No entry was posted by hand yet.", "Aucune écriture n’a encore été comptabilisée"},
			{auditor, "/desk/journal", "Waiting for approval (1)", "En attente d’approbation (1)"},
			{clerk, "/desk/journal/new", "Journal entry", "Écriture de journal"},
			{clerk, at(draft, "edit"), "Out of balance: $1,195.50 too much on the credit side", "Déséquilibrée : 1 195,50 $ de trop au crédit"},
			{clerk, "/desk/journal/" + draft.ID, "debits and credits must be equal", "les débits et les crédits doivent être égaux"},
			{clerk, "/desk/journal/" + waiting.ID, "Take back to change it", "Reprendre pour la modifier"},
			{approver, "/desk/journal/" + waiting.ID, "Review and decide", "Examiner et décider"},
			{approver, at(waiting, "decide"), "Approve and post", "Approuver et comptabiliser"},
			{auditor, "/desk/journal/" + waiting.ID, "What it does to the accounts", "Ce qu’elle fait aux comptes"},
		} {
			sep := "?"
			if strings.Contains(p.path, "?") {
				sep = "&"
			}
			a := w.get(p.who, p.path+sep+"lang="+lang)
			w.says(a, 200, map[string]string{"en": p.en, "fr": p.fr}[lang])
			for _, fault := range webtest.Faults(a.body) {
				t.Errorf("%s, %s: %s", p.path, lang, fault)
			}
		}
	}
	for _, deed := range []string{"submit", "lines", "back"} { // the language switch after a form that was wrong
		if a := w.get(clerk, at(draft, deed)+"?lang=fr"); a.header.Get("Location") != "/desk/journal/"+draft.ID+"?lang=fr" {
			t.Errorf("%s leads to %q", deed, a.header.Get("Location"))
		}
	}
}
