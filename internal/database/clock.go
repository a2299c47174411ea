package database

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// A Querier is a pool, connection or transaction.
type Querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Ahead returns how far the business clock of this database runs ahead of the wall
// clock; zero when it was never moved.
func Ahead(ctx context.Context, db Querier) (time.Duration, error) {
	var us int64
	err := db.QueryRow(ctx, "select ahead_us from ops.clock").Scan(&us)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return 0, fmt.Errorf("read the clock's offset: %w", err)
	}
	return time.Duration(us) * time.Microsecond, nil
}

// Advance moves the business clock of this database forward by d and returns the
// new offset. Never call it in production: the clock cannot go back.
func Advance(ctx context.Context, db Querier, d time.Duration) (time.Duration, error) {
	if d < 0 {
		return 0, fmt.Errorf("move the clock by %s: it goes forward only", d)
	}
	var us int64
	err := db.QueryRow(ctx, `
insert into ops.clock as c (ahead_us) values ($1)
on conflict (one) do update set ahead_us = c.ahead_us + excluded.ahead_us
returning ahead_us`, d.Microseconds()).Scan(&us)
	if err != nil {
		return 0, fmt.Errorf("move the clock by %s: %w", d, err)
	}
	return time.Duration(us) * time.Microsecond, nil
}
