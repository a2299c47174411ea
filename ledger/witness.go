package ledger

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A Consistency shows that the log under one head begins with exactly what it was
// under an older one: entries were added, and none changed, removed or slipped in.
type Consistency struct {
	From int64       `json:"from"` // size of the older head
	Path []tlog.Hash `json:"path"`
	Head string      `json:"head"` // the newest one, signed
}

// Consistency proves the newest signed head against one of an older size. It is
// ErrNotSealed while no head is signed, ErrInvalid for a size the log never had.
func (b *Books) Consistency(ctx context.Context, q Querier, from int64) (Consistency, error) {
	head, signed, err := readHead(ctx, q)
	if err != nil {
		return Consistency{}, err
	}
	if signed == "" {
		return Consistency{}, fmt.Errorf("no signed head: %w", ErrNotSealed)
	}
	if from < 0 || from > head.N {
		return Consistency{}, fmt.Errorf("size %d of a log of %d: %w", from, head.N, ErrInvalid)
	}
	c := Consistency{From: from, Head: signed, Path: []tlog.Hash{}}
	if from == 0 || from == head.N {
		return c, nil
	}
	path, err := tlog.ProveTree(head.N, from, tlog.TileHashReader(head, tiles{ctx, q}))
	if err != nil {
		return Consistency{}, fmt.Errorf("prove that %d entries begin with %d: %w: %w", head.N, from, err, ErrLog)
	}
	c.Path = path
	return c, nil
}

// VerifyConsistency checks a proof against an older signed head, with the log's public
// key alone. It is ErrLog when the log was rewritten, ErrProof when a signature is wrong.
func VerifyConsistency(older string, c Consistency, log note.Verifier) error {
	was, err := openHead(older, log)
	if err != nil {
		return fmt.Errorf("older head: %w", err)
	}
	is, err := openHead(c.Head, log)
	if err != nil {
		return err
	}
	switch {
	case is.N < was.N:
		return fmt.Errorf("the log had %d entries and has %d: %w", was.N, is.N, ErrLog)
	case is.N == was.N && is.Hash != was.Hash:
		return fmt.Errorf("two heads over %d entries: %w", is.N, ErrLog)
	case is.N == was.N, was.N == 0:
		return nil
	case c.From != was.N:
		return fmt.Errorf("the proof starts at %d entries, the older head has %d: %w", c.From, was.N, ErrProof)
	}
	if err := tlog.CheckTree(c.Path, is.N, is.Hash, was.N, was.Hash); err != nil {
		return fmt.Errorf("the log of %d entries does not begin with the %d it had: %w: %w", is.N, was.N, err, ErrLog)
	}
	return nil
}

// A Witness is somebody else who remembers the heads of the log: it signs a head only
// when the log it has seen before is its beginning. Who owns the database and the log's
// key can then show two histories to nobody who asks for the witness's signature.
type Witness struct {
	Log    note.Verifier
	Signer note.Signer
	Dir    string // where it keeps the heads it has signed
}

// Last returns the newest head the witness has signed, and its size; empty and 0
// before the first.
func (w *Witness) Last() (string, int64, error) {
	files, err := os.ReadDir(w.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", 0, nil
	}
	if err != nil {
		return "", 0, fmt.Errorf("heads of the witness: %w", err)
	}
	size := int64(-1)
	var newest string
	for _, f := range files {
		name, ours := strings.CutSuffix(f.Name(), ".head")
		n, err := strconv.ParseInt(name, 10, 64)
		if ours && err == nil && n > size {
			size, newest = n, f.Name()
		}
	}
	if newest == "" {
		return "", 0, nil
	}
	text, err := os.ReadFile(filepath.Join(w.Dir, newest))
	if err != nil {
		return "", 0, fmt.Errorf("heads of the witness: %w", err)
	}
	head, err := openHead(string(text), w.Log)
	if err != nil {
		return "", 0, fmt.Errorf("%s: %w", newest, err)
	}
	return string(text), head.N, nil
}

// See checks a head with its proof against the newest head seen, signs it and keeps
// it. It returns the head with both signatures, ErrLog for a log that was rewritten.
func (w *Witness) See(c Consistency) (string, error) {
	last, _, err := w.Last()
	if err != nil {
		return "", err
	}
	if last != "" {
		if err := VerifyConsistency(last, c, w.Log); err != nil {
			return "", fmt.Errorf("not signed: %w", err)
		}
	}
	head, err := openHead(c.Head, w.Log)
	if err != nil {
		return "", fmt.Errorf("not signed: %w", err)
	}
	n, err := note.Open([]byte(c.Head), note.VerifierList(w.Log))
	if err != nil {
		return "", fmt.Errorf("not signed: %w: %w", err, ErrProof)
	}
	signed, err := note.Sign(n, w.Signer)
	if err != nil {
		return "", fmt.Errorf("sign head %d: %w", head.N, err)
	}
	if err := writeHead(w.Dir, head.N, string(signed)); err != nil {
		return "", err
	}
	return string(signed), nil
}

// Witnessed returns the names of the witnesses that have signed a head, of those given.
func Witnessed(signed string, log note.Verifier, witnesses ...note.Verifier) ([]string, error) {
	if _, err := openHead(signed, log); err != nil {
		return nil, err
	}
	n, err := note.Open([]byte(signed), note.VerifierList(append([]note.Verifier{log}, witnesses...)...))
	if err != nil {
		return nil, fmt.Errorf("signed head: %w: %w", err, ErrProof)
	}
	var names []string
	for _, s := range n.Sigs {
		if s.Name != log.Name() || s.Hash != log.KeyHash() {
			names = append(names, s.Name)
		}
	}
	slices.SortFunc(names, cmp.Compare[string])
	return names, nil
}

// WitnessKey reads a witness's key from a file, or makes one under a name, and returns
// its public part too.
func WitnessKey(path, name string) (note.Signer, string, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && name != "" {
		var private, public string
		if private, public, err = note.GenerateKey(rand.Reader, name); err != nil {
			return nil, "", fmt.Errorf("make the key of witness %s: %w", name, err)
		}
		text = []byte(private + "\n" + public + "\n")
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		return nil, "", fmt.Errorf("key of the witness: %w", err)
	}
	private, public, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	signer, err := note.NewSigner(private)
	if err != nil {
		return nil, "", fmt.Errorf("key of the witness in %s: %w", path, err)
	}
	return signer, public, nil
}

// ReadVerifier reads a public key in the form of golang.org/x/mod/sumdb/note.
func ReadVerifier(key string) (note.Verifier, error) {
	v, err := note.NewVerifier(strings.TrimSpace(key))
	if err != nil {
		return nil, fmt.Errorf("public key of the log %.100q: %w", key, err)
	}
	return v, nil
}

// LogVerifier returns the public key of the log, or ErrNotSealed while there is none.
func (b *Books) LogVerifier(ctx context.Context, q Querier) (string, error) {
	var key string
	err := q.QueryRow(ctx, `select verifier from ledger.log_key`).Scan(&key)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("no key yet: %w", ErrNotSealed)
	}
	if err != nil {
		return "", fmt.Errorf("read the key of the log: %w", err)
	}
	return key, nil
}
