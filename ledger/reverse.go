package ledger

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Reverse records the opposite of an entry, line by line. Key, Kind (empty:
// "reversal"), EffectiveOn, Actor, Channel, Description and Metadata are taken
// from r, and the source when r has one. What was reversed, whole or in part, is
// ErrReversed unless it is a replay with the same key. A hold is voided instead.
func (b *Books) Reverse(ctx context.Context, tx pgx.Tx, entryID string, r Entry) (string, error) {
	reversal, err := b.reverse(ctx, tx, entryID, nil, r)
	if err != nil {
		return "", fmt.Errorf("reverse %s: %w", entryID, err)
	}
	return reversal, nil
}

// ReverseLines takes back a part of an entry: lines, with accounts, dimensions and
// sides as in the entry and up to its amounts, summing to zero. It may be called until
// nothing is left; more is ErrReversed. For the rest see Reverse.
func (b *Books) ReverseLines(ctx context.Context, tx pgx.Tx, entryID string, lines []Line, r Entry) (string, error) {
	if len(lines) == 0 {
		return "", fmt.Errorf("reverse lines of %s: no lines: %w", entryID, ErrInvalid)
	}
	reversal, err := b.reverse(ctx, tx, entryID, lines, r)
	if err != nil {
		return "", fmt.Errorf("reverse lines of %s: %w", entryID, err)
	}
	return reversal, nil
}

func (b *Books) reverse(ctx context.Context, tx pgx.Tx, entryID string, lines []Line, r Entry) (string, error) {
	if err := r.plain(); err != nil {
		return "", err
	}
	e, err := b.Entry(ctx, tx, entryID)
	if err != nil {
		return "", err
	}
	if e.Held {
		return "", fmt.Errorf("a hold is voided, not reversed: %w", ErrInvalid)
	}
	if lines == nil {
		lines = e.Lines
	}
	r.Reverses, r.Currency, r.Lines = e.ID, e.Currency, opposite(lines)
	if r.Kind == "" {
		r.Kind = "reversal"
	}
	if r.SourceType == "" && r.SourceID == "" {
		r.SourceType, r.SourceID = e.SourceType, e.SourceID
	}
	return b.append(ctx, tx, r)
}

func opposite(lines []Line) []Line {
	out := make([]Line, len(lines))
	for i, l := range lines {
		l.Amount = -l.Amount
		out[i] = l
	}
	return out
}

// Correct replaces an entry: it reverses it whole, under the key of e with "/reversal"
// after it, and records e in its place. The two carry e's date, actor and channel; both
// are adjustments when e is one.
// It returns the id of the replacement, which names the entry it corrects.
func (b *Books) Correct(ctx context.Context, tx pgx.Tx, entryID string, e Entry) (string, error) {
	if err := e.plain(); err != nil {
		return "", fmt.Errorf("correct %s: %w", entryID, err)
	}
	kind := ""
	if e.Kind == "adjustment" {
		kind = e.Kind // a period that is closing takes both or neither
	}
	if _, err := b.Reverse(ctx, tx, entryID, Entry{
		Key: e.Key + "/reversal", Kind: kind, EffectiveOn: e.EffectiveOn, OrNextOpen: e.OrNextOpen,
		Actor: e.Actor, Channel: e.Channel, Description: e.Description,
	}); err != nil {
		return "", fmt.Errorf("correct %s: %w", entryID, err)
	}
	e.Corrects = entryID
	replacement, err := b.append(ctx, tx, e)
	if err != nil {
		return "", fmt.Errorf("correct %s: %w", entryID, err)
	}
	return replacement, nil
}
