package manual

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"guichet/internal/approval"
	"guichet/internal/attachment"
	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/ledger"
)

// approvalKind is the kind of a checker's approval. The database knows the word too.
const approvalKind = "journal.manual"

func object(p Paper) string { return fmt.Sprintf("%s/%d", p.ID, p.Version) }

// ErrTooMuch says that a draft is larger than a draft may be.
var ErrTooMuch = errors.New("the draft is too large")

// Create starts a draft under an id of the caller's choice, so that a form sent twice makes one.
// The second time it changes nothing.
func (s *Service) Create(ctx context.Context, draftID, maker string, c Content) error {
	if !id.Valid(draftID) || maker == "" {
		return fmt.Errorf("create draft: %w", ErrNotFound)
	}
	if !c.bounded() {
		return fmt.Errorf("create draft: %w", ErrTooMuch)
	}
	err := pgx.BeginFunc(ctx, s.DB, func(tx pgx.Tx) error {
		now := s.Now()
		tag, err := tx.Exec(ctx, `
			insert into ledger.manual_draft (id, maker, version, created_at, changed_at) values ($1, $2, 1, $3, $3) on conflict (id) do nothing`,
			draftID, maker, now)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			p, err := s.Get(ctx, tx, draftID)
			if err == nil && p.Maker != maker {
				err = ErrMaker
			}
			return err
		}
		if err := s.write(ctx, tx, draftID, 1, maker, c); err != nil {
			return err
		}
		return s.step(ctx, tx, Paper{ID: draftID, State: Draft, Version: 1}, maker, "")
	})
	if err != nil {
		return fmt.Errorf("create draft: %w", err)
	}
	return nil
}

// own locks a draft for its maker, who must have seen its newest version.
func (s *Service) own(ctx context.Context, tx pgx.Tx, draftID, by string, version int) (Paper, error) {
	p, err := lock(ctx, tx, draftID)
	switch {
	case err != nil:
		return p, err
	case p.Maker != by:
		return p, ErrMaker
	case p.Version != version:
		return p, ErrStale
	}
	return p, nil
}

// Save writes a new version, made from the one that the maker has seen. Its files stay as they
// are. A refused draft becomes a draft again; one that is submitted must be taken back first.
func (s *Service) Save(ctx context.Context, draftID, by string, version int, c Content) error {
	return s.change(ctx, draftID, by, version, func(_ pgx.Tx, old Content) (Content, error) {
		c.Files = old.Files
		return c, nil
	})
}

// Attach adds a file to a draft. The errors of package attachment say what is wrong with it.
func (s *Service) Attach(ctx context.Context, draftID, by string, version int, name string, text []byte) error {
	return s.change(ctx, draftID, by, version, func(tx pgx.Tx, c Content) (Content, error) {
		f, err := attachment.Store(ctx, tx, attachment.Owner{Type: source, ID: draftID}, name, text, s.Now())
		if err != nil {
			return c, err
		}
		c.Files = append(slices.Clone(c.Files), File{f.ID, f.Name, hex.EncodeToString(f.SHA256)})
		return c, nil
	})
}

// Detach leaves a file out of the next version. The versions that had it keep it.
func (s *Service) Detach(ctx context.Context, draftID, by string, version int, fileID string) error {
	return s.change(ctx, draftID, by, version, func(_ pgx.Tx, c Content) (Content, error) {
		c.Files = slices.DeleteFunc(slices.Clone(c.Files), func(f File) bool { return f.ID == fileID })
		return c, nil
	})
}

// File returns a file of a draft, or attachment.ErrNotFound.
func (s *Service) File(ctx context.Context, draftID, fileID string) (attachment.File, error) {
	return attachment.Load(ctx, s.DB, attachment.Owner{Type: source, ID: draftID}, fileID)
}

func (s *Service) change(ctx context.Context, draftID, by string, version int, edit func(tx pgx.Tx, old Content) (Content, error)) error {
	err := pgx.BeginFunc(ctx, s.DB, func(tx pgx.Tx) error {
		p, err := s.own(ctx, tx, draftID, by, version)
		if err != nil {
			return err
		}
		if p.State != Draft && p.State != Refused {
			return s.stands(ctx, tx, p)
		}
		c, err := edit(tx, p.Content)
		if err != nil {
			return err
		}
		if !c.bounded() {
			return ErrTooMuch
		}
		p.Version++
		if err := s.write(ctx, tx, p.ID, p.Version, by, c); err != nil {
			return err
		}
		return s.move(ctx, tx, &p, Draft, by, "")
	})
	if err != nil {
		return fmt.Errorf("save draft %s: %w", draftID, err)
	}
	return nil
}

// A FaultsError lists why a draft cannot be submitted.
type FaultsError struct{ Faults []Fault }

func (e *FaultsError) Error() string { return fmt.Sprintf("%d faults in the draft", len(e.Faults)) }

// Submit asks for another person's approval of the newest version. It returns a FaultsError
// when something is missing, ErrTick when the maker must say that they mean accounts that
// other rooms own, and what the books would say to it now.
func (s *Service) Submit(ctx context.Context, draftID, by string, version int) error {
	err := pgx.BeginFunc(ctx, s.DB, func(tx pgx.Tx) error {
		p, err := s.own(ctx, tx, draftID, by, version)
		if err != nil {
			return err
		}
		if p.State == Submitted {
			return nil // the button was pressed twice
		}
		if faults := p.Content.Faults(); len(faults) > 0 {
			return &FaultsError{faults}
		}
		if s.owned(p.Content) != nil && !p.Content.Tick {
			return ErrTick
		}
		if err := s.try(ctx, tx, p, func(pgx.Tx, ledger.Entry, ledger.Entry) error { return nil }); err != nil {
			return err
		}
		text, err := content(ctx, tx, p)
		if err != nil {
			return err
		}
		p.Approval, err = approval.Ask(ctx, tx, approval.Request{Kind: approvalKind, Object: object(p), Payload: text, By: by, At: s.Now()})
		if err != nil {
			return err
		}
		return s.move(ctx, tx, &p, Submitted, by, "")
	})
	if err != nil {
		return fmt.Errorf("submit draft %s: %w", draftID, err)
	}
	return nil
}

// content is what was written, byte for byte.
func content(ctx context.Context, tx pgx.Tx, p Paper) ([]byte, error) {
	var text string
	if err := tx.QueryRow(ctx, `select content from ledger.manual_version where draft_id = $1 and version = $2`, p.ID, p.Version).Scan(&text); err != nil {
		return nil, fmt.Errorf("read version %d of draft %s: %w", p.Version, p.ID, err)
	}
	return []byte(text), nil
}

// TakeBack lets the maker change what is submitted: the request for approval ends.
func (s *Service) TakeBack(ctx context.Context, draftID, by string, version int) error {
	return s.end(ctx, draftID, by, version, Draft)
}

// Withdraw gives a draft up, for good.
func (s *Service) Withdraw(ctx context.Context, draftID, by string, version int) error {
	return s.end(ctx, draftID, by, version, Withdrawn)
}

func (s *Service) end(ctx context.Context, draftID, by string, version int, to State) error {
	err := pgx.BeginFunc(ctx, s.DB, func(tx pgx.Tx) error {
		p, err := s.own(ctx, tx, draftID, by, version)
		if err != nil || p.State == to {
			return err
		}
		if to == Draft && p.State != Submitted {
			return s.stands(ctx, tx, p)
		}
		if p.State == Submitted {
			if _, err := approval.Withdraw(ctx, tx, approval.Decision{ID: p.Approval, By: by, At: s.Now()}); err != nil {
				return err
			}
		}
		return s.move(ctx, tx, &p, to, by, "")
	})
	if err != nil {
		return fmt.Errorf("set draft %s to %s: %w", draftID, to, err)
	}
	return nil
}

// A Decision is a checker's.
type Decision struct {
	Draft   string
	By      string
	Version int // the one that was looked at
	Reason  string
	Tick    bool // the checker means the accounts that other rooms own
}

// Approve posts a submitted draft, in one transaction with everything that says so, and
// returns its entry. Approving again what one has approved oneself returns the same entry and
// changes nothing; what somebody else has decided is a StateError. What the books refuse is
// returned as they say it, and nothing is decided.
func (s *Service) Approve(ctx context.Context, d Decision) (entryID string, err error) {
	err = pgx.BeginFunc(ctx, s.DB, func(tx pgx.Tx) error {
		p, err := s.decided(ctx, tx, d, Posted)
		if err != nil || p.State == Posted {
			entryID = p.Entry
			return err
		}
		if s.owned(p.Content) != nil && !d.Tick {
			return ErrTick
		}
		text, err := content(ctx, tx, p)
		if err != nil {
			return err
		}
		if _, err := approval.Approve(ctx, tx, approval.Decision{ID: p.Approval, By: d.By, Reason: d.Reason, At: s.Now()}, text); err != nil {
			return err
		}
		if p.Entry, p.Undo, err = s.post(ctx, tx, p, d.By); err != nil {
			return err
		}
		entryID = p.Entry
		return s.move(ctx, tx, &p, Posted, d.By, d.Reason)
	})
	if err != nil {
		return "", fmt.Errorf("approve draft %s: %w", d.Draft, err)
	}
	return entryID, nil
}

// Refuse sends a submitted draft back to its maker, with the reason.
func (s *Service) Refuse(ctx context.Context, d Decision) error {
	err := pgx.BeginFunc(ctx, s.DB, func(tx pgx.Tx) error {
		p, err := s.decided(ctx, tx, d, Refused)
		if err != nil || p.State == Refused {
			return err
		}
		if strings.TrimSpace(d.Reason) == "" {
			return ErrReason
		}
		if _, err := approval.Refuse(ctx, tx, approval.Decision{ID: p.Approval, By: d.By, Reason: d.Reason, At: s.Now()}); err != nil {
			return err
		}
		return s.move(ctx, tx, &p, Refused, d.By, d.Reason)
	})
	if err != nil {
		return fmt.Errorf("refuse draft %s: %w", d.Draft, err)
	}
	return nil
}

// decided locks a draft for a checker. One that stands already where the same checker has
// brought it is returned as it is.
func (s *Service) decided(ctx context.Context, tx pgx.Tx, d Decision, to State) (Paper, error) {
	p, err := lock(ctx, tx, d.Draft)
	switch {
	case err != nil:
		return p, err
	case p.Maker == d.By:
		return p, ErrSame
	case p.State == to && p.Decider == d.By && p.Version == d.Version:
		return p, nil
	case p.State != Submitted:
		return p, s.stands(ctx, tx, p)
	case p.Version != d.Version:
		return p, ErrStale
	}
	return p, nil
}

// owned lists the accounts of a content that other rooms own.
func (s *Service) owned(c Content) []string {
	var list []string
	for _, l := range c.Lines {
		if s.Owns(l.Account) && !slices.Contains(list, l.Account) {
			list = append(list, l.Account)
		}
	}
	return list
}

// Owns reports whether another room owns an account.
func (s *Service) Owns(path string) bool {
	return slices.ContainsFunc(s.Owned, func(root string) bool {
		rest, ok := strings.CutPrefix(path, root)
		return ok && (rest == "" || rest[0] == ':')
	})
}

// post records what a draft says. Its entries are adjustments: a period that is closing takes
// them, and one that is closed passes them on to the next.
func (s *Service) post(ctx context.Context, tx pgx.Tx, p Paper, checker string) (entryID, undoID string, err error) {
	c := p.Content
	e := ledger.Entry{
		Key: "manual/" + p.ID, Kind: "adjustment", EffectiveOn: c.EffectiveOn, OrNextOpen: true, SourceType: source, SourceID: p.ID,
		Actor: p.Maker, Channel: "web", Description: c.Description,
		Metadata: map[string]string{"reason": string(c.Reason), "maker": p.Maker, "checker": checker, "version": fmt.Sprint(p.Version), "content": fmt.Sprintf("%x", p.Hash)},
	}
	switch c.Mode {
	case Reversal:
		entryID, err = s.Books.ReverseLines(ctx, tx, c.Of, opposite(c.entryLines()), e)
	case Correction:
		e.Lines = c.entryLines()
		entryID, err = s.Books.Correct(ctx, tx, c.Of, e)
	default:
		e.Lines = c.entryLines()
		entryID, err = s.Books.Append(ctx, tx, e)
	}
	if err != nil || c.UndoOn == (clock.Date{}) {
		return entryID, "", err
	}
	undo := e
	undo.Key, undo.EffectiveOn, undo.Lines = e.Key+"/undo", c.UndoOn, nil
	undoID, err = s.Books.Reverse(ctx, tx, entryID, undo)
	return entryID, undoID, err
}

func opposite(lines []ledger.Line) []ledger.Line {
	out := slices.Clone(lines)
	for i := range out {
		out[i].Amount = -out[i].Amount
	}
	return out
}
