package identity

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"guichet/internal/mail"
)

// A ReusedToken is what a resident is told of when an application came back with a key
// that had been replaced: by key (once for each), in the names of the application.
type ReusedToken struct{ Resident, Key, NameEN, NameFR string }

// WarnReusedToken queues the mail in the caller's transaction.
func (s *Service) WarnReusedToken(ctx context.Context, tx pgx.Tx, w ReusedToken) error {
	var lang string
	if err := tx.QueryRow(ctx, `select lang from identity.resident where id = $1`, w.Resident).Scan(&lang); err != nil {
		return fmt.Errorf("warn of a reused token: %w", err)
	}
	name := w.NameEN
	if lang == "fr" {
		name = w.NameFR
	}
	err := s.mail.Enqueue(ctx, tx, mail.Message{
		Key: "token-reused/" + w.Key, To: "resident:" + w.Resident, Lang: lang, Template: "token-reused",
		Data: map[string]string{"service": name},
	})
	if err != nil {
		return fmt.Errorf("warn of a reused token: %w", err)
	}
	return nil
}
