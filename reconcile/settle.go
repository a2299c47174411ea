package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"guichet/internal/audit"
	"guichet/internal/clock"
	"guichet/internal/money"
	"guichet/ledger"
	"guichet/payments"
	"guichet/payments/fee"
)

// Categories of balance transactions that are the processor's price.
var feeCategories = []string{"fee"}

type settledCounts struct {
	Payouts     int `json:"payouts"`
	Payments    int `json:"payments"`
	Unexplained int `json:"unexplained"`
	Explained   int `json:"explained_late"`
	Unposted    int `json:"unposted"` // payouts that the books did not take
}

// errUnpostable is about one payout: what it should become in the books does not add up.
var errUnpostable = errors.New("it does not add up")

// unpostable tells what one payout's trouble is from trouble of the whole night.
func unpostable(err error) bool { return errors.Is(err, errUnpostable) || ledger.Refused(err) }

// settle posts every matched payout, and what was unexplained before and has its
// payment now. A payout that the books do not take is an exception, and holds up no other.
func (n *Nightly) settle(ctx context.Context, date clock.Date) (any, error) {
	var did settledCounts
	list, err := payoutsWhere(ctx, n.db, `where state = 'matched' order by created_at, id limit $1`, maxOpen)
	if err != nil {
		return nil, err
	}
	for _, p := range list {
		err := n.settlePayout(ctx, p.ID, &did)
		if unpostable(err) {
			did.Unposted++
			refusal := err.Error()
			err = pgx.BeginFunc(ctx, n.db, func(tx pgx.Tx) error {
				return n.reopen(ctx, tx, Exception{Kind: PayoutUnposted, ObjectType: "payout", ObjectID: p.ID, Amount: p.Amount, Currency: p.Currency}, refusal)
			})
		}
		if err != nil {
			return nil, fmt.Errorf("settle payout %s: %w", p.ID, err)
		}
	}
	return did, n.explainLate(ctx, date, &did)
}

// settlePayout posts one payout: per department its gross out of clearing into the
// bank and its revenue, once the fees, and each line that nobody explains into
// suspense. The bank account moves by exactly the payout. It is effective when the bank
// booked it.
func (n *Nightly) settlePayout(ctx context.Context, payoutID string, did *settledCounts) error {
	var now settledCounts // counts only if the transaction commits
	err := pgx.BeginFunc(ctx, n.db, func(tx pgx.Tx) error {
		now = settledCounts{}
		p, err := lockPayout(ctx, tx, payoutID)
		if err != nil || p.State != Matched {
			return err
		}
		lines, err := bankLines(ctx, tx, `where m.payout_id = $1`, p.ID)
		if err != nil {
			return err
		}
		transactions, err := TransactionsOf(ctx, tx, p.ID)
		if err != nil {
			return err
		}
		s := settlement{n: n, tx: tx, payout: p, on: lines[0].BookedOn, debit: bankAccount, departments: map[string]*sums{}}
		for _, t := range transactions {
			if err := s.add(ctx, t, &now); err != nil {
				return err
			}
		}
		if err := s.post(ctx); err != nil {
			return err
		}
		if s.bank != p.Amount {
			return fmt.Errorf("the entries move the bank by %s, the payout is %s: %w", s.bank, p.Amount, errUnpostable)
		}
		now.Payouts = 1
		if err := n.settled(ctx, tx, PayoutUnposted, "payout", p.ID, "posted"); err != nil {
			return err
		}
		if err := p.move(ctx, tx, Settled, "posted", n.now()); err != nil {
			return err
		}
		return audit.Record(ctx, tx, audit.Event{
			Action: "payout.settled", ObjectType: "payout", ObjectID: p.ID, At: n.now(),
			Details: map[string]any{"payments": now.Payments, "unexplained": now.Unexplained},
		})
	})
	if err != nil {
		return err
	}
	did.Payouts += now.Payouts
	did.Payments += now.Payments
	did.Unexplained += now.Unexplained
	return nil
}

// A settlement collects what one payout becomes in the books.
type settlement struct {
	n      *Nightly
	tx     pgx.Tx
	payout Payout
	on     clock.Date
	suffix string // of the entries' keys, behind the department
	debit  string // where the gross comes from: the bank, or suspense when explained late
	kind   string // of the departments' entries; empty: department

	departments map[string]*sums
	fees        money.Amount
	unexplained []unexplained
	bank        money.Amount // by which all entries move the bank
}

type unexplained struct {
	t      Transaction
	reason string
}

// sums are one department's part, by what becomes of it.
type sums struct {
	gross    money.Amount
	clearing map[ledger.Dimensions]money.Amount // out of clearing, by channel and tender
	moves    map[move]money.Amount              // net, from one account to another
	tax      map[ledger.Dimensions]money.Amount
	base     map[ledger.Dimensions]money.Amount // of the tax
	taxFrom  map[from]money.Amount
}

type move struct {
	from, to, taxCode string
	dimensions        ledger.Dimensions
}

type from struct {
	account    string
	dimensions ledger.Dimensions
}

// add takes one line of the payout.
func (s *settlement) add(ctx context.Context, t Transaction, did *settledCounts) error {
	if slices.Contains(feeCategories, t.Category) {
		s.fees -= t.Net // it lowers our balance; its own fee field is part of it
		return nil
	}
	s.fees += t.Fee
	paymentID, reason, err := s.n.paymentOf(ctx, s.tx, t)
	if err != nil {
		return err
	}
	if paymentID == "" {
		did.Unexplained++
		s.unexplained = append(s.unexplained, unexplained{t, reason})
		return nil
	}
	did.Payments++
	return s.addPayment(ctx, paymentID, t.Amount)
}

// addPayment takes what a payment was for, by department.
func (s *settlement) addPayment(ctx context.Context, paymentID string, amount money.Amount) error {
	lines, err := s.n.payments.Settlement(ctx, s.tx, paymentID)
	if err != nil {
		return err
	}
	var total money.Amount
	for _, l := range lines {
		total += l.Net + l.Tax
		d := s.departments[cmp.Or(l.Department, central)]
		if d == nil {
			d = &sums{
				clearing: map[ledger.Dimensions]money.Amount{}, moves: map[move]money.Amount{}, tax: map[ledger.Dimensions]money.Amount{},
				base: map[ledger.Dimensions]money.Amount{}, taxFrom: map[from]money.Amount{},
			}
			s.departments[cmp.Or(l.Department, central)] = d
		}
		d.gross += l.Net + l.Tax
		// Clearing is left the way it was entered: by channel and tender alone.
		d.clearing[ledger.Dimensions{Channel: l.Dimensions.Channel, Tender: l.Dimensions.Tender}] += l.Net + l.Tax
		d.moves[move{l.From, l.To, l.TaxCode, l.Dimensions}] += l.Net
		if l.Tax != 0 {
			d.taxFrom[from{l.From, l.Dimensions}] += l.Tax
			tax := ledger.Dimensions{Department: l.Dimensions.Department}
			d.tax[tax] += l.Tax
			d.base[tax] += l.Net
		}
	}
	if total != amount {
		return fmt.Errorf("payment %s settles %s of %s: %w", paymentID, total, amount, errUnpostable)
	}
	return nil
}

// post appends the entries. Their keys make it safe to do twice.
func (s *settlement) post(ctx context.Context) error {
	for _, code := range slices.Sorted(maps.Keys(s.departments)) {
		d := s.departments[code]
		debit := ledger.Line{Account: s.debit, Amount: d.gross, Dimensions: ledger.Dimensions{Department: code}}
		if s.debit == suspenseAccount {
			debit.Dimensions.Department = central // as it went in
		}
		lines := []postingLine{{Line: debit}}
		lines = append(lines, d.lines()...)
		if _, err := s.append(ctx, "settled/"+code+s.suffix, cmp.Or(s.kind, "department"), code, "Settlement", lines); err != nil {
			return err
		}
	}
	toCentral := ledger.Dimensions{Department: central}
	if s.fees != 0 {
		if _, err := s.append(ctx, "fees", "fees", central, "Processor's fees", []postingLine{
			{Line: ledger.Line{Account: feesAccount, Amount: s.fees, Dimensions: toCentral}},
			{Line: ledger.Line{Account: bankAccount, Amount: -s.fees, Dimensions: toCentral}},
		}); err != nil {
			return err
		}
	}
	for _, u := range s.unexplained {
		if err := s.suspend(ctx, u, toCentral); err != nil {
			return err
		}
	}
	return nil
}

// suspend posts a line that nobody explains and opens its exception.
func (s *settlement) suspend(ctx context.Context, u unexplained, d ledger.Dimensions) error {
	e := Exception{Kind: Unexplained, ObjectType: "transaction", ObjectID: u.t.ID, Amount: u.t.Amount, Currency: s.payout.Currency}
	if u.t.Amount != 0 {
		var err error
		e.SuspenseEntry, err = s.append(ctx, "unexplained/"+u.t.ID, "unexplained", central, "Unexplained line of a payout", []postingLine{
			{Line: ledger.Line{Account: bankAccount, Amount: u.t.Amount, Dimensions: d}},
			{Line: ledger.Line{Account: suspenseAccount, Amount: -u.t.Amount, Dimensions: d}},
		})
		if err != nil {
			return err
		}
	}
	return s.n.open(ctx, s.tx, e, fmt.Sprintf("line %s of payout %s, %s: %s", u.t.ID, s.payout.ID, u.t.Amount, u.reason))
}

func (s *settlement) append(ctx context.Context, part, kind, department, description string, lines []postingLine) (entryID string, err error) {
	for _, l := range lines {
		if l.Account == bankAccount {
			s.bank += l.Amount
		}
	}
	return s.n.post(ctx, s.tx, posting{
		key: "payout/" + s.payout.ID + "/" + part, kind: kind, department: department, on: s.on, payoutID: s.payout.ID, currency: s.payout.Currency,
		source: "payout", sourceID: s.payout.ID, description: description, lines: lines,
	})
}

// lines are the department's lines behind the debit, in an order of their own so
// that posting again gives the same entry.
func (d *sums) lines() []postingLine {
	var out []postingLine
	add := func(account string, amount money.Amount, dims ledger.Dimensions, taxCode string, base money.Amount) {
		if amount != 0 {
			out = append(out, postingLine{ledger.Line{Account: account, Amount: amount, Dimensions: dims}, taxCode, base})
		}
	}
	for dims, amount := range d.clearing {
		add(payments.Clearing, -amount, dims, "", 0)
	}
	leaves := maps.Clone(d.taxFrom)
	for m, amount := range d.moves {
		leaves[from{m.from, m.dimensions}] += amount
		add(m.to, -amount, m.dimensions, m.taxCode, 0)
	}
	for f, amount := range leaves {
		add(f.account, amount, f.dimensions, "", 0)
	}
	for dims, amount := range d.tax {
		add(hstAccount, -amount, dims, string(fee.HST), -d.base[dims])
	}
	slices.SortFunc(out, func(a, b postingLine) int {
		return cmp.Or(cmp.Compare(a.Account, b.Account), cmp.Compare(fmt.Sprint(a.Dimensions), fmt.Sprint(b.Dimensions)), cmp.Compare(a.taxCode, b.taxCode))
	})
	return out
}

// A postingLine is a journal line with what SAP needs to know of its tax.
type postingLine struct {
	ledger.Line
	taxCode string       // our tax code
	base    money.Amount // of a tax line, with its sign
}

// A posting is an entry that is to be exported.
type posting struct {
	key, kind, department string
	on                    clock.Date
	payoutID, currency    string
	source, sourceID      string
	description           string
	lines                 []postingLine
}

// post appends an entry to the books and queues it for export. Lines of zero are
// left out; without any line there is no entry. When the period of its date is closed it goes
// to the next open one, and the entry says which date was asked for.
func (n *Nightly) post(ctx context.Context, tx pgx.Tx, p posting) (entryID string, err error) {
	lines := slices.DeleteFunc(p.lines, func(l postingLine) bool { return l.Amount == 0 })
	if len(lines) == 0 {
		return "", nil
	}
	e := ledger.Entry{
		Key: p.key, Kind: "settlement." + p.kind, EffectiveOn: p.on, Currency: cmp.Or(p.currency, money.CAD),
		SourceType: p.source, SourceID: p.sourceID, Actor: audit.From(ctx).Actor, Channel: "batch", Description: p.description,
		Metadata: map[string]string{"department": p.department}, OrNextOpen: true,
	}
	codes, bases := make([]string, len(lines)), make([]int64, len(lines))
	for i, l := range lines {
		e.Lines = append(e.Lines, l.Line)
		codes[i], bases[i] = l.taxCode, int64(l.base)
	}
	if entryID, err = n.books.Append(ctx, tx, e); err != nil {
		return "", err
	}
	booked, err := n.books.Entry(ctx, tx, entryID)
	if err != nil {
		return "", err
	}
	if _, err := tx.Exec(ctx, `
		insert into reconcile.settlement (entry_id, kind, payout_id, department, effective_on, currency, tax_codes, bases_cents, recorded_at)
		values ($1, $2, nullif($3, ''), $4, $5, $6, $7, $8, $9) on conflict (entry_id) do nothing`,
		entryID, p.kind, p.payoutID, p.department, booked.EffectiveOn.Time(), e.Currency, codes, bases, n.now()); err != nil {
		return "", fmt.Errorf("queue entry %s for export: %w", p.key, err)
	}
	return entryID, nil
}

// explainLate looks again at lines in suspense: a payment that was booked after
// the payout takes its money out of suspense, effective on the business date.
func (n *Nightly) explainLate(ctx context.Context, date clock.Date, did *settledCounts) error {
	open, err := exceptions(ctx, n.db, `
		where type = $1 and closed_at is null and suspense_entry is not null order by opened_at, id limit $2`, string(Unexplained), maxOpen)
	if err != nil {
		return err
	}
	for _, e := range open {
		explained := false
		err := pgx.BeginFunc(ctx, n.db, func(tx pgx.Tx) (err error) {
			explained, err = n.explain(ctx, tx, e, date)
			return err
		})
		if unpostable(err) {
			refusal := err.Error()
			err = pgx.BeginFunc(ctx, n.db, func(tx pgx.Tx) error { return n.reopen(ctx, tx, e, refusal) })
		}
		if err != nil {
			return fmt.Errorf("explain %s: %w", e.ObjectID, err)
		}
		if explained {
			did.Explained++
		}
	}
	return nil
}

func (n *Nightly) explain(ctx context.Context, tx pgx.Tx, e Exception, date clock.Date) (bool, error) {
	// Its row is locked: a person may be transferring the amount at this moment.
	still, err := exceptions(ctx, tx, `where id = $1 and closed_at is null for update`, e.ID)
	if err != nil || len(still) == 0 {
		return false, err
	}
	t, payoutID, err := transaction(ctx, tx, e.ObjectID)
	if err != nil {
		return false, err
	}
	paymentID, _, err := n.paymentOf(ctx, tx, t)
	if err != nil || paymentID == "" {
		return false, err
	}
	p, err := lockPayout(ctx, tx, payoutID)
	if err != nil {
		return false, err
	}
	s := settlement{n: n, tx: tx, payout: p, on: date, suffix: "/" + t.ID, kind: "explained", debit: suspenseAccount, departments: map[string]*sums{}}
	if err := s.addPayment(ctx, paymentID, t.Amount); err != nil {
		return false, err
	}
	if err := s.post(ctx); err != nil {
		return false, err
	}
	return true, n.close(ctx, tx, e, "payment "+paymentID+" was booked after the payout")
}

// transaction reads one line and the payout it is in.
func transaction(ctx context.Context, q Querier, transactionID string) (t Transaction, payoutID string, err error) {
	err = q.QueryRow(ctx, `
		select t.id, t.category, t.source_id, t.intent_id, t.amount_cents, t.fee_cents, t.net_cents, l.payout_id
		from reconcile.balance_transaction t join reconcile.payout_line l on l.transaction_id = t.id where t.id = $1`, transactionID).
		Scan(&t.ID, &t.Category, &t.SourceID, &t.IntentID, &t.Amount, &t.Fee, &t.Net, &payoutID)
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return t, "", fmt.Errorf("read balance transaction %s: %w", transactionID, err)
	}
	return t, payoutID, nil
}
