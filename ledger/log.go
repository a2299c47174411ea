package ledger

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"guichet/internal/seal"
)

// The log is the Merkle tree of RFC 6962 over the canonical forms of the entries in
// posting order, kept in tiles of 2^8 hashes as golang.org/x/mod/sumdb/tlog reads them.
const (
	tileHeight = 8
	tileBytes  = tlog.HashSize << tileHeight
	levels     = 8 // enough for 2^64 entries
)

var (
	// ErrNotSealed says that the entry is in the books and not yet in the log: it
	// will be moments later.
	ErrNotSealed = errors.New("entry is not sealed yet")
	// ErrProof says that a proof does not prove what it claims.
	ErrProof = errors.New("proof does not hold")
	// ErrLog says that the stored log contradicts itself.
	ErrLog = errors.New("the log was changed")
)

// leafHash is the hash of a canonical form in the log.
func leafHash(canonical []byte) []byte {
	h := tlog.RecordHash(canonical)
	return h[:]
}

// A tile is one row of ledger.log_tile.
type tile struct {
	level  int
	n      int64
	hashes []byte
}

// A tree is the right edge of the log: what is needed to add leaves.
type tree struct {
	size int64
	edge [levels][]byte // the unfinished tile of each level
	full []tile         // finished since the last call of changed
	from int64          // size at that call
}

func (t *tree) add(leaf tlog.Hash) {
	t.size++
	for level := range t.edge {
		t.edge[level] = append(t.edge[level], leaf[:]...)
		if len(t.edge[level]) < tileBytes {
			return
		}
		t.full = append(t.full, tile{level, t.count(level)>>tileHeight - 1, t.edge[level]})
		leaf = subtree(t.edge[level])
		t.edge[level] = nil
	}
}

// count is the number of hashes at a level.
func (t *tree) count(level int) int64 { return t.size >> (tileHeight * level) }

// changed returns the tiles to store for what was added since the last call.
func (t *tree) changed() []tile {
	out := t.full
	for level := range t.edge {
		if len(t.edge[level]) > 0 && t.count(level) != t.from>>(tileHeight*level) {
			out = append(out, tile{level, t.count(level) >> tileHeight, t.edge[level]})
		}
	}
	t.full, t.from = nil, t.size
	return out
}

// root is the hash of the whole tree: its perfect subtrees, folded from the right.
func (t *tree) root() tlog.Hash {
	if t.size == 0 {
		return sha256.Sum256(nil)
	}
	var root tlog.Hash
	have := false
	for _, hashes := range t.edge {
		for end := len(hashes); end > 0; {
			width := end & -end // the lowest set bit: the rightmost perfect subtree
			h := subtree(hashes[end-width : end])
			if have {
				h = tlog.NodeHash(h, root)
			}
			root, have, end = h, true, end-width
		}
	}
	return root
}

// subtree is the root over a power of two of hashes.
func subtree(hashes []byte) tlog.Hash {
	if len(hashes) == tlog.HashSize {
		return tlog.Hash(hashes)
	}
	half := len(hashes) / 2
	return tlog.NodeHash(subtree(hashes[:half]), subtree(hashes[half:]))
}

// loadTree reads the right edge of the log at a head, and checks it against the head.
func loadTree(ctx context.Context, q Querier, head tlog.Tree) (*tree, error) {
	t := &tree{size: head.N, from: head.N}
	var numbers []int64
	for level := range t.edge {
		numbers = append(numbers, t.count(level)>>tileHeight)
	}
	rows, err := q.Query(ctx, `
		select t.level, t.hashes from ledger.log_tile t
		join unnest($1::bigint[]) with ordinality as edge(n, i) on t.level = edge.i - 1 and t.n = edge.n`, numbers)
	if err != nil {
		return nil, fmt.Errorf("read tiles: %w", err)
	}
	var (
		level  int
		hashes []byte
	)
	if _, err := pgx.ForEachRow(rows, []any{&level, &hashes}, func() error {
		width := int(t.count(level)&(1<<tileHeight-1)) * tlog.HashSize
		t.edge[level] = append([]byte(nil), hashes[:min(width, len(hashes))]...)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read tiles: %w", err)
	}
	if got := t.root(); got != head.Hash {
		return nil, fmt.Errorf("tiles of size %d give root %s, the head says %s: %w", head.N, got, head.Hash, ErrLog)
	}
	return t, nil
}

// readHead returns the newest head and its signed note (empty while nobody signed).
func readHead(ctx context.Context, q Querier) (head tlog.Tree, signed string, err error) {
	var root []byte
	if err := q.QueryRow(ctx, `select size, root, note from ledger.log_head`).Scan(&head.N, &root, &signed); err != nil {
		return head, "", fmt.Errorf("read the head of the log: %w", err)
	}
	head.Hash = tlog.Hash(root)
	return head, signed, nil
}

// Head returns the newest signed head: three lines (name of the log, number of
// entries, root hash in base64) and the signature, in the form of
// golang.org/x/mod/sumdb/note. It is empty while the newest batch is unsigned.
func (b *Books) Head(ctx context.Context, q Querier) (string, error) {
	_, signed, err := readHead(ctx, q)
	return signed, err
}

func signHead(head tlog.Tree, signer note.Signer) (string, error) {
	text := fmt.Sprintf("%s\n%d\n%s\n", signer.Name(), head.N, head.Hash)
	signed, err := note.Sign(&note.Note{Text: text}, signer)
	if err != nil {
		return "", fmt.Errorf("sign the head of the log: %w", err)
	}
	return string(signed), nil
}

// openHead checks the signature of a head and returns what it says.
func openHead(signed string, verifier note.Verifier) (tlog.Tree, error) {
	n, err := note.Open([]byte(signed), note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, fmt.Errorf("signed head: %w: %w", err, ErrProof)
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() {
		return tlog.Tree{}, fmt.Errorf("signed head %q: want name, size and root: %w", n.Text, ErrProof)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 {
		return tlog.Tree{}, fmt.Errorf("signed head: size %q: %w", lines[1], ErrProof)
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		return tlog.Tree{}, fmt.Errorf("signed head: root %q: %w", lines[2], ErrProof)
	}
	return tlog.Tree{N: size, Hash: root}, nil
}

// A Proof shows that an entry is in the log under a signed head. It stands alone:
// VerifyProof needs nothing but the log's public key.
type Proof struct {
	EntryID string      `json:"entry"`
	Form    []byte      `json:"form"`  // canonical form of the entry, its free text by hash
	Index   int64       `json:"index"` // position in the log, from 0
	Path    []tlog.Hash `json:"path"`
	Head    string      `json:"head"` // signed
}

// Proof returns the proof of an entry under the newest head. It is ErrNotSealed
// while the poster has not come to the entry, ErrNotFound when there is none.
func (b *Books) Proof(ctx context.Context, q Querier, entryID string) (Proof, error) {
	e, err := b.record(ctx, q, entryID)
	if err != nil {
		return Proof{}, err
	}
	p := Proof{EntryID: e.ID, Form: e.canonical(e.body)}
	// Position first and head after it: the head then covers the position.
	err = q.QueryRow(ctx, `select log_pos from ledger.posting where entry_id = $1 and line = 1`, e.ID).Scan(&p.Index)
	if errors.Is(err, pgx.ErrNoRows) {
		return Proof{}, fmt.Errorf("entry %s: %w", e.ID, ErrNotSealed)
	}
	if err != nil {
		return Proof{}, fmt.Errorf("read position of entry %s: %w", e.ID, err)
	}
	head, signed, err := readHead(ctx, q)
	if err != nil {
		return Proof{}, err
	}
	if signed == "" {
		return Proof{}, fmt.Errorf("entry %s: no signed head: %w", e.ID, ErrNotSealed)
	}
	path, err := tlog.ProveRecord(head.N, p.Index, tlog.TileHashReader(head, tiles{ctx, q}))
	if err != nil {
		return Proof{}, fmt.Errorf("prove entry %s: %w: %w", e.ID, err, ErrLog)
	}
	p.Path, p.Head = path, signed
	if err := tlog.CheckRecord(path, head.N, head.Hash, p.Index, tlog.RecordHash(p.Form)); err != nil {
		return Proof{}, fmt.Errorf("entry %s is not what was sealed: %w: %w", e.ID, err, ErrLog)
	}
	return p, nil
}

// VerifyProof checks a proof with the log's public key alone. Errors are ErrProof.
func VerifyProof(p Proof, verifier note.Verifier) error {
	head, err := openHead(p.Head, verifier)
	if err != nil {
		return err
	}
	var plain, linked canonical
	plain.put(entryForm, p.EntryID)
	linked.put(linkedForm, p.EntryID)
	if !bytes.HasPrefix(p.Form, plain) && !bytes.HasPrefix(p.Form, linked) {
		return fmt.Errorf("the form is not that of entry %s: %w", p.EntryID, ErrProof)
	}
	if p.Index < 0 || p.Index >= head.N {
		return fmt.Errorf("position %d in a log of %d: %w", p.Index, head.N, ErrProof)
	}
	if err := tlog.CheckRecord(p.Path, head.N, head.Hash, p.Index, tlog.RecordHash(p.Form)); err != nil {
		return fmt.Errorf("entry %s: %w: %w", p.EntryID, err, ErrProof)
	}
	return nil
}

// tiles reads stored tiles for tlog, which checks them against the head. It
// lives for one call and so may hold its context.
type tiles struct {
	ctx context.Context
	q   Querier
}

func (tiles) Height() int { return tileHeight }

// SaveTiles is for caches on disk; ours are in the database already.
func (tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func (r tiles) ReadTiles(want []tlog.Tile) ([][]byte, error) {
	at, numbers := make([]int64, len(want)), make([]int64, len(want))
	for i, t := range want {
		at[i], numbers[i] = int64(t.L), t.N
	}
	rows, err := r.q.Query(r.ctx, `
		select w.i, t.hashes from unnest($1::bigint[], $2::bigint[]) with ordinality as w(level, n, i)
		join ledger.log_tile t on t.level = w.level and t.n = w.n`, at, numbers)
	if err != nil {
		return nil, fmt.Errorf("read tiles: %w", err)
	}
	data := make([][]byte, len(want))
	var (
		i      int
		hashes []byte
	)
	if _, err := pgx.ForEachRow(rows, []any{&i, &hashes}, func() error {
		data[i-1] = append([]byte(nil), hashes...)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read tiles: %w", err)
	}
	for i, t := range want {
		// A tile may have grown since the head in question: it never changes what it had.
		width := t.W * tlog.HashSize
		if len(data[i]) < width {
			return nil, fmt.Errorf("tile %s holds %d bytes of %d: %w", t.Path(), len(data[i]), width, ErrLog)
		}
		data[i] = data[i][:width]
	}
	return data, nil
}

// LogKey returns the key that signs heads and its public part, made on the first
// call and kept in the database, sealed. name becomes the first line of every
// head: the address of the service, without spaces.
func (b *Books) LogKey(ctx context.Context, tx pgx.Tx, key *seal.Key, name string) (note.Signer, string, error) {
	private, public, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		return nil, "", fmt.Errorf("make the key of the log: %w", err)
	}
	// Two instances that start together: the second insert waits for the first and keeps its key.
	_, err = tx.Exec(ctx, `insert into ledger.log_key (verifier, sealed, made_at) values ($1, $2, $3) on conflict do nothing`,
		public, key.Seal([]byte(private), []byte(public)), b.moment())
	if err != nil {
		return nil, "", fmt.Errorf("keep the key of the log: %w", err)
	}
	var box []byte
	if err := tx.QueryRow(ctx, `select verifier, sealed from ledger.log_key`).Scan(&public, &box); err != nil {
		return nil, "", fmt.Errorf("read the key of the log: %w", err)
	}
	plain, err := key.Open(box, []byte(public))
	if err != nil {
		return nil, "", fmt.Errorf("open the key of the log: %w", err)
	}
	signer, err := note.NewSigner(string(plain))
	if err != nil {
		return nil, "", fmt.Errorf("read the key of the log: %w", err)
	}
	return signer, public, nil
}
