package ledger

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/audit"
	"guichet/internal/money"
)

// A Type is one of the five kinds of account. It follows from the root of the path.
type Type string

const (
	Asset     Type = "asset"     // root assets
	Liability Type = "liability" // root liabilities
	Equity    Type = "equity"    // root equity
	Revenue   Type = "revenue"   // root revenue
	Expense   Type = "expense"   // root expenses
)

var roots = map[string]Type{"assets": Asset, "liabilities": Liability, "equity": Equity, "revenue": Revenue, "expenses": Expense}

// A Side is the side of an account on which it grows.
type Side int16

const (
	Debit  Side = 1
	Credit Side = -1
)

// A State says what an account still takes.
type State string

const (
	Open   State = "open"
	Frozen State = "frozen" // takes nothing until opened again; what is held on it may be set free
	Closed State = "closed" // takes nothing, for good; its balance is zero
)

// An Account is a place for amounts. What entries are made of never changes: only
// its state, its limit and its names do.
type Account struct {
	Path       string // assets:receivable:parking: roots as in Type, then [a-z0-9-] between colons
	Type       Type   // empty: as the root of the path says
	Normal     Side   // zero: debit for assets and expenses, else credit
	Currency   string // empty: CAD
	NameEN     string
	NameFR     string
	Department string        // code of the department it belongs to, or empty
	Lowest     *money.Amount // the least balance allowed, counted on the normal side; nil: no limit
	State      State         // empty: open
	OpenedAt   time.Time     // set by OpenAccount
}

var pathForm = regexp.MustCompile(`^(assets|liabilities|equity|revenue|expenses)(:[a-z0-9][a-z0-9-]*)+$`)

// complete fills what the path implies and refuses what contradicts it.
func (a Account) complete() (Account, error) {
	if !pathForm.MatchString(a.Path) || len(a.Path) > 200 {
		return a, fmt.Errorf("account %q: path wants assets, liabilities, equity, revenue or expenses, then parts of a-z, 0-9 and -: %w", a.Path, ErrInvalid)
	}
	root, _, _ := strings.Cut(a.Path, ":")
	if a.Type == "" {
		a.Type = roots[root]
	}
	if a.Type != roots[root] {
		return a, fmt.Errorf("account %s: type %s under %s: %w", a.Path, a.Type, root, ErrInvalid)
	}
	if a.Normal == 0 {
		a.Normal = Credit
		if a.Type == Asset || a.Type == Expense {
			a.Normal = Debit
		}
	}
	if a.Currency == "" {
		a.Currency = money.CAD
	}
	if a.State == "" {
		a.State = Open
	}
	if a.NameEN == "" || a.NameFR == "" {
		return a, fmt.Errorf("account %s: wants a name in English and in French: %w", a.Path, ErrInvalid)
	}
	if a.State != Open {
		return a, fmt.Errorf("account %s: a new account is open, not %s: %w", a.Path, a.State, ErrInvalid)
	}
	return a, nil
}

// OpenAccount makes an account in the caller's transaction. An account that is
// there with the same content is left as it is, whatever its state; with other
// content it is ErrConflict.
func (b *Books) OpenAccount(ctx context.Context, tx pgx.Tx, a Account) error {
	a, err := a.complete()
	if err != nil {
		return err
	}
	tag, err := tx.Exec(ctx, `
		insert into ledger.account (path, type, normal, currency, name_en, name_fr, department, lowest, opened_at)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
		on conflict (path) do nothing`,
		a.Path, a.Type, a.Normal, a.Currency, a.NameEN, a.NameFR, a.Department, a.Lowest, b.moment())
	if err != nil {
		return fmt.Errorf("open account %s: %w", a.Path, err)
	}
	if tag.RowsAffected() == 1 {
		return nil
	}
	have, err := b.Account(ctx, tx, a.Path)
	if err != nil {
		return fmt.Errorf("open account %s: %w", a.Path, err)
	}
	same := have
	same.Lowest, same.State, same.OpenedAt = a.Lowest, a.State, a.OpenedAt
	if same != a || (have.Lowest == nil) != (a.Lowest == nil) || (a.Lowest != nil && *have.Lowest != *a.Lowest) {
		return fmt.Errorf("open account %s: %w", a.Path, ErrConflict)
	}
	return nil
}

// SetAccountState freezes, opens or closes an account. It waits for every append in
// flight, so call it first in a transaction of its own. Closing wants a
// balance of exactly zero and is final.
func (b *Books) SetAccountState(ctx context.Context, tx pgx.Tx, path string, to State) error {
	if err := lockAppends(ctx, tx); err != nil {
		return err
	}
	var (
		id      int64
		state   State
		balance money.Amount
		held    bool
	)
	err := tx.QueryRow(ctx, `
		select id, state, ledger.balance_now(id), ledger.balance_now(-(2 * id)) <> 0 or ledger.balance_now(-(2 * id + 1)) <> 0
		from ledger.account where path = $1 for no key update`, path).Scan(&id, &state, &balance, &held)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return &UnknownAccountError{path}
	case err != nil:
		return fmt.Errorf("read account %s: %w", path, err)
	case state == to:
		return nil
	case state == Closed:
		return fmt.Errorf("account %s to %s: %w", path, to, ErrAccountClosed)
	case to == Closed && held:
		return fmt.Errorf("close account %s: something is held on it: %w", path, ErrInvalid)
	case to == Closed && balance != 0:
		return fmt.Errorf("close account %s: balance is %s, not zero: %w", path, balance, ErrInvalid)
	}
	if _, err := tx.Exec(ctx, `update ledger.account set state = $2 where id = $1`, id, to); err != nil {
		return fmt.Errorf("set account %s to %s: %w", path, to, err)
	}
	return b.auditAccount(ctx, tx, path, map[string]any{"state": to, "was": state})
}

// SetLimit changes the least balance allowed (nil: no limit). It waits for every append
// in flight, so call it first in a transaction of its own. A limit that the
// account is below already is ErrLimit.
func (b *Books) SetLimit(ctx context.Context, tx pgx.Tx, path string, lowest *money.Amount) error {
	if err := lockAppends(ctx, tx); err != nil {
		return err
	}
	var (
		state     State
		was       *money.Amount
		available money.Amount
	)
	err := tx.QueryRow(ctx, `select state, lowest, ledger.available_now(id, normal) from ledger.account where path = $1 for no key update`, path).
		Scan(&state, &was, &available)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return &UnknownAccountError{path}
	case err != nil:
		return fmt.Errorf("read account %s: %w", path, err)
	case state == Closed:
		return fmt.Errorf("set the limit of %s: %w", path, ErrAccountClosed)
	case lowest != nil && available < *lowest:
		return fmt.Errorf("set the limit of %s: %w", path, &LimitError{path, available, *lowest})
	}
	if _, err := tx.Exec(ctx, `update ledger.account set lowest = $2 where path = $1`, path, lowest); err != nil {
		return fmt.Errorf("set the limit of %s: %w", path, err)
	}
	return b.auditAccount(ctx, tx, path, map[string]any{"lowest": lowest, "was": was})
}

// Rename changes the names of an account, unless it is closed.
func (b *Books) Rename(ctx context.Context, tx pgx.Tx, path, nameEN, nameFR string) error {
	if nameEN == "" || nameFR == "" {
		return fmt.Errorf("account %s: wants a name in English and in French: %w", path, ErrInvalid)
	}
	a, err := b.Account(ctx, tx, path)
	if err != nil {
		return err
	}
	if a.State == Closed {
		return fmt.Errorf("rename account %s: %w", path, ErrAccountClosed)
	}
	if _, err := tx.Exec(ctx, `update ledger.account set name_en = $2, name_fr = $3 where path = $1`, path, nameEN, nameFR); err != nil {
		return fmt.Errorf("rename account %s: %w", path, err)
	}
	return b.auditAccount(ctx, tx, path, map[string]any{"name_en": nameEN, "name_fr": nameFR})
}

func (b *Books) auditAccount(ctx context.Context, tx pgx.Tx, path string, details map[string]any) error {
	return audit.Record(ctx, tx, audit.Event{Action: "account.changed", ObjectType: "account", ObjectID: path, Details: details, At: b.moment()})
}

// lockAppends waits for the appends in flight and holds back new ones until the
// transaction ends. The trigger on the journal takes the same lock shared. What is
// read next must see what those appends wrote, so the transaction is READ COMMITTED.
func lockAppends(ctx context.Context, tx pgx.Tx) error {
	var isolation string
	err := tx.QueryRow(ctx, `select current_setting('transaction_isolation') from pg_advisory_xact_lock(7482061)`).Scan(&isolation)
	if err != nil {
		return fmt.Errorf("wait for appends in flight: %w", err)
	}
	if isolation != "read committed" {
		return fmt.Errorf("close in a %s transaction, want read committed: %w", isolation, ErrInvalid)
	}
	return nil
}

const accountColumns = `path, type, normal, currency, name_en, name_fr, department, lowest, state, opened_at`

func scanAccount(row pgx.CollectableRow) (Account, error) {
	var a Account
	err := row.Scan(&a.Path, &a.Type, &a.Normal, &a.Currency, &a.NameEN, &a.NameFR, &a.Department, &a.Lowest, &a.State, &a.OpenedAt)
	a.OpenedAt = a.OpenedAt.UTC()
	return a, err
}

// Account returns one account, or ErrUnknownAccount.
func (b *Books) Account(ctx context.Context, q Querier, path string) (Account, error) {
	rows, err := q.Query(ctx, `select `+accountColumns+` from ledger.account where path = $1`, path)
	if err != nil {
		return Account{}, fmt.Errorf("read account %s: %w", path, err)
	}
	a, err := pgx.CollectExactlyOneRow(rows, scanAccount)
	if errors.Is(err, pgx.ErrNoRows) {
		return Account{}, &UnknownAccountError{path}
	}
	if err != nil {
		return Account{}, fmt.Errorf("read account %s: %w", path, err)
	}
	return a, nil
}

// AccountsOf returns the accounts of an entry's lines, by path.
func (b *Books) AccountsOf(ctx context.Context, q Querier, e Entry) (map[string]Account, error) {
	paths := make([]string, len(e.Lines))
	for i, l := range e.Lines {
		paths[i] = l.Account
	}
	rows, err := q.Query(ctx, `select `+accountColumns+` from ledger.account where path = any($1)`, paths)
	if err != nil {
		return nil, fmt.Errorf("read accounts of entry %s: %w", e.ID, err)
	}
	list, err := pgx.CollectRows(rows, scanAccount)
	if err != nil {
		return nil, fmt.Errorf("read accounts of entry %s: %w", e.ID, err)
	}
	accounts := map[string]Account{}
	for _, a := range list {
		accounts[a.Path] = a
	}
	return accounts, nil
}

// Accounts returns up to limit accounts in order of path, after the given one.
func (b *Books) Accounts(ctx context.Context, q Querier, after string, limit int) ([]Account, error) {
	rows, err := q.Query(ctx, `select `+accountColumns+` from ledger.account where path > $1 order by path limit $2`, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list accounts: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanAccount)
	if err != nil {
		return nil, fmt.Errorf("list accounts: %w", err)
	}
	return list, nil
}
