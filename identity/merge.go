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

const (
	mergeProof = 10 * time.Minute // both accounts are proved within it
	undoFor    = 7 * 24 * time.Hour
)

// A MergePreview shows a person what making two accounts one would do.
type MergePreview struct {
	Other       Person   // the account that would be retired
	Departments []string // ids of departments that know the person twice
	Emails      int      // addresses that come along
	Passkeys    int
}

// provedOther finishes, in a sign-in that was begun to prove a second account, with
// that proof: it opens no session. Of an account with a second factor both are needed.
func (s *Service) provedOther(ctx context.Context, tx pgx.Tx, pr proof, all proofs, has Factors) (SignedIn, error) {
	p := pr.pending
	if pr.resident == p.mergeInto {
		return SignedIn{}, ErrSamePerson
	}
	to := StepDone
	if all.level() < 2 && has.Strong() {
		to = StepFactor
	} else {
		p.ReturnPath = "/account/merge/" + p.ID
	}
	if err := s.move(ctx, tx, &p, to); err != nil {
		return SignedIn{}, err
	}
	return SignedIn{ResidentID: pr.resident, Pending: p}, nil
}

// ErrSamePerson says that the second account of a merge is the first one.
var ErrSamePerson = errors.New("the two accounts are one already")

// otherOf returns the account proved for a merge into p, if that is not too long ago.
func (s *Service) otherOf(ctx context.Context, q Querier, p Person, pendingID, browser string) (string, error) {
	if !id.Valid(pendingID) || browser == "" {
		return "", ErrNoPending
	}
	if !p.Fresh(s.now()) {
		// Of a person without a second factor a recent code is all there is.
		has, err := s.factors(ctx, q, p.ID)
		if err != nil {
			return "", err
		}
		if has.Strong() || !p.ProvedRecently(s.now()) {
			return "", ErrStepUp
		}
	}
	var other string
	err := q.QueryRow(ctx, `
		select w.resident_id from identity.pending w join identity.resident r on r.id = w.resident_id and r.state = 'active'
		where w.id = $1 and w.browser = $2 and w.merge_into = $3 and w.step = 'done' and w.created_at > $4`,
		pendingID, id.Hash(browser), p.ID, s.now().Add(-mergeProof)).Scan(&other)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", ErrNoPending
	}
	return other, err
}

// PreviewMerge shows what a merge would do. It returns ErrNoPending or ErrStepUp, wrapped.
func (s *Service) PreviewMerge(ctx context.Context, p Person, pendingID, browser string) (MergePreview, error) {
	var m MergePreview
	other, err := s.otherOf(ctx, s.db, p, pendingID, browser)
	if err != nil {
		return m, fmt.Errorf("preview a merge: %w", err)
	}
	r, err := s.resident(ctx, s.db, other)
	if err != nil {
		return m, fmt.Errorf("preview a merge: %w", err)
	}
	m.Other = Person{ID: r.ID, Name: r.Name, Email: r.Email}
	err = s.db.QueryRow(ctx, `
		select (select count(*) from identity.email where resident_id = $2), (select count(*) from identity.passkey where resident_id = $2),
			coalesce((select array_agg(a.department_id::text order by a.department_id) from identity.pairwise a
				join identity.pairwise b on b.department_id = a.department_id and b.resident_id = $2 where a.resident_id = $1), '{}')`,
		p.ID, other).Scan(&m.Emails, &m.Passkeys, &m.Departments)
	if err != nil {
		return m, fmt.Errorf("preview a merge: %w", err)
	}
	return m, nil
}

// moved is what an undo takes back.
type moved struct {
	Emails   []string `json:"emails"`
	Passkeys []string `json:"passkeys"`
	Main     string   `json:"main"`     // the address that was the retired account's main one
	Accounts []string `json:"accounts"` // accounts that had been merged into the retired one
}

// Merge makes the account proved in the sign-in part of the person's. Its addresses and
// passkeys come along, it is retired, the names by which departments know it stay good, and both are
// told. It can be undone for seven days. It returns ErrNoPending or ErrStepUp, wrapped.
func (s *Service) Merge(ctx context.Context, p Person, pendingID, browser string) error {
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		other, err := s.otherOf(ctx, tx, p, pendingID, browser)
		if err != nil {
			return err
		}
		var proved string
		err = tx.QueryRow(ctx, `
			update identity.pending set merge_into = null where id = $1 and merge_into = $2 and step = 'done' returning resident_id`, pendingID, p.ID).Scan(&proved)
		if errors.Is(err, pgx.ErrNoRows) || err == nil && proved != other {
			return ErrNoPending
		}
		if err != nil {
			return err
		}
		return s.merge(ctx, tx, p, other)
	})
	if err != nil {
		return fmt.Errorf("merge accounts: %w", err)
	}
	return nil
}

func (s *Service) merge(ctx context.Context, tx pgx.Tx, p Person, other string) error {
	// In the order of ids: two merges in opposite directions would otherwise deadlock.
	var active int
	err := tx.QueryRow(ctx, `
		select count(*) from (select from identity.resident where id in ($1, $2) and state = 'active' order by id for update) both_of_them`, p.ID, other).Scan(&active)
	if err != nil {
		return err
	}
	if active != 2 {
		return ErrNoPending
	}
	// While the addresses still belong to it: both are told at all of them.
	mergeID, until := id.New(), s.now().Add(undoFor)
	link, err := s.newLink(ctx, tx, Link{Purpose: LinkUndoMerge, residentID: p.ID, ref: mergeID, expiresAt: until})
	if err != nil {
		return err
	}
	var m moved
	if err := tx.QueryRow(ctx, `select id from identity.email where resident_id = $1 and main`, other).Scan(&m.Main); err != nil {
		return err
	}
	if m.Emails, err = s.hand(ctx, tx, boxEmail, other, p.ID, nil); err != nil {
		return err
	}
	if m.Passkeys, err = s.hand(ctx, tx, boxPasskey, other, p.ID, nil); err != nil {
		return err
	}
	rows, err := tx.Query(ctx, `update identity.resident set merged_into = $2 where merged_into = $1 returning id`, other, p.ID)
	if err != nil {
		return err
	}
	if m.Accounts, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `update identity.resident set state = 'merged', merged_into = $2, updated_at = $3 where id = $1`, other, p.ID, s.now())
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `
		insert into identity.merge (id, kept_id, retired_id, moved, merged_at, undo_until) values ($1, $2, $3, $4, $5, $6)`,
		mergeID, p.ID, other, m, s.now(), until)
	if err != nil {
		return err
	}
	if err := s.endEverything(ctx, tx, other, "account merged"); err != nil {
		return err
	}
	if err := s.departs(ctx, tx, Departure{ResidentID: other, Into: p.ID}); err != nil {
		return err
	}
	if err := s.recordMerge(ctx, tx, "account.merged", mergeID, p.ID, other); err != nil {
		return err
	}
	return s.tellEverywhere(ctx, tx, notice{resident: p.ID, template: "merged", key: mergeID, data: map[string]string{"link": link}})
}

// recordMerge writes an event of both accounts.
func (s *Service) recordMerge(ctx context.Context, tx pgx.Tx, action, mergeID, kept, retired string) error {
	for _, subject := range []string{kept, retired} {
		err := audit.Record(ctx, tx, audit.Event{
			Action: action, ObjectType: "merge", ObjectID: mergeID, Subject: subject, At: s.now(), Details: map[string]any{"kept": kept, "retired": retired},
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// A sealedBox names a column that is sealed under its owner's key and bound to its row.
type sealedBox struct{ table, column, bound string }

var (
	boxEmail   = sealedBox{"email", "box", "email:"}
	boxPasskey = sealedBox{"passkey", "name", "passkey:"}
)

// hand gives rows from one resident to another, sealed anew under the other's key: all,
// or those of a list. An address that comes along is not the main one.
func (s *Service) hand(ctx context.Context, tx pgx.Tx, b sealedBox, from, to string, only []string) ([]string, error) {
	was, err := s.keyOf(ctx, tx, from)
	if err != nil {
		return nil, err
	}
	becomes, err := s.keyOf(ctx, tx, to)
	if err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, `
		select id, `+b.column+` from identity.`+b.table+` where resident_id = $1 and ($2::uuid[] is null or id = any ($2)) order by id limit 1000 for update`, from, only)
	if err != nil {
		return nil, fmt.Errorf("hand over %s: %w", b.table, err)
	}
	type row struct {
		ID  string
		Box []byte
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
	if err != nil {
		return nil, fmt.Errorf("hand over %s: %w", b.table, err)
	}
	main := ""
	if b == boxEmail {
		main = ", main = false"
	}
	ids := []string{}
	for _, r := range all {
		plain, err := was.Open(r.Box, []byte(b.bound+r.ID))
		if err != nil {
			return nil, fmt.Errorf("hand over %s: %w", b.table, err)
		}
		_, err = tx.Exec(ctx, `update identity.`+b.table+` set resident_id = $2, `+b.column+` = $3`+main+` where id = $1`,
			r.ID, to, becomes.Seal(plain, []byte(b.bound+r.ID)))
		if err != nil {
			return nil, fmt.Errorf("hand over %s: %w", b.table, err)
		}
		ids = append(ids, r.ID)
	}
	return ids, nil
}

// undoMerge gives the retired account back what came from it.
func (s *Service) undoMerge(ctx context.Context, tx pgx.Tx, mergeID string) error {
	var kept, retired string
	var m moved
	err := tx.QueryRow(ctx, `
		update identity.merge set undone_at = $2 where id = $1 and undone_at is null and undo_until > $2
		returning kept_id, retired_id, moved`, mergeID, s.now()).Scan(&kept, &retired, &m)
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrNoLink
	}
	if err != nil {
		return err
	}
	var still bool
	err = tx.QueryRow(ctx, `
		select exists (select from identity.resident where id = $1 and state = 'merged' and merged_into = $2)
			and exists (select from identity.email where id = $3 and resident_id = $2 and not main)`, retired, kept, m.Main).Scan(&still)
	if err != nil {
		return err
	}
	if !still { // the account was merged on, or its main address is now the other's: a person has to look
		return ErrNoLink
	}
	if _, err := s.hand(ctx, tx, boxEmail, kept, retired, m.Emails); err != nil {
		return err
	}
	if _, err := s.hand(ctx, tx, boxPasskey, kept, retired, m.Passkeys); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `update identity.email set main = true where id = $1`, m.Main); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `update identity.resident set merged_into = $2 where id = any ($1)`, m.Accounts, retired); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `update identity.resident set state = 'active', merged_into = null, updated_at = $2 where id = $1`, retired, s.now())
	if err != nil {
		return err
	}
	if err := s.endEverything(ctx, tx, kept, "merge undone"); err != nil {
		return err
	}
	if err := s.departs(ctx, tx, Departure{ResidentID: retired, Into: kept, Undone: true}); err != nil {
		return err
	}
	if err := s.recordMerge(ctx, tx, "account.merge_undone", mergeID, kept, retired); err != nil {
		return err
	}
	for _, one := range []string{kept, retired} {
		if err := s.tellEverywhere(ctx, tx, notice{resident: one, template: "merge-undone", key: mergeID + "/" + one}); err != nil {
			return err
		}
	}
	return nil
}

// Accounts lists the ids under which a resident is known in the books: their own, and
// those of accounts merged into it.
func (s *Service) Accounts(ctx context.Context, residentID string) ([]string, error) {
	rows, err := s.db.Query(ctx, `
		select id from identity.resident where id = $1 or merged_into = $1 order by (id = $1) desc, id limit 100`, residentID)
	if err != nil {
		return nil, fmt.Errorf("list accounts of %s: %w", residentID, err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
