package identity

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/audit"
	"guichet/internal/id"
	"guichet/internal/mail"
)

// revertFor is how long an address that was replaced or taken away can be put back.
const revertFor = 7 * 24 * time.Hour

var (
	ErrTooManyEmails = errors.New("the person has as many addresses as we keep")
	ErrMainEmail     = errors.New("the main address stays until another takes its place")
	ErrLimited       = errors.New("not possible in the days after a recovery")
)

// mayChangeEmail lets a person change addresses: level 2 just proved, and not in the
// days after a recovery, in which a thief would do it first.
func (s *Service) mayChangeEmail(ctx context.Context, q Querier, p Person) error {
	if !p.Fresh(s.now()) {
		return ErrStepUp
	}
	var limited *time.Time
	if err := q.QueryRow(ctx, `select limited_until from identity.resident where id = $1`, p.ID).Scan(&limited); err != nil {
		return fmt.Errorf("read limits of %s: %w", p.ID, err)
	}
	if limited != nil && limited.After(s.now()) {
		return ErrLimited
	}
	return nil
}

// AskNewEmail mails a code to an address that the person wants to add. Whether another
// account has it, only its mailbox learns: that mail says so, and holds no code. It returns
// ErrBadEmail, ErrStepUp, ErrLimited, ErrTooManyEmails or a *LimitedError, wrapped.
func (s *Service) AskNewEmail(ctx context.Context, p Person, text string, v Visitor) error {
	email, err := ParseEmail(text)
	if err == nil {
		err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error { return s.askNewEmail(ctx, tx, p, email, v) })
	}
	if err != nil {
		return fmt.Errorf("ask for a new address: %w", err)
	}
	return nil
}

func (s *Service) askNewEmail(ctx context.Context, tx pgx.Tx, p Person, email string, v Visitor) error {
	if err := s.mayChangeEmail(ctx, tx, p); err != nil {
		return err
	}
	lookup := s.emailLookup(email)
	if err := s.takeForCode(ctx, tx, lookup, v); err != nil {
		return err
	}
	var have int
	if err := tx.QueryRow(ctx, `select count(*) from identity.email where resident_id = $1`, p.ID).Scan(&have); err != nil {
		return err
	}
	if have >= maxEmails {
		return ErrTooManyEmails
	}
	_, _, err := s.residentByEmail(ctx, tx, lookup)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	taken := err == nil
	codeID, code, err := s.putCode(ctx, tx, purposeNewEmail, p.SessionID, email)
	if err != nil {
		return err
	}
	m := mail.Message{
		Key: "email-code/" + codeID, To: "code:" + codeID, Lang: p.Lang, Template: "email-code",
		Data: map[string]string{"code": code[:4] + " " + code[4:], "device": v.Device},
	}
	if taken {
		m.Template, m.Data = "email-taken", map[string]string{"account": s.baseURL + "/account/merge"}
	}
	if err := s.mail.Enqueue(ctx, tx, m); err != nil {
		return err
	}
	return s.codeSent(ctx, tx, p, purposeNewEmail, v)
}

func (s *Service) codeSent(ctx context.Context, tx pgx.Tx, p Person, purpose string, v Visitor) error {
	return audit.Record(ctx, tx, audit.Event{
		Action: "code.sent", ObjectType: "resident", ObjectID: p.ID, Subject: p.ID, At: s.now(),
		Details: map[string]any{"purpose": purpose, "session": p.SessionID, "network": v.Network, "device": v.Device},
	})
}

// liveCode is a code of an account page whose try is already counted.
type liveCode struct{ id, email string }

// tryCodeOf counts a try at the session's live code of a purpose, and compares.
func (s *Service) tryCodeOf(ctx context.Context, p Person, purpose, typed string) (liveCode, error) {
	var c liveCode
	var salt, hash, box []byte
	var tries int
	err := s.db.QueryRow(ctx, `
		update identity.email_code set tries = tries + 1
		where browser = $1 and purpose = $2 and tries < $3 and used_at is null and replaced_at is null and expires_at > $4
		returning id, salt, hash, email, tries`, id.Hash(p.SessionID), purpose, codeTries, s.now()).Scan(&c.id, &salt, &hash, &box, &tries)
	if errors.Is(err, pgx.ErrNoRows) {
		return c, ErrCodeDead
	}
	if err != nil {
		return c, err
	}
	if subtle.ConstantTimeCompare(hashCode(digits(typed), salt), hash) != 1 {
		return c, &WrongCodeError{Left: codeTries - tries}
	}
	email, err := s.master.Open(box, []byte("code:"+c.id))
	c.email = string(email)
	return c, err
}

// AddEmail keeps the address to which the code was mailed. It returns ErrStepUp,
// ErrLimited, ErrCodeDead or a *WrongCodeError, wrapped.
func (s *Service) AddEmail(ctx context.Context, p Person, code string, v Visitor) error {
	if err := s.mayChangeEmail(ctx, s.db, p); err != nil {
		return fmt.Errorf("add an address: %w", err)
	}
	c, err := s.tryCodeOf(ctx, p, purposeNewEmail, code)
	if err != nil {
		return fmt.Errorf("add an address: %w", err)
	}
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		if err := s.consume(ctx, tx, c.id); err != nil {
			return err
		}
		key, err := s.keyOf(ctx, tx, p.ID)
		if err != nil {
			return err
		}
		emailID := id.New()
		tag, err := tx.Exec(ctx, `
			insert into identity.email (id, resident_id, lookup, box, main, verified_at) values ($1, $2, $3, $4, false, $5)
			on conflict (lookup) do nothing`,
			emailID, p.ID, s.emailLookup(c.email), key.Seal([]byte(c.email), []byte("email:"+emailID)), s.now())
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return ErrCodeDead
		}
		return s.emailChanged(ctx, tx, p, "added", v)
	})
	if err != nil {
		return fmt.Errorf("add an address: %w", err)
	}
	return nil
}

// emailChanged writes the audit and tells every address of the person.
func (s *Service) emailChanged(ctx context.Context, tx pgx.Tx, p Person, what string, v Visitor) error {
	if err := s.recordFactor(ctx, tx, "email.changed", p.ID, map[string]any{"what": what, "session": p.SessionID, "network": v.Network, "device": v.Device}); err != nil {
		return err
	}
	all, err := s.everywhere(ctx, tx, p.ID)
	if err != nil {
		return err
	}
	deed := id.New()
	for _, to := range all {
		if err := s.notifyAt(ctx, tx, notice{resident: p.ID, template: "email-changed", key: deed, data: map[string]string{"device": v.Device}}, to); err != nil {
			return err
		}
	}
	return nil
}

// AskOldEmail mails a code to the main address, whose owner has to agree before another
// takes its place. It returns ErrStepUp, ErrLimited or a *LimitedError, wrapped.
func (s *Service) AskOldEmail(ctx context.Context, p Person, v Visitor) error {
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		if err := s.mayChangeEmail(ctx, tx, p); err != nil {
			return err
		}
		if err := s.takeForCode(ctx, tx, s.emailLookup(p.Email), v); err != nil {
			return err
		}
		codeID, code, err := s.putCode(ctx, tx, purposeOldEmail, p.SessionID, p.Email)
		if err != nil {
			return err
		}
		err = s.mail.Enqueue(ctx, tx, mail.Message{
			Key: "email-code/" + codeID, To: "code:" + codeID, Lang: p.Lang, Template: "email-code-old",
			Data: map[string]string{"code": code[:4] + " " + code[4:], "device": v.Device},
		})
		if err != nil {
			return err
		}
		return s.codeSent(ctx, tx, p, purposeOldEmail, v)
	})
	if err != nil {
		return fmt.Errorf("ask the main address: %w", err)
	}
	return nil
}

// MakeMain makes one of the person's addresses the main one, with the code that went to
// the one before, which can take it back for seven days. It returns ErrNotFound, ErrStepUp,
// ErrLimited, ErrCodeDead or a *WrongCodeError, wrapped.
func (s *Service) MakeMain(ctx context.Context, p Person, emailID, code string, v Visitor) error {
	err := s.mayChangeEmail(ctx, s.db, p)
	if err == nil && !id.Valid(emailID) {
		err = ErrNotFound
	}
	var c liveCode
	if err == nil {
		c, err = s.tryCodeOf(ctx, p, purposeOldEmail, code)
	}
	if err != nil {
		return fmt.Errorf("change the main address: %w", err)
	}
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		if err := s.consume(ctx, tx, c.id); err != nil {
			return err
		}
		var was string
		err := tx.QueryRow(ctx, `
			update identity.email set main = false where resident_id = $1 and main and lookup = $2 returning id`, p.ID, s.emailLookup(c.email)).Scan(&was)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrCodeDead // the main address changed since the code was sent
		}
		if err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `update identity.email set main = true where id = $1 and resident_id = $2 and id <> $3`, emailID, p.ID, was)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return ErrNotFound
		}
		if err := s.offerRevert(ctx, tx, p, was, emailID); err != nil {
			return err
		}
		return s.emailChanged(ctx, tx, p, "main", v)
	})
	if err != nil {
		return fmt.Errorf("change the main address: %w", err)
	}
	return nil
}

// RemoveEmail takes an address away that is not the main one. Its mailbox can put it back
// for seven days. It returns ErrNotFound, ErrMainEmail, ErrStepUp or ErrLimited, wrapped.
func (s *Service) RemoveEmail(ctx context.Context, p Person, emailID string, v Visitor) error {
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		if err := s.mayChangeEmail(ctx, tx, p); err != nil {
			return err
		}
		if !id.Valid(emailID) {
			return ErrNotFound
		}
		var main bool
		var mainID string
		err := tx.QueryRow(ctx, `
			select e.main, m.id from identity.email e join identity.email m on m.resident_id = e.resident_id and m.main
			where e.id = $1 and e.resident_id = $2 for update of e`, emailID, p.ID).Scan(&main, &mainID)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return ErrNotFound
		case err != nil:
			return err
		case main:
			return ErrMainEmail
		}
		if err := s.offerRevert(ctx, tx, p, emailID, mainID); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `delete from identity.email where id = $1`, emailID); err != nil {
			return err
		}
		return s.emailChanged(ctx, tx, p, "removed", v)
	})
	if err != nil {
		return fmt.Errorf("remove an address: %w", err)
	}
	return nil
}

// offerRevert keeps an address as it was and mails it the link that puts it back.
func (s *Service) offerRevert(ctx context.Context, tx pgx.Tx, p Person, oldID, newID string) error {
	key, err := s.keyOf(ctx, tx, p.ID)
	if err != nil {
		return err
	}
	var lookup, box []byte
	if err := tx.QueryRow(ctx, `select lookup, box from identity.email where id = $1`, oldID).Scan(&lookup, &box); err != nil {
		return err
	}
	address, err := key.Open(box, []byte("email:"+oldID))
	if err != nil {
		return err
	}
	changeID, until := id.New(), s.now().Add(revertFor)
	_, err = tx.Exec(ctx, `
		insert into identity.email_change (id, resident_id, old_lookup, old_box, new_email_id, at, revert_until) values ($1, $2, $3, $4, $5, $6, $7)`,
		changeID, p.ID, lookup, key.Seal(address, []byte("change:"+changeID)), newID, s.now(), until)
	if err != nil {
		return err
	}
	link, err := s.newLink(ctx, tx, Link{Purpose: LinkRevertEmail, residentID: p.ID, ref: changeID, expiresAt: until})
	if err != nil {
		return err
	}
	return s.notifyAt(ctx, tx, notice{resident: p.ID, template: "email-revert", key: changeID, data: map[string]string{"link": link}}, "change:"+changeID)
}

// changeAddress resolves "change:<id>": an address that was replaced or taken away.
func (s *Service) changeAddress(ctx context.Context, changeID string) (string, error) {
	var residentID string
	var box, keyBox []byte
	err := s.db.QueryRow(ctx, `
		select c.resident_id, c.old_box, k.box from identity.email_change c join identity.person_key k on k.id = c.resident_id where c.id = $1`, changeID).
		Scan(&residentID, &box, &keyBox)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", ErrNotFound
	}
	if err != nil {
		return "", err
	}
	key, err := s.openKey(residentID, keyBox)
	if err != nil {
		return "", err
	}
	plain, err := key.Open(box, []byte("change:"+changeID))
	return string(plain), err
}

// revertEmail puts an address back as the main one and ends every session: whoever
// changed it may still be signed in.
func (s *Service) revertEmail(ctx context.Context, tx pgx.Tx, changeID string) error {
	var residentID, newID string
	var lookup, box []byte
	err := tx.QueryRow(ctx, `
		update identity.email_change set reverted_at = $2 where id = $1 and reverted_at is null and revert_until > $2
		returning resident_id, old_lookup, old_box, new_email_id`, changeID, s.now()).Scan(&residentID, &lookup, &box, &newID)
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrNoLink
	}
	if err != nil {
		return err
	}
	key, err := s.keyOf(ctx, tx, residentID)
	if err != nil {
		return err
	}
	address, err := key.Open(box, []byte("change:"+changeID))
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `update identity.email set main = false where resident_id = $1 and main`, residentID); err != nil {
		return err
	}
	emailID := id.New()
	tag, err := tx.Exec(ctx, `
		insert into identity.email as e (id, resident_id, lookup, box, main, verified_at) values ($1, $2, $3, $4, true, $5)
		on conflict (lookup) do update set main = true where e.resident_id = $2`,
		emailID, residentID, lookup, key.Seal(address, []byte("email:"+emailID)), s.now())
	if err != nil {
		return err
	}
	if tag.RowsAffected() == 0 {
		return ErrNoLink // the address has become another account's
	}
	_, err = tx.Exec(ctx, `delete from identity.email where id = $1 and resident_id = $2 and not main and verified_at > $3`,
		newID, residentID, s.now().Add(-revertFor))
	if err != nil {
		return err
	}
	if err := s.recordFactor(ctx, tx, "email.reverted", residentID, map[string]any{"change": changeID}); err != nil {
		return err
	}
	return s.endEverything(ctx, tx, residentID, "e-mail change reverted")
}
