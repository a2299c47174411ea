package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/clock"
	"guichet/internal/money"
)

// A HoldState says what became of a hold.
type HoldState string

const (
	HoldOpen     HoldState = "open"     // some or all of it is held
	HoldCaptured HoldState = "captured" // booked; what was not booked is free again
	HoldVoided   HoldState = "voided"
	HoldExpired  HoldState = "expired"
)

// A Hold is money set aside: it counts against the limits of its accounts and is in
// no balance until it is captured.
type Hold struct {
	Entry     Entry // as it was held at first
	State     HoldState
	ExpiresAt time.Time // zero: never
	ChangedAt time.Time
	Remaining []Line // still held, in the order of the entry
}

// Hold sets the lines of an entry aside instead of booking them, until they are
// captured, voided, or have expired (zero time: never). The errors, and calling it
// again with the same key, are as with Append.
func (b *Books) Hold(ctx context.Context, tx pgx.Tx, e Entry, expires time.Time) (string, error) {
	if err := e.plain(); err != nil {
		return "", fmt.Errorf("hold %s: %w", e.Key, err)
	}
	e.Held = true
	entryID, err := b.append(ctx, tx, e)
	if err != nil {
		return "", fmt.Errorf("hold %s: %w", e.Key, err)
	}
	var at *time.Time
	if !expires.IsZero() {
		t := expires.UTC().Truncate(time.Microsecond)
		at = &t
	}
	// A replay finds the row, and must ask for the same time.
	var same bool
	err = tx.QueryRow(ctx, `
		with made as (insert into ledger.hold (entry_id, expires_at, changed_at) values ($1, $2, $3) on conflict do nothing returning true)
		select coalesce((select true from made), (select expires_at is not distinct from $2 from ledger.hold where entry_id = $1), true)`,
		entryID, at, b.moment()).Scan(&same)
	if err != nil {
		return "", fmt.Errorf("hold %s: %w", e.Key, err)
	}
	if !same {
		return "", fmt.Errorf("hold %s: %w", e.Key, &ConflictError{e.Key, entryID})
	}
	return entryID, nil
}

// A Rest says what a capture does with what it leaves of a hold.
type Rest int

const (
	ReleaseRest Rest = iota // free it: the hold is over
	KeepRest                // hold it still, for another capture
)

// Capture books a hold: the lines of e, with accounts, dimensions and sides as held
// and up to the amounts held, or all that remains when e has none. Key, Kind (empty:
// "capture"), EffectiveOn, Actor, Channel, Description and Metadata are taken from e,
// and the source when e has one. A second capture under the same key is a
// replay; a hold that is over, or holds less, is ErrHold.
func (b *Books) Capture(ctx context.Context, tx pgx.Tx, holdID string, e Entry, rest Rest) (string, error) {
	entryID, err := b.capture(ctx, tx, holdID, e, rest)
	if err != nil {
		return "", fmt.Errorf("capture hold %s: %w", holdID, err)
	}
	return entryID, nil
}

func (b *Books) capture(ctx context.Context, tx pgx.Tx, holdID string, e Entry, rest Rest) (string, error) {
	if err := e.plain(); err != nil {
		return "", err
	}
	h, err := b.lockHold(ctx, tx, holdID)
	if err != nil {
		return "", err
	}
	e.Hold, e.Currency = holdID, h.Entry.Currency
	if e.Kind == "" {
		e.Kind = "capture"
	}
	if e.SourceType == "" && e.SourceID == "" {
		e.SourceType, e.SourceID = h.Entry.SourceType, h.Entry.SourceID
	}
	// All that remains is another amount the second time: the first entry tells it.
	switch first, err := b.EntryByKey(ctx, tx, e.Key); {
	case err == nil:
		if len(e.Lines) == 0 {
			e.Lines = first.Lines
		}
		return b.append(ctx, tx, e)
	case !errors.Is(err, ErrNotFound):
		return "", err
	}
	if h.State != HoldOpen {
		return "", fmt.Errorf("hold is %s: %w", h.State, ErrHold)
	}
	if len(e.Lines) == 0 {
		e.Lines = h.Remaining
	}
	free := h.Remaining
	if rest == KeepRest {
		free = e.Lines
	}
	if !within(e.Lines, h.Remaining) {
		return "", fmt.Errorf("the lines are not among what is held: %w", ErrHold)
	}
	if err := b.release(ctx, tx, h, free, Entry{
		Key: e.Key + "/release", Kind: "release", Actor: e.Actor, Channel: e.Channel, Description: e.Description,
	}); err != nil {
		return "", err
	}
	entryID, err := b.append(ctx, tx, e)
	if err != nil {
		return "", err
	}
	if rest == KeepRest && !within(h.Remaining, e.Lines) {
		return entryID, nil
	}
	return entryID, b.endHold(ctx, tx, holdID, HoldCaptured)
}

// Void frees what remains of a hold. Key, Kind (empty: "void"), Actor, Channel and
// Description are taken from e. Voiding what is voided is a no-op; what was captured or
// has expired is ErrHold.
func (b *Books) Void(ctx context.Context, tx pgx.Tx, holdID string, e Entry) error {
	if e.Kind == "" {
		e.Kind = "void"
	}
	h, err := b.lockHold(ctx, tx, holdID)
	switch {
	case err != nil:
		return fmt.Errorf("void hold %s: %w", holdID, err)
	case h.State == HoldVoided:
		return nil
	case h.State != HoldOpen:
		return fmt.Errorf("void hold %s: hold is %s: %w", holdID, h.State, ErrHold)
	}
	if err := b.release(ctx, tx, h, h.Remaining, e); err != nil {
		return fmt.Errorf("void hold %s: %w", holdID, err)
	}
	return b.endHold(ctx, tx, holdID, HoldVoided)
}

// ExpireHolds frees up to limit holds whose time is over and returns how many. Two
// instances may run it at once: each takes what the other leaves.
func (b *Books) ExpireHolds(ctx context.Context, tx pgx.Tx, limit int) (int, error) {
	rows, err := tx.Query(ctx, `
		select entry_id::text from ledger.hold where state = 'open' and expires_at <= $1
		order by expires_at, entry_id limit $2 for no key update skip locked`, b.moment(), limit)
	if err != nil {
		return 0, fmt.Errorf("list holds that are over: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return 0, fmt.Errorf("list holds that are over: %w", err)
	}
	for _, holdID := range ids {
		h, err := b.lockHold(ctx, tx, holdID)
		if err != nil {
			return 0, fmt.Errorf("expire hold %s: %w", holdID, err)
		}
		if err := b.release(ctx, tx, h, h.Remaining, Entry{Key: "hold/" + holdID + "/expired", Kind: "expiry", Actor: "system", OrNextOpen: true}); err != nil {
			return 0, fmt.Errorf("expire hold %s: %w", holdID, err)
		}
		if err := b.endHold(ctx, tx, holdID, HoldExpired); err != nil {
			return 0, err
		}
	}
	return len(ids), nil
}

// release takes lines out of the held layer.
func (b *Books) release(ctx context.Context, tx pgx.Tx, h Hold, lines []Line, e Entry) error {
	e.Held, e.Hold, e.Currency, e.Lines = true, h.Entry.ID, h.Entry.Currency, opposite(lines)
	e.SourceType, e.SourceID, e.Metadata = h.Entry.SourceType, h.Entry.SourceID, nil
	_, err := b.append(ctx, tx, e)
	return err
}

func (b *Books) endHold(ctx context.Context, tx pgx.Tx, holdID string, to HoldState) error {
	if _, err := tx.Exec(ctx, `update ledger.hold set state = $2, changed_at = $3 where entry_id = $1`, holdID, to, b.moment()); err != nil {
		return fmt.Errorf("set hold %s to %s: %w", holdID, to, err)
	}
	return nil
}

// lockHold makes this transaction the only one that decides about a hold, and reads
// it in a later statement, which sees what the one before has done.
func (b *Books) lockHold(ctx context.Context, tx pgx.Tx, holdID string) (Hold, error) {
	if _, err := b.Entry(ctx, tx, holdID); err != nil {
		return Hold{}, err
	}
	if _, err := tx.Exec(ctx, `select from ledger.hold where entry_id = $1 for no key update`, holdID); err != nil {
		return Hold{}, fmt.Errorf("lock hold: %w", err)
	}
	return b.HoldOf(ctx, tx, holdID)
}

// HoldOf returns a hold by the id that Hold returned, or ErrNotFound.
func (b *Books) HoldOf(ctx context.Context, q Querier, holdID string) (Hold, error) {
	e, err := b.Entry(ctx, q, holdID)
	if err != nil {
		return Hold{}, err
	}
	h := Hold{Entry: e, Remaining: slices.Clone(e.Lines)}
	var expires *time.Time
	err = q.QueryRow(ctx, `select state, expires_at, changed_at from ledger.hold where entry_id = $1`, holdID).Scan(&h.State, &expires, &h.ChangedAt)
	if errors.Is(err, pgx.ErrNoRows) {
		return Hold{}, fmt.Errorf("hold %s: %w", holdID, ErrNotFound)
	}
	if err != nil {
		return Hold{}, fmt.Errorf("read hold %s: %w", holdID, err)
	}
	h.ChangedAt = h.ChangedAt.UTC()
	if expires != nil {
		h.ExpiresAt = expires.UTC()
	}
	released, err := records(ctx, q, `where e.hold = $1 and e.accounts[1] < 0 order by e.id limit 10000`, holdID)
	if err != nil {
		return Hold{}, fmt.Errorf("read releases of hold %s: %w", holdID, err)
	}
	for _, r := range released {
		h.Remaining = without(h.Remaining, opposite(r.Lines))
	}
	return h, nil
}

// without takes lines away, each from the first lines alike that have something left.
func without(from, lines []Line) []Line {
	out := slices.Clone(from)
	for _, l := range lines {
		for i := range out {
			o := &out[i]
			if o.Account != l.Account || o.Dimensions != l.Dimensions || (o.Amount > 0) != (l.Amount > 0) || o.Amount == 0 {
				continue
			}
			part := l.Amount
			if (part > 0) == (part > o.Amount) { // no more than there is, on either side
				part = o.Amount
			}
			o.Amount -= part
			if l.Amount -= part; l.Amount == 0 {
				break
			}
		}
	}
	return slices.DeleteFunc(out, func(l Line) bool { return l.Amount == 0 })
}

// within reports whether lines are held, each side of each account and dimension
// for itself.
func within(lines, held []Line) bool {
	type part struct {
		account    string
		dimensions Dimensions
		debit      bool
	}
	left := map[part]money.Amount{}
	for _, l := range held {
		left[part{l.Account, l.Dimensions, l.Amount > 0}] += max(l.Amount, -l.Amount)
	}
	for _, l := range lines {
		k := part{l.Account, l.Dimensions, l.Amount > 0}
		if left[k] -= max(l.Amount, -l.Amount); left[k] < 0 {
			return false
		}
	}
	return true
}

// Available returns what an account holds on its normal side less what is held against
// it: what its limit is compared with.
func (b *Books) Available(ctx context.Context, q Querier, path string) (money.Amount, error) {
	var available money.Amount
	err := q.QueryRow(ctx, `select ledger.available_now(id, normal) from ledger.account where path = $1`, path).Scan(&available)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, &UnknownAccountError{path}
	}
	if err != nil {
		return 0, fmt.Errorf("read what is available on %s: %w", path, err)
	}
	return available, nil
}

// nextOpen is the accounting date of what is dated on a day: the day itself while its
// period takes it, or the first day of the next period that does. It holds back
// closings until the transaction ends, so the answer stays true.
func (b *Books) nextOpen(ctx context.Context, tx pgx.Tx, on clock.Date, kind string) (clock.Date, error) {
	if _, err := tx.Exec(ctx, `select pg_advisory_xact_lock_shared(7482061)`); err != nil {
		return on, fmt.Errorf("hold back closings: %w", err)
	}
	rows, err := tx.Query(ctx, `
		select month, state from ledger.period
		where month >= date_trunc('month', $1::date::timestamp)::date and state <> 'open' order by month limit 1000`, on.Time())
	if err != nil {
		return on, fmt.Errorf("look for an open period: %w", err)
	}
	var (
		first time.Time
		state PeriodState
		refused,
		closed []clock.Date
	)
	if _, err := pgx.ForEachRow(rows, []any{&first, &state}, func() error {
		if state == PeriodClosed {
			closed = append(closed, clock.FromTime(first))
		}
		if state == PeriodClosed || kind != "adjustment" {
			refused = append(refused, clock.FromTime(first))
		}
		return nil
	}); err != nil {
		return on, fmt.Errorf("look for an open period: %w", err)
	}
	open := on
	if n := len(closed); n > 0 { // it closes every month before it
		open = nextMonth(closed[n-1])
	}
	for slices.Contains(refused, monthOf(open)) {
		open = nextMonth(monthOf(open))
	}
	return open, nil
}
