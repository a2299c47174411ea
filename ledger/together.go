package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// errRefused takes a whole batch back when one of its entries is refused.
var errRefused = errors.New("an entry of the batch is refused")

// AppendTogether records the entries of one caller in one transaction, waiting
// first while the poster is far behind. Whole: when an entry is refused none is
// recorded, and the results say which and why (those without Err are not recorded
// either). Otherwise what is refused takes no other with it. It is safe to ask again with
// the same keys, also after an error, which leaves open what was recorded.
func (q *Queue) AppendTogether(ctx context.Context, entries []Entry, whole bool) (results []Result, err error) {
	if err := q.backlog(ctx, len(entries)); err != nil {
		return nil, fmt.Errorf("append a batch of %d: %w", len(entries), err)
	}
	for range queueTries {
		err = pgx.BeginFunc(ctx, q.db, func(tx pgx.Tx) (err error) {
			if results, err = q.books.AppendEach(ctx, tx, entries); err != nil || !whole {
				return err
			}
			for _, r := range results {
				if r.Err != nil {
					return errRefused
				}
			}
			return nil
		})
		if err == nil || errors.Is(err, errRefused) {
			return results, nil
		}
		if !transient(err) {
			break
		}
	}
	return nil, err
}
