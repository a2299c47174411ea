package desk_test

import (
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"guichet/identity/staff"
	"guichet/internal/id"
	"guichet/internal/money"
	"guichet/reconcile"
)

// exceptionNow reads an exception as it is.
func (w *world) exceptionNow(exceptionID string) (reconcile.Exception, []reconcile.Note) {
	w.t.Helper()
	e, notes, err := reconcile.ExceptionByID(w.t.Context(), w.DB, exceptionID)
	must(w.t, err)
	return e, notes
}

func TestWhatPeopleDoAboutExceptions(t *testing.T) {
	t.Parallel()
	s := tell(t)
	inSuspense, rejected := s.openException(reconcile.Unexplained), s.openException(reconcile.Rejected)
	at := func(e reconcile.Exception, deed string) string { return "/desk/exceptions/" + e.ID + "/" + deed }
	clerk := s.member(staff.FinanceClerk)

	t.Run("a note is kept under the writer's name", func(t *testing.T) {
		a := s.do(http.MethodPost, staff.FinanceApprover, at(rejected, "note"), url.Values{"note": {"  Asked SAP’s team.\nWaiting. "}})
		_, notes := s.exceptionNow(rejected.ID)
		last := notes[len(notes)-1]
		if a.status != http.StatusSeeOther || last.Kind != "note" || last.Text != "Asked SAP’s team.\nWaiting." || last.Actor != s.member(staff.FinanceApprover).ID {
			t.Errorf("%d, note %+v", a.status, last)
		}
		if page := s.page(staff.FinanceClerk, "/desk/exceptions/"+rejected.ID); !strings.Contains(page, s.member(staff.FinanceApprover).Name) {
			t.Error("the page does not name who wrote")
		}
	})
	t.Run("an empty note is refused", func(t *testing.T) {
		a := s.do(http.MethodPost, staff.FinanceClerk, at(rejected, "note"), url.Values{"note": {" \n"}})
		if a.status != http.StatusUnprocessableEntity || !strings.Contains(a.body, "Write a few words") {
			t.Errorf("%d", a.status)
		}
	})
	t.Run("a note that is too long is refused and not lost", func(t *testing.T) {
		long := strings.Repeat("é", 2001)
		a := s.do(http.MethodPost, staff.FinanceClerk, at(rejected, "note"), url.Values{"note": {long}})
		if a.status != http.StatusUnprocessableEntity || !strings.Contains(a.body, long) {
			t.Errorf("%d", a.status)
		}
	})
	t.Run("assigning gives it to whoever asks", func(t *testing.T) {
		a := s.do(http.MethodPost, staff.FinanceClerk, at(inSuspense, "assign"), url.Values{"owner": {"somebody else"}})
		if e, _ := s.exceptionNow(inSuspense.ID); a.status != http.StatusSeeOther || e.Owner != clerk.ID {
			t.Errorf("%d, owner %s", a.status, e.Owner)
		}
		page := s.page(staff.FinanceClerk, "/desk/exceptions?owner=me")
		if !strings.Contains(page, inSuspense.ID) || strings.Contains(page, rejected.ID) {
			t.Error("the list of mine is not mine")
		}
	})
	t.Run("what is in suspense cannot just be closed", func(t *testing.T) {
		a := s.do(http.MethodPost, staff.FinanceClerk, at(inSuspense, "resolve"), url.Values{"reason": {"nothing to see"}})
		if e, _ := s.exceptionNow(inSuspense.ID); a.status != http.StatusConflict || !e.ClosedAt.IsZero() {
			t.Errorf("%d, closed %v", a.status, e.ClosedAt)
		}
	})
	t.Run("suspense goes to no account of the nightly run", func(t *testing.T) {
		for _, account := range []string{
			"", "assets:bank:main", "assets:processor-clearing", "liabilities:suspense:unexplained", "liabilities:billed-not-collected:water",
			"liabilities:credit:payer", "revenue:none", "'; drop table reconcile.exception",
		} {
			a := s.do(http.MethodPost, staff.FinanceClerk, at(inSuspense, "transfer"), url.Values{"why": {"because"}, "account": {account}})
			if a.status != http.StatusUnprocessableEntity {
				t.Errorf("to %q: %d", account, a.status)
			}
		}
		s.wantBalance("liabilities:suspense:unexplained", -stray)
	})
	t.Run("everything that is missing is told at once", func(t *testing.T) {
		a := s.do(http.MethodPost, staff.FinanceClerk, at(inSuspense, "transfer"), url.Values{})
		if a.status != http.StatusUnprocessableEntity || !strings.Contains(a.body, "Write a few words") || !strings.Contains(a.body, "Choose an account that takes") {
			t.Errorf("%d", a.status)
		}
	})
	t.Run("what is not in suspense is not transferred", func(t *testing.T) {
		a := s.do(http.MethodPost, staff.FinanceClerk, at(rejected, "transfer"), url.Values{"why": {"because"}, "account": {"revenue:parking:fines"}})
		if a.status != http.StatusUnprocessableEntity {
			t.Errorf("%d", a.status)
		}
	})
	t.Run("a transfer moves the money once and closes it", func(t *testing.T) {
		before, err := s.Books.Balance(t.Context(), s.DB, "revenue:parking:fines")
		must(t, err)
		form := url.Values{"why": {"Terminal 14"}, "account": {"revenue:parking:fines"}}
		first, second := s.do(http.MethodPost, staff.FinanceClerk, at(inSuspense, "transfer"), form), s.do(http.MethodPost, staff.FinanceClerk, at(inSuspense, "transfer"), form)
		if first.status != http.StatusSeeOther || second.status != http.StatusConflict {
			t.Errorf("%d, then %d", first.status, second.status)
		}
		s.wantBalance("liabilities:suspense:unexplained", 0)
		s.wantBalance("revenue:parking:fines", before-stray)
		if e, _ := s.exceptionNow(inSuspense.ID); !strings.Contains(e.Resolution, "Terminal 14") {
			t.Errorf("resolution %q", e.Resolution)
		}
	})
	t.Run("closing with a reason", func(t *testing.T) {
		a := s.do(http.MethodPost, staff.FinanceClerk, at(rejected, "resolve"), url.Values{"reason": {"Unlocked in SAP, reprocessed there"}})
		if e, _ := s.exceptionNow(rejected.ID); a.status != http.StatusSeeOther || e.Resolution != "Unlocked in SAP, reprocessed there" {
			t.Errorf("%d, resolution %q", a.status, e.Resolution)
		}
		if page := s.page(staff.FinanceClerk, "/desk/exceptions?state=closed"); !strings.Contains(page, rejected.ID) {
			t.Error("the list of closed ones does not have it")
		}
	})
	t.Run("each deed has an audit row of its doer", func(t *testing.T) {
		var deeds int
		must(t, s.DB.QueryRow(t.Context(), `
			select count(*) from ops.audit where object_type = 'exception' and actor = $1 and actor_kind = 'staff'
				and action in ('exception.assigned', 'exception.transferred', 'exception.resolved')`, clerk.ID).Scan(&deeds))
		if deeds != 3 {
			t.Errorf("%d rows, want 3", deeds)
		}
	})
	findings, err := reconcile.Verify(t.Context(), s.DB)
	must(t, err)
	for _, f := range findings {
		t.Errorf("verify: %s", f)
	}
}

func (w *world) wantBalance(path string, want money.Amount) {
	w.t.Helper()
	got, err := w.Books.Balance(w.t.Context(), w.DB, path)
	must(w.t, err)
	if got != want {
		w.t.Errorf("%s holds %s, want %s", path, got, want)
	}
}

func TestEveryLookIsWrittenDown(t *testing.T) {
	t.Parallel()
	s := tell(t)
	looks := func() (count int) {
		must(t, s.DB.QueryRow(t.Context(), `select count(*) from ops.audit where action = 'staff.viewed'`).Scan(&count))
		return count
	}
	find := func(role, number string) answer {
		return s.do(http.MethodPost, role, "/desk/lookup", url.Values{"number": {number}})
	}
	bill, payment := "/desk/lookup/bills/"+s.fine.ID, "/desk/lookup/payments/"+s.first.ID
	var receipt int64
	must(t, s.DB.QueryRow(t.Context(), `select number from payments.receipt where payment_id = $1`, s.first.ID).Scan(&receipt))

	t.Run("a number leads to its page, however it is typed", func(t *testing.T) {
		for number, want := range map[string]string{
			s.fine.Notice: bill, id.Group(s.fine.Notice): bill, strings.ToLower(" " + id.Group(s.fine.Notice)): bill,
			id.Group(s.first.Reference): payment, "#" + strconv.FormatInt(receipt, 10): payment, strconv.FormatInt(receipt, 10): payment,
		} {
			if got := find(staff.Agent311, number); got.status != http.StatusSeeOther || got.header.Get("Location") != want {
				t.Errorf("%q: %d to %q, want %q", number, got.status, got.header.Get("Location"), want)
			}
		}
		if looks() != 0 {
			t.Errorf("finding wrote %d looks: nothing was shown yet", looks())
		}
	})
	t.Run("what is not there is told apart from a slip of the tongue", func(t *testing.T) {
		wrong := []byte(s.fine.Notice)
		wrong[3] = map[bool]byte{true: 'A', false: 'B'}[wrong[3] != 'A']
		for number, want := range map[string]string{id.Code(9): "no bill, payment or receipt", string(wrong): "A character is wrong", "999999": "no bill, payment or receipt", "": "Enter a number"} {
			if got := find(staff.Agent311, number); got.status < 400 || got.status >= 500 || !strings.Contains(got.body, want) {
				t.Errorf("%q: %d", number, got.status)
			}
		}
	})
	t.Run("each page shown is a row, of the person concerned", func(t *testing.T) {
		s.page(staff.Agent311, bill)
		s.page(staff.FinanceClerk, payment)
		var rows int
		must(t, s.DB.QueryRow(t.Context(), `
			select count(*) from ops.audit where action = 'staff.viewed' and actor_kind = 'staff' and (
				object_type = 'bill' and object_id = $1 and subject = $2 and actor = $3 or object_type = 'payment' and object_id = $4 and actor = $5)`,
			s.fine.ID, s.residentID, s.member(staff.Agent311).ID, s.first.ID, s.member(staff.FinanceClerk).ID).Scan(&rows))
		if rows != 2 || looks() != 2 {
			t.Errorf("%d rows fit, of %d", rows, looks())
		}
	})
	t.Run("a role for one department sees its bills and no others", func(t *testing.T) {
		if a := s.do(http.MethodGet, "parking-agent", bill, nil); a.status != http.StatusOK || !strings.Contains(a.body, email) {
			t.Errorf("its own: %d", a.status)
		}
		var water string
		must(t, s.DB.QueryRow(t.Context(), `select b.notice_number from payments.bill b join department.department d on d.id = b.department_id where d.code = 'water' limit 1`).Scan(&water))
		if a := find("parking-agent", water); a.status != http.StatusNotFound {
			t.Errorf("another's by number: %d", a.status)
		}
		var waterID string
		must(t, s.DB.QueryRow(t.Context(), `select id from payments.bill where notice_number = $1`, water).Scan(&waterID))
		before := looks()
		if a := s.do(http.MethodGet, "parking-agent", "/desk/lookup/bills/"+waterID, nil); a.status != http.StatusForbidden || looks() != before {
			t.Errorf("another's by address: %d, %d looks more", a.status, looks()-before)
		}
		page := s.page("parking-agent", payment)
		if !strings.Contains(page, id.Group(s.fine.Notice)) || strings.Contains(page, id.Group(water)) || !strings.Contains(page, "2 more bills belong to departments") {
			t.Error("a payment over three departments does not show exactly the one")
		}
	})
	t.Run("whose data was destroyed is nobody", func(t *testing.T) {
		_, err := s.DB.Exec(t.Context(), `update identity.person_key set box = null, destroyed_at = $2 where id = $1`, s.residentID, s.Clock.Now())
		if err != nil {
			t.Skipf("identity keeps keys in another form: %v", err)
		}
		if page := s.page(staff.Agent311, bill); strings.Contains(page, email) || !strings.Contains(page, "data has been destroyed") {
			t.Error("the page does not say so")
		}
	})
}

// Every kind of exception that the nightly run can open has a name and a sentence of
// help in both languages, and is a choice of the filter.
func TestEveryKindHasWords(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("../../reconcile/exception.go")
	must(t, err)
	kinds := regexp.MustCompile(`(?m)Kind\s*=\s*"([a-z-]+)"`).FindAllStringSubmatch(string(source), -1)
	if len(kinds) < 10 {
		t.Fatalf("only %d kinds were found", len(kinds))
	}
	listed := map[string]bool{}
	for _, k := range reconcile.Kinds() {
		listed[string(k)] = true
	}
	for _, lang := range []string{"en", "fr"} {
		words, err := os.ReadFile("locale/" + lang + ".toml")
		must(t, err)
		for _, k := range kinds {
			key := strings.ReplaceAll(k[1], "-", "_")
			if !listed[k[1]] {
				t.Errorf("kind %s is not listed", k[1])
			}
			if n := len(regexp.MustCompile(`(?m)^`+key+` = "`).FindAllString(string(words), -1)); n < 2 {
				t.Errorf("kind %s has %d of its two texts in %s", k[1], n, lang)
			}
		}
	}
}
