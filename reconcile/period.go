package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/approval"
	"guichet/internal/audit"
	"guichet/internal/clock"
	"guichet/ledger"
)

// Check is Verify as a rule for ledger.Verify, and for the close of a month.
func Check(ctx context.Context, tx pgx.Tx) ([]ledger.Finding, error) {
	found, err := Verify(ctx, tx)
	if err != nil {
		return nil, err
	}
	list := make([]ledger.Finding, len(found))
	for i, f := range found {
		list[i] = ledger.Finding(f)
	}
	return list, nil
}

// periodKind is the kind of approvals that move a month; the state comes behind it.
const periodKind = "period."

// ErrPeriodStep: a month cannot be moved from its state to that one.
var ErrPeriodStep = errors.New("the month cannot be moved to that state")

// nextPeriod is where a month may be moved.
var nextPeriod = map[ledger.PeriodState][]ledger.PeriodState{
	ledger.PeriodOpen:    {ledger.PeriodClosing},
	ledger.PeriodClosing: {ledger.PeriodOpen, ledger.PeriodClosed},
}

// A PeriodMove is where a month may be moved.
type PeriodMove struct {
	To    ledger.PeriodState
	Asked bool // and somebody has asked for it
}

// PeriodMoves lists where a month (YYYY-MM) may be moved from its state.
func PeriodMoves(month string, from ledger.PeriodState, requests []PeriodRequest) []PeriodMove {
	var list []PeriodMove
	for _, to := range nextPeriod[from] {
		asked := slices.ContainsFunc(requests, func(r PeriodRequest) bool { return r.Month == month && r.To == to })
		list = append(list, PeriodMove{to, asked})
	}
	return list
}

// A PeriodRequest is a move of a month that waits for a second person.
type PeriodRequest struct {
	ID    string
	Month string // YYYY-MM
	To    ledger.PeriodState
	By    string
	At    time.Time
}

// AskPeriod asks for a month to be moved to a state; another person decides. It is
// ErrPeriodStep for a state that does not follow, approval.ErrPending when it was asked already.
func (n *Nightly) AskPeriod(ctx context.Context, first clock.Date, to ledger.PeriodState) error {
	err := pgx.BeginFunc(ctx, n.db, func(tx pgx.Tx) error {
		from, err := n.books.PeriodOf(ctx, tx, first)
		if err != nil {
			return err
		}
		if !slices.Contains(nextPeriod[from.State], to) {
			return fmt.Errorf("from %s: %w", from.State, ErrPeriodStep)
		}
		_, err = approval.Ask(ctx, tx, approval.Request{
			Kind: periodKind + string(to), Object: first.String()[:len("2006-01")], Payload: periodMove(first, from.State, to), By: audit.From(ctx).Actor, At: n.now(),
		})
		return err
	})
	if err != nil {
		return fmt.Errorf("ask for period %s to be %s: %w", first, to, err)
	}
	return nil
}

// periodMove is what is approved, byte by byte: a month that has moved meanwhile is another.
func periodMove(first clock.Date, from, to ledger.PeriodState) []byte {
	return fmt.Appendf(nil, "guichet/period/1\n%s\n%s\n%s\n", first, from, to)
}

// ApprovePeriod carries out what somebody else asked for: the month moves, and a month
// that closes is proved first by the rules of payments and of this package. What a rule finds
// is ledger.ErrNotReady; the other errors are those of approval.
func (n *Nightly) ApprovePeriod(ctx context.Context, requestID string) error {
	err := pgx.BeginFunc(ctx, n.db, func(tx pgx.Tx) error {
		r, first, err := periodRequest(ctx, tx, requestID)
		if err != nil {
			return err
		}
		from, err := n.books.PeriodOf(ctx, tx, first)
		if err != nil {
			return err
		}
		d := approval.Decision{ID: r.ID, By: audit.From(ctx).Actor, At: n.now()}
		if _, err := approval.Approve(ctx, tx, d, periodMove(first, from.State, r.To)); err != nil {
			return err
		}
		return n.books.SetPeriod(ctx, tx, first, r.To, n.PeriodChecks()...)
	})
	if err != nil {
		return fmt.Errorf("approve request %s: %w", requestID, err)
	}
	return nil
}

// PeriodChecks are the rules that a month must keep to be closed.
func (n *Nightly) PeriodChecks() []ledger.Check { return append(n.payments.Checks(), Check) }

// RefusePeriod says no to what somebody else asked for.
func (n *Nightly) RefusePeriod(ctx context.Context, requestID, reason string) error {
	err := pgx.BeginFunc(ctx, n.db, func(tx pgx.Tx) error {
		if _, _, err := periodRequest(ctx, tx, requestID); err != nil {
			return err
		}
		_, err := approval.Refuse(ctx, tx, approval.Decision{ID: requestID, By: audit.From(ctx).Actor, Reason: reason, At: n.now()})
		return err
	})
	if err != nil {
		return fmt.Errorf("refuse request %s: %w", requestID, err)
	}
	return nil
}

// periodRequest reads a request to move a month, or returns ErrNotFound.
func periodRequest(ctx context.Context, q Querier, requestID string) (r PeriodRequest, first clock.Date, err error) {
	a, err := approval.Get(ctx, q, requestID)
	if errors.Is(err, approval.ErrNotFound) {
		return r, first, ErrNotFound
	}
	if err != nil {
		return r, first, err
	}
	r, ok := periodRequestOf(a)
	if !ok {
		return r, first, ErrNotFound
	}
	first, err = clock.ParseDate(r.Month + "-01")
	return r, first, err
}

func periodRequestOf(a approval.Approval) (PeriodRequest, bool) {
	to, ok := strings.CutPrefix(a.Kind, periodKind)
	return PeriodRequest{a.ID, a.Object, ledger.PeriodState(to), a.RequestedBy, a.RequestedAt}, ok
}

// PeriodRequests lists the moves of months that wait for a second person, oldest first.
func PeriodRequests(ctx context.Context, q Querier) ([]PeriodRequest, error) {
	pending, err := approval.Pending(ctx, q)
	if err != nil {
		return nil, err
	}
	var list []PeriodRequest
	for _, a := range pending {
		if r, ok := periodRequestOf(a); ok {
			list = append(list, r)
		}
	}
	return list, nil
}
