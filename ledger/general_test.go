package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/clock"
	"guichet/internal/money"
	"guichet/internal/testdb"
)

// months fills the books with n entries over the days before and after today, posts
// them, and leaves one waiting.
func months(t *testing.T, h house, n int) {
	t.Helper()
	for i := range n {
		e := move(key(i), money.Amount(100+i), clearing, fines)
		e.EffectiveOn = today.AddDays(i%60 - 50)
		e.Lines[1].Dimensions = Dimensions{Department: "parking", Fund: "100"}
		if i%3 == 0 {
			e.Lines[1].Account = receivable
		}
		h.mustPost(t, e)
	}
	h.drain(t)
	h.mustPost(t, move("waits", 77, clearing, receivable))
}

func TestTheGeneralLedgerAddsUp(t *testing.T) {
	t.Parallel()
	h := open(t)
	months(t, h, 130)
	from, to := today.AddDays(-30), today.AddDays(-1)
	ask := func(q GeneralQuery) General {
		t.Helper()
		q.From, q.To = from, to
		g, err := h.General(t.Context(), h.db, q)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	whole := ask(GeneralQuery{})
	if totals := whole.Totals(); !whole.Whole() || len(totals) != 1 || totals[0].Debits != totals[0].Credits || totals[0].Debits == 0 || totals[0].Closing != 0 {
		t.Errorf("totals %+v", totals)
	}
	if whole.Sealed != 130 || whole.Waiting != 1 {
		t.Errorf("%d sealed, %d waiting", whole.Sealed, whole.Waiting)
	}
	lines := 0
	for _, a := range whole.Accounts {
		balance, last := a.Opening, Place{}
		for l, err := range h.GeneralLines(t.Context(), h.db, whole, a) {
			if err != nil {
				t.Fatal(err)
			}
			lines++
			if balance += l.Amount; l.Balance != balance || l.EffectiveOn.Before(from) || l.EffectiveOn.After(to) {
				t.Errorf("%s: line %+v, balance %s", a.Account.Path, l, balance)
			}
			if l.EffectiveOn.Before(last.On) || l.EffectiveOn == last.On && l.Seq <= last.Seq {
				t.Errorf("%s: place %v after %v", a.Account.Path, l, last)
			}
			last = Place{l.EffectiveOn, l.Seq}
		}
		page, err := h.StatementBetween(t.Context(), h.db, StatementQuery{Path: a.Account.Path, From: from, To: to, Limit: 1000})
		if err != nil || page.Opening != a.Opening || page.Closing != a.Closing {
			t.Errorf("%s: the statement goes from %s to %s, the general ledger from %s to %s; %v", a.Account.Path, page.Opening, page.Closing, a.Opening, a.Closing, err)
		}
		if n := len(page.Lines); n > 0 && (page.Lines[0].EffectiveOn.Before(from) || page.Lines[n-1].Balance != page.Closing) {
			t.Errorf("%s: the statement begins with %+v and ends with %+v", a.Account.Path, page.Lines[0], page.Lines[n-1])
		}
		if want, err := h.BalanceAsOf(t.Context(), h.db, a.Account.Path, AsOf{On: to}); err != nil || balance != a.Closing || balance != want {
			t.Errorf("%s closes with %s, its lines give %s, its balance is %s", a.Account.Path, a.Closing, balance, want)
		}
	}
	if want := count(t, h.db, `select count(*)::int from ledger.posting where account_id > 0 and effective_on between $1 and $2`, from.Time(), to.Time()); lines != want || lines == 0 {
		t.Errorf("%d lines, want %d", lines, want)
	}
	for _, tt := range []struct {
		name string
		q    GeneralQuery
		want []string
	}{
		{"under a path", GeneralQuery{Under: "assets"}, []string{clearing, receivable}},
		{"a path is not a beginning of a word", GeneralQuery{Under: "assets:receiv"}, nil},
		{"of a department", GeneralQuery{Department: "parking"}, []string{receivable, fines}},
		{"one account, though empty", GeneralQuery{Account: credits}, []string{credits}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := ask(tt.q)
			var got []string
			for _, a := range g.Accounts {
				got = append(got, a.Account.Path)
			}
			if fmt.Sprint(got) != fmt.Sprint(tt.want) || g.Whole() {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if _, err := h.General(t.Context(), h.db, GeneralQuery{Account: "assets:none"}); !errors.Is(err, ErrUnknownAccount) {
		t.Errorf("no such account: %v", err)
	}
}

// A report that takes long says at its end what it said at its beginning, whatever is
// posted meanwhile, back-dated entries and a closed month included.
func TestTheGeneralLedgerStandsStill(t *testing.T) {
	t.Parallel()
	h := open(t)
	months(t, h, 20)
	first := today.AddDays(-50)
	g, err := h.General(t.Context(), h.db, GeneralQuery{From: first, To: today})
	if err != nil {
		t.Fatal(err)
	}
	late := move("late", 5000, clearing, receivable)
	late.EffectiveOn = first
	h.mustPost(t, late)
	h.drain(t)
	for _, state := range []PeriodState{PeriodClosing, PeriodClosed} {
		h.do(t, func(ctx context.Context, tx pgx.Tx) error { return h.SetPeriod(ctx, tx, first, state) })
	}
	for _, a := range g.Accounts {
		for l, err := range h.GeneralLines(t.Context(), h.db, g, a) {
			if err != nil || l.Amount == 5000 || l.Amount == 77 {
				t.Errorf("%s: line %+v, %v", a.Account.Path, l, err)
			}
		}
	}
	again := General{GeneralQuery: g.GeneralQuery}
	err = pgx.BeginTxFunc(t.Context(), h.db, snapshot, func(tx pgx.Tx) error { return h.general(t.Context(), tx, &again) })
	if err != nil || again.Sealed != g.Sealed+2 {
		t.Errorf("now %d sealed, %v; then %d", again.Sealed, err, g.Sealed)
	}
}

// Lines that were tampered with do not pass for a report.
func TestTheGeneralLedgerEndsWithAnErrorWhenItDoesNotAddUp(t *testing.T) {
	t.Parallel()
	h := open(t)
	months(t, h, 10)
	g, err := h.General(t.Context(), h.db, GeneralQuery{})
	if err != nil {
		t.Fatal(err)
	}
	owner := testdb.Owner(t, h.db)
	for _, sql := range []string{
		`alter table ledger.posting disable trigger append_only`,
		`update ledger.posting set amount = amount + 1 where seq = 2 and account_id = (select id from ledger.account where path = '` + clearing + `')`,
	} {
		if _, err := owner.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	broken := 0
	for _, a := range g.Accounts {
		var last error
		for _, last = range h.GeneralLines(t.Context(), h.db, g, a) {
		}
		if errors.Is(last, ErrBroken) {
			broken++
		}
	}
	if broken != 1 {
		t.Errorf("%d accounts end with ErrBroken, want 1", broken)
	}
}

func TestAFrozenMonthIsCheckedAgainstItsDays(t *testing.T) {
	t.Parallel()
	h := open(t)
	months(t, h, 60)
	if p, err := h.PeriodOf(t.Context(), h.db, today); err != nil || p.State != PeriodOpen {
		t.Errorf("period %+v, %v", p, err)
	}
	if _, _, err := h.CheckFrozen(t.Context(), h.db, today.AddDays(-20)); !errors.Is(err, ErrNotFound) {
		t.Errorf("an open month: %v", err)
	}
	february := clock.Date{Year: 2026, Month: time.February, Day: 11}
	for _, state := range []PeriodState{PeriodClosing, PeriodClosed} {
		h.do(t, func(ctx context.Context, tx pgx.Tx) error { return h.SetPeriod(ctx, tx, february, state) })
	}
	if p, err := h.PeriodOf(t.Context(), h.db, february.AddDays(-31)); err != nil || p.State != PeriodClosed {
		t.Errorf("the month before a closed one is %+v, %v", p, err)
	}
	frozen, now, err := h.CheckFrozen(t.Context(), h.db, february)
	if err != nil || !bytes.Equal(frozen, now) || len(now) != 32 {
		t.Errorf("frozen %x, now %x, %v", frozen, now, err)
	}
	owner := testdb.Owner(t, h.db)
	if _, err := owner.Exec(t.Context(), `update ledger.account_day set debits = debits + 1 where effective_on = (select min(effective_on) from ledger.account_day where debits > 0)`); err != nil {
		t.Fatal(err)
	}
	if frozen, now, err = h.CheckFrozen(t.Context(), h.db, february); err != nil || bytes.Equal(frozen, now) {
		t.Errorf("after a day was changed: frozen %x, now %x, %v", frozen, now, err)
	}
}
