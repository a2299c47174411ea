package identity

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"guichet/internal/id"
	"guichet/internal/mail"
	"guichet/internal/seal"
)

// A State is what a resident's account may do.
type State string

const (
	Active    State = "active"
	Suspended State = "suspended" // may not sign in; tokens are dead
	Merged    State = "merged"    // another account of the same person took it over
	Closed    State = "closed"    // forgotten; the id stays in the books
)

// A Resident is a person with an account, as read for display or for a token.
type Resident struct {
	ID        string
	State     State
	Lang      string // "en" or "fr"
	Name      string
	Phone     string // E.164; nobody has proved it
	Address   PostalAddress
	Email     string // the main one, verified
	Bounced   string // RFC 3463 status when mail to it came back for good, else ""
	UpdatedAt time.Time
}

// profile is the sealed part of a resident. New fields need no migration.
type profile struct {
	Name    string        `json:"name"`
	Phone   string        `json:"phone,omitempty"`
	Address PostalAddress `json:"address,omitzero"`
}

// ErrBadName says that text cannot stand as a person's name.
var ErrBadName = errors.New("not a name")

// ParseName returns the name in text with runs of spaces made one. Any script is a
// name; control characters, which could break a mail header or a page, are not.
func ParseName(text string) (string, error) {
	if !utf8.ValidString(text) {
		return "", ErrBadName
	}
	name := strings.Join(strings.Fields(text), " ")
	if n := utf8.RuneCountInString(name); n == 0 || n > 100 {
		return "", ErrBadName
	}
	for _, r := range name {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return "", ErrBadName
		}
	}
	return name, nil
}

// Resident reads one resident, or returns ErrNotFound or ErrForgotten, wrapped.
func (s *Service) Resident(ctx context.Context, residentID string) (Resident, error) {
	if !id.Valid(residentID) {
		return Resident{}, ErrNotFound
	}
	r, err := s.resident(ctx, s.db, residentID)
	if err != nil {
		return Resident{}, fmt.Errorf("read resident %s: %w", residentID, err)
	}
	return r, nil
}

func (s *Service) resident(ctx context.Context, q Querier, residentID string) (Resident, error) {
	return s.scan(q.QueryRow(ctx, residentSQL+" where r.id = $1", residentID))
}

// QueueResident adds the reading of one resident to a batch, for a caller who has a
// condition on the resident r and no id yet. Of a resident who does not exist, or was forgotten, into
// stays empty.
func (s *Service) QueueResident(b *pgx.Batch, into *Resident, condition string, args ...any) {
	b.Queue(residentSQL+" where "+condition, args...).QueryRow(func(row pgx.Row) error {
		r, err := s.scan(row)
		if errors.Is(err, ErrNotFound) || errors.Is(err, ErrForgotten) {
			return nil
		}
		*into = r
		return err
	})
}

const residentSQL = `
select r.id, r.state, r.lang, r.profile, r.updated_at, k.box, e.id, e.box, coalesce(e.bounced, '')
from identity.resident r
join identity.person_key k on k.id = r.id
left join identity.email e on e.resident_id = r.id and e.main`

func (s *Service) scan(row pgx.Row) (Resident, error) {
	var r sealedResident
	err := row.Scan(&r.id, &r.state, &r.lang, &r.profile, &r.updatedAt, &r.key, &r.emailID, &r.email, &r.bounced)
	if errors.Is(err, pgx.ErrNoRows) {
		return Resident{}, ErrNotFound
	}
	if err != nil {
		return Resident{}, err
	}
	return s.open(r)
}

// sealedResident is a resident as stored.
type sealedResident struct {
	id, lang, bounced   string
	state               State
	key, profile, email []byte
	emailID             *string
	updatedAt           time.Time
}

func (s *Service) open(row sealedResident) (Resident, error) {
	r := Resident{ID: row.id, State: row.state, Lang: row.lang, Bounced: row.bounced, UpdatedAt: row.updatedAt}
	key, err := s.openKey(row.id, row.key)
	if err != nil {
		return Resident{}, err
	}
	plain, err := key.Open(row.profile, []byte("profile:"+row.id))
	if err != nil {
		return Resident{}, fmt.Errorf("open profile: %w", err)
	}
	var p profile
	if err := json.Unmarshal(plain, &p); err != nil {
		return Resident{}, fmt.Errorf("read profile: %w", err)
	}
	r.Name, r.Phone, r.Address = p.Name, p.Phone, p.Address
	if row.emailID != nil {
		email, err := key.Open(row.email, []byte("email:"+*row.emailID))
		if err != nil {
			return Resident{}, fmt.Errorf("open e-mail: %w", err)
		}
		r.Email = string(email)
	}
	return r, nil
}

// residentByEmail returns the id and state of the resident who proved the address.
func (s *Service) residentByEmail(ctx context.Context, tx pgx.Tx, lookup []byte) (residentID string, state State, err error) {
	err = tx.QueryRow(ctx, `
		select r.id, r.state from identity.email e join identity.resident r on r.id = e.resident_id
		where e.lookup = $1`, lookup).Scan(&residentID, &state)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", "", ErrNotFound
	}
	if err != nil {
		return "", "", fmt.Errorf("find resident by e-mail: %w", err)
	}
	return residentID, state, nil
}

// create makes a resident whose address has just been proved.
func (s *Service) create(ctx context.Context, tx pgx.Tx, name, lang, email string) (string, error) {
	now, residentID, emailID := s.now(), id.New(), id.New()
	key, err := s.newKey(ctx, tx, residentID)
	if err != nil {
		return "", err
	}
	plain, err := json.Marshal(profile{Name: name})
	if err != nil {
		return "", fmt.Errorf("write profile: %w", err)
	}
	_, err = tx.Exec(ctx, `
		insert into identity.resident (id, lang, profile, created_at, updated_at) values ($1, $2, $3, $4, $4)`,
		residentID, lang, key.Seal(plain, []byte("profile:"+residentID)), now)
	if err != nil {
		return "", fmt.Errorf("create resident: %w", err)
	}
	_, err = tx.Exec(ctx, `
		insert into identity.email (id, resident_id, lookup, box, main, verified_at) values ($1, $2, $3, $4, true, $5)`,
		emailID, residentID, s.emailLookup(email), key.Seal([]byte(email), []byte("email:"+emailID)), now)
	if err != nil {
		return "", fmt.Errorf("create resident's e-mail: %w", err)
	}
	return residentID, nil
}

// Contact returns the opaque id of a guest's address, making one at its first use.
// Nobody has proved the address: it is only ever written to.
func (s *Service) Contact(ctx context.Context, tx pgx.Tx, email string) (string, error) {
	email, err := ParseEmail(email)
	if err != nil {
		return "", err
	}
	lookup := s.emailLookup(email)
	find := func() (contactID string, err error) {
		err = tx.QueryRow(ctx, `select id from identity.contact where lookup = $1`, lookup).Scan(&contactID)
		return contactID, err
	}
	contactID, err := find()
	if err == nil {
		return contactID, nil
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("find contact: %w", err)
	}
	contactID = id.New()
	key, err := s.newKey(ctx, tx, contactID)
	if err != nil {
		return "", err
	}
	tag, err := tx.Exec(ctx, `
		insert into identity.contact (id, lookup, box, created_at) values ($1, $2, $3, $4) on conflict (lookup) do nothing`,
		contactID, lookup, key.Seal([]byte(email), []byte("contact:"+contactID)), s.now())
	if err != nil {
		return "", fmt.Errorf("create contact: %w", err)
	}
	if tag.RowsAffected() == 1 {
		return contactID, nil
	}
	// Somebody else wrote the same address between the two statements. Our key of
	// nobody stays behind, harmless.
	if contactID, err = find(); err != nil {
		return "", fmt.Errorf("find contact: %w", err)
	}
	return contactID, nil
}

// Address resolves an opaque recipient for internal/mail: "resident:<id>",
// "email:<id>" (one proved address), "change:<id>" (one replaced), "contact:<id>" or "code:<id>" (whoever is about to prove an address). A recipient that
// does not exist, has been forgotten, or has no address is mail.ErrGone, wrapped.
func (s *Service) Address(ctx context.Context, to string) (mail.Address, error) {
	a, err := s.address(ctx, to)
	if err == nil && a.Email == "" || errors.Is(err, ErrNotFound) || errors.Is(err, ErrForgotten) {
		err = mail.ErrGone
	}
	if err != nil {
		return mail.Address{}, fmt.Errorf("resolve recipient %s: %w", to, err)
	}
	return a, nil
}

func (s *Service) address(ctx context.Context, to string) (mail.Address, error) {
	kind, ref, _ := strings.Cut(to, ":")
	if !id.Valid(ref) {
		return mail.Address{}, ErrNotFound
	}
	switch kind {
	case "resident":
		r, err := s.resident(ctx, s.db, ref)
		return mail.Address{Email: r.Email, Name: r.Name}, err
	case "email":
		email, err := s.emailAddress(ctx, ref)
		return mail.Address{Email: email}, err
	case "change":
		email, err := s.changeAddress(ctx, ref)
		return mail.Address{Email: email}, err
	case "contact":
		email, err := s.contactEmail(ctx, ref)
		return mail.Address{Email: email}, err
	case "code":
		email, err := s.codeEmail(ctx, ref)
		return mail.Address{Email: email}, err
	}
	return mail.Address{}, ErrNotFound
}

func (s *Service) contactEmail(ctx context.Context, contactID string) (string, error) {
	var box, keyBox []byte
	err := s.db.QueryRow(ctx, `
		select c.box, k.box from identity.contact c join identity.person_key k on k.id = c.id where c.id = $1`,
		contactID).Scan(&box, &keyBox)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", ErrNotFound
	}
	if err != nil {
		return "", err
	}
	key, err := s.openKey(contactID, keyBox)
	if err != nil {
		return "", err
	}
	email, err := key.Open(box, []byte("contact:"+contactID))
	return string(email), err
}

// Bounced marks the address of a recipient as one that takes no mail (mail.Marker).
// Proving the address again takes the mark away. A code that bounced needs none: nobody
// has proved that address.
func (s *Service) Bounced(ctx context.Context, tx pgx.Tx, to, status string) error {
	kind, ref, _ := strings.Cut(to, ":")
	if !id.Valid(ref) {
		return nil
	}
	var err error
	switch kind {
	case "resident":
		_, err = tx.Exec(ctx, `update identity.email set bounced = $2 where resident_id = $1 and main`, ref, status)
	case "email":
		_, err = tx.Exec(ctx, `update identity.email set bounced = $2 where id = $1`, ref, status)
	case "contact":
		_, err = tx.Exec(ctx, `update identity.contact set bounced = $2 where id = $1`, ref, status)
	}
	if err != nil {
		return fmt.Errorf("mark %s as bounced: %w", to, err)
	}
	return nil
}

func (s *Service) emailLookup(email string) []byte { return s.keyed("email", sameEmail(email)) }

// newKey makes the key of one person and stores it sealed.
func (s *Service) newKey(ctx context.Context, tx pgx.Tx, personID string) (*seal.Key, error) {
	raw := make([]byte, 32)
	rand.Read(raw)
	_, err := tx.Exec(ctx, `insert into identity.person_key (id, box, created_at) values ($1, $2, $3)`,
		personID, s.master.Seal(raw, []byte("person:"+personID)), s.now())
	if err != nil {
		return nil, fmt.Errorf("create personal key: %w", err)
	}
	return seal.New(raw)
}

func (s *Service) openKey(personID string, box []byte) (*seal.Key, error) {
	if box == nil {
		return nil, ErrForgotten
	}
	raw, err := s.master.Open(box, []byte("person:"+personID))
	if err != nil {
		return nil, fmt.Errorf("open personal key: %w", err)
	}
	return seal.New(raw)
}
