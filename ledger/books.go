package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"guichet/internal/clock"
	"guichet/internal/money"
)

// Errors of the caller. Append and its relatives return them wrapped. Those that
// only the database can see (closed, limit, currency of a racing change) leave the
// transaction aborted.
var (
	ErrInvalid        = errors.New("invalid entry")
	ErrUnbalanced     = errors.New("lines do not sum to zero")
	ErrConflict       = errors.New("already recorded with other content")
	ErrUnknownAccount = errors.New("unknown account")
	ErrCurrency       = errors.New("account holds another currency")
	ErrAccountClosed  = errors.New("account is frozen or closed")
	ErrPeriodClosed   = errors.New("accounting period is closed")
	ErrLimit          = errors.New("balance would fall below the account's limit")
	ErrReversed       = errors.New("entry is already reversed, or less of it is left")
	ErrHold           = errors.New("hold is over, or less of it is left")
	ErrNotFound       = errors.New("not found in the books")
)

// An UnbalancedError says by how much the lines of an entry miss zero. It is ErrUnbalanced.
type UnbalancedError struct{ Sum money.Amount }

func (e *UnbalancedError) Error() string { return fmt.Sprintf("the lines sum to %s", e.Sum) }

func (e *UnbalancedError) Is(target error) bool { return target == ErrUnbalanced }

// An UnknownAccountError names the account that is not there. It is ErrUnknownAccount.
type UnknownAccountError struct{ Path string }

func (e *UnknownAccountError) Error() string { return fmt.Sprintf("account %.200q is unknown", e.Path) }

func (e *UnknownAccountError) Is(target error) bool { return target == ErrUnknownAccount }

// A LimitError says how far an entry would go below an account's limit. It is ErrLimit.
type LimitError struct {
	Account   string       `json:"account"`
	Available money.Amount `json:"available"` // after the entry, on the normal side, less what is held
	Lowest    money.Amount `json:"lowest"`
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("account %s would have %s available, at least %s required", e.Account, e.Available, e.Lowest)
}

func (e *LimitError) Is(target error) bool { return target == ErrLimit }

// A PeriodError names the period that takes no more. It is ErrPeriodClosed.
type PeriodError struct {
	Month clock.Date // its first day
	State PeriodState
}

func (e *PeriodError) Error() string { return fmt.Sprintf("period %s is %s", month(e.Month), e.State) }

func (e *PeriodError) Is(target error) bool { return target == ErrPeriodClosed }

// A ConflictError names the entry that has the key already. It is ErrConflict.
type ConflictError struct{ Key, EntryID string }

func (e *ConflictError) Error() string {
	return fmt.Sprintf("key %s: entry %s has other content", e.Key, e.EntryID)
}

func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// A Querier is a pool, a connection or a transaction.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Books is the way in. It may be used by many goroutines at once; one per process
// is enough.
type Books struct {
	now func() time.Time

	// Ids of committed accounts and dimensions. Both are immutable, so what is
	// here stays true; what a caller's own transaction created never gets in.
	mu         sync.RWMutex
	accounts   map[string]int64
	dimensions map[Dimensions]int64
}

// cacheLimit bounds each map: beyond it the map starts again empty.
const cacheLimit = 50_000

// New returns the books. now is the business clock.
func New(now func() time.Time) *Books {
	return &Books{now: now, accounts: map[string]int64{}, dimensions: map[Dimensions]int64{}}
}

// moment is the business time as the database can hold it.
func (b *Books) moment() time.Time { return b.now().UTC().Truncate(time.Microsecond) }

// committed is true for a row that our own transaction did not write: age counts
// from our own transaction id, or from the next one when we have none yet, and what
// we or our savepoints write is never older than that. A row that another
// transaction committed after we began is not found old either; it is merely
// looked up again. t is the table in question.
const committed = `age(t.xmin) > 0`

// cached reads ids from a map under the lock and lists the keys that are missing.
func cached[K comparable](b *Books, from *map[K]int64, keys []K) (found map[K]int64, missing []K) {
	found = make(map[K]int64, len(keys))
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, k := range keys {
		if _, seen := found[k]; seen {
			continue
		}
		id, ok := (*from)[k]
		if !ok {
			missing = append(missing, k)
		}
		found[k] = id
	}
	return found, missing
}

func remember[K comparable](b *Books, into *map[K]int64, ids map[K]int64) {
	if len(ids) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(*into)+len(ids) > cacheLimit {
		*into = make(map[K]int64)
	}
	maps.Copy(*into, ids)
}

// accountIDs returns the id of each path, or ErrUnknownAccount.
func (b *Books) accountIDs(ctx context.Context, q Querier, paths []string) (map[string]int64, error) {
	ids, missing := cached(b, &b.accounts, paths)
	if len(missing) == 0 {
		return ids, nil
	}
	for _, path := range missing {
		if !pathForm.MatchString(path) {
			return nil, &UnknownAccountError{path}
		}
	}
	rows, err := q.Query(ctx, `select path, id, `+committed+` from ledger.account t where path = any($1)`, missing)
	if err != nil {
		return nil, fmt.Errorf("look up accounts: %w", err)
	}
	keep := map[string]int64{}
	var (
		path string
		id   int64
		old  bool
	)
	if _, err := pgx.ForEachRow(rows, []any{&path, &id, &old}, func() error {
		ids[path] = id
		if old {
			keep[path] = id
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("look up accounts: %w", err)
	}
	for _, path := range missing {
		if ids[path] == 0 {
			return nil, &UnknownAccountError{path}
		}
	}
	remember(b, &b.accounts, keep)
	return ids, nil
}

// refused turns what the database says into the errors above, by code and
// constraint name.
func refused(err error) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return err
	}
	switch pg.Code {
	case "LG001":
		return fmt.Errorf("%s: %w", reason(pg), ErrUnknownAccount)
	case "LG002":
		return fmt.Errorf("%s: %w", reason(pg), ErrAccountClosed)
	case "LG003":
		return fmt.Errorf("%s: %w", reason(pg), ErrCurrency)
	case "LG004":
		return periodError(pg)
	case "LG005":
		refusal := new(LimitError)
		if err := json.Unmarshal([]byte(pg.Detail), refusal); err != nil {
			return fmt.Errorf("%s: %w", reason(pg), ErrLimit)
		}
		return refusal
	case "LG006":
		return fmt.Errorf("%s: %w", reason(pg), ErrInvalid)
	case "LG007":
		return fmt.Errorf("%s: %w", reason(pg), ErrReversed)
	case "LG008":
		return fmt.Errorf("%s: %w", reason(pg), ErrHold)
	}
	if pg.ConstraintName == "journal_entry_balanced" {
		return fmt.Errorf("%w: %w", ErrUnbalanced, err)
	}
	return err
}

// reason is what the database says, without the id of an entry that will never be.
func reason(pg *pgconn.PgError) string {
	if what, why, ok := strings.Cut(pg.Message, ": "); ok && strings.HasPrefix(what, "entry ") {
		return why
	}
	return pg.Message
}

func periodError(pg *pgconn.PgError) error {
	var detail struct {
		Month string
		State PeriodState
	}
	if err := json.Unmarshal([]byte(pg.Detail), &detail); err != nil {
		return fmt.Errorf("%s: %w", pg.Message, ErrPeriodClosed)
	}
	first, err := clock.ParseDate(detail.Month)
	if err != nil {
		return fmt.Errorf("%s: %w", pg.Message, ErrPeriodClosed)
	}
	return &PeriodError{first, detail.State}
}
