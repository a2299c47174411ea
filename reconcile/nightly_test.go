package reconcile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"guichet/internal/clock"
	"guichet/internal/money"
	"guichet/ledger"
	"guichet/payments"
)

// snapshot is every row of reconcile and of the journal, as text, without the
// times at which steps ran.
func (c *town) snapshot(t *testing.T) string {
	t.Helper()
	rows, err := c.DB.Query(t.Context(), `
		select schemaname || '.' || tablename from pg_tables
		where schemaname = 'reconcile' or (schemaname, tablename) = ('ledger', 'journal_entry') order by 1`)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, table := range tables {
		var text string
		if err := c.DB.QueryRow(t.Context(), `select coalesce(string_agg(row::text, E'\n' order by row::text), '') from `+table+` row`).Scan(&text); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "== %s\n%s\n", table, text)
	}
	return out.String()
}

func TestNightlyFromPaymentToPosted(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	p := c.succeed(t, c.threeBills(t)...)
	fine := c.succeed(t, c.Issue(t, c.Bill("parking", "parking-wrong-way", 0)))
	const (
		accessible, early, permit, inspection, hst, water money.Amount = 45000, 5500, 26400, 16300, 2119, 8736
		gross                                                          = accessible + early + permit + inspection + hst + water
	)
	if p.Amount+fine.Amount != gross {
		t.Fatalf("paid %s and %s, want %s", p.Amount, fine.Amount, gross)
	}
	payout, entry := c.processor.payOut()
	fees := gross - payout.Amount
	c.statement(t, entry)
	r := c.run(t)

	c.balances(t, map[string]money.Amount{
		"assets:processor-clearing": 0, "assets:bank:main": payout.Amount, "expenses:processor-fees": fees,
		"liabilities:hst": -hst, "revenue:parking:fines": -accessible - early, "revenue:permits:permits": -permit - inspection,
		"revenue:water:water": -water, "liabilities:suspense:unexplained": 0,
		"liabilities:billed-not-collected:parking": -(7500 - 5500) * 0, "liabilities:billed-not-collected:water": 0, "liabilities:billed-not-collected:permits": 0,
	})
	if r.Payouts != (Total{1, payout.Amount}) || r.Fees != fees || r.Difference != 0 || r.Waiting != 0 || r.Exceptions != 0 || r.Documents.Count != 4 {
		t.Errorf("report %+v", r)
	}
	c.verify(t)

	t.Run("SAP has one file with a document per department", func(t *testing.T) {
		list, err := Batches(t.Context(), c.DB, 10)
		if err != nil || len(list) != 1 || list[0].State != Delivered || list[0].Documents != 4 {
			t.Fatalf("batches %+v, %v", list, err)
		}
		file, err := BatchFile(t.Context(), c.DB, list[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string][]byte{file.Name: file.Data, file.ManifestName(): file.Manifest} {
			if got, err := os.ReadFile(filepath.Join(c.sap, "in", name)); err != nil || string(got) != string(want) {
				t.Errorf("%s at SAP: %d bytes, %v; want %d", name, len(got), err, len(want))
			}
		}
	})
	t.Run("items are sums by account, cost object and tax code, with HST and its base", func(t *testing.T) {
		var got []string
		for _, d := range c.documents(t) {
			items, err := ItemsOf(t.Context(), c.DB, d.ID)
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range items {
				got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s %s %s %s base %s", d.Department, i.Kind, i.GLAccount, i.ObjectNumber, i.Code, i.Amount, i.Base)))
			}
		}
		want := []string{
			"central gl 0000101000   -" + fees.String() + " base 0.00",
			"central gl 0000550100 0000004900  " + fees.String() + " base 0.00",
			"parking gl 0000101000   505.00 base 0.00",
			"parking gl 0000430100 0000004100 A0 -505.00 base 0.00",
			"permits gl 0000101000   448.19 base 0.00",
			"permits gl 0000430200 0000004200 A0 -264.00 base 0.00",
			"permits gl 0000430200 0000004200 A1 -163.00 base 0.00",
			"permits tax 0000210500  A1 -21.19 base -163.00",
			"water gl 0000101000   87.36 base 0.00",
			"water gl 0000430300 0000004300 A0 -87.36 base 0.00",
		}
		if !slices.Equal(got, want) {
			t.Errorf("items:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
	t.Run("the match says why", func(t *testing.T) {
		_, m, err := PayoutByID(t.Context(), c.DB, payout.ID)
		if err != nil || m.Rule != "payout-reference/1" || m.Evidence["processor"] != payout.TraceID {
			t.Errorf("match %+v, %v", m, err)
		}
		lines, err := TransactionsOf(t.Context(), c.DB, payout.ID)
		if err != nil || len(lines) != 2 || lines[0].PaymentID != p.ID || lines[1].PaymentID != fine.ID {
			t.Errorf("lines %+v, %v", lines, err)
		}
	})
	t.Run("the same date again changes nothing", func(t *testing.T) {
		before := c.snapshot(t)
		again, err := c.night.Run(t.Context(), c.Today())
		if err != nil || again.Payouts != r.Payouts {
			t.Errorf("second run: %+v, %v", again, err)
		}
		for _, s := range steps { // and neither does any step of it
			if _, err := s.run(c.night, t.Context(), c.Today()); err != nil {
				t.Errorf("step %s again: %v", s.name, err)
			}
		}
		if after := c.snapshot(t); after != before {
			t.Errorf("rows changed:\n%s", difference(before, after))
		}
	})
	t.Run("SAP's answer ends it", func(t *testing.T) {
		for i, d := range c.documents(t) {
			c.answer(t, d.DocNum, "53", "Document posted", fmt.Sprintf("BKPFF%010d10002026  PRDCLNT100", 100000012+i))
		}
		if did := c.readAnswers(t); did.Posted != 4 {
			t.Errorf("answers %+v", did)
		}
		for i, d := range c.documents(t) {
			if d.State != Posted || d.SAPNumber != fmt.Sprintf("%010d", 100000012+i) || d.SAPYear != 2026 {
				t.Errorf("document %+v", d)
			}
		}
		c.verify(t)
	})
}

func difference(before, after string) string {
	var out []string
	old := strings.Split(before, "\n")
	for _, line := range strings.Split(after, "\n") {
		if !slices.Contains(old, line) {
			out = append(out, "+ "+line)
		}
	}
	return strings.Join(out, "\n")
}

// A kill between any two steps is a run that ends there: the next one goes on and
// ends with the same entries, documents and bytes.
func TestKillBetweenStepsResumes(t *testing.T) {
	t.Parallel()
	for cut := range len(steps) + 1 {
		t.Run(fmt.Sprintf("after %d steps", cut), func(t *testing.T) {
			t.Parallel()
			c := newTown(t)
			c.succeed(t, c.threeBills(t)...)
			c.processor.move("adjustment", "adj_1", "", 1234, 0)
			_, entry := c.processor.payOut()
			c.statement(t, entry)
			if _, err := c.DB.Exec(t.Context(), `insert into reconcile.run (business_date, state, started_at) values ($1, 'running', $2)`,
				c.Today().Time(), c.Clock.Now()); err != nil {
				t.Fatal(err)
			}
			for _, s := range steps[:cut] {
				if err := c.night.do(t.Context(), c.Today(), s); err != nil {
					t.Fatal(err)
				}
			}
			if cut < len(steps) { // the killed step did its work and did not get to say so
				if _, err := steps[cut].run(c.night, t.Context(), c.Today()); err != nil {
					t.Fatal(err)
				}
			}
			r := c.run(t)
			if r.Payouts.Count != 1 || r.Documents.Count != 4 || r.Exceptions != 1 || r.Difference != 0 {
				t.Errorf("report %+v", r)
			}
			var entries, files int
			if err := c.DB.QueryRow(t.Context(), `select (select count(*) from reconcile.settlement), (select count(*) from reconcile.sap_batch)`).Scan(&entries, &files); err != nil {
				t.Fatal(err)
			}
			if entries != 5 || files != 1 { // three departments, fees, one unexplained
				t.Errorf("%d entries and %d files, want 5 and 1", entries, files)
			}
			c.verify(t)
		})
	}
}

func TestStrayLineIsOneExceptionAndTheBooksBalance(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	c.succeed(t, c.Issue(t, c.Bill("water", "water-consumption", 10_000)))
	stray := c.processor.move("charge", "ch_stray", "pi_stray", 4_200, 150)
	payout, entry := c.processor.payOut()
	c.statement(t, entry)
	r := c.run(t)

	e, notes := c.onlyException(t)
	if e.Kind != Unexplained || e.ObjectID != stray.ID || e.Amount != 4_200 || e.SuspenseEntry == "" || e.Owner != "finance" {
		t.Errorf("exception %+v", e)
	}
	if len(notes) != 1 || !strings.Contains(notes[0].Text, "no payment has charge ch_stray") {
		t.Errorf("history %+v", notes)
	}
	c.balances(t, map[string]money.Amount{
		"assets:bank:main": payout.Amount, "assets:processor-clearing": 0, "liabilities:suspense:unexplained": -4_200,
		"expenses:processor-fees": 320 + 150, "revenue:water:water": -10_000,
	})
	if r.Unexplained != (Total{1, 4_200}) || r.Difference != 0 {
		t.Errorf("report %+v", r)
	}
	c.verify(t)

	t.Run("it cannot be resolved without a posting", func(t *testing.T) {
		if err := c.night.Resolve(t.Context(), e.ID, "looks fine"); !errors.Is(err, ErrInSuspense) {
			t.Errorf("%v, want ErrInSuspense", err)
		}
	})
	t.Run("transferred, it is exported and closed", func(t *testing.T) {
		c.nextDay(t)
		if err := c.night.Transfer(t.Context(), e.ID, "revenue:water:water", ledgerDims("water"), "paid for a hydrant permit"); err != nil {
			t.Fatal(err)
		}
		if err := c.night.Transfer(t.Context(), e.ID, "revenue:water:water", ledgerDims("water"), "again"); !errors.Is(err, ErrResolved) {
			t.Errorf("second transfer: %v, want ErrResolved", err)
		}
		c.statement(t)
		c.run(t)
		c.balances(t, map[string]money.Amount{"liabilities:suspense:unexplained": 0, "revenue:water:water": -14_200})
		if docs := c.documents(t); len(docs) != 3 || docs[2].Department != "water" || docs[2].Debits != 4_200 {
			t.Errorf("documents %+v", docs)
		}
		c.verify(t)
	})
}

func TestPaymentBookedAfterItsPayoutLeavesSuspense(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	inspection := c.Issue(t, c.Bill("permits", "inspection-extra", 0))
	paymentID := c.charge(t, inspection) // every webhook is lost
	_, entry := c.processor.payOut()
	c.statement(t, entry)
	c.run(t)
	c.balances(t, map[string]money.Amount{"liabilities:suspense:unexplained": -18_419, "assets:processor-clearing": 0})
	c.verify(t)

	c.nextDay(t)
	if _, err := c.pay.Sync(t.Context(), paymentID); err != nil {
		t.Fatal(err)
	}
	c.balances(t, map[string]money.Amount{"assets:processor-clearing": 18_419})
	c.statement(t)
	c.run(t)
	c.balances(t, map[string]money.Amount{
		"liabilities:suspense:unexplained": 0, "assets:processor-clearing": 0, "liabilities:hst": -2_119, "revenue:permits:permits": -16_300,
	})
	if kinds := c.openKinds(t); kinds != "" {
		t.Errorf("open exceptions: %s", kinds)
	}
	c.verify(t)
}

func TestPayouts(t *testing.T) {
	t.Parallel()
	t.Run("whose lines do not add up wait with an exception", func(t *testing.T) {
		t.Parallel()
		c := newTown(t)
		c.succeed(t, c.Issue(t, c.Bill("water", "water-consumption", 10_000)))
		c.processor.payOut()
		c.processor.payouts[0].Amount++
		c.statement(t)
		c.run(t)
		if e, _ := c.onlyException(t); e.Kind != PayoutSum || e.Amount != 1 {
			t.Errorf("exception %+v", e)
		}
		c.verify(t)
	})
	t.Run("that are not itemised yet are read the next night", func(t *testing.T) {
		t.Parallel()
		c := newTown(t)
		c.succeed(t, c.Issue(t, c.Bill("water", "water-consumption", 10_000)))
		_, entry := c.processor.payOut()
		c.processor.payouts[0].Itemised = false
		c.statement(t, entry)
		if r := c.run(t); r.Payouts.Count != 0 || c.openKinds(t) != string(LineUnmatched) {
			t.Errorf("report %+v, exceptions %s", r, c.openKinds(t))
		}
		c.nextDay(t)
		c.processor.payouts[0].Itemised = true
		c.statement(t)
		c.run(t)
		if kinds := c.openKinds(t); kinds != "" {
			t.Errorf("open exceptions: %s", kinds)
		}
		c.balances(t, map[string]money.Amount{"assets:processor-clearing": 0})
		c.verify(t)
	})
	t.Run("below zero are a debit on the statement", func(t *testing.T) {
		t.Parallel()
		c := newTown(t)
		c.succeed(t, c.Issue(t, c.Bill("water", "water-consumption", 1_000)))
		c.processor.move("dispute", "dp_1", "", -7_500, 1_500)
		payout, entry := c.processor.payOut()
		if payout.Amount >= 0 {
			t.Fatalf("payout %s", payout.Amount)
		}
		c.statement(t, entry)
		c.run(t)
		c.balances(t, map[string]money.Amount{"assets:bank:main": payout.Amount, "liabilities:suspense:unexplained": 7_500})
		if e, _ := c.onlyException(t); e.Amount != -7_500 {
			t.Errorf("exception %+v", e)
		}
		c.verify(t)
	})
	t.Run("that carry the processor's own fee post it as one", func(t *testing.T) {
		t.Parallel()
		c := newTown(t)
		c.succeed(t, c.Issue(t, c.Bill("water", "water-consumption", 10_000)))
		c.processor.move("fee", "", "", -500, 0)
		_, entry := c.processor.payOut()
		c.statement(t, entry)
		c.run(t)
		c.balances(t, map[string]money.Amount{"expenses:processor-fees": 320 + 500})
		if kinds := c.openKinds(t); kinds != "" {
			t.Errorf("open exceptions: %s", kinds)
		}
		c.verify(t)
	})
	t.Run("that fail after they were settled are a person's", func(t *testing.T) {
		t.Parallel()
		c := newTown(t)
		c.succeed(t, c.Issue(t, c.Bill("water", "water-consumption", 10_000)))
		payout, entry := c.processor.payOut()
		c.statement(t, entry)
		c.run(t)
		c.nextDay(t)
		c.processor.payouts[0].State, c.processor.payouts[0].Failure = "failed", "account_closed"
		c.statement(t, bankEntry{-payout.Amount, "R" + payout.TraceID})
		c.run(t)
		if kinds := c.openKinds(t); kinds != string(PayoutFailed)+" "+string(LineUnmatched) {
			t.Errorf("open exceptions: %s", kinds)
		}
		if p, _, err := PayoutByID(t.Context(), c.DB, payout.ID); err != nil || p.State != Returned {
			t.Errorf("payout %+v, %v", p, err)
		}
		c.verify(t)
	})
	t.Run("that the bank never shows are missed", func(t *testing.T) {
		t.Parallel()
		c := newTown(t)
		c.succeed(t, c.Issue(t, c.Bill("water", "water-consumption", 10_000)))
		c.processor.payOut()
		for range valueTolerance + 2 {
			c.nextDay(t)
		}
		c.run(t)
		if e, _ := c.onlyException(t); e.Kind != PayoutMissing {
			t.Errorf("exception %+v", e)
		}
	})
	t.Run("that nobody itemises are an exception", func(t *testing.T) {
		t.Parallel()
		c := newTown(t)
		c.processor.move("adjustment", "adj", "", 500, 0)
		c.processor.payOut()
		c.processor.payouts[0].Automatic = false
		c.run(t)
		if e, _ := c.onlyException(t); e.Kind != PayoutManual {
			t.Errorf("exception %+v", e)
		}
	})
	t.Run("that hold a bill paid twice settle the second as the payer's credit", func(t *testing.T) {
		t.Parallel()
		c := newTown(t)
		b := c.Issue(t, c.Bill("water", "water-consumption", 10_000))
		forgotten := c.charge(t, b) // its webhooks are lost until the reservation has ended
		c.nextDay(t)
		c.succeed(t, b)
		if _, err := c.pay.Sync(t.Context(), forgotten); err != nil {
			t.Fatal(err)
		}
		_, entry := c.processor.payOut()
		c.statement(t, entry)
		c.run(t)
		c.balances(t, map[string]money.Amount{payments.Credits: 0, payments.CreditsSettled: -10_000, payments.Clearing: 0, "revenue:water:water": -10_000})
		if docs := c.documents(t); len(docs) != 2 || docs[0].Department != central || docs[1].Department != "water" {
			t.Errorf("documents %+v", docs)
		}
		if e, _ := c.onlyException(t); e.Kind != PayerCredit || e.Amount != 10_000 {
			t.Errorf("finance is told %+v, want the payer's credit", e)
		}
		c.verify(t)
	})
}

func TestALateStatementSettlesInTheOpenPeriod(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	c.succeed(t, c.Issue(t, c.Bill("water", "water-consumption", 10_000)))
	payout, entry := c.processor.payOut()
	booked := c.Today()
	c.statement(t, entry)
	for c.Today().Month == booked.Month {
		c.nextDay(t)
	}
	c.Do(t, func(tx pgx.Tx) error {
		return c.Books.SetPeriod(t.Context(), tx, booked, ledger.PeriodClosing)
	})
	c.run(t)
	c.balances(t, map[string]money.Amount{"assets:bank:main": payout.Amount, "assets:processor-clearing": 0})
	for _, d := range c.documents(t) {
		if d.PostingOn != c.Today() {
			t.Errorf("document of %s is posted on %s, want %s", d.Department, d.PostingOn, c.Today())
		}
	}
	entries, err := c.Books.EntriesBySource(t.Context(), c.DB, "payout", payout.ID, "", 10)
	if err != nil || len(entries) == 0 {
		t.Fatalf("entries %v, %v", entries, err)
	}
	for _, e := range entries {
		if e.EffectiveOn != monthAfter(booked) || e.AskedOn != booked {
			t.Errorf("entry %s is booked on %s and asked for %s; want %s and %s", e.Key, e.EffectiveOn, e.AskedOn, monthAfter(booked), booked)
		}
	}
	c.verify(t)
}

func monthAfter(d clock.Date) clock.Date {
	d.Day = 1
	return clock.FromTime(d.Time().AddDate(0, 1, 0))
}

// A payout that the books do not take is one exception; the others of the night are
// posted, and it follows when the reason is gone.
func TestOneUnpostablePayoutDoesNotStopTheNight(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	freeze := func(state ledger.State) {
		t.Helper()
		c.Do(t, func(tx pgx.Tx) error { return c.Books.SetAccountState(t.Context(), tx, "revenue:water:water", state) })
	}
	var payouts []payments.Payout
	var entries []bankEntry
	for _, of := range [][2]string{{"water", "water-consumption"}, {"parking", "parking-accessible"}} {
		n := c.Bill(of[0], of[1], 10_000)
		if of[0] == "parking" {
			n = c.Bill(of[0], of[1], 0)
		}
		c.succeed(t, c.Issue(t, n))
		p, e := c.processor.payOut()
		payouts, entries = append(payouts, p), append(entries, e)
	}
	c.statement(t, entries...)
	freeze(ledger.Frozen)
	for range 2 { // the second night has no news
		c.run(t)
		e, notes := c.onlyException(t)
		if e.Kind != PayoutUnposted || e.ObjectID != payouts[0].ID || e.Amount != payouts[0].Amount || len(notes) != 1 || !strings.Contains(notes[0].Text, "revenue:water:water") {
			t.Errorf("exception %+v with %+v", e, notes)
		}
		for i, want := range []PayoutState{Matched, Settled} {
			if p, _, err := PayoutByID(t.Context(), c.DB, payouts[i].ID); err != nil || p.State != want {
				t.Errorf("payout %d is %s, %v; want %s", i, p.State, err, want)
			}
		}
		c.verify(t)
		c.nextDay(t)
	}
	freeze(ledger.Open)
	c.run(t)
	if kinds := c.openKinds(t); kinds != "" {
		t.Errorf("open exceptions: %s", kinds)
	}
	c.balances(t, map[string]money.Amount{"assets:bank:main": payouts[0].Amount + payouts[1].Amount, payments.Clearing: 0})
	c.verify(t)
}

func TestAResolvedLineIsOutOfTheWay(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	c.statement(t, bankEntry{125_000, "BILLPAYMENTS"})
	c.run(t)
	e, _ := c.onlyException(t)
	if err := c.night.Resolve(t.Context(), e.ID, "booked in SAP by hand"); err != nil {
		t.Fatal(err)
	}
	c.nextDay(t)
	did, err := c.night.match(t.Context(), c.Today())
	if err != nil || did.(matched).Unmatched != 0 {
		t.Errorf("the next night: %+v, %v", did, err)
	}
}

func TestEqualPayoutsOnOneDayAreSuggestionsNotGuesses(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	var entries []bankEntry
	for range 2 {
		c.succeed(t, c.Issue(t, c.Bill("water", "water-consumption", 10_000)))
		_, entry := c.processor.payOut()
		entry.reference = "NOTPROVIDED"
		entries = append(entries, entry)
	}
	c.statement(t, entries...)
	r := c.run(t)
	if kinds := c.openKinds(t); kinds != string(Tie)+" "+string(Tie) || r.Payouts.Count != 0 {
		t.Errorf("exceptions %s, report %+v", kinds, r)
	}
	c.balances(t, map[string]money.Amount{"assets:bank:main": 0})

	lines, err := BankLines(t.Context(), c.DB, c.Today(), 10)
	if err != nil || len(lines) != 2 {
		t.Fatalf("%d lines, %v", len(lines), err)
	}
	payouts, err := Payouts(t.Context(), c.DB, 10)
	if err != nil || len(payouts) != 2 {
		t.Fatalf("%d payouts, %v", len(payouts), err)
	}
	if err := c.night.Match(t.Context(), payouts[0].ID, lines[0].ID, "the bank confirmed it by phone"); err != nil {
		t.Fatal(err)
	}
	if err := c.night.Match(t.Context(), payouts[1].ID, lines[0].ID, "again"); err == nil {
		t.Error("one bank line is matched twice")
	}
	c.nextDay(t)
	c.statement(t)
	c.run(t) // with one pair gone the other is unique
	if kinds := c.openKinds(t); kinds != "" {
		t.Errorf("open exceptions: %s", kinds)
	}
	c.balances(t, map[string]money.Amount{"assets:bank:main": payouts[0].Amount + payouts[1].Amount, "assets:processor-clearing": 0})
	c.verify(t)
}

func TestRunRefusesTheFutureAndASecondInstance(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	if _, err := c.night.Run(t.Context(), c.Today().AddDays(1)); !errors.Is(err, ErrFuture) {
		t.Errorf("tomorrow: %v, want ErrFuture", err)
	}
	release, err := c.nightly(t, c.night.handover.Place).lock(t.Context(), nightlyLock)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.night.Run(t.Context(), c.Today()); !errors.Is(err, ErrBusy) {
		t.Errorf("beside another instance: %v, want ErrBusy", err)
	}
	release()
	c.run(t)
}

func TestAFailedStepIsKeptAndTriedAgain(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	c.processor.fault = errors.New("the processor is away")
	if _, err := c.night.Run(t.Context(), c.Today()); !errors.Is(err, c.processor.fault) {
		t.Fatalf("%v, want the processor's error", err)
	}
	runs, err := Runs(t.Context(), c.DB, 1)
	if err != nil || len(runs) != 1 || len(runs[0].Steps) != 1 || runs[0].Steps[0].State != "failed" ||
		!strings.Contains(runs[0].Steps[0].Error, "the processor is away") {
		t.Errorf("runs %+v, %v", runs, err)
	}
	c.processor.fault = nil
	c.run(t)
	if runs, err = Runs(t.Context(), c.DB, 1); err != nil || runs[0].State != "done" || len(runs[0].Steps) != len(steps) || runs[0].Steps[0].Attempts != 2 {
		t.Errorf("runs %+v, %v", runs, err)
	}
}

func TestMissedNightsAreCaughtUpOldestFirst(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	first := c.Today()
	c.run(t)
	for range 4 {
		c.nextDay(t)
	}
	missing, err := c.night.Missing(t.Context(), first.AddDays(3))
	if err != nil || fmt.Sprint(missing) != fmt.Sprint([]clock.Date{first.AddDays(1), first.AddDays(2), first.AddDays(3)}) {
		t.Fatalf("missing %v, %v", missing, err)
	}
	if err := c.night.CatchUp(t.Context(), first.AddDays(3)); err != nil {
		t.Fatal(err)
	}
	var dates []string
	runs, err := Runs(t.Context(), c.DB, 10)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range runs {
		if r.State != "done" || i > 0 && runs[i-1].StartedAt.Before(r.StartedAt) {
			t.Errorf("run %+v", r)
		}
		dates = append(dates, r.Date.String())
	}
	if len(dates) != 4 {
		t.Errorf("runs of %v", dates)
	}
	if missing, err = c.night.Missing(t.Context(), first.AddDays(3)); err != nil || len(missing) != 0 {
		t.Errorf("still missing %v, %v", missing, err)
	}
}

func TestAppendOnly(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	c.succeed(t, c.threeBills(t)...)
	_, entry := c.processor.payOut()
	c.statement(t, entry)
	c.run(t)
	owner := c.owner(t)
	for _, sql := range []string{
		`update reconcile.bank_line set amount_cents = 0`,
		`delete from reconcile.statement_file`,
		`update reconcile.balance_transaction set fee_cents = 0`,
		`delete from reconcile.payout_match`,
		`update reconcile.settlement set department = 'x'`,
		`update reconcile.sap_batch set data = ''`,
		`update reconcile.sap_batch set file_name = 'x'`,
		`update reconcile.sap_document set docnum = '0000000000000099'`,
		`delete from reconcile.sap_document`,
		`update reconcile.sap_item set amount_cents = 1`,
		`delete from reconcile.sap_export`,
		`update reconcile.sap_series set last = 0`,
		`delete from reconcile.run`,
		`truncate reconcile.sap_answer cascade`,
	} {
		if _, err := c.DB.Exec(t.Context(), sql); err == nil {
			t.Errorf("the service may %s", sql)
		}
		if _, err := owner.Exec(t.Context(), sql); err == nil {
			t.Errorf("the owner may %s", sql)
		}
	}
}

func TestVerifyFindsWhatWasForced(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	c.succeed(t, c.threeBills(t)...)
	c.processor.move("adjustment", "adj", "", 500, 0)
	_, entry := c.processor.payOut()
	c.statement(t, entry)
	c.run(t)
	c.verify(t)
	owner := c.owner(t)
	for kind, forced := range map[string]struct{ table, sql string }{
		"suspense": {"exception", `update reconcile.exception set closed_at = opened_at, resolution = 'gone' where suspense_entry is not null`},
		"clearing": {"payment_match", `delete from reconcile.payment_match`},
		"payout":   {"payout", `update reconcile.payout set amount_cents = amount_cents + 1`},
		"export":   {"sap_item", `update reconcile.sap_item set amount_cents = amount_cents + 1 where item = 1`},
	} {
		var findings []Finding
		err := pgx.BeginFunc(t.Context(), owner, func(tx pgx.Tx) error {
			for _, s := range []string{"alter table reconcile." + forced.table + " disable trigger user", forced.sql} {
				if _, err := tx.Exec(t.Context(), s); err != nil {
					return err
				}
			}
			var err error
			if findings, err = Verify(t.Context(), tx); err != nil {
				return err
			}
			return context.Canceled // undo
		})
		if !errors.Is(err, context.Canceled) || !slices.ContainsFunc(findings, func(f Finding) bool { return f.Kind == kind }) {
			t.Errorf("%s: findings %v, %v", kind, findings, err)
		}
	}
	t.Run("an entry that was not exported", func(t *testing.T) {
		c.nextDay(t)
		if _, err := owner.Exec(t.Context(), `alter table reconcile.sap_export disable trigger user; delete from reconcile.sap_export`); err != nil {
			t.Fatal(err)
		}
		c.nextDay(t)
		if _, err := c.DB.Exec(t.Context(), `insert into reconcile.run (business_date, state, started_at, finished_at, report) values ($1, 'done', $2, $2, '{}')`,
			c.Today().Time(), c.Clock.Now()); err != nil {
			t.Fatal(err)
		}
		findings, err := Verify(t.Context(), c.DB)
		if err != nil || len(findings) != 5 {
			t.Errorf("findings %v, %v; want one per entry", findings, err)
		}
	})
}
