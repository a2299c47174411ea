package reconcile

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/money"
	"guichet/reconcile/bank"
)

// Folders of the inbox where files go once they are in the database.
const (
	doneFolder    = "done"
	refusedFolder = "refused"
)

// maxInbox bounds how many files one run takes; the rest is for the next.
const maxInbox = 1000

type takenStatements struct {
	Files      int `json:"files"`
	Refused    int `json:"refused"`
	Statements int `json:"statements"`
	Duplicates int `json:"duplicates"`
	Lines      int `json:"lines"`
}

// takeStatements reads every file of the inbox: raw bytes first, then what is in
// them, then the file moves aside. A file that is refused is kept with its reason.
func (n *Nightly) takeStatements(ctx context.Context, _ clock.Date) (any, error) {
	var did takenStatements
	if n.cfg.Inbox == "" {
		return did, nil
	}
	if err := os.MkdirAll(n.cfg.Inbox, 0o750); err != nil {
		return nil, fmt.Errorf("inbox: %w", err)
	}
	inbox, err := os.OpenRoot(n.cfg.Inbox)
	if err != nil {
		return nil, fmt.Errorf("inbox: %w", err)
	}
	defer inbox.Close()
	names, err := waiting(inbox)
	if err != nil {
		return nil, fmt.Errorf("inbox: %w", err)
	}
	for _, name := range names {
		if err := n.takeFile(ctx, inbox, name, &did); err != nil {
			return nil, fmt.Errorf("statement file %q: %w", name, err)
		}
	}
	return did, n.checkChain(ctx)
}

// waiting lists the complete files of the inbox in order of name.
func waiting(inbox *os.Root) ([]string, error) {
	entries, err := fs.ReadDir(inbox.FS(), ".")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		// What is hidden or temporary is still being written.
		if e.Type().IsRegular() && !strings.HasPrefix(e.Name(), ".") && !strings.HasSuffix(e.Name(), ".tmp") {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names[:min(len(names), maxInbox)], nil
}

// takeFile stores one file and moves it aside. A kill in between leaves it in the
// inbox: the next run knows it by its content and only moves it.
func (n *Nightly) takeFile(ctx context.Context, inbox *os.Root, name string, did *takenStatements) error {
	info, err := inbox.Stat(name)
	if err != nil {
		return err
	}
	if info.Size() > bank.MaxBytes {
		return n.setAside(inbox, name, refusedFolder, "oversize") // too large even to keep
	}
	data, err := inbox.ReadFile(name)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	var state string
	err = pgx.BeginFunc(ctx, n.db, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `select state from reconcile.statement_file where sha256 = $1`, sum[:]).Scan(&state)
		if !errors.Is(err, pgx.ErrNoRows) {
			return err // known, or a failure
		}
		state, err = n.storeFile(ctx, tx, name, data, did)
		return err
	})
	if err != nil {
		return err
	}
	folder := doneFolder
	if state == "refused" {
		folder = refusedFolder
	}
	return n.setAside(inbox, name, folder, fmt.Sprintf("%x", sum[:4]))
}

// setAside moves a file out of the inbox. The bank may use a name again: the
// content is in the new one.
func (n *Nightly) setAside(inbox *os.Root, name, folder, mark string) error {
	if err := inbox.MkdirAll(folder, 0o750); err != nil {
		return err
	}
	if folder == refusedFolder {
		n.log.Error("statement file refused", "file", name)
	}
	return inbox.Rename(name, path.Join(folder, mark+"-"+name))
}

// storeFile keeps the raw bytes and, if the file is whole and ours, every statement
// in it that is new.
func (n *Nightly) storeFile(ctx context.Context, tx pgx.Tx, name string, data []byte, did *takenStatements) (state string, err error) {
	statements, reason := n.readStatements(ctx, tx, data)
	state = "accepted"
	if reason != nil {
		if bad := (*refusal)(nil); !errors.As(reason, &bad) {
			return "", reason
		}
		state = "refused"
	}
	fileID := id.New()
	text := ""
	if reason != nil {
		text = reason.Error()
	}
	sum := sha256.Sum256(data)
	if _, err := tx.Exec(ctx, `
		insert into reconcile.statement_file (id, name, sha256, bytes, state, reason, received_at) values ($1, $2, $3, $4, $5, $6, $7)`,
		fileID, strings.ToValidUTF8(name, "?"), sum[:], data, state, text, n.now()); err != nil {
		return "", fmt.Errorf("keep: %w", err)
	}
	did.Files++
	if reason != nil {
		did.Refused++
		return state, n.open(ctx, tx, Exception{Kind: StatementRefused, ObjectType: "statement-file", ObjectID: fileID}, text)
	}
	for _, s := range statements {
		known, err := sameStatement(ctx, tx, s)
		if err != nil {
			return "", err
		}
		if known != "" {
			did.Duplicates++
			continue
		}
		if err := n.storeStatement(ctx, tx, fileID, s); err != nil {
			return "", err
		}
		did.Statements++
		did.Lines += len(s.Lines)
	}
	return state, nil
}

// A refusal is a reason not to take a file.
type refusal struct{ reason string }

func (r *refusal) Error() string { return r.reason }

// readStatements parses a file and checks that it is about our account and does
// not contradict what we have. A *refusal says why it is not taken.
func (n *Nightly) readStatements(ctx context.Context, tx pgx.Tx, data []byte) ([]bank.Statement, error) {
	statements, err := bank.ReadCAMT053(bytes.NewReader(data))
	if err != nil {
		return nil, &refusal{err.Error()}
	}
	for _, s := range statements {
		if s.Account != n.cfg.BankAccount {
			return nil, &refusal{fmt.Sprintf("statement %s is for account %s, which is not the city's %s", s.ID, s.Account, n.cfg.BankAccount)}
		}
		hash, err := sameStatement(ctx, tx, s)
		if err != nil {
			return nil, err
		}
		if hash != "" && hash != contentHash(s) {
			return nil, &refusal{fmt.Sprintf("statement %s of %s was received before with other content", s.ID, s.ClosingOn)}
		}
	}
	return statements, nil
}

// sameStatement returns the content hash of the statement of the same identity
// that we have, or "".
func sameStatement(ctx context.Context, tx pgx.Tx, s bank.Statement) (string, error) {
	var hash []byte
	err := tx.QueryRow(ctx, `
		select content_hash from reconcile.statement where account = $1 and number = $2 and sequence = $3 and closing_on = $4`,
		s.Account, s.ID, s.Sequence, s.ClosingOn.Time()).Scan(&hash)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("look for statement %s: %w", s.ID, err)
	}
	return string(hash), nil
}

// contentHash tells statements of one identity apart. Format, date of creation
// and the mark of a copy may differ between an original and its duplicate.
func contentHash(s bank.Statement) string {
	s.Format, s.Created, s.Duplicate, s.NotBooked = "", time.Time{}, false, 0
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings, numbers and dates only
	}
	sum := sha256.Sum256(text)
	return string(sum[:])
}

func (n *Nightly) storeStatement(ctx context.Context, tx pgx.Tx, fileID string, s bank.Statement) error {
	statementID := id.New()
	batch := new(pgx.Batch)
	batch.Queue(`
		insert into reconcile.statement (id, file_id, format, account, number, sequence, opening_on, closing_on,
			opening_cents, closing_cents, currency, content_hash)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
		statementID, fileID, s.Format, s.Account, s.ID, s.Sequence, s.OpeningOn.Time(), s.ClosingOn.Time(),
		s.Opening, s.Closing, s.Currency, []byte(contentHash(s)))
	for _, l := range s.Lines {
		batch.Queue(`
			insert into reconcile.bank_line (id, statement_id, number, amount_cents, reversal, booked_on, value_on, refs, code, text, batch_count)
			values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
			id.New(), statementID, l.Number, l.Amount, l.Reversal, l.BookedOn.Time(), l.ValueOn.Time(),
			append([]string{}, l.References()...), lineCode(l), lineText(l), l.BatchCount)
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("keep statement %s: %w", s.ID, err)
	}
	return nil
}

// lineCode is the ISO transaction code, and the bank's own behind it.
func lineCode(l bank.Line) string {
	if l.ProprietaryCode == "" {
		return l.Code
	}
	return strings.TrimSpace(l.Code + " " + l.ProprietaryCode)
}

// lineText is what the bank says in words, as far as a page shows it.
func lineText(l bank.Line) string {
	parts := []string{l.Text}
	for _, d := range l.Details {
		parts = append(parts, d.Text, d.ReturnReason)
	}
	text := strings.Join(strings.Fields(strings.Join(parts, " ")), " ")
	const most = 1000
	if len(text) > most {
		for text = text[:most]; !utf8.ValidString(text); {
			text = text[:len(text)-1]
		}
	}
	return text
}

// checkChain compares each statement's opening balance with the closing one before
// it. A difference means that a statement is missing.
func (n *Nightly) checkChain(ctx context.Context) error {
	rows, err := n.db.Query(ctx, `
		select id, number, opening_cents, before from (
			select id, number, opening_cents, account,
				lag(closing_cents) over (partition by account order by closing_on, opening_on, length(sequence), sequence, number) as before
			from reconcile.statement) s
		where before <> opening_cents order by number, id limit 1000`)
	if err != nil {
		return fmt.Errorf("check the chain of statements: %w", err)
	}
	type gap struct {
		ID, Number      string
		Opening, Before money.Amount
	}
	gaps, err := pgx.CollectRows(rows, pgx.RowToStructByPos[gap])
	if err != nil {
		return fmt.Errorf("check the chain of statements: %w", err)
	}
	return pgx.BeginFunc(ctx, n.db, func(tx pgx.Tx) error {
		open := make([]string, len(gaps))
		for i, g := range gaps {
			open[i] = g.ID
			if err := n.open(ctx, tx, Exception{Kind: StatementGap, ObjectType: "statement", ObjectID: g.ID, Amount: g.Opening - g.Before},
				fmt.Sprintf("statement %s opens with %s, but the one before closed with %s", g.Number, g.Opening, g.Before)); err != nil {
				return err
			}
		}
		// A late statement fills its gap.
		filled, err := exceptions(ctx, tx, `
			where type = $1 and closed_at is null and object_id <> all($2) order by id limit 1000`, string(StatementGap), open)
		if err != nil {
			return err
		}
		for _, e := range filled {
			if err := n.settled(ctx, tx, StatementGap, e.ObjectType, e.ObjectID, "the missing statement has come"); err != nil {
				return err
			}
		}
		return nil
	})
}
