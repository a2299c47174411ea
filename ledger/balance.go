package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"guichet/internal/money"
)

// Balance returns what an account holds now, debit positive: posted and unposted
// lines in one snapshot. In a transaction it includes what that transaction appended.
func (b *Books) Balance(ctx context.Context, q Querier, path string) (money.Amount, error) {
	var balance money.Amount
	err := q.QueryRow(ctx, `select ledger.balance_now(id) from ledger.account where path = $1`, path).Scan(&balance)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, fmt.Errorf("account %q: %w", path, ErrUnknownAccount)
	}
	if err != nil {
		return 0, fmt.Errorf("read balance of %s: %w", path, err)
	}
	return balance, nil
}
