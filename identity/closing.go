package identity

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/audit"
)

// closeWait is how long a person can think again after asking to close the account.
const closeWait = 7 * 24 * time.Hour

// RequestClose says that a person wants to leave. It happens after seven days, in which they
// can think again. It returns the day, or ErrStepUp, wrapped.
func (s *Service) RequestClose(ctx context.Context, p Person, v Visitor) (time.Time, error) {
	at := s.now().Add(closeWait)
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		has, err := s.factors(ctx, tx, p.ID)
		if err != nil {
			return err
		}
		// Of a person without a second factor a recent code is all there is, and leaving must not need one.
		if !p.Fresh(s.now()) && (has.Strong() || !p.ProvedRecently(s.now())) {
			return ErrStepUp
		}
		tag, err := tx.Exec(ctx, `update identity.resident set close_at = $2 where id = $1 and close_at is null`, p.ID, at)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		if err := s.recordFactor(ctx, tx, "account.closing", p.ID, map[string]any{"at": at, "network": v.Network, "device": v.Device}); err != nil {
			return err
		}
		return s.tellEverywhere(ctx, tx, notice{resident: p.ID, template: "closing", key: p.ID + at.Format(time.DateOnly), data: map[string]string{"days": "7"}})
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("ask to close an account: %w", err)
	}
	return at, nil
}

// KeepAccount takes RequestClose back.
func (s *Service) KeepAccount(ctx context.Context, p Person) error {
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `update identity.resident set close_at = null where id = $1 and close_at is not null and state = 'active'`, p.ID)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		return s.recordFactor(ctx, tx, "account.kept", p.ID, nil)
	})
	if err != nil {
		return fmt.Errorf("keep an account: %w", err)
	}
	return nil
}

// Closing returns when a resident's account will be closed, or nil.
func (s *Service) Closing(ctx context.Context, residentID string) (*time.Time, error) {
	var at *time.Time
	if err := s.db.QueryRow(ctx, `select close_at from identity.resident where id = $1`, residentID).Scan(&at); err != nil {
		return nil, fmt.Errorf("read closing of %s: %w", residentID, err)
	}
	return at, nil
}

// CloseDue closes the accounts whose day has come, each in a transaction of its own, and
// returns how many. It may be run often and on several instances at once.
func (s *Service) CloseDue(ctx context.Context) (int64, error) {
	var closed int64
	for {
		var one bool
		err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
			var residentID string
			err := tx.QueryRow(ctx, `
				select id from identity.resident where close_at <= $1 and state <> 'closed' order by close_at limit 1 for update skip locked`, s.now()).Scan(&residentID)
			if errors.Is(err, pgx.ErrNoRows) {
				return nil
			}
			if err != nil {
				return err
			}
			one = true
			return s.close(ctx, tx, residentID)
		})
		if err != nil {
			return closed, fmt.Errorf("close accounts: %w", err)
		}
		if !one {
			return closed, nil
		}
		closed++
	}
}

// close forgets a person and the accounts merged into theirs. The id stays in the books
// and in the audit; with the key go the name, addresses and all else that was sealed, in backups too.
func (s *Service) close(ctx context.Context, tx pgx.Tx, residentID string) error {
	rows, err := tx.Query(ctx, `select id from identity.resident where id = $1 or merged_into = $1 order by id limit 100 for update`, residentID)
	if err != nil {
		return err
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, one := range all {
		if err := s.endEverything(ctx, tx, one, "account closed"); err != nil {
			return err
		}
		if err := s.departs(ctx, tx, Departure{ResidentID: one}); err != nil {
			return err
		}
	}
	now := s.now()
	// Guests' addresses that are the person's own are forgotten with them.
	_, err = tx.Exec(ctx, `
		update identity.person_key set box = null, destroyed_at = $2
		where box is not null and (id = any ($1::uuid[]) or id in (
			select c.id from identity.contact c join identity.email e on e.lookup = c.lookup where e.resident_id = any ($1::uuid[])))`, all, now)
	if err != nil {
		return err
	}
	for _, sql := range []string{
		`delete from identity.email_code where lookup in (select lookup from identity.email where resident_id = any ($1))`,
		`delete from identity.pending where resident_id = any ($1) or email_lookup in (select lookup from identity.email where resident_id = any ($1))`,
		`update identity.contact set lookup = sha256(id::text::bytea || lookup), box = '' where lookup in (select lookup from identity.email where resident_id = any ($1))`,
		`delete from identity.email where resident_id = any ($1)`,
		`delete from identity.email_change where resident_id = any ($1)`,
		`delete from identity.passkey where resident_id = any ($1)`,
		`delete from identity.app where resident_id = any ($1)`,
		`delete from identity.backup_code where resident_id = any ($1)`,
		`delete from identity.counter_code where resident_id = any ($1)`,
		`delete from identity.link where resident_id = any ($1)`,
		`delete from identity.recovery where resident_id = any ($1)`,
		`delete from identity.alert where resident_id = any ($1)`,
		`delete from identity.claim where resident_id = any ($1)`,
		`delete from identity.partner_link where resident_id = any ($1)`,
		`delete from identity.partner_pending where resident_id = any ($1)`,
		`delete from identity.signin where resident_id = any ($1)`,
		`update identity.session set network = '', device = '' where resident_id = any ($1)`,
		`update identity.resident set state = 'closed', merged_into = null, profile = '', settings = '{}', close_at = null, limited_until = null,
			disavowed_at = null, proofed_by = '' where id = any ($1)`,
	} {
		if _, err := tx.Exec(ctx, sql, all); err != nil {
			return fmt.Errorf("%.40s…: %w", sql, err)
		}
	}
	for _, one := range all {
		err := audit.Record(ctx, tx, audit.Event{Action: "account.closed", ObjectType: "resident", ObjectID: one, Subject: one, At: now})
		if err != nil {
			return err
		}
	}
	return nil
}
