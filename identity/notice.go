package identity

import (
	"context"
	"fmt"
	"maps"

	"github.com/jackc/pgx/v5"

	"guichet/internal/mail"
	"guichet/internal/seal"
)

// A notice is a mail about a person's own account. It cannot be switched off: it is how
// somebody learns that another has been at it.
type notice struct {
	resident string
	template string
	key      string // of the deed: the same one is mailed once
	data     map[string]string
}

// notify queues a notice to the person's main address, in their language.
func (s *Service) notify(ctx context.Context, tx pgx.Tx, n notice) error {
	return s.notifyAt(ctx, tx, n, "resident:"+n.resident)
}

// notifyAt queues it to one recipient.
func (s *Service) notifyAt(ctx context.Context, tx pgx.Tx, n notice, to string) error {
	var lang string
	if err := tx.QueryRow(ctx, `select lang from identity.resident where id = $1`, n.resident).Scan(&lang); err != nil {
		return fmt.Errorf("read language of %s: %w", n.resident, err)
	}
	data := map[string]string{"account": s.baseURL + "/account/security", "device": ""}
	maps.Copy(data, n.data)
	err := s.mail.Enqueue(ctx, tx, mail.Message{Key: n.template + "/" + n.key + "/" + to, To: to, Lang: lang, Template: n.template, Data: data})
	if err != nil {
		return fmt.Errorf("queue notice %s: %w", n.template, err)
	}
	return nil
}

// keyOf opens the personal key of a resident.
func (s *Service) keyOf(ctx context.Context, q Querier, residentID string) (*seal.Key, error) {
	var box []byte
	if err := q.QueryRow(ctx, `select box from identity.person_key where id = $1`, residentID).Scan(&box); err != nil {
		return nil, fmt.Errorf("read personal key of %s: %w", residentID, err)
	}
	return s.openKey(residentID, box)
}
