package identity

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/audit"
	"guichet/internal/id"
)

// Recovery is for who has lost the second factor and still holds the mailbox. Whoever
// has stolen the mailbox looks the same, so there is a wait, in which the owner can cancel.
const (
	recoveryWait    = 72 * time.Hour
	recoveryWaitTop = 7 * 24 * time.Hour // of a person whose identity was proved: or a visit to a counter
	recoveryFinish  = 24 * time.Hour
	limitedFor      = 7 * 24 * time.Hour
)

// A Recovery is one that is open.
type Recovery struct {
	ID                string
	ReadyAt, FinishBy time.Time
}

// Recovery returns a resident's open recovery, or nil.
func (s *Service) Recovery(ctx context.Context, residentID string) (*Recovery, error) {
	var r Recovery
	err := s.db.QueryRow(ctx, `
		select id, ready_at, finish_by from identity.recovery where resident_id = $1 and state = 'open' and finish_by > $2`, residentID, s.now()).
		Scan(&r.ID, &r.ReadyAt, &r.FinishBy)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read recovery: %w", err)
	}
	return &r, nil
}

// RequestRecovery opens a recovery for the person whose sign-in has proved the address
// and waits for a factor that is lost. Every address is told, with a link that cancels. Asking again changes
// nothing. It returns ErrNoPending or ErrWrongStep, wrapped.
func (s *Service) RequestRecovery(ctx context.Context, pendingID, browser string, v Visitor) error {
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		p, err := s.lockFactor(ctx, tx, pendingID, browser)
		if err != nil {
			return err
		}
		now, wait := s.now(), recoveryWait
		var proofed bool
		if err := tx.QueryRow(ctx, `select proofed_at is not null from identity.resident where id = $1 for update`, p.ResidentID).Scan(&proofed); err != nil {
			return err
		}
		if proofed {
			wait = recoveryWaitTop
		}
		_, err = tx.Exec(ctx, `
			update identity.recovery set state = 'expired', ended_at = $2, ended_why = 'not finished in time'
			where resident_id = $1 and state = 'open' and finish_by <= $2`, p.ResidentID, now)
		if err != nil {
			return err
		}
		recoveryID, ready := id.New(), now.Add(wait)
		tag, err := tx.Exec(ctx, `
			insert into identity.recovery (id, resident_id, network, device, requested_at, ready_at, finish_by)
			values ($1, $2, $3, $4, $5, $6, $7) on conflict (resident_id) where state = 'open' do nothing`,
			recoveryID, p.ResidentID, v.Network, v.Device, now, ready, ready.Add(recoveryFinish))
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		if err := s.recordFactor(ctx, tx, "recovery.requested", p.ResidentID, map[string]any{"recovery": recoveryID, "network": v.Network, "device": v.Device}); err != nil {
			return err
		}
		link, err := s.newLink(ctx, tx, Link{Purpose: LinkCancelRecovery, residentID: p.ResidentID, ref: recoveryID, expiresAt: ready.Add(recoveryFinish)})
		if err != nil {
			return err
		}
		return s.tellEverywhere(ctx, tx, notice{
			resident: p.ResidentID, template: "recovery-requested", key: recoveryID,
			data: map[string]string{"link": link, "device": v.Device, "days": fmt.Sprint(int(wait.Hours() / 24))},
		})
	})
	if err != nil {
		return fmt.Errorf("request a recovery: %w", err)
	}
	return nil
}

// lockFactor locks a sign-in at StepFactor in which the address was proved.
func (s *Service) lockFactor(ctx context.Context, tx pgx.Tx, pendingID, browser string) (Pending, error) {
	p, err := s.lock(ctx, tx, pendingID, browser)
	if err == nil && (p.Step != StepFactor || !p.proved.has(FactorEmail)) {
		err = ErrWrongStep
	}
	return p, err
}

// tellEverywhere mails a notice to every address of a person.
func (s *Service) tellEverywhere(ctx context.Context, tx pgx.Tx, n notice) error {
	all, err := s.everywhere(ctx, tx, n.resident)
	if err != nil {
		return err
	}
	for _, to := range all {
		if err := s.notifyAt(ctx, tx, n, to); err != nil {
			return err
		}
	}
	return nil
}

// CancelRecovery stops the open recovery of a signed-in person. It returns ErrNotFound,
// wrapped, when there is none.
func (s *Service) CancelRecovery(ctx context.Context, p Person) error {
	r, err := s.Recovery(ctx, p.ID)
	if err == nil && r == nil {
		err = ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("cancel a recovery: %w", err)
	}
	return pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error { return s.cancelRecovery(ctx, tx, p.ID, r.ID, "session") })
}

func (s *Service) cancelRecovery(ctx context.Context, tx pgx.Tx, residentID, recoveryID, by string) error {
	tag, err := tx.Exec(ctx, `
		update identity.recovery set state = 'cancelled', ended_at = $2, ended_why = $3 where id = $1 and state = 'open'`, recoveryID, s.now(), by)
	if err != nil {
		return fmt.Errorf("cancel recovery: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return ErrNoLink
	}
	_, err = tx.Exec(ctx, `update identity.link set used_at = $3 where purpose = $1 and ref = $2 and used_at is null`, LinkCancelRecovery, recoveryID, s.now())
	if err != nil {
		return fmt.Errorf("end link of recovery: %w", err)
	}
	if err := s.recordFactor(ctx, tx, "recovery.cancelled", residentID, map[string]any{"recovery": recoveryID, "by": by}); err != nil {
		return err
	}
	return s.tellEverywhere(ctx, tx, notice{resident: residentID, template: "recovery-cancelled", key: recoveryID})
}

// FinishRecovery ends the wait: the factors that were lost are removed, every session and
// everything given to applications ends, and the person is signed in to set up a new
// passkey. It returns ErrNotFound before the time, after it, or without a recovery; ErrNoPending or
// ErrWrongStep, wrapped.
func (s *Service) FinishRecovery(ctx context.Context, t CodeTry) (SignedIn, error) {
	var in SignedIn
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		p, err := s.lockFactor(ctx, tx, t.Pending, t.Browser)
		if err != nil {
			return err
		}
		now := s.now()
		var recoveryID string
		err = tx.QueryRow(ctx, `
			update identity.recovery set state = 'completed', ended_at = $2, ended_why = 'finished'
			where resident_id = $1 and state = 'open' and ready_at <= $2 and finish_by > $2
			returning id`, p.ResidentID, now).Scan(&recoveryID)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrNotFound
		}
		if err != nil {
			return err
		}
		if err := s.dropFactors(ctx, tx, p.ResidentID, "recovery"); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `update identity.resident set limited_until = $2, disavowed_at = null where id = $1`, p.ResidentID, now.Add(limitedFor))
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `insert into identity.alert (id, resident_id, kind, ref, at) values ($1, $2, 'recovery', $3, $4)`, id.New(), p.ResidentID, recoveryID, now)
		if err != nil {
			return err
		}
		if err := s.recordFactor(ctx, tx, "recovery.completed", p.ResidentID, map[string]any{"recovery": recoveryID, "network": t.Visitor.Network, "device": t.Visitor.Device}); err != nil {
			return err
		}
		err = s.tellEverywhere(ctx, tx, notice{resident: p.ResidentID, template: "recovery-completed", key: recoveryID, data: map[string]string{"device": t.Visitor.Device}})
		if err != nil {
			return err
		}
		p.WantACR = 0 // the new passkey comes next; whatever asked for level 2 asks again
		in, err = s.advance(ctx, tx, proof{pending: p, resident: p.ResidentID, factor: FactorEmail, visitor: t.Visitor})
		return err
	})
	if err != nil {
		return SignedIn{}, fmt.Errorf("finish a recovery: %w", err)
	}
	return in, nil
}

// dropFactors removes everything but the addresses by which a person signs in, and ends
// what was opened with it.
func (s *Service) dropFactors(ctx context.Context, tx pgx.Tx, residentID, why string) error {
	for _, table := range []string{"passkey", "app", "backup_code"} {
		if _, err := tx.Exec(ctx, `delete from identity.`+table+` where resident_id = $1`, residentID); err != nil {
			return fmt.Errorf("remove %s: %w", table, err)
		}
	}
	if err := s.recordFactor(ctx, tx, "factor.removed", residentID, map[string]any{"factor": "all", "why": why}); err != nil {
		return err
	}
	return s.endEverything(ctx, tx, residentID, why)
}

// TellRecoveries mails those whose wait is over, and ends what nobody finished. It may be
// run often and on several instances at once.
func (s *Service) TellRecoveries(ctx context.Context) (int64, error) {
	var told int64
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		now := s.now()
		_, err := tx.Exec(ctx, `
			update identity.recovery set state = 'expired', ended_at = $1, ended_why = 'not finished in time'
			where id in (select id from identity.recovery where state = 'open' and finish_by <= $1 order by ready_at limit 500 for update skip locked)`, now)
		if err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `
			update identity.recovery set told_at = $1
			where id in (select id from identity.recovery where state = 'open' and told_at is null and ready_at <= $1 order by ready_at limit 500 for update skip locked)
			returning id, resident_id`, now)
		if err != nil {
			return err
		}
		type ready struct{ ID, ResidentID string }
		all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ready])
		if err != nil {
			return err
		}
		told = int64(len(all))
		for _, r := range all {
			n := notice{resident: r.ResidentID, template: "recovery-ready", key: r.ID, data: map[string]string{"signin": s.baseURL + "/signin?level=2&return=/account/passkeys/new"}}
			if err := s.tellEverywhere(ctx, tx, n); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("tell of recoveries: %w", err)
	}
	return told, nil
}

// Limited returns until when a person may not change addresses, delegate or be paid out,
// or nil: the days after a recovery.
func (s *Service) Limited(ctx context.Context, residentID string) (*time.Time, error) {
	var until *time.Time
	err := s.db.QueryRow(ctx, `select limited_until from identity.resident where id = $1 and limited_until > $2`, residentID, s.now()).Scan(&until)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("read limits of %s: %w", residentID, err)
	}
	return until, nil
}

// A CounterCode is what a member of staff hands out after seeing a person and a document.
type CounterCode struct {
	ResidentID, StaffID string
	Document            string // its kind, never its number
	ResetFactors        bool   // the person has lost them: this visit stands for the wait of a recovery
}

// counterLife is how long a code from a counter works.
const counterLife = 30 * time.Minute

// IssueCounterCode makes a code that signs the person in once, in place of the code by
// e-mail, and notes that their identity was proved. The code is returned to be handed over, and
// stored hashed. It returns ErrNotFound or ErrSuspended, wrapped.
func (s *Service) IssueCounterCode(ctx context.Context, c CounterCode) (code string, err error) {
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		if !id.Valid(c.ResidentID) || c.Document == "" || c.StaffID == "" {
			return ErrNotFound
		}
		var state State
		err := tx.QueryRow(ctx, `select state from identity.resident where id = $1 for update`, c.ResidentID).Scan(&state)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return ErrNotFound
		case err != nil:
			return err
		case state != Active:
			return ErrSuspended
		}
		now := s.now()
		code = id.Code(11)
		_, salt := newCode()
		_, err = tx.Exec(ctx, `update identity.counter_code set replaced_at = $2 where resident_id = $1 and used_at is null and replaced_at is null`, c.ResidentID, now)
		if err != nil {
			return err
		}
		codeID := id.New()
		_, err = tx.Exec(ctx, `
			insert into identity.counter_code (id, resident_id, staff_id, document, salt, hash, created_at, expires_at) values ($1, $2, $3, $4, $5, $6, $7, $8)`,
			codeID, c.ResidentID, c.StaffID, c.Document, salt, hashCode(code, salt), now, now.Add(counterLife))
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `update identity.resident set proofed_at = $2, proofed_by = $3 where id = $1`, c.ResidentID, now, "counter")
		if err != nil {
			return err
		}
		if c.ResetFactors {
			if err := s.dropFactors(ctx, tx, c.ResidentID, "counter"); err != nil {
				return err
			}
		}
		err = audit.Record(ctx, tx, audit.Event{
			Action: "identity.proved", ObjectType: "resident", ObjectID: c.ResidentID, Subject: c.ResidentID, At: now,
			Details: map[string]any{"by": c.StaffID, "document": c.Document, "code": codeID, "reset": c.ResetFactors},
		})
		if err != nil {
			return err
		}
		return s.tellEverywhere(ctx, tx, notice{resident: c.ResidentID, template: "counter-code", key: codeID})
	})
	if err != nil {
		return "", fmt.Errorf("issue a code at a counter: %w", err)
	}
	return id.Group(code), nil
}

// useCounterCode takes a code from a counter for the person with a proved address.
func (s *Service) useCounterCode(ctx context.Context, tx pgx.Tx, lookup []byte, typed string) (used bool, err error) {
	code, ok := id.Normalize(typed)
	if !ok || len(code) != 12 {
		return false, nil
	}
	var codeID string
	var salt []byte
	err = tx.QueryRow(ctx, `
		select c.id, c.salt from identity.counter_code c join identity.email e on e.resident_id = c.resident_id
		where e.lookup = $1 and c.used_at is null and c.replaced_at is null and c.expires_at > $2 limit 1`, lookup, s.now()).Scan(&codeID, &salt)
	if errors.Is(err, pgx.ErrNoRows) {
		_, salt = newCode() // whether there is one must not show in the time it takes
		codeID = id.New()
	} else if err != nil {
		return false, fmt.Errorf("find code of a counter: %w", err)
	}
	tag, err := tx.Exec(ctx, `
		update identity.counter_code set used_at = $3
		where id = $1 and hash = $2 and used_at is null and replaced_at is null and expires_at > $3`, codeID, hashCode(code, salt), s.now())
	if err != nil {
		return false, fmt.Errorf("use code of a counter: %w", err)
	}
	return tag.RowsAffected() == 1, nil
}
