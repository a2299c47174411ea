package identity

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// A Sweep deletes at most 500 rows of one table that have outlived their meaning, those
// before a moment, skipping rows that somebody holds.
type Sweep struct {
	Name, SQL string
	Before    time.Time
}

// Sweep deletes what has expired and returns how many rows that were. It waits for
// nobody and may run on several instances at once.
//
// Sessions stay 30 days after their end, for the resident's own view of them; the terms of
// all classes of data are in docs/retention.md.
func (s *Service) Sweep(ctx context.Context) (int64, error) {
	now := s.now()
	return RunSweeps(ctx, s.db, []Sweep{
		{"pending sign-ins", `
			delete from identity.pending where id in (
				select id from identity.pending where expires_at < $1 order by expires_at limit 500 for update skip locked)`, now},
		{"e-mail codes", `
			delete from identity.email_code where id in (
				select id from identity.email_code where expires_at < $1 order by expires_at limit 500 for update skip locked)`, now},
		{"sessions", `
			delete from identity.session where id in (
				select id from identity.session where expires_at < $1 order by expires_at limit 500 for update skip locked)`, now.Add(-30 * 24 * time.Hour)},
		{"challenges", `
			delete from identity.challenge where hash in (
				select hash from identity.challenge where expires_at < $1 order by expires_at limit 500 for update skip locked)`, now},
		{"links", `
			delete from identity.link where hash in (
				select hash from identity.link where expires_at < $1 order by expires_at limit 500 for update skip locked)`, now},
		{"codes from counters", `
			delete from identity.counter_code where id in (
				select id from identity.counter_code where expires_at < $1 order by expires_at limit 500 for update skip locked)`, now},
		{"sign-ins at partners", `
			delete from identity.partner_pending where state_hash in (
				select state_hash from identity.partner_pending where expires_at < $1 order by expires_at limit 500 for update skip locked)`, now},
		{"replaced addresses", `
			delete from identity.email_change where id in (
				select id from identity.email_change where revert_until < $1 order by revert_until limit 500 for update skip locked)`, now},
		{"sign-in history", `
			delete from identity.signin where id in (
				select id from identity.signin where at < $1 order by at limit 500 for update skip locked)`, now.Add(-historyFor)},
		{"recoveries", `
			delete from identity.recovery where id in (
				select id from identity.recovery where state <> 'open' and ready_at < $1 order by ready_at limit 500 for update skip locked)`, now.Add(-historyFor)},
		{"alerts", `
			delete from identity.alert where id in (
				select id from identity.alert where at < $1 order by at limit 500 for update skip locked)`, now.Add(-historyFor)},
		{"buckets", `
			delete from identity.bucket where (kind, key) in (
				select kind, key from identity.bucket where at < $1 order by at limit 500 for update skip locked)`, now.Add(-24 * time.Hour)}, // full again by then
	})
}

// RunSweeps runs each sweep until it finds less than a full batch.
func RunSweeps(ctx context.Context, db *pgxpool.Pool, sweeps []Sweep) (int64, error) {
	var total int64
	for _, w := range sweeps {
		for {
			tag, err := db.Exec(ctx, w.SQL, w.Before)
			if err != nil {
				return total, fmt.Errorf("sweep %s: %w", w.Name, err)
			}
			total += tag.RowsAffected()
			if tag.RowsAffected() < 500 {
				break
			}
		}
	}
	return total, nil
}
