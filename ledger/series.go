package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/money"
)

// A Series is a run of numbered documents of another room, such as receipts: each is
// about one entry, and numbers run from one without gaps. It travels with the export, so
// that VerifyExport can prove it there.
type Series struct {
	Name string
	Kind string        // every entry of this kind has a document
	Due  time.Duration // and this long after the entry it is late
	// Each tells f every document in order of number, and returns the last number
	// that was given out. It runs in the snapshot of the export.
	Each func(ctx context.Context, tx pgx.Tx, f func(Document) error) (last int64, err error)
}

// A Document is one number of a series.
type Document struct {
	Number  int64
	EntryID string
	Amount  money.Amount // the debits of its entry
	Hash    []byte       // of what it says: who holds a copy compares
}

type jsonDocument struct {
	Type   string       `json:"type"`
	Series string       `json:"series"`
	Number int64        `json:"number"`
	Entry  string       `json:"entry"`
	Amount money.Amount `json:"amount"`
	Hash   []byte       `json:"hash"`
}

type jsonSeries struct {
	Type string `json:"type"`
	Name string `json:"name"`
	Kind string `json:"kind"`
	Due  int64  `json:"due_seconds"`
	Last int64  `json:"last"`
}

func exportSeries(ctx context.Context, tx pgx.Tx, enc *json.Encoder, s Series) error {
	last, err := s.Each(ctx, tx, func(d Document) error {
		return enc.Encode(jsonDocument{"document", s.Name, d.Number, d.EntryID, d.Amount, d.Hash})
	})
	if err != nil {
		return fmt.Errorf("series %s: %w", s.Name, err)
	}
	return enc.Encode(jsonSeries{"series", s.Name, s.Kind, int64(s.Due / time.Second), last})
}
