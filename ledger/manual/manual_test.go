package manual_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/internal/attachment"
	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/money"
	"guichet/internal/testdb"
	"guichet/ledger"
	"guichet/ledger/manual"
)

const (
	maker   = "maker-ann"
	checker = "checker-ben"
	third   = "checker-cid"

	rent    = "expenses:rent"
	payable = "liabilities:accrued"
	owed    = "assets:receivable:water"
	float   = "assets:float"
)

var may = clock.Date{Year: 2026, Month: time.May, Day: 31}

type house struct {
	*manual.Service
	t     *testing.T
	db    *pgxpool.Pool
	books *ledger.Books
}

func open(t *testing.T) *house {
	t.Helper()
	now := func() time.Time { return time.Date(2026, time.June, 2, 15, 0, 0, 0, time.UTC) }
	h := &house{t: t, db: testdb.New(t), books: ledger.New(now)}
	zero := money.Amount(0)
	h.do(func(ctx context.Context, tx pgx.Tx) error {
		for _, a := range []ledger.Account{{Path: rent}, {Path: payable}, {Path: owed}, {Path: float, Lowest: &zero}} {
			a.NameEN, a.NameFR = a.Path, a.Path
			if err := h.books.OpenAccount(ctx, tx, a); err != nil {
				return err
			}
		}
		return nil
	})
	h.Service = manual.New(manual.Options{DB: h.db, Books: h.books, Now: now, Owned: []string{"assets:receivable"}})
	return h
}

func (h *house) do(f func(context.Context, pgx.Tx) error) {
	h.t.Helper()
	h.must(pgx.BeginFunc(h.t.Context(), h.db, func(tx pgx.Tx) error { return f(h.t.Context(), tx) }))
}

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// accrual is a finished draft.
func accrual(amount money.Amount) manual.Content {
	return manual.Content{
		EffectiveOn: may, Reason: "accrual", Explanation: "Rent of May is billed in June", Description: "Rent, May", Lines: []manual.Line{
			{Account: rent, Debit: amount, Dimensions: ledger.Dimensions{CostCentre: "4100"}}, {Account: payable, Credit: amount},
		},
	}
}

func (h *house) draft(c manual.Content) string {
	h.t.Helper()
	draftID := id.New()
	h.must(h.Create(h.t.Context(), draftID, maker, c))
	return draftID
}

func (h *house) submitted(c manual.Content) string {
	h.t.Helper()
	draftID := h.draft(c)
	h.must(h.Submit(h.t.Context(), draftID, maker, 1))
	return draftID
}

func (h *house) get(draftID string) manual.Paper {
	h.t.Helper()
	p, err := h.Get(h.t.Context(), h.db, draftID)
	h.must(err)
	return p
}

func (h *house) wantBalance(path string, want money.Amount) {
	h.t.Helper()
	if got, err := h.books.Balance(h.t.Context(), h.db, path); err != nil || got != want {
		h.t.Errorf("%s holds %s, %v; want %s", path, got, err, want)
	}
}

func by(who, draftID string, version int) manual.Decision {
	return manual.Decision{Draft: draftID, By: who, Version: version, Reason: "looked at the contract"}
}

func TestAnEntryIsPostedByTwo(t *testing.T) {
	t.Parallel()
	h, ctx := open(t), t.Context()
	draftID := h.submitted(accrual(1200))
	if _, err := h.Approve(ctx, by(maker, draftID, 1)); !errors.Is(err, manual.ErrSame) {
		t.Errorf("the maker approves: %v", err)
	}
	h.wantBalance(rent, 0)
	entryID, err := h.Approve(ctx, by(checker, draftID, 1))
	h.must(err)
	again, err := h.Approve(ctx, by(checker, draftID, 1))
	if err != nil || again != entryID {
		t.Errorf("pressed twice: %s, %v; want %s", again, err, entryID)
	}
	h.wantBalance(rent, 1200)
	e, err := h.books.Entry(ctx, h.db, entryID)
	h.must(err)
	if e.Key != "manual/"+draftID || e.Kind != "adjustment" || e.SourceType != "manual-entry" || e.SourceID != draftID || e.Metadata["checker"] != checker ||
		e.Metadata["maker"] != maker || e.Metadata["version"] != "1" || e.EffectiveOn != may {
		t.Errorf("in the books: %+v", e)
	}
	if p := h.get(draftID); p.State != manual.Posted || p.Entry != entryID || p.Decider != checker {
		t.Errorf("the draft: %+v", p)
	}
	var second *manual.StateError
	if _, err := h.Approve(ctx, by(third, draftID, 1)); !errors.As(err, &second) || second.State != manual.Posted || second.By != checker {
		t.Errorf("a third person: %v", err)
	}
	if err := h.Refuse(ctx, by(third, draftID, 1)); !errors.As(err, &second) {
		t.Errorf("refused after all: %v", err)
	}
	if err := h.Withdraw(ctx, draftID, maker, 1); !errors.As(err, &second) {
		t.Errorf("withdrawn after all: %v", err)
	}
	var audits []string
	h.must(h.db.QueryRow(ctx, `select array_agg(action order by seq) from ops.audit where object_type = 'manual_entry'`).Scan(&audits))
	if !slices.Equal(audits, []string{"manual_entry.draft", "manual_entry.submitted", "manual_entry.posted"}) {
		t.Errorf("audit: %q", audits)
	}
}

func TestTwoCheckersAtOnceAndOnePosts(t *testing.T) {
	t.Parallel()
	h := open(t)
	for range 5 {
		draftID := h.submitted(accrual(100))
		var wg sync.WaitGroup
		errs := make([]error, 2)
		for i, who := range []string{checker, third} {
			wg.Go(func() { _, errs[i] = h.Approve(t.Context(), by(who, draftID, 1)) })
		}
		wg.Wait()
		var second *manual.StateError
		if (errs[0] == nil) == (errs[1] == nil) || !errors.As(errors.Join(errs...), &second) {
			t.Errorf("%v and %v; want one StateError", errs[0], errs[1])
		}
	}
	h.wantBalance(rent, 500)
}

// Whatever a program gets wrong, the database posts nothing that one person alone has seen, no
// version that nobody approved, and takes no step that is not in the table.
func TestTheDatabaseWantsTwo(t *testing.T) {
	t.Parallel()
	h, ctx := open(t), t.Context()
	draftID := h.submitted(accrual(1200))
	p := h.get(draftID)
	entryID := ""
	h.do(func(ctx context.Context, tx pgx.Tx) (err error) {
		entryID, err = h.books.Append(ctx, tx, ledger.Entry{Key: "x", Kind: "adjustment", Lines: []ledger.Line{{Account: rent, Amount: 1}, {Account: payable, Amount: -1}}})
		return err
	})
	decide := `update ops.approval set decision = 'approved', decided_by = '` + maker + `', decided_at = requested_at where id = '` + p.Approval + `'; `
	post := `update ledger.manual_draft set state = 'posted', entry_id = '` + entryID + `' where id = '` + draftID + `'`
	for name, sql := range map[string]string{
		"the maker approves":           decide,
		"posted without a decision":    post,
		"another version is posted":    strings.ReplaceAll(decide, maker, checker) + `update ledger.manual_draft set state = 'draft', version = 2 where id = '` + draftID + `'; ` + post,
		"from submitted to version 2":  `update ledger.manual_draft set version = 2 where id = '` + draftID + `'`,
		"a version is rewritten":       `update ledger.manual_version set content = '{}'`,
		"a draft is deleted":           `delete from ledger.manual_draft`,
		"another maker":                `update ledger.manual_draft set maker = 'x'`,
		"a hash that is not content's": `insert into ledger.manual_version values ('` + draftID + `', 2, '{}', sha256(''), 'x', now())`,
	} {
		err := pgx.BeginFunc(ctx, h.db, func(tx pgx.Tx) error {
			for one := range strings.SplitSeq(sql, "; ") {
				if one == "" {
					continue
				}
				if _, err := tx.Exec(ctx, one); err != nil {
					return err
				}
			}
			return nil
		})
		if pg := new(pgconn.PgError); !errors.As(err, &pg) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWhatIsChangedIsSubmittedAgain(t *testing.T) {
	t.Parallel()
	h, ctx := open(t), t.Context()
	draftID := h.submitted(accrual(1200))
	var wrong *manual.StateError
	if err := h.Save(ctx, draftID, maker, 1, accrual(9900)); !errors.As(err, &wrong) {
		t.Errorf("changed while submitted: %v", err)
	}
	h.must(h.TakeBack(ctx, draftID, maker, 1))
	h.must(h.Save(ctx, draftID, maker, 1, accrual(9900)))
	if err := h.Save(ctx, draftID, maker, 1, accrual(1)); !errors.Is(err, manual.ErrStale) {
		t.Errorf("saved from an old page: %v", err)
	}
	if _, err := h.Approve(ctx, by(checker, draftID, 1)); !errors.As(err, &wrong) {
		t.Errorf("what was taken back is approved: %v", err)
	}
	if err := h.Submit(ctx, draftID, maker, 1); !errors.Is(err, manual.ErrStale) {
		t.Errorf("an old version is submitted: %v", err)
	}
	h.must(h.Submit(ctx, draftID, maker, 2))
	h.must(h.Submit(ctx, draftID, maker, 2))
	if _, err := h.Approve(ctx, by(checker, draftID, 1)); !errors.Is(err, manual.ErrStale) {
		t.Errorf("the version of before is approved: %v", err)
	}
	if err := h.Refuse(ctx, manual.Decision{Draft: draftID, By: checker, Version: 2, Reason: " "}); !errors.Is(err, manual.ErrReason) {
		t.Errorf("refused without a reason: %v", err)
	}
	h.must(h.Refuse(ctx, by(checker, draftID, 2)))
	h.must(h.Save(ctx, draftID, maker, 2, accrual(1200)))
	h.must(h.Submit(ctx, draftID, maker, 3))
	_, err := h.Approve(ctx, by(checker, draftID, 3))
	h.must(err)
	h.wantBalance(rent, 1200)
	history, err := h.History(ctx, h.db, draftID)
	h.must(err)
	var states []manual.State
	for _, e := range history {
		states = append(states, e.State)
	}
	if want := []manual.State{"draft", "submitted", "draft", "draft", "submitted", "refused", "draft", "submitted", "posted"}; !slices.Equal(states, want) {
		t.Errorf("history %q, want %q", states, want)
	}
}

func TestADraftIsItsMakers(t *testing.T) {
	t.Parallel()
	h, ctx := open(t), t.Context()
	draftID := h.draft(accrual(5))
	for name, err := range map[string]error{
		"save": h.Save(ctx, draftID, third, 1, accrual(6)), "submit": h.Submit(ctx, draftID, third, 1), "withdraw": h.Withdraw(ctx, draftID, third, 1),
		"create": h.Create(ctx, draftID, third, accrual(6)),
	} {
		if !errors.Is(err, manual.ErrMaker) {
			t.Errorf("%s: %v", name, err)
		}
	}
	h.must(h.Create(ctx, draftID, maker, accrual(7))) // the form was sent twice
	if p := h.get(draftID); p.Version != 1 || p.Content.Lines[0].Debit != 5 {
		t.Errorf("%+v", p)
	}
	h.must(h.Withdraw(ctx, draftID, maker, 1))
	h.must(h.Withdraw(ctx, draftID, maker, 1))
	if err := h.Save(ctx, draftID, maker, 1, accrual(6)); err == nil {
		t.Error("a withdrawn draft was changed")
	}
	if _, err := h.Get(ctx, h.db, id.New()); !errors.Is(err, manual.ErrNotFound) {
		t.Errorf("a draft that is not there: %v", err)
	}
}

func TestWhatIsMissingIsListed(t *testing.T) {
	t.Parallel()
	h, ctx := open(t), t.Context()
	draftID := h.draft(manual.Content{Lines: []manual.Line{{Account: rent, Debit: 5, Credit: 5}, {Debit: 7}, {Account: payable}}, UndoOn: may})
	var faults *manual.FaultsError
	if err := h.Submit(ctx, draftID, maker, 1); !errors.As(err, &faults) {
		t.Fatalf("%v", err)
	}
	want := []manual.Fault{
		{0, "no-date"}, {0, "no-reason"}, {0, "no-explanation"}, {0, "no-description"}, {0, "undo-late"}, {1, "both-sides"}, {2, "no-account"}, {3, "no-amount"}, {0, "unbalanced"},
	}
	if !slices.Equal(faults.Faults, want) {
		t.Errorf("%v, want %v", faults.Faults, want)
	}
	unknown := accrual(5)
	unknown.Lines[0].Account = "expenses:none"
	if err := h.Submit(ctx, h.draft(unknown), maker, 1); !errors.Is(err, ledger.ErrUnknownAccount) {
		t.Errorf("an unknown account: %v", err)
	}
	large := accrual(5)
	large.Explanation = strings.Repeat("é", manual.MaxText+1)
	if err := h.Create(ctx, id.New(), maker, large); !errors.Is(err, manual.ErrTooMuch) {
		t.Errorf("too long: %v", err)
	}
}

func TestAccountsOfOtherRoomsWantATickOfBoth(t *testing.T) {
	t.Parallel()
	h, ctx := open(t), t.Context()
	c := accrual(5)
	c.Lines[0].Account = owed
	draftID := h.draft(c)
	if err := h.Submit(ctx, draftID, maker, 1); !errors.Is(err, manual.ErrTick) {
		t.Errorf("the maker has not ticked: %v", err)
	}
	c.Tick = true
	h.must(h.Save(ctx, draftID, maker, 1, c))
	h.must(h.Submit(ctx, draftID, maker, 2))
	d := by(checker, draftID, 2)
	if _, err := h.Approve(ctx, d); !errors.Is(err, manual.ErrTick) {
		t.Errorf("the checker has not ticked: %v", err)
	}
	d.Tick = true
	_, err := h.Approve(ctx, d)
	h.must(err)
	if h.Owns("assets:receivables") || !h.Owns("assets:receivable:water") {
		t.Error("a name that begins alike is another account")
	}
}

func TestReviewSaysWhatWillHappenAndChangesNothing(t *testing.T) {
	t.Parallel()
	h, ctx := open(t), t.Context()
	for _, to := range []ledger.PeriodState{ledger.PeriodClosing, ledger.PeriodClosed} {
		h.do(func(ctx context.Context, tx pgx.Tx) error { return h.books.SetPeriod(ctx, tx, may, to) })
	}
	c := accrual(700)
	c.UndoOn = clock.Date{Year: 2026, Month: 6, Day: 30}
	draftID := h.submitted(c)
	for range 2 {
		r, err := h.Review(ctx, h.get(draftID))
		h.must(err)
		if !r.Late || r.BookedOn.String() != "2026-06-01" || r.UndoOn != c.UndoOn || r.Err != nil || len(r.Effects) != 2 {
			t.Errorf("%+v", r)
		}
	}
	if n := h.count(`select count(*) from ledger.journal_entry`); n != 0 {
		t.Errorf("a review left %d entries", n)
	}
	_, err := h.Approve(ctx, by(checker, draftID, 1))
	h.must(err)
	p := h.get(draftID)
	e, err := h.books.Entry(ctx, h.db, p.Undo)
	h.must(err)
	if e.Reverses != p.Entry || e.EffectiveOn != c.UndoOn {
		t.Errorf("the reversal: %+v", e)
	}
	h.wantBalance(rent, 0)

	low := accrual(5)
	low.Lines[1].Account = float
	broken := h.draft(low)
	r, err := h.Review(ctx, h.get(broken))
	h.must(err)
	if !errors.Is(r.Err, ledger.ErrLimit) || len(r.Effects) != 2 || r.Effects[1].After != 0 {
		t.Errorf("below the limit: %+v", r)
	}
	if err := h.Submit(ctx, broken, maker, 1); !errors.Is(err, ledger.ErrLimit) {
		t.Errorf("submitted: %v", err)
	}
}

func (h *house) count(sql string) (n int) {
	h.t.Helper()
	h.must(h.db.QueryRow(h.t.Context(), sql).Scan(&n))
	return n
}

// What the books refuse at the moment of approval leaves the draft where it is.
func TestARefusalOfTheBooksDecidesNothing(t *testing.T) {
	t.Parallel()
	h, ctx := open(t), t.Context()
	draftID := h.submitted(accrual(5))
	h.do(func(ctx context.Context, tx pgx.Tx) error {
		return h.books.SetAccountState(ctx, tx, rent, ledger.Frozen)
	})
	if _, err := h.Approve(ctx, by(checker, draftID, 1)); !errors.Is(err, ledger.ErrAccountClosed) || !manual.Refusal(err) {
		t.Errorf("%v", err)
	}
	if p := h.get(draftID); p.State != manual.Submitted || h.count(`select count(*) from ops.approval where decision is not null`) != 0 {
		t.Errorf("the draft: %+v", p)
	}
	h.do(func(ctx context.Context, tx pgx.Tx) error { return h.books.SetAccountState(ctx, tx, rent, ledger.Open) })
	_, err := h.Approve(ctx, by(checker, draftID, 1))
	h.must(err)
}

func TestReversalAndCorrection(t *testing.T) {
	t.Parallel()
	h, ctx := open(t), t.Context()
	first, err := h.Approve(ctx, by(checker, h.submitted(accrual(1000)), 1))
	h.must(err)
	part := manual.Content{
		EffectiveOn: may, Reason: "correction", Explanation: "Too much", Description: "Rent, May: 400 too much", Mode: manual.Reversal, Of: first,
		Lines: []manual.Line{{Account: rent, Credit: 400, Dimensions: ledger.Dimensions{CostCentre: "4100"}}, {Account: payable, Debit: 400}},
	}
	taken, err := h.Approve(ctx, by(checker, h.submitted(part), 1))
	h.must(err)
	if e, err := h.books.Entry(ctx, h.db, taken); err != nil || e.Reverses != first {
		t.Errorf("the reversal: %+v, %v", e, err)
	}
	h.wantBalance(rent, 600)
	part.Lines[0].Credit, part.Lines[1].Debit = 601, 601
	if err := h.Submit(ctx, h.draft(part), maker, 1); !errors.Is(err, ledger.ErrReversed) {
		t.Errorf("more than is left: %v", err)
	}
	second, err := h.Approve(ctx, by(checker, h.submitted(accrual(50)), 1))
	h.must(err)
	right := accrual(55)
	right.Mode, right.Of, right.Reason = manual.Correction, second, "correction"
	corrected, err := h.Approve(ctx, by(checker, h.submitted(right), 1))
	h.must(err)
	if e, err := h.books.Entry(ctx, h.db, corrected); err != nil || e.Corrects != second {
		t.Errorf("the correction: %+v, %v", e, err)
	}
	h.wantBalance(rent, 655)
}

// Files belong to a version: what is approved names them by hash, and nobody else's draft has them.
func TestFilesArePartOfAVersion(t *testing.T) {
	t.Parallel()
	h, ctx := open(t), t.Context()
	draftID := h.draft(accrual(5))
	if err := h.Attach(ctx, draftID, maker, 1, "page.html", []byte("<html>")); !errors.Is(err, attachment.ErrType) {
		t.Errorf("a page: %v", err)
	}
	h.must(h.Attach(ctx, draftID, maker, 1, "lease.pdf", []byte("%PDF-1.7 lease")))
	h.must(h.Save(ctx, draftID, maker, 2, accrual(6)))
	p := h.get(draftID)
	if len(p.Content.Files) != 1 || p.Content.Files[0].Name != "lease.pdf" || len(p.Content.Files[0].SHA256) != 64 {
		t.Fatalf("%+v", p.Content.Files)
	}
	if f, err := h.File(ctx, draftID, p.Content.Files[0].ID); err != nil || string(f.Bytes) != "%PDF-1.7 lease" {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err := h.File(ctx, h.draft(accrual(5)), p.Content.Files[0].ID); !errors.Is(err, attachment.ErrNotFound) {
		t.Errorf("from another draft: %v", err)
	}
	h.must(h.Detach(ctx, draftID, maker, 3, p.Content.Files[0].ID))
	if p := h.get(draftID); len(p.Content.Files) != 0 || p.Version != 4 {
		t.Errorf("%+v", p)
	}
	h.must(h.Submit(ctx, draftID, maker, 4))
	if err := h.Attach(ctx, draftID, maker, 4, "x.pdf", []byte("%PDF-1.7")); err == nil {
		t.Error("a file was added to what is submitted")
	}
}

func TestReadLines(t *testing.T) {
	t.Parallel()
	lines, faults := manual.ReadLines("\ufeffAccount,debit,credit,cost_centre\r\nexpenses:rent,12.50,,4100\nliabilities:accrued,,\"12.50\",\n")
	if len(faults) > 0 || len(lines) != 2 || lines[0].Debit != 1250 || lines[0].Dimensions.CostCentre != "4100" || lines[1].Credit != 1250 {
		t.Errorf("%+v, %+v", lines, faults)
	}
	for text, want := range map[string]manual.LineFault{
		"":                                {1, "no-header", ""},
		"debit,credit\n1,2\n":             {1, "no-header", "account"},
		"account,colour\nx,1\n":           {1, "unknown-column", "colour"},
		"account,debit\nexpenses:a,x\n":   {2, "bad-amount", "debit"},
		"account,debit\nexpenses:a,-1\n":  {2, "bad-amount", "debit"},
		"account,debit\nexpenses:a,\n":    {2, "bad-amount", "debit"},
		"account,debit\n\n,1\n":           {3, "no-account", "account"},
		"account,debit\nexpenses:a\n":     {2, "not-csv", ""},
		"account,debit,credit\na:b,1,1\n": {2, "bad-amount", "debit"},
		"account,debit\n" + strings.Repeat("expenses:a,1\n", manual.MaxLines+1): {0, "too-many", ""},
	} {
		if _, faults := manual.ReadLines(text); len(faults) == 0 || faults[0] != want {
			t.Errorf("%.40q: %+v, want %+v", text, faults, want)
		}
	}
}
