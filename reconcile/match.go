package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/audit"
	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/money"
	"guichet/payments"
)

// A BankLine is one booked line of the bank, as kept.
type BankLine struct {
	ID        string
	Statement string // the bank's name of the statement
	Number    int
	Amount    money.Amount // credit positive
	BookedOn  clock.Date
	ValueOn   clock.Date
	Refs      []string
	Code      string
	Text      string
	PayoutID  string // the payout that explains it; empty: none
}

func bankLines(ctx context.Context, q Querier, where string, args ...any) ([]BankLine, error) {
	rows, err := q.Query(ctx, `
		select l.id, s.number, l.number, l.amount_cents, l.booked_on, l.value_on, l.refs, l.code, l.text, coalesce(m.payout_id, '')
		from reconcile.bank_line l join reconcile.statement s on s.id = l.statement_id
		left join reconcile.payout_match m on m.bank_line_id = l.id `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read bank lines: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (l BankLine, err error) {
		var booked, value time.Time
		err = row.Scan(&l.ID, &l.Statement, &l.Number, &l.Amount, &booked, &value, &l.Refs, &l.Code, &l.Text, &l.PayoutID)
		l.BookedOn, l.ValueOn = clock.FromTime(booked), clock.FromTime(value)
		return l, err
	})
	if err != nil {
		return nil, fmt.Errorf("read bank lines: %w", err)
	}
	return list, nil
}

// BankLines lists the lines booked on a date, in the bank's order.
func BankLines(ctx context.Context, q Querier, on clock.Date, limit int) ([]BankLine, error) {
	return bankLines(ctx, q, `where l.booked_on = $1 order by s.number, l.number limit $2`, on.Time(), limit)
}

// A rule says when a payout and a bank line are the same money. Names carry a
// version: what a rule means never changes under its name.
type rule struct {
	name string
	// fits reports whether the line can be the payout, and why.
	fits func(Payout, BankLine) (evidence map[string]string, ok bool)
}

// rules are tried in order, each over everything the ones before have left.
var rules = []rule{
	{"payout-reference/1", byReference},
	{"payout-amount-date/1", byAmountAndDate},
}

// byReference: exactly the amount, and the line carries the payout's id or trace.
func byReference(p Payout, l BankLine) (map[string]string, bool) {
	if p.Amount != l.Amount {
		return nil, false
	}
	for _, reference := range []string{p.ID, p.TraceID} {
		want := plain(reference)
		if len(want) < 6 { // too short to be no accident
			continue
		}
		for _, ref := range append(slices.Clone(l.Refs), l.Text) {
			if strings.Contains(plain(ref), want) {
				return map[string]string{"amount": p.Amount.String(), "processor": reference, "bank": ref}, true
			}
		}
	}
	return nil, false
}

// plain strips what banks change in a reference: case and everything but letters
// and digits.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, strings.ToLower(s))
}

// valueTolerance is how many days after the announced arrival a line may have its
// value date: a weekend and a holiday.
const valueTolerance = 4

// byAmountAndDate: exactly the amount, and the value date is when the processor
// announced it, or a few days later. It decides only when nothing else fits.
func byAmountAndDate(p Payout, l BankLine) (map[string]string, bool) {
	if p.Amount != l.Amount || l.ValueOn.Before(p.ArrivalOn) || l.ValueOn.After(p.ArrivalOn.AddDays(valueTolerance)) {
		return nil, false
	}
	return map[string]string{"amount": p.Amount.String(), "arrival": p.ArrivalOn.String(), "value": l.ValueOn.String()}, true
}

type pair struct {
	payout   int
	line     int
	rule     string
	evidence map[string]string
}

// decide applies the rules. A payout and a line that fit only each other are
// matched; whatever else fits is a suggestion, and no weaker rule decides it. The
// result depends on nothing but the arguments.
func decide(payouts []Payout, lines []BankLine) (matches, ties []pair) {
	payoutTaken, lineTaken := make([]bool, len(payouts)), make([]bool, len(lines))
	for _, r := range rules {
		var fits []pair
		ofPayout, ofLine := make([]int, len(payouts)), make([]int, len(lines))
		for i, p := range payouts {
			for j, l := range lines {
				if payoutTaken[i] || lineTaken[j] {
					continue
				}
				if evidence, ok := r.fits(p, l); ok {
					fits = append(fits, pair{i, j, r.name, evidence})
					ofPayout[i]++
					ofLine[j]++
				}
			}
		}
		for _, f := range fits {
			if ofPayout[f.payout] == 1 && ofLine[f.line] == 1 {
				matches = append(matches, f)
			} else {
				ties = append(ties, f)
			}
			payoutTaken[f.payout], lineTaken[f.line] = true, true
		}
	}
	return matches, ties
}

type matched struct {
	Payouts   int `json:"payouts"`
	Ties      int `json:"ties"`
	Unmatched int `json:"unmatched_lines"`
	Missing   int `json:"missing_payouts"`
}

// maxOpen bounds how many open payouts and lines one run looks at together. More
// is a failure, for the rest would silently wait.
const maxOpen = 20_000

// match finds the bank line of each payout, up to the business date.
func (n *Nightly) match(ctx context.Context, date clock.Date) (any, error) {
	var did matched
	err := pgx.BeginFunc(ctx, n.db, func(tx pgx.Tx) error {
		payouts, err := payoutsWhere(ctx, tx, `where state = 'itemised' order by created_at, id limit $1 for update`, maxOpen+1)
		if err != nil {
			return err
		}
		lines, err := bankLines(ctx, tx, openLines, date.Time(), string(LineUnmatched), maxOpen+1)
		if err != nil {
			return err
		}
		if len(payouts) > maxOpen || len(lines) > maxOpen {
			return fmt.Errorf("more than %d payouts or bank lines are open: resolve the exceptions", maxOpen)
		}
		matches, ties := decide(payouts, lines)
		did.Payouts = len(matches)
		explained := map[string]bool{}
		for _, m := range matches {
			explained[lines[m.line].ID] = true
			if err := n.matchPair(ctx, tx, &payouts[m.payout], lines[m.line], m.rule, m.evidence); err != nil {
				return err
			}
		}
		for _, t := range ties {
			explained[lines[t.line].ID] = true
			if err := n.suggest(ctx, tx, payouts[t.payout], lines[t.line], t); err != nil {
				return err
			}
		}
		did.Ties = len(ties)
		for _, l := range lines {
			if explained[l.ID] {
				continue
			}
			did.Unmatched++
			if err := n.open(ctx, tx, Exception{Kind: LineUnmatched, ObjectType: "bank-line", ObjectID: l.ID, Amount: l.Amount},
				fmt.Sprintf("statement %s, line %d, booked %s: no payout is this amount", l.Statement, l.Number, l.BookedOn)); err != nil {
				return err
			}
		}
		did.Missing, err = n.findMissing(ctx, tx, payouts, date)
		return err
	})
	if err != nil {
		return nil, err
	}
	return did, nil
}

// openLines are the lines up to a date without an explanation: no payout, and no
// person who has settled it.
const openLines = `
	where m.payout_id is null and l.booked_on <= $1 and not exists (select from reconcile.exception e
		where e.type = $2 and e.object_type = 'bank-line' and e.object_id = l.id::text and e.closed_at is not null)
	order by l.booked_on, s.number, l.number limit $3`

// matchPair records a match, moves the payout on and closes what was open about
// either side.
func (n *Nightly) matchPair(ctx context.Context, tx pgx.Tx, p *Payout, l BankLine, ruleName string, evidence map[string]string) error {
	text, err := json.Marshal(evidence)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `
		insert into reconcile.payout_match (payout_id, bank_line_id, rule, evidence, matched_by, matched_at) values ($1, $2, $3, $4, $5, $6)`,
		p.ID, l.ID, ruleName, text, audit.From(ctx).Actor, n.now()); err != nil {
		return fmt.Errorf("match payout %s: %w", p.ID, err)
	}
	if err := p.move(ctx, tx, Matched, ruleName, n.now()); err != nil {
		return err
	}
	for _, e := range []struct {
		kind               Kind
		objectType, object string
	}{{LineUnmatched, "bank-line", l.ID}, {Tie, "payout", p.ID}, {PayoutMissing, "payout", p.ID}} {
		if err := n.settled(ctx, tx, e.kind, e.objectType, e.object, "matched by rule "+ruleName); err != nil {
			return err
		}
	}
	return nil
}

func (n *Nightly) suggest(ctx context.Context, tx pgx.Tx, p Payout, l BankLine, t pair) error {
	text, err := json.Marshal(t.evidence)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `
		insert into reconcile.suggestion (payout_id, bank_line_id, rule, evidence, made_at) values ($1, $2, $3, $4, $5) on conflict do nothing`,
		p.ID, l.ID, t.rule, text, n.now()); err != nil {
		return fmt.Errorf("suggest a line for payout %s: %w", p.ID, err)
	}
	return n.open(ctx, tx, Exception{Kind: Tie, ObjectType: "payout", ObjectID: p.ID, Amount: p.Amount},
		"several payouts and bank lines fit each other by rule "+t.rule)
}

// findMissing opens an exception for payouts that the bank should have shown.
func (n *Nightly) findMissing(ctx context.Context, tx pgx.Tx, payouts []Payout, date clock.Date) (count int, err error) {
	for _, p := range payouts {
		if p.State != Itemised || !p.ArrivalOn.AddDays(valueTolerance).Before(date) {
			continue
		}
		count++
		if err := n.open(ctx, tx, Exception{Kind: PayoutMissing, ObjectType: "payout", ObjectID: p.ID, Amount: p.Amount},
			fmt.Sprintf("announced for %s and not on a statement by %s", p.ArrivalOn, date)); err != nil {
			return count, err
		}
	}
	return count, nil
}

// Match says that a payout and a bank line are the same money: a person's
// decision, where the rules saw a tie or nothing. The amounts must be equal.
func (n *Nightly) Match(ctx context.Context, payoutID, bankLineID, reason string) error {
	err := pgx.BeginFunc(ctx, n.db, func(tx pgx.Tx) error {
		if !id.Valid(bankLineID) {
			return ErrNotFound
		}
		if reason == "" {
			return errors.New("a reason is needed")
		}
		p, err := lockPayout(ctx, tx, payoutID)
		if err != nil {
			return err
		}
		lines, err := bankLines(ctx, tx, `where l.id = $1`, bankLineID)
		if err != nil {
			return err
		}
		switch {
		case len(lines) == 0:
			return ErrNotFound
		case lines[0].PayoutID != "":
			return fmt.Errorf("the bank line is matched to payout %s", lines[0].PayoutID)
		case lines[0].Amount != p.Amount:
			return fmt.Errorf("the payout is %s and the bank line %s", p.Amount, lines[0].Amount)
		}
		if err := n.matchPair(ctx, tx, &p, lines[0], "person/1", map[string]string{"reason": reason}); err != nil {
			return err
		}
		return audit.Record(ctx, tx, audit.Event{
			Action: "payout.matched", ObjectType: "payout", ObjectID: p.ID, At: n.now(),
			Details: map[string]any{"bank_line": bankLineID, "reason": reason},
		})
	})
	if err != nil {
		return fmt.Errorf("match payout %s: %w", payoutID, err)
	}
	return nil
}

// chargeRule: a balance transaction of a charge belongs to the payment that has
// this charge or payment intent, and has exactly its amount.
const chargeRule = "payment-charge/1"

// paymentOf finds the payment of a balance transaction and records the match. It
// returns "" and the reason when there is none.
func (n *Nightly) paymentOf(ctx context.Context, tx pgx.Tx, t Transaction) (paymentID, reason string, err error) {
	if t.Category != "charge" {
		return "", "the processor calls it " + t.Category, nil
	}
	p, err := n.payments.ByProcessorRef(ctx, tx, t.SourceID, t.IntentID)
	if errors.Is(err, payments.ErrNotFound) {
		return "", "no payment has charge " + t.SourceID, nil
	}
	if err != nil {
		return "", "", fmt.Errorf("look for the payment of %s: %w", t.ID, err)
	}
	switch {
	case p.State != payments.Succeeded:
		return "", fmt.Sprintf("payment %s has the charge and is %s", p.Reference, p.State), nil
	case p.Amount != t.Amount:
		return "", fmt.Sprintf("payment %s has the charge and is %s", p.Reference, p.Amount), nil
	}
	evidence, err := json.Marshal(map[string]string{"charge": t.SourceID, "intent": t.IntentID, "amount": t.Amount.String()})
	if err != nil {
		return "", "", err
	}
	// A payment is in one line only: the key decides between two that claim it.
	tag, err := tx.Exec(ctx, `
		insert into reconcile.payment_match (transaction_id, payment_id, rule, evidence, matched_at) values ($1, $2, $3, $4, $5)
		on conflict do nothing`, t.ID, p.ID, chargeRule, evidence, n.now())
	if err != nil {
		return "", "", fmt.Errorf("match %s to payment %s: %w", t.ID, p.Reference, err)
	}
	if tag.RowsAffected() == 0 {
		return "", fmt.Sprintf("payment %s is in another payout's line already", p.Reference), nil
	}
	return p.ID, "", nil
}
