package departments_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"guichet/api/departments"
	"guichet/department"
	"guichet/internal/approval"
	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/money"
	"guichet/ledger"
)

// walked is the key of the entry that the walk over all operations finds.
const walked = "walked-entry"

// payroll is a request for an entry, to be spoiled.
func payroll() object {
	return object{"reference": "PAY-24", "description": "Payroll, period 24", "effective_on": "2026-11-20", "lines": []any{
		object{"account": "expenses:payroll:overtime", "amount_cents": 1250, "dimensions": object{"cost_centre": "4300"}},
		object{"account": "liabilities:payroll", "amount_cents": -1250},
	}}
}

func with(o object, member string, value any) object {
	o = maps.Clone(o)
	o[member] = value
	return o
}

// send posts an entry of the parking department's finance system.
func (w *world) send(t testing.TB, key string, body any) answer {
	t.Helper()
	return w.call(t, request{method: "POST", path: "/journal-entries", department: "parking journal", key: key, body: body})
}

func (w *world) record(t testing.TB) departments.RecordedEntry {
	t.Helper()
	return as[departments.RecordedEntry](t, w.send(t, walked, payroll()), 201)
}

// foreignKeyOfEntry: the same key of two departments is two entries.
func (w *world) foreignKeyOfEntry(t *testing.T, r request) {
	r.key = id.New()
	first := as[departments.RecordedEntry](t, w.send(t, r.key, payroll()), 201)
	if list, ok := r.body.([]any); ok {
		r.body = []any{with(list[0].(object), "idempotency_key", r.key)}
	}
	if a := w.call(t, r); a.status > 299 || strings.Contains(a.body, first.ID) {
		t.Errorf("status %d, want an entry of their own: %s", a.status, a.body)
	}
}

func TestAnEntryIsRecordedOnce(t *testing.T) {
	w := newWorld(t)
	first := w.send(t, "k1", payroll())
	recorded := as[departments.RecordedEntry](t, first, 201)
	again := w.send(t, "k1", payroll())
	if again.status != 201 || again.body != first.body || again.header.Get("Idempotent-Replayed") != "true" || first.header.Get("Idempotent-Replayed") != "" {
		t.Errorf("again: status %d, %s, header %q; the first was %s", again.status, again.body, again.header.Get("Idempotent-Replayed"), first.body)
	}
	spoilt := payroll()
	spoilt["lines"] = []any{object{"account": "expenses:payroll", "amount_cents": 1}, object{"account": "liabilities:payroll", "amount_cents": -1}}
	other := w.send(t, "k1", spoilt)
	if p := other.problem(t); other.status != 409 || p.Code != "idempotency-conflict" || p.Entry != recorded.ID {
		t.Errorf("other content: %d %s", other.status, other.body)
	}
	got := as[departments.JournalEntry](t, w.call(t, request{method: "GET", path: "/journal-entries/" + recorded.ID, department: "parking journal"}), 200)
	if got.IdempotencyKey != "k1" || got.EffectiveOn != "2026-11-20" || got.Reference != "PAY-24" || got.Lines[0].Dimensions.CostCentre != "4300" || got.Lines[1].AmountCents != -1250 {
		t.Errorf("read: %+v", got)
	}
	found := as[departments.JournalEntry](t, w.call(t, request{method: "GET", path: "/journal-entries?idempotency_key=k1", department: "parking journal"}), 200)
	if found.ID != recorded.ID {
		t.Errorf("found by its key: %s, want %s", found.ID, recorded.ID)
	}
	if sum := w.Balance(t, "liabilities:payroll"); sum != -1250 {
		t.Errorf("the account holds %s", sum)
	}
	e, err := w.Books.Entry(t.Context(), w.DB, recorded.ID)
	must(t, err)
	if e.Kind != "journal" || e.SourceType != "journal-upload" || e.SourceID != "PAY-24" || !strings.HasPrefix(e.Actor, "api_key:") || e.Channel != "api" || e.Key != "upload/parking/k1" {
		t.Errorf("in the books: %+v", e)
	}
	var used int
	must(t, w.DB.QueryRow(t.Context(), `select count(*) from ops.audit where action = 'api_key.used' and actor = $1 and network <> ''`, e.Actor).Scan(&used))
	if used != 1 {
		t.Errorf("%d audit rows say that the key is used from this network, want one", used)
	}
}

func TestManyCallersShareCommitsAndEachHasItsAnswer(t *testing.T) {
	w := newWorld(t)
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			body := payroll()
			if i%10 == 0 {
				body["lines"] = []any{object{"account": "expenses:payroll:none", "amount_cents": 1}, object{"account": "liabilities:payroll", "amount_cents": -1}}
			}
			a := w.send(t, fmt.Sprint("k", i), body)
			if want := map[bool]int{true: 422, false: 201}[i%10 == 0]; a.status != want {
				t.Errorf("entry %d: status %d, want %d: %s", i, a.status, want, a.body)
			}
		})
	}
	wg.Wait()
	if sum := w.Balance(t, "liabilities:payroll"); sum != -36*1250 {
		t.Errorf("the account holds %s", sum)
	}
}

func TestTheBooksRefuseWithAReason(t *testing.T) {
	w := newWorld(t)
	lowest := money.Amount(0)
	w.Do(t, func(tx pgx.Tx) error {
		if err := w.Books.OpenAccount(t.Context(), tx, ledger.Account{Path: "liabilities:payroll:float", NameEN: "f", NameFR: "f", Lowest: &lowest}); err != nil {
			return err
		}
		if err := w.Books.OpenAccount(t.Context(), tx, ledger.Account{Path: "liabilities:payroll:frozen", NameEN: "f", NameFR: "f"}); err != nil {
			return err
		}
		if err := w.Books.OpenAccount(t.Context(), tx, ledger.Account{Path: "liabilities:payroll:usd", NameEN: "u", NameFR: "u", Currency: "USD"}); err != nil {
			return err
		}
		return w.Books.SetAccountState(t.Context(), tx, "liabilities:payroll:frozen", ledger.Frozen)
	})
	october := clock.Date{Year: 2025, Month: 10, Day: 31}
	for _, to := range []ledger.PeriodState{ledger.PeriodClosing, ledger.PeriodClosed} {
		w.Do(t, func(tx pgx.Tx) error { return w.Books.SetPeriod(t.Context(), tx, october, to) })
	}
	second := func(account string, cents int) func(object) {
		return func(o object) {
			o["lines"] = []any{object{"account": "expenses:payroll", "amount_cents": -cents}, object{"account": account, "amount_cents": cents}}
		}
	}
	tests := map[string]struct {
		spoil  func(object)
		status int
		code   departments.Code
		at     string
	}{
		"one cent off":                    {func(o object) { o["lines"].([]any)[0].(object)["amount_cents"] = 1251 }, 422, "unbalanced", "body.lines"},
		"an account nobody opened":        {second("liabilities:payroll:none", -5), 422, "unknown-account", "body.lines[1].account"},
		"an account of another list":      {second("expenses:payrolls", -5), 403, "account-not-allowed", "body.lines[1].account"},
		"an account above the list":       {second("liabilities:suspense:unexplained", -5), 403, "account-not-allowed", "body.lines[1].account"},
		"an account that is frozen":       {second("liabilities:payroll:frozen", -5), 409, "account-closed", "body.lines[1].account"},
		"an account of another currency":  {second("liabilities:payroll:usd", -5), 422, "invalid", "body.lines[1].account"},
		"an account below its limit":      {second("liabilities:payroll:float", 5), 409, "limit", "body.lines[1].account"},
		"a closed period":                 {func(o object) { o["effective_on"] = "2025-10-03" }, 409, "period-closed", "body.effective_on"},
		"a line of nothing":               {second("liabilities:payroll", 0), 422, "invalid", "body.lines[0].amount_cents"},
		"one line":                        {func(o object) { o["lines"] = o["lines"].([]any)[:1] }, 422, "invalid", "body.lines"},
		"a member that is unknown":        {func(o object) { o["kind"] = "adjustment" }, 422, "invalid", "body.kind"},
		"an unknown member of dimensions": {func(o object) { o["lines"].([]any)[0].(object)["dimensions"] = object{"colour": "red"} }, 422, "invalid", "body.lines[0].dimensions.colour"},
		"an amount with a fraction":       {func(o object) { o["lines"].([]any)[0].(object)["amount_cents"] = 12.5 }, 422, "invalid", "body.lines[0].amount_cents"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			body := payroll()
			tt.spoil(body)
			a := w.send(t, id.New(), body)
			if p := a.problem(t); a.status != tt.status || p.Code != tt.code || !slices.Contains(a.locations(t), tt.at) {
				t.Errorf("status %d: %s; want %d, %s at %s", a.status, a.body, tt.status, tt.code, tt.at)
			}
		})
	}
	t.Run("late, when asked", func(t *testing.T) {
		body := with(with(payroll(), "effective_on", "2025-10-03"), "or_next_open", true)
		first := w.send(t, "late", body)
		got := as[departments.RecordedEntry](t, first, 201)
		if got.EffectiveOn != "2025-11-01" || got.AskedOn != "2025-10-03" {
			t.Errorf("booked %s, asked %s", got.EffectiveOn, got.AskedOn)
		}
		if again := w.send(t, "late", body); again.body != first.body {
			t.Errorf("again: %s, first %s", again.body, first.body)
		}
	})
	if strings.Contains(w.log.String(), "level=ERROR") {
		t.Error("a caller's mistake is logged as an error of ours")
	}
}

// batch posts entries; body is a list or, as text, JSON Lines.
func (w *world) batch(t testing.TB, results string, body any) answer {
	t.Helper()
	r := request{method: "POST", path: "/journal-entries/batch?results=" + results, department: "parking journal", body: body}
	if _, ok := body.(string); ok {
		r.header = map[string][]string{"Content-Type": {"application/x-ndjson"}}
	}
	return w.call(t, r)
}

func TestABatchIsWholeOrEachForItself(t *testing.T) {
	w := newWorld(t)
	good, other := with(payroll(), "idempotency_key", "b1"), with(payroll(), "idempotency_key", "b2")
	bad := with(payroll(), "idempotency_key", "b3")
	bad["lines"] = []any{object{"account": "expenses:payroll:none", "amount_cents": 1}, object{"account": "liabilities:payroll", "amount_cents": -1}}
	foreign := with(bad, "idempotency_key", "b4")
	foreign["lines"] = []any{object{"account": "assets:bank:main", "amount_cents": 1}, object{"account": "liabilities:payroll", "amount_cents": -1}}

	a := w.batch(t, "all", []any{good, bad, other})
	if p := a.problem(t); a.status != 422 || p.Code != "unknown-account" || !slices.Equal(a.locations(t), []string{"body[1].lines[0].account"}) {
		t.Errorf("whole, one bad: %d %s", a.status, a.body)
	}
	if a := w.batch(t, "all", []any{good, foreign}); a.status != 403 || a.problem(t).Code != "account-not-allowed" {
		t.Errorf("whole, one foreign: %d %s", a.status, a.body)
	}
	if sum := w.Balance(t, "liabilities:payroll"); sum != 0 {
		t.Fatalf("a batch that is refused has booked %s", sum)
	}
	outcomes := func(a answer) (list []string) {
		for _, r := range as[departments.EntryResults](t, a, 200).Data {
			list = append(list, r.Outcome)
		}
		return list
	}
	if got := outcomes(w.batch(t, "each", []any{good, bad, foreign, other, good})); !slices.Equal(got, []string{"recorded", "refused", "refused", "recorded", "replayed"}) {
		t.Errorf("each for itself: %q", got)
	}
	if got := outcomes(w.batch(t, "all", []any{good, other})); !slices.Equal(got, []string{"replayed", "replayed"}) {
		t.Errorf("again: %q", got)
	}
	if a := w.send(t, "b1", payroll()); a.status != 201 || a.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("a key of a batch sent alone: %d %s", a.status, a.body)
	}
	if sum := w.Balance(t, "liabilities:payroll"); sum != -2500 {
		t.Errorf("the account holds %s", sum)
	}
}

func TestABatchOfLines(t *testing.T) {
	w := newWorld(t)
	var lines strings.Builder
	for i := range 1000 {
		text, err := json.Marshal(with(payroll(), "idempotency_key", fmt.Sprint("l", i)))
		must(t, err)
		fmt.Fprintf(&lines, "%s\r\n\n", text)
	}
	got := as[departments.EntryResults](t, w.batch(t, "all", lines.String()), 200)
	if len(got.Data) != 1000 || got.Data[999].Outcome != "recorded" || got.Data[999].Entry.EffectiveOn != "2026-11-20" {
		t.Fatalf("%d results", len(got.Data))
	}
	one, err := json.Marshal(with(payroll(), "idempotency_key", "more"))
	must(t, err)
	for name, body := range map[string]string{"1,001 entries": lines.String() + string(one), "none": "\n"} {
		if a := w.batch(t, "all", body); a.status != 422 {
			t.Errorf("%s: status %d: %.300s", name, a.status, a.body)
		}
	}
	half := string(one)
	for name, body := range map[string]string{
		"a value over two lines": half[:20] + "\n" + half[20:], "two values in a line": half + half, "a list in the middle": half + "],[" + half,
		"a member twice": strings.Replace(half, "{", `{"reference":"x",`, 1),
	} {
		if a := w.batch(t, "all", body); a.status != 400 {
			t.Errorf("%s: status %d: %.300s", name, a.status, a.body)
		}
	}
	if a := w.send(t, "x", half); a.status != 422 {
		t.Errorf("an idempotency_key in a single entry: %d", a.status)
	}
	if a := w.call(t, request{method: "POST", path: "/journal-entries", department: "parking journal", key: "x", body: half, header: map[string][]string{"Content-Type": {"application/x-ndjson"}}}); a.status != 415 {
		t.Errorf("a single entry as lines: %d", a.status)
	}
}

func TestAJournalKeyOpensNothingBeforeASecondPersonApproves(t *testing.T) {
	w := newWorld(t)
	var key, waits string
	w.Do(t, func(tx pgx.Tx) (err error) {
		key, waits, err = w.Depts.ProposeJournalKey(t.Context(), tx, department.JournalKey{
			DepartmentID: w.Depart["parking"].ID, Name: "feeder", Env: "test", Accounts: []string{"expenses:payroll", "liabilities:payroll"}, By: "first",
		})
		return err
	})
	w.keys["parking journal"] = key
	if a := w.send(t, "early", payroll()); a.status != 401 {
		t.Errorf("not approved: %d %s", a.status, a.body)
	}
	err := pgx.BeginFunc(t.Context(), w.DB, func(tx pgx.Tx) error {
		return w.Depts.DecideKey(t.Context(), tx, approval.Decision{ID: waits, By: "first", At: w.Clock.Now()}, approval.Approved)
	})
	if err == nil {
		t.Fatal("the one who asked may approve")
	}
	if a := w.send(t, "early", payroll()); a.status != 401 {
		t.Errorf("approved by the same: %d", a.status)
	}
	w.Do(t, func(tx pgx.Tx) error {
		return w.Depts.DecideKey(t.Context(), tx, approval.Decision{ID: waits, By: "second", At: w.Clock.Now()}, approval.Approved)
	})
	if a := w.send(t, "early", payroll()); a.status != 201 {
		t.Errorf("approved: %d %s", a.status, a.body)
	}
	var keyID string
	must(t, w.DB.QueryRow(t.Context(), `select id::text from department.api_key where hash = $1`, id.Hash(key)).Scan(&keyID))
	w.Do(t, func(tx pgx.Tx) error { return w.Depts.RevokeKey(t.Context(), tx, w.Depart["parking"].ID, keyID) })
	if a := w.send(t, "late", payroll()); a.status != 401 {
		t.Errorf("revoked: %d", a.status)
	}
}
