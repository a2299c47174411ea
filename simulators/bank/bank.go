// Package bank stands in for the city's bank: it holds one account, takes credits
// and debits from tests and other simulators, and writes a camt.053.001.08
// statement for each day that is closed.
//
//	POST /_control/credits ──▶ account ──POST /_control/statements──▶ Inbox/camt053_….xml
//
// An entry is booked on its value date, or on the first day still open when that
// day is closed already. A statement holds the booked entries of one date and no
// others; it opens with what the one before closed with, and statements are
// numbered without gaps. A file's bytes follow from the account alone: the same
// history gives the same file. Files appear complete: temporary name, then rename.
// State survives kill -9, and a statement that was closed but not yet written is
// written at the next start.
//
// Faults hit the next statement that is closed; their target is its date:
//
//	wrong-total     the closing balance in the file is one cent too high
//	gap             the statement is counted, but its file does not arrive
//	duplicate       the file arrives twice, under two names
//	malformed       the file ends in the middle of an element
//	wrong-currency  account and amounts are in USD
//	correction      the bank takes back the day's first entry and books it anew
//
// After a fault, POST /_control/statements/{sequence}/deliver sends the right file.
package bank

import (
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"guichet/internal/clock"
	"guichet/internal/money"
	"guichet/simulators/control"
)

// Options of a Bank.
type Options struct {
	Now func() time.Time
	Dir string // its own directory, made when missing
	Log *slog.Logger

	Inbox   string         // where the city looks for statements, made when missing
	Account string         // default 00021234567
	Opening money.Amount   // balance before the first statement; default 1,000,000.00 CAD
	Links   []control.Link // other pages, for the head of the control page
}

//go:embed templates
var templates embed.FS

// entry is one movement of the account.
type entry struct {
	Number    int          `json:"number"` // from 1, in order of arrival
	Reference string       `json:"reference"`
	Amount    money.Amount `json:"amount_cents"` // credit positive
	Currency  string       `json:"currency"`
	Text      string       `json:"text"`
	ValueDate string       `json:"value_date"`
	BookedOn  string       `json:"booked_on"`
	Reversal  bool         `json:"reversal,omitempty"`
}

// statement is one closed day.
type statement struct {
	Sequence int          `json:"sequence"`
	Date     string       `json:"date"`
	Opening  money.Amount `json:"opening_cents"`
	Closing  money.Amount `json:"closing_cents"`
	Entries  []int        `json:"entries"` // numbers
	Fault    string       `json:"fault,omitempty"`
	Files    []string     `json:"files"` // delivered, in order
}

// event is a line of the journal; one member is set.
type event struct {
	Entry     *entry     `json:"entry,omitempty"`
	Statement *statement `json:"statement,omitempty"`
	Delivered *delivery  `json:"delivered,omitempty"`
}

type delivery struct {
	Sequence int      `json:"sequence"`
	Files    []string `json:"files"`
}

// A Bank is the simulator. It may be used by many goroutines at once.
type Bank struct {
	o      Options
	site   *control.Site
	faults *control.Faults

	mu         sync.Mutex
	journal    *control.Journal[event]
	entries    []entry
	statements []statement
}

// New opens the account kept in o.Dir.
func New(o Options) (*Bank, error) {
	if o.Account == "" {
		o.Account = "00021234567"
	}
	if o.Opening == 0 {
		o.Opening = 100_000_000
	}
	b := &Bank{o: o, site: control.NewSite("Bank", o.Links, templates, o.Log)}
	if err := b.open(); err != nil {
		return nil, fmt.Errorf("open bank: %w", err)
	}
	return b, nil
}

func (b *Bank) open() error {
	for _, dir := range []string{b.o.Dir, b.o.Inbox} {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return err
		}
	}
	var err error
	b.faults, err = control.OpenFaults(b.o.Dir, b.o.Log,
		control.Kind{Name: wrongTotal, Does: "writes a closing balance that is one cent too high"},
		control.Kind{Name: gap, Does: "counts the statement but does not deliver its file"},
		control.Kind{Name: duplicate, Does: "delivers the file twice, under two names"},
		control.Kind{Name: malformed, Does: "delivers a file that ends in the middle of an element"},
		control.Kind{Name: wrongCurrency, Does: "writes account and amounts in USD"},
		control.Kind{Name: correction, Does: "takes back the day's first entry and books it anew"},
	)
	if err != nil {
		return err
	}
	if b.journal, err = control.OpenJournal(filepath.Join(b.o.Dir, "journal.jsonl"), b.apply); err != nil {
		return err
	}
	for _, s := range b.statements {
		if err := b.finish(s); err != nil {
			return err
		}
	}
	return nil
}

// finish delivers a closed statement unless that is done: a kill or a full disk
// may have come between.
func (b *Bank) finish(s statement) error {
	if len(s.Files) > 0 || s.Fault == gap {
		return nil
	}
	return b.deliver(s.Sequence, s.Fault)
}

func (b *Bank) apply(e event) {
	switch {
	case e.Entry != nil:
		b.entries = append(b.entries, *e.Entry)
	case e.Statement != nil:
		b.statements = append(b.statements, *e.Statement)
	case e.Delivered != nil:
		s := &b.statements[e.Delivered.Sequence-1]
		s.Files = append(s.Files, e.Delivered.Files...)
	}
}

// record makes an event happen. The caller holds the lock.
func (b *Bank) record(e event) error {
	if err := b.journal.Append(e); err != nil {
		return err
	}
	b.apply(e)
	return nil
}

// Kinds of faults.
const (
	wrongTotal    = "wrong-total"
	gap           = "gap"
	duplicate     = "duplicate"
	malformed     = "malformed"
	wrongCurrency = "wrong-currency"
	correction    = "correction"
)

var (
	errInvalid  = errors.New("invalid entry")
	errConflict = errors.New("the reference is known with other content")
	errDate     = errors.New("the day cannot be closed")
	errNotFound = errors.New("no such statement")
)

// maxCents keeps every balance far inside the range of an amount.
const maxCents = 100_000_000_000_000

// credit books an entry. The same reference and content again gives the first
// entry back and changes nothing.
func (b *Bank) credit(e entry) (booked entry, again bool, err error) {
	if e.ValueDate == "" {
		e.ValueDate = clock.DateOf(b.o.Now()).String()
	}
	if err := e.check(); err != nil {
		return entry{}, false, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.IndexFunc(b.entries, func(x entry) bool { return x.Reference == e.Reference }); i >= 0 {
		first := b.entries[i]
		if first.Amount != e.Amount || first.Text != e.Text || first.ValueDate != e.ValueDate {
			return entry{}, false, fmt.Errorf("%w: %s", errConflict, e.Reference)
		}
		return first, true, nil
	}
	e.Number = len(b.entries) + 1
	e.BookedOn = max(e.ValueDate, b.firstOpenDay())
	if err := b.record(event{Entry: &e}); err != nil {
		return entry{}, false, err
	}
	return e, false, nil
}

func (e entry) check() error {
	if _, err := clock.ParseDate(e.ValueDate); err != nil {
		return fmt.Errorf("%w: value_date: %w", errInvalid, err)
	}
	switch {
	case e.Amount == 0 || e.Amount > maxCents || e.Amount < -maxCents:
		return fmt.Errorf("%w: amount_cents: want 1 to %d, or the same below zero for a debit", errInvalid, int64(maxCents))
	case e.Currency != money.CAD:
		return fmt.Errorf("%w: currency %q: the account is in CAD", errInvalid, e.Currency)
	case !printable(e.Reference, 35) || e.Reference == "":
		return fmt.Errorf("%w: reference: want 1 to 35 printable characters", errInvalid) // Max35Text of EndToEndId
	case !printable(e.Text, 140):
		return fmt.Errorf("%w: text: want at most 140 printable characters", errInvalid) // Max140Text of Ustrd
	}
	return nil
}

func printable(s string, most int) bool {
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return utf8.ValidString(s) && utf8.RuneCountInString(s) <= most
}

// firstOpenDay is the day after the last closed one; dates compare as text.
func (b *Bank) firstOpenDay() string {
	if len(b.statements) == 0 {
		return ""
	}
	d, err := clock.ParseDate(b.statements[len(b.statements)-1].Date)
	if err != nil {
		panic(err) // only parsed dates are stored
	}
	return d.AddDays(1).String()
}

// closeDay closes the date, and before it every earlier day that still has
// entries: a statement never holds another day's money. It returns the
// statements in order; closing a closed day again returns its statement.
func (b *Bank) closeDay(date string) ([]statement, error) {
	day, err := clock.ParseDate(date)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDate, err)
	}
	if day.After(clock.DateOf(b.o.Now())) {
		return nil, fmt.Errorf("%w: %s has not come yet", errDate, date)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if date < b.firstOpenDay() {
		i := slices.IndexFunc(b.statements, func(s statement) bool { return s.Date == date })
		if i < 0 {
			return nil, fmt.Errorf("%w: %s had no entries and a later day is closed", errDate, date)
		}
		err := b.finish(b.statements[i])
		return slices.Clone(b.statements[i : i+1]), err
	}
	days := map[string]bool{date: true}
	for _, e := range b.entries {
		if e.BookedOn >= b.firstOpenDay() && e.BookedOn < date {
			days[e.BookedOn] = true
		}
	}
	first := len(b.statements)
	for _, d := range slices.Sorted(maps.Keys(days)) {
		if err := b.closeOne(d); err != nil {
			return nil, fmt.Errorf("close %s: %w", d, err)
		}
	}
	return slices.Clone(b.statements[first:]), nil
}

func (b *Bank) closeOne(date string) error {
	if _, hit := b.faults.Strike(correction, date); hit {
		if err := b.correct(date); err != nil {
			return err
		}
	}
	s := statement{Sequence: len(b.statements) + 1, Date: date, Opening: b.o.Opening, Entries: []int{}}
	if n := len(b.statements); n > 0 {
		s.Opening = b.statements[n-1].Closing
	}
	s.Closing = s.Opening
	for _, e := range b.entries {
		if e.BookedOn == date {
			s.Entries = append(s.Entries, e.Number)
			var err error
			if s.Closing, err = money.Add(s.Closing, e.Amount); err != nil {
				return err
			}
		}
	}
	for _, kind := range []string{wrongTotal, gap, duplicate, malformed, wrongCurrency} {
		if _, hit := b.faults.Strike(kind, date); hit {
			s.Fault = kind
			break
		}
	}
	if err := b.record(event{Statement: &s}); err != nil {
		return err
	}
	return b.finish(s)
}

// correct takes back the date's first entry and books it anew, as a bank does
// that put it on the wrong account first.
func (b *Bank) correct(date string) error {
	i := slices.IndexFunc(b.entries, func(e entry) bool { return e.BookedOn == date })
	if i < 0 {
		return nil // nothing to take back
	}
	back, anew := b.entries[i], b.entries[i]
	back.Number, back.Amount, back.Reversal = len(b.entries)+1, -back.Amount, true
	back.Text = "CORRECTION"
	anew.Number = back.Number + 1
	for _, e := range []entry{back, anew} {
		if err := b.record(event{Entry: &e}); err != nil {
			return err
		}
	}
	return nil
}

// redeliver sends the right file of a closed statement under a name of its own.
func (b *Bank) redeliver(sequence int) (statement, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if sequence < 1 || sequence > len(b.statements) {
		return statement{}, errNotFound
	}
	if err := b.deliver(sequence, ""); err != nil {
		return statement{}, err
	}
	return b.statements[sequence-1], nil
}

// deliver writes the file of a statement, spoiled by the fault, and records it.
func (b *Bank) deliver(sequence int, fault string) error {
	s := b.statements[sequence-1]
	data, err := b.camt(s, fault)
	if err != nil {
		return err
	}
	copies := 1
	if fault == duplicate {
		copies = 2
	}
	var names []string
	for i := range copies {
		name := fmt.Sprintf("camt053_%s_%s_%05d", b.o.Account, s.Date, s.Sequence)
		if n := len(s.Files) + i; n > 0 {
			name += fmt.Sprintf("_r%d", n) // a name is used once
		}
		names = append(names, name+".xml")
	}
	for _, name := range names {
		if err := control.WriteFile(filepath.Join(b.o.Inbox, name), data, 0o644); err != nil {
			return fmt.Errorf("deliver statement %d: %w", sequence, err)
		}
	}
	return b.record(event{Delivered: &delivery{Sequence: sequence, Files: names}})
}

// balance is what the account holds when every entry is booked.
func (b *Bank) balance() money.Amount {
	total := b.o.Opening
	for _, e := range b.entries {
		total += e.Amount // each is bounded by maxCents
	}
	return total
}
