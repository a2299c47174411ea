package ledger

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"guichet/internal/seal"
)

// Our right edge must give the roots and tiles that tlog itself gives.
func TestTreeAgreesWithTlog(t *testing.T) {
	var (
		tr     tree
		stored []tlog.Hash
		kept   = map[string][]byte{}
	)
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var out []tlog.Hash
		for _, i := range indexes {
			out = append(out, stored[i])
		}
		return out, nil
	})
	for n := range int64(70_000) { // 256² = 65,536: three levels
		data := fmt.Appendf(nil, "entry %d", n)
		hashes, err := tlog.StoredHashes(n, data, reader)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hashes...)
		tr.add(tlog.RecordHash(data))
		if n%997 != 0 && n > 600 && n != 65_535 && n != 65_536 {
			continue
		}
		want, err := tlog.TreeHash(n+1, reader)
		if err != nil {
			t.Fatal(err)
		}
		if got := tr.root(); got != want {
			t.Fatalf("root at %d: got %s, want %s", n+1, got, want)
		}
		from := tr.from
		for _, c := range tr.changed() {
			kept[fmt.Sprint(c.level, "/", c.n)] = append([]byte(nil), c.hashes...)
		}
		for _, tile := range tlog.NewTiles(tileHeight, from, n+1) {
			want, err := tlog.ReadTileData(tile, reader)
			if err != nil {
				t.Fatal(err)
			}
			if got := kept[fmt.Sprint(tile.L, "/", tile.N)]; string(got) != string(want) {
				t.Fatalf("tile %s at size %d: %d bytes, want %d", tile.Path(), n+1, len(got), len(want))
			}
		}
	}
}

func TestProof(t *testing.T) {
	t.Parallel()
	h := open(t)
	s, v := signer(t)
	p := h.poster(PosterOptions{Signer: s, Batch: 100})
	var ids []string
	for i := range 700 { // a tile of level 1 with more than one hash
		e := move(key(i), 5, clearing, receivable)
		e.Description = "private words"
		ids = append(ids, h.mustPost(t, e))
	}
	if _, err := h.Proof(t.Context(), h.db, ids[0]); !errors.Is(err, ErrNotSealed) {
		t.Errorf("before posting: got %v, want ErrNotSealed", err)
	}
	if err := p.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	var proof Proof
	for _, i := range []int{0, 1, 255, 256, 699} {
		var err error
		if proof, err = h.Proof(t.Context(), h.db, ids[i]); err != nil {
			t.Fatal(err)
		}
		// As it travels: through JSON.
		text, err := json.Marshal(proof)
		if err != nil {
			t.Fatal(err)
		}
		proof = Proof{}
		if err := json.Unmarshal(text, &proof); err != nil {
			t.Fatal(err)
		}
		if err := VerifyProof(proof, v); err != nil {
			t.Errorf("entry %d: %v", i, err)
		}
	}
	h.wantSound(t)
	_, other := signer(t)
	if err := VerifyProof(proof, other); !errors.Is(err, ErrProof) {
		t.Errorf("another key: got %v, want ErrProof", err)
	}
	for name, spoil := range map[string]func(*Proof){
		"another entry":    func(p *Proof) { p.EntryID = ids[3] },
		"another amount":   func(p *Proof) { p.Form[len(p.Form)-1]++ },
		"another position": func(p *Proof) { p.Index-- },
		"no position":      func(p *Proof) { p.Index = -1 },
		"a step too few":   func(p *Proof) { p.Path = p.Path[1:] },
		"an altered head":  func(p *Proof) { p.Head = "x" + p.Head },
		"no head":          func(p *Proof) { p.Head = "" },
	} {
		bad := proof
		bad.Form = append([]byte(nil), proof.Form...)
		spoil(&bad)
		if err := VerifyProof(bad, v); !errors.Is(err, ErrProof) {
			t.Errorf("%s: got %v, want ErrProof", name, err)
		}
	}
	if _, err := h.Proof(t.Context(), h.db, "no"); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown entry: got %v, want ErrNotFound", err)
	}
	if head, err := h.Head(t.Context(), h.db); err != nil || head == "" {
		t.Errorf("head %q, %v", head, err)
	}
}

func FuzzVerifyProof(f *testing.F) {
	private, public, err := note.GenerateKey(rand.Reader, "books.example")
	if err != nil {
		f.Fatal(err)
	}
	s, err := note.NewSigner(private)
	if err != nil {
		f.Fatal(err)
	}
	v, err := note.NewVerifier(public)
	if err != nil {
		f.Fatal(err)
	}
	head, err := signHead(tlog.Tree{N: 2}, s)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"entry":"e","form":"MTU6","index":1,"path":[]}`), head)
	f.Fuzz(func(t *testing.T, text []byte, head string) {
		var p Proof
		if json.Unmarshal(text, &p) != nil {
			return
		}
		p.Head = head
		if err := VerifyProof(p, v); err == nil {
			t.Errorf("accepted %q", text)
		}
	})
}

func TestLogKeyIsMadeOnce(t *testing.T) {
	t.Parallel()
	h := open(t)
	key, err := seal.New(make([]byte, seal.Size))
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for range 2 {
		h.do(t, func(ctx context.Context, tx pgx.Tx) error {
			s, public, err := h.LogKey(ctx, tx, key, "books.example")
			if err != nil {
				return err
			}
			keys = append(keys, public, s.Name())
			return nil
		})
	}
	if keys[0] != keys[2] || keys[1] != "books.example" {
		t.Errorf("got %q", keys)
	}
	if n := count(t, h.db, `select count(*) from ledger.log_key where sealed like '%PRIVATE%'::bytea`); n != 0 {
		t.Error("the private key is readable")
	}
}
