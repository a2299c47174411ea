package ledger

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"guichet/internal/testdb"
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

// While the poster is far behind nobody passes, not only who happened to look.
func TestNobodyPassesWhileThePosterIsFarBehind(t *testing.T) {
	t.Parallel()
	h := open(t)
	owner := testdb.Owner(t, h.db)
	if _, err := owner.Exec(t.Context(), `
		insert into ledger.unposted (entry_id, accounts, amounts, dimensions, effective_on, recorded_at, leaf)
		select gen_random_uuid(), array[1, 2], array[1, -1], array[1, 1], '2026-03-09', '2026-03-09', sha256('l') from generate_series(1, $1)`, queueBacklog+1); err != nil {
		t.Fatal(err)
	}
	q := NewQueue(h.Books, h.db)
	late, stop := context.WithCancel(t.Context())
	defer stop()
	var waiting sync.WaitGroup
	for range 20 {
		waiting.Go(func() { _ = q.backlog(late, queueLook/20) }) // one of them looks and waits
	}
	for deadline := time.After(time.Minute); ; {
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if err := q.backlog(gone, 1); errors.Is(err, context.Canceled) {
			break
		}
		select {
		case <-deadline:
			t.Fatal("the others pass")
		case <-time.After(10 * time.Millisecond):
		}
	}
	for range 20 {
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if err := q.backlog(gone, 1); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want to wait", err)
		}
	}
	if _, err := owner.Exec(t.Context(), `delete from ledger.unposted`); err != nil {
		t.Fatal(err)
	}
	waiting.Wait()
	if err := q.backlog(t.Context(), 1); err != nil {
		t.Errorf("caught up: %v", err)
	}
}

// What the database has against one entry is nobody else's trouble, even when it is
// nothing that the books foresaw.
func TestOneEntryDoesNotSpoilTheOthersOfAQueue(t *testing.T) {
	t.Parallel()
	h := open(t)
	if _, err := testdb.Owner(t, h.db).Exec(t.Context(), `alter table ledger.journal_entry add constraint unforeseen check (source_id <> 'p-k000003')`); err != nil {
		t.Fatal(err)
	}
	q := NewQueue(h.Books, h.db)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	const callers = 10
	errs := make([]error, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() { _, errs[i] = q.Append(ctx, move(key(i), 5, clearing, receivable)) })
	}
	for len(q.wait) < callers { // all of one batch
		runtime.Gosched()
	}
	go func() { _ = q.Run(ctx) }()
	wg.Wait()
	for i, err := range errs {
		if (err != nil) != (i == 3) {
			t.Errorf("entry %d: %v", i, err)
		}
	}
	h.wantBalance(t, clearing, 5*(callers-1))
}

// Codes that an index could not hold are refused before the database is asked, which would
// leave the caller's transaction aborted.
func TestCodesThatAreTooLong(t *testing.T) {
	t.Parallel()
	h := open(t)
	for name, spoil := range map[string]func(*Entry){
		"source":    func(e *Entry) { e.SourceID = strings.Repeat("x", 301) },
		"type":      func(e *Entry) { e.SourceType = strings.Repeat("x", 301) },
		"dimension": func(e *Entry) { e.Lines[1].Dimensions.WBS = strings.Repeat("x", 301) },
	} {
		e := move("k", 5, clearing, receivable)
		spoil(&e)
		if _, err := h.post(t.Context(), e); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
