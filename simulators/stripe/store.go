package stripe

import (
	"container/heap"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"guichet/simulators/control"
)

// A row is one stored object. A stored row is never changed in place: get gives
// a copy, put stages the new one, commit swaps them.
type row interface {
	kind() string
	rowID() string
}

// newRow makes the empty row of a kind, for reading the journal.
var newRow = map[string]func() row{
	"balance_transaction": func() row { return new(balanceTransaction) },
	"charge":              func() row { return new(charge) },
	"checkout.session":    func() row { return new(session) },
	"credit":              func() row { return new(credit) },
	"customer":            func() row { return new(customer) },
	"delivery":            func() row { return new(delivery) },
	"dispute":             func() row { return new(dispute) },
	"event":               func() row { return new(event) },
	"idempotency":         func() row { return new(stored) },
	"payment_intent":      func() row { return new(intent) },
	"payout":              func() row { return new(payout) },
	"refund":              func() row { return new(refund) },
	"task":                func() row { return new(task) },
}

// A change is a row put, or the id of a row removed.
type change struct {
	Kind string          `json:"k,omitempty"`
	Put  json.RawMessage `json:"v,omitempty"`
	Drop string          `json:"d,omitempty"`
}

// A store holds every row in memory. Each commit is one line of a journal, written
// before memory changes. The simulator's lock guards it.
type store struct {
	dir     string
	lock    *os.File
	journal *control.Journal[[]change]
	lines   int // in the journal
	rows    map[string]row
	byKind  map[string][]string // ids in order of creation; removed ones stay until compaction
	place   map[string]int      // index of an id in byKind
	tasks   dueHeap             // what the processor does or forgets by itself, by time
	outbox  dueHeap             // deliveries and credits to send, by time
}

// openStore reads the journal in dir, or starts one. A second process on the same
// directory is refused.
func openStore(dir string) (_ *store, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &store{dir: dir, rows: map[string]row{}, byKind: map[string][]string{}, place: map[string]int{}}
	if s.lock, err = os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another simulator uses %s: %w", dir, err), s.lock.Close())
	}
	var broken error
	s.journal, err = control.OpenJournal(s.path(), func(changes []change) {
		s.lines++
		broken = errors.Join(broken, s.replay(changes))
	})
	if err != nil {
		return nil, errors.Join(err, s.lock.Close())
	}
	if broken != nil {
		return nil, errors.Join(broken, s.close())
	}
	return s, nil
}

func (s *store) path() string { return filepath.Join(s.dir, "journal.jsonl") }

func (s *store) close() error { return errors.Join(s.journal.Close(), s.lock.Close()) }

func (s *store) replay(changes []change) error {
	for _, c := range changes {
		if c.Drop != "" {
			delete(s.rows, c.Drop)
			continue
		}
		empty, known := newRow[c.Kind]
		if !known {
			return fmt.Errorf("journal: unknown kind %q", c.Kind)
		}
		r := empty()
		if err := json.Unmarshal(c.Put, r); err != nil {
			return fmt.Errorf("journal: %s: %w", c.Kind, err)
		}
		s.put(r)
	}
	return nil
}

func (s *store) put(r row) {
	id, kind := r.rowID(), r.kind()
	if _, there := s.place[id]; !there {
		s.place[id] = len(s.byKind[kind])
		s.byKind[kind] = append(s.byKind[kind], id)
	}
	s.rows[id] = r
	s.schedule(r)
}

// schedule notes when a row wants to act, if it does.
func (s *store) schedule(r row) {
	d, ok := r.(scheduled)
	if !ok || d.dueAt() == 0 {
		return
	}
	h := &s.tasks
	switch r.(type) {
	case *delivery, *credit:
		h = &s.outbox
	}
	heap.Push(h, dueAt{d.dueAt(), r.rowID()})
}

// commit writes the changes and then makes them true. A removed id keeps its place
// in byKind so that nothing else moves.
func (s *store) commit(puts []row, drops []string) error {
	if len(puts)+len(drops) == 0 {
		return nil
	}
	changes := make([]change, 0, len(puts)+len(drops))
	for _, r := range puts {
		c, err := changeOf(r)
		if err != nil {
			return err
		}
		changes = append(changes, c)
	}
	for _, id := range drops {
		changes = append(changes, change{Drop: id})
	}
	if err := s.journal.Append(changes); err != nil {
		return err
	}
	s.lines++
	for _, r := range puts {
		s.put(r)
	}
	for _, id := range drops {
		delete(s.rows, id)
	}
	return nil
}

func changeOf(r row) (change, error) {
	v, err := json.Marshal(r)
	if err != nil {
		return change{}, fmt.Errorf("store %s: %w", r.kind(), err)
	}
	return change{Kind: r.kind(), Put: v}, nil
}

// compactMin is the number of lines below which a journal is not worth compacting.
const compactMin = 100_000

// compact writes the journal anew, one line for each row that is left, once most
// lines are history. The new journal replaces the old by one rename.
func (s *store) compact() error {
	if s.lines < compactMin || s.lines < 2*len(s.rows) {
		return nil
	}
	fresh := s.path() + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("compact: %w", err)
	}
	j, err := control.OpenJournal(fresh, func([]change) {})
	if err != nil {
		return fmt.Errorf("compact: %w", err)
	}
	err = s.eachRow(func(r row) error {
		c, err := changeOf(r)
		if err != nil {
			return err
		}
		return j.Append([]change{c})
	})
	if err == nil {
		err = os.Rename(fresh, s.path())
	}
	if err != nil {
		return fmt.Errorf("compact: %w", errors.Join(err, j.Close()))
	}
	old := s.journal
	s.journal, s.lines = j, len(s.rows)
	s.forgetGone()
	return old.Close()
}

func (s *store) eachRow(do func(row) error) error {
	for _, kind := range slices.Sorted(maps.Keys(s.byKind)) {
		for _, id := range s.byKind[kind] {
			if r, ok := s.rows[id]; ok {
				if err := do(r); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// forgetGone takes removed ids out of the order.
func (s *store) forgetGone() {
	for kind, ids := range s.byKind {
		live := make([]string, 0, len(ids))
		for _, id := range ids {
			if _, ok := s.rows[id]; !ok {
				delete(s.place, id)
				continue
			}
			s.place[id] = len(live)
			live = append(live, id)
		}
		s.byKind[kind] = live
	}
}

// A scheduled row does something at a time: milliseconds since the epoch by the
// simulator's clock, 0 for never.
type scheduled interface{ dueAt() int64 }

type dueAt struct {
	at int64
	id string
}

// A dueHeap orders scheduled rows by time. An entry whose row has gone or moved
// is skipped when it comes up.
type dueHeap []dueAt

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)        { *h = append(*h, x.(dueAt)) }
func (h *dueHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}

// popDue takes the next row that is due at now off the heap, or returns nil.
func (s *store) popDue(h *dueHeap, now time.Time) row {
	for len(*h) > 0 && (*h)[0].at <= now.UnixMilli() {
		d := heap.Pop(h).(dueAt)
		if r, ok := s.rows[d.id]; ok && r.(scheduled).dueAt() == d.at {
			return r
		}
	}
	return nil
}
