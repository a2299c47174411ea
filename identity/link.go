package identity

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/id"
)

// The purposes of links in mails. Each does one thing.
const (
	LinkCancelRecovery = "recovery-cancel"
	LinkRevertEmail    = "email-revert"
	LinkDisavow        = "disavow"
	LinkUndoMerge      = "merge-undo"
)

// ErrNoLink says that a link is unknown, used or too old; which, nobody is told.
var ErrNoLink = errors.New("no such link")

// A Link is what stands behind a secret in a mail.
type Link struct {
	Purpose    string
	residentID string
	ref        string
	expiresAt  time.Time
}

// Link reads a link without using it: opening it in a mail, as scanners do, changes nothing.
func (s *Service) Link(ctx context.Context, secret string) (Link, error) {
	var l Link
	err := s.db.QueryRow(ctx, `
		select purpose, resident_id, ref, expires_at from identity.link
		where hash = $1 and used_at is null and expires_at > $2`, id.Hash(secret), s.now()).
		Scan(&l.Purpose, &l.residentID, &l.ref, &l.expiresAt)
	if errors.Is(err, pgx.ErrNoRows) {
		return l, ErrNoLink
	}
	if err != nil {
		return l, fmt.Errorf("read link: %w", err)
	}
	return l, nil
}

// UseLink does what a link is for, once, after its reader has confirmed it. It returns
// ErrNoLink, wrapped, for one that is unknown, used, too old, or whose matter has ended.
func (s *Service) UseLink(ctx context.Context, secret string, v Visitor) (Link, error) {
	var l Link
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `
			update identity.link set used_at = $2 where hash = $1 and used_at is null and expires_at > $2
			returning purpose, resident_id, ref`, id.Hash(secret), s.now()).Scan(&l.Purpose, &l.residentID, &l.ref)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrNoLink
		}
		if err != nil {
			return err
		}
		switch l.Purpose {
		case LinkCancelRecovery:
			return s.cancelRecovery(ctx, tx, l.residentID, l.ref, "link")
		case LinkRevertEmail:
			return s.revertEmail(ctx, tx, l.ref)
		case LinkDisavow:
			return s.disavow(ctx, tx, l.residentID, l.ref, v)
		case LinkUndoMerge:
			return s.undoMerge(ctx, tx, l.ref)
		}
		return fmt.Errorf("link for %s", l.Purpose)
	})
	if err != nil {
		return Link{}, fmt.Errorf("use link: %w", err)
	}
	return l, nil
}
