package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/jackc/pgx/v5"

	"guichet/internal/id"
)

// ErrBadPhone says that text is no telephone number we could call.
var ErrBadPhone = errors.New("not a telephone number")

// A PostalAddress is where somebody lives or gets letters. Empty fields are unknown.
type PostalAddress struct {
	Street     string `json:"street,omitempty"` // with line breaks, as on an envelope
	Locality   string `json:"locality,omitempty"`
	Region     string `json:"region,omitempty"`
	PostalCode string `json:"postal_code,omitempty"`
	Country    string `json:"country,omitempty"` // as written
}

// Settings are what a person may switch on and off. The zero value is the usual.
type Settings struct {
	QuietDevices bool `json:"quiet_devices,omitempty"` // no mail about a sign-in from a new device
}

// ParsePhone returns a number in the form of E.164. Ten digits are a number of North
// America; anything else begins with + and the country.
func ParsePhone(text string) (string, error) {
	var b strings.Builder
	for i, r := range strings.TrimSpace(text) {
		switch {
		case r >= '0' && r <= '9':
			b.WriteRune(r)
		case r == '+' && i == 0:
			b.WriteRune(r)
		case strings.ContainsRune(" -.()\u00a0", r):
		default:
			return "", ErrBadPhone
		}
	}
	n := b.String()
	switch {
	case strings.HasPrefix(n, "+") && len(n) >= 9 && len(n) <= 16 && n[1] != '0':
		return n, nil
	case len(n) == 10 && n[0] >= '2':
		return "+1" + n, nil
	case len(n) == 11 && n[0] == '1' && n[1] >= '2':
		return "+" + n, nil
	}
	return "", ErrBadPhone
}

// A ProfileChange is what a person says about themselves.
type ProfileChange struct {
	Name, Lang string
	Phone      string // empty: none
	Address    PostalAddress
}

// ErrBadAddress says that a postal address has text that cannot stand on an envelope.
var ErrBadAddress = errors.New("not a postal address")

// UpdateProfile keeps what a person says about themselves. It returns ErrBadName,
// ErrBadPhone or ErrBadAddress, wrapped.
func (s *Service) UpdateProfile(ctx context.Context, p Person, c ProfileChange) error {
	name, err := ParseName(c.Name)
	if err != nil {
		return fmt.Errorf("update profile: %w", err)
	}
	phone := ""
	if strings.TrimSpace(c.Phone) != "" {
		if phone, err = ParsePhone(c.Phone); err != nil {
			return fmt.Errorf("update profile: %w", err)
		}
	}
	for _, field := range []*string{&c.Address.Street, &c.Address.Locality, &c.Address.Region, &c.Address.PostalCode, &c.Address.Country} {
		*field = strings.TrimSpace(*field)
		if len(*field) > 200 || strings.ContainsFunc(*field, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\r' }) {
			return fmt.Errorf("update profile: %w", ErrBadAddress)
		}
	}
	if c.Lang != "fr" {
		c.Lang = "en"
	}
	plain, err := json.Marshal(profile{Name: name, Phone: phone, Address: c.Address})
	if err != nil {
		return fmt.Errorf("update profile: %w", err)
	}
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		key, err := s.keyOf(ctx, tx, p.ID)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `update identity.resident set profile = $2, lang = $3, updated_at = $4 where id = $1`,
			p.ID, key.Seal(plain, []byte("profile:"+p.ID)), c.Lang, s.now())
		if err != nil {
			return err
		}
		return s.recordFactor(ctx, tx, "profile.changed", p.ID, nil)
	})
	if err != nil {
		return fmt.Errorf("update profile: %w", err)
	}
	return nil
}

// SetLang keeps the language that a person reads and is written to in.
func (s *Service) SetLang(ctx context.Context, p Person, lang string) error {
	if lang != "fr" {
		lang = "en"
	}
	if _, err := s.db.Exec(ctx, `update identity.resident set lang = $2, updated_at = $3 where id = $1 and lang <> $2`, p.ID, lang, s.now()); err != nil {
		return fmt.Errorf("keep language of %s: %w", p.ID, err)
	}
	return nil
}

// Settings reads a person's settings.
func (s *Service) Settings(ctx context.Context, residentID string) (Settings, error) {
	var out Settings
	if err := s.db.QueryRow(ctx, `select settings from identity.resident where id = $1`, residentID).Scan(&out); err != nil {
		return out, fmt.Errorf("read settings of %s: %w", residentID, err)
	}
	return out, nil
}

// SetSettings keeps a person's settings.
func (s *Service) SetSettings(ctx context.Context, p Person, to Settings) error {
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `update identity.resident set settings = $2 where id = $1`, p.ID, to); err != nil {
			return err
		}
		return s.recordFactor(ctx, tx, "settings.changed", p.ID, map[string]any{"settings": to})
	})
	if err != nil {
		return fmt.Errorf("keep settings of %s: %w", p.ID, err)
	}
	return nil
}

// NoteExport records that a person took a copy of their data.
func (s *Service) NoteExport(ctx context.Context, p Person, v Visitor) error {
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		return s.recordFactor(ctx, tx, "data.exported", p.ID, map[string]any{"session": p.SessionID, "network": v.Network, "device": v.Device})
	})
	if err != nil {
		return fmt.Errorf("note export: %w", err)
	}
	return nil
}

// An EmailAddress is one that a person has proved.
type EmailAddress struct {
	ID, Address string
	Main        bool
	Bounced     string // RFC 3463 status when it takes no mail
}

// maxEmails bounds the addresses of one person.
const maxEmails = 5

// Emails lists the addresses that a resident has proved, the main one first.
func (s *Service) Emails(ctx context.Context, residentID string) ([]EmailAddress, error) {
	key, err := s.keyOf(ctx, s.db, residentID)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	rows, err := s.db.Query(ctx, `
		select id, box, main, bounced from identity.email where resident_id = $1 order by main desc, verified_at, id limit 100`, residentID)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (EmailAddress, error) {
		var e EmailAddress
		var box []byte
		if err := row.Scan(&e.ID, &box, &e.Main, &e.Bounced); err != nil {
			return e, err
		}
		plain, err := key.Open(box, []byte("email:"+e.ID))
		e.Address = string(plain)
		return e, err
	})
}

// emailAddress resolves "email:<id>", one proved address whether it is the main one or not.
func (s *Service) emailAddress(ctx context.Context, emailID string) (string, error) {
	var residentID string
	var box, keyBox []byte
	err := s.db.QueryRow(ctx, `
		select e.resident_id, e.box, k.box from identity.email e join identity.person_key k on k.id = e.resident_id where e.id = $1`, emailID).
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
	plain, err := key.Open(box, []byte("email:"+emailID))
	return string(plain), err
}

// everywhere lists the recipients by which a person can be reached, for notices that
// must not be missed.
func (s *Service) everywhere(ctx context.Context, tx pgx.Tx, residentID string) ([]string, error) {
	rows, err := tx.Query(ctx, `select id from identity.email where resident_id = $1 order by main desc, id limit 100`, residentID)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for i := range ids {
		ids[i] = "email:" + ids[i]
	}
	return ids, nil
}

// newLink makes the secret of a link in a mail.
func (s *Service) newLink(ctx context.Context, tx pgx.Tx, l Link) (secret string, err error) {
	secret = id.Secret()
	_, err = tx.Exec(ctx, `
		insert into identity.link (hash, purpose, resident_id, ref, created_at, expires_at) values ($1, $2, $3, $4, $5, $6)`,
		id.Hash(secret), l.Purpose, l.residentID, l.ref, s.now(), l.expiresAt)
	if err != nil {
		return "", fmt.Errorf("make link: %w", err)
	}
	return s.baseURL + "/link/" + secret, nil
}
