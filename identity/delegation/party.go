package delegation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/identity"
	"guichet/internal/audit"
	"guichet/internal/clock"
	"guichet/internal/id"
)

// A Type is what a party is.
type Type string

const (
	Business Type = "business"
	Person   Type = "person"
	Estate   Type = "estate"
	Property Type = "property"
)

// How we know of a party. Departments are told: only what rests on a document was seen by the city.
const (
	Declared = "declared" // somebody says so
	Account  = "account"  // a resident, signed in as such
	Document = "document" // two members of staff saw a document
)

// A Party is whom somebody acts for.
type Party struct {
	ID     string
	Type   Type
	Name   string // empty when it has been forgotten
	Number string // of a business, if it has one
	Proof  string
	EndsOn clock.Date // of a child: the last day before it comes of age
}

// partyProfile is the sealed part of a party. New fields need no migration.
type partyProfile struct {
	Name   string     `json:"name"`
	Number string     `json:"number,omitempty"`
	Born   clock.Date `json:"born,omitzero"`
}

var (
	ErrBadNumber = errors.New("not a business number")
	ErrBadBirth  = errors.New("not the birth date of a child")
	ErrTooMany   = errors.New("too many parties")
)

// maxParties bounds what one resident may declare: a page of parties must stay one page.
const maxParties = 20

// comesOfAge is the age in Ontario (Age of Majority and Accountability Act, s. 1).
const comesOfAge = 18

// ParseNumber returns the business number in text as the Canada Revenue Agency writes
// it: nine digits, the last one a check digit (Luhn), and perhaps a program account ("RT0001"). Empty stays empty.
func ParseNumber(text string) (string, error) {
	n := strings.ToUpper(strings.NewReplacer(" ", "", "-", "", "\u00a0", "").Replace(text))
	if n == "" {
		return "", nil
	}
	digits, account := n, ""
	if len(n) > 9 {
		digits, account = n[:9], n[9:]
	}
	if !isDigits(digits) || len(digits) != 9 || !luhn(digits) ||
		account != "" && (len(account) != 6 || account[0] != 'R' || account[1] < 'A' || account[1] > 'Z' || !isDigits(account[2:])) {
		return "", ErrBadNumber
	}
	return digits + account, nil
}

func isDigits(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' })
}

func luhn(digits string) bool {
	sum := 0
	for i := range len(digits) {
		d := int(digits[i] - '0')
		if (len(digits)-i)%2 == 0 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
}

// CreateBusiness makes a business that a resident declares to own, and returns the
// owner's right. Nobody has checked it: departments are told so. Errors: identity.ErrBadName, ErrBadNumber, ErrTooMany.
func (s *Service) CreateBusiness(ctx context.Context, residentID, name, number string) (delegationID string, err error) {
	profile := partyProfile{}
	if profile.Name, err = identity.ParseName(name); err != nil {
		return "", err
	}
	if profile.Number, err = ParseNumber(number); err != nil {
		return "", err
	}
	return s.declare(ctx, residentID, newParty{kind: Business, profile: profile, role: Owner, scope: everything()})
}

// AddChild makes a child that a resident declares to look after, and returns the
// guardian's right: it ends the day before the child turns 18. The birth date is sealed;
// only that day is stored in clear. Errors: identity.ErrBadName, ErrBadBirth, ErrTooMany.
func (s *Service) AddChild(ctx context.Context, residentID, name string, born clock.Date) (delegationID string, err error) {
	profile := partyProfile{Born: born}
	if profile.Name, err = identity.ParseName(name); err != nil {
		return "", err
	}
	today := clock.DateOf(s.now())
	last := clock.FromTime(born.Time().AddDate(comesOfAge, 0, 0)).AddDays(-1)
	if born.After(today) || last.Before(today) {
		return "", ErrBadBirth
	}
	scope := everything()
	scope.Until = last
	return s.declare(ctx, residentID, newParty{kind: Person, profile: profile, ends: last, role: Guardian, scope: scope})
}

// newParty is a party with the first right to act for it.
type newParty struct {
	kind    Type
	profile partyProfile
	proof   string
	ends    clock.Date
	role    Role
	scope   Scope
}

func (s *Service) declare(ctx context.Context, residentID string, n newParty) (delegationID string, err error) {
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		// The resident's row is the queue: two tabs must not both be the twentieth.
		var count int
		if _, err := tx.Exec(ctx, `select from identity.resident where id = $1 for no key update`, residentID); err != nil {
			return err
		}
		err := tx.QueryRow(ctx, `
			select count(*) from identity.delegation where delegate_id = $1 and role in ('owner', 'guardian') and ended_at is null`,
			residentID).Scan(&count)
		if err != nil {
			return err
		}
		if count >= maxParties {
			return ErrTooMany
		}
		n.proof = Declared
		partyID, err := s.createParty(ctx, tx, n, residentID)
		if err != nil {
			return err
		}
		now := s.now()
		delegationID = id.New()
		d := row{
			id: delegationID, partyID: partyID, delegateID: residentID, role: n.role, scope: n.scope,
			invitedBy: residentID, invitedAt: now, acceptedAt: &now,
		}
		if err := d.insert(ctx, tx); err != nil {
			return err
		}
		return s.record(ctx, tx, "delegation.created", d, nil)
	})
	if err != nil {
		return "", fmt.Errorf("declare a %s: %w", n.kind, err)
	}
	return delegationID, nil
}

func (s *Service) createParty(ctx context.Context, tx pgx.Tx, n newParty, by string) (partyID string, err error) {
	partyID = id.New()
	key, err := s.people.NewKey(ctx, tx, partyID)
	if err != nil {
		return "", err
	}
	plain, err := json.Marshal(n.profile)
	if err != nil {
		return "", fmt.Errorf("write profile: %w", err)
	}
	_, err = tx.Exec(ctx, `
		insert into identity.party (id, type, profile, proof, ends_on, created_by, created_at) values ($1, $2, $3, $4, $5, $6, $7)`,
		partyID, string(n.kind), key.Seal(plain, []byte("party:"+partyID)), n.proof, dateOrNil(n.ends), by, s.now())
	if err != nil {
		return "", fmt.Errorf("create party: %w", err)
	}
	return partyID, nil
}

// ensureResident makes a resident a party, by the resident's own id.
func (s *Service) ensureResident(ctx context.Context, tx pgx.Tx, residentID string) error {
	_, err := tx.Exec(ctx, `
		insert into identity.party (id, type, proof, created_by, created_at) values ($1, 'person', 'account', $2, $3)
		on conflict (id) do nothing`, residentID, residentID, s.now())
	if err != nil {
		return fmt.Errorf("create party: %w", err)
	}
	return nil
}

// Party reads a party, or ErrNotFound.
func (s *Service) Party(ctx context.Context, partyID string) (Party, error) {
	if !id.Valid(partyID) {
		return Party{}, ErrNotFound
	}
	var p sealedParty
	err := s.db.QueryRow(ctx, `
		select p.id, p.type, p.profile, p.proof, p.ends_on, k.box
		from identity.party p join identity.person_key k on k.id = p.id where p.id = $1`, partyID).
		Scan(&p.id, &p.kind, &p.profile, &p.proof, &p.ends, &p.key)
	if errors.Is(err, pgx.ErrNoRows) {
		return Party{}, ErrNotFound
	}
	if err != nil {
		return Party{}, fmt.Errorf("read party: %w", err)
	}
	return s.openParty(ctx, s.db, p)
}

// sealedParty is a party as stored.
type sealedParty struct {
	id, kind, proof string
	profile, key    []byte
	ends            *time.Time
}

func (s *Service) openParty(ctx context.Context, q querier, row sealedParty) (Party, error) {
	p := Party{ID: row.id, Type: Type(row.kind), Proof: row.proof, EndsOn: dateOf(row.ends)}
	if row.profile == nil {
		name, err := s.nameOf(ctx, q, row.id)
		p.Name = name
		return p, err
	}
	key, err := s.people.OpenKey(row.id, row.key)
	if errors.Is(err, identity.ErrForgotten) {
		return p, nil
	}
	if err != nil {
		return Party{}, err
	}
	plain, err := key.Open(row.profile, []byte("party:"+row.id))
	if err != nil {
		return Party{}, fmt.Errorf("open party %s: %w", row.id, err)
	}
	var profile partyProfile
	if err := json.Unmarshal(plain, &profile); err != nil {
		return Party{}, fmt.Errorf("read party %s: %w", row.id, err)
	}
	p.Name, p.Number = profile.Name, profile.Number
	return p, nil
}

// nameOf returns a resident's name, or "" when the person has been forgotten.
func (s *Service) nameOf(ctx context.Context, q querier, residentID string) (string, error) {
	r, err := s.people.ResidentIn(ctx, q, residentID)
	if errors.Is(err, identity.ErrForgotten) || errors.Is(err, identity.ErrNotFound) {
		return "", nil
	}
	return r.Name, err
}

func dateOf(t *time.Time) clock.Date {
	if t == nil {
		return clock.Date{}
	}
	return clock.FromTime(*t)
}

func dateOrNil(d clock.Date) *time.Time {
	if d == (clock.Date{}) {
		return nil
	}
	t := d.Time()
	return &t
}

// record writes one audit row about a right: whose it is, and for whom.
func (s *Service) record(ctx context.Context, tx pgx.Tx, action string, d row, details map[string]any) error {
	if details == nil {
		details = map[string]any{}
	}
	details["party"], details["role"] = d.partyID, string(d.role)
	return audit.Record(ctx, tx, audit.Event{
		Action: action, ObjectType: "delegation", ObjectID: d.id, Subject: d.delegateID, At: s.now(), Details: details,
	})
}
