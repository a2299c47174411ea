package ledger

import (
	"errors"
	"testing"
)

// A whole batch with a guilty entry records nothing and names it; each for itself, the
// others are recorded. Asking again tells what is there.
func TestTogether(t *testing.T) {
	t.Parallel()
	h := open(t)
	q := NewQueue(h.Books, h.db)
	bad := move("c", 5, "assets:none", receivable)
	entries := []Entry{move("a", 5, clearing, receivable), bad, move("b", 5, clearing, receivable)}

	results, err := q.AppendTogether(t.Context(), entries, true)
	if err != nil || len(results) != 3 || results[0].Err != nil || !errors.Is(results[1].Err, ErrUnknownAccount) || results[2].Err != nil {
		t.Errorf("whole: got %+v, %v", results, err)
	}
	h.wantBalance(t, clearing, 0)

	results, err = q.AppendTogether(t.Context(), entries, false)
	if err != nil || results[0].ID == "" || results[0].Replayed || !errors.Is(results[1].Err, ErrUnknownAccount) || results[2].ID == "" {
		t.Errorf("each: got %+v, %v", results, err)
	}
	again, err := q.AppendTogether(t.Context(), []Entry{entries[0], entries[2]}, true)
	if err != nil || !again[0].Replayed || again[0].ID != results[0].ID || !again[1].Replayed {
		t.Errorf("again: got %+v, %v", again, err)
	}
	h.wantBalance(t, clearing, 10)
}

// One caller alone hears whether the entry was there, and where it was booked.
func TestQueueTellsReplaysOfOneCaller(t *testing.T) {
	t.Parallel()
	h := open(t)
	q := NewQueue(h.Books, h.db)
	go func() { _ = q.Run(t.Context()) }() // ends with the test
	first, err := q.Append(t.Context(), move("a", 5, clearing, receivable))
	if err != nil || first.Replayed || first.EffectiveOn != today {
		t.Errorf("first: got %+v, %v", first, err)
	}
	again, err := q.Append(t.Context(), move("a", 5, clearing, receivable))
	if err != nil || !again.Replayed || again.ID != first.ID {
		t.Errorf("again: got %+v, %v", again, err)
	}
}
