package ledger

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"guichet/internal/clock"
	"guichet/internal/money"
)

// An ExportSummary is what VerifyExport has read.
type ExportSummary struct {
	Accounts int
	Entries  int64 // sealed in the log
	Waiting  int64 // not sealed yet: nothing proves them
	Debits   money.Amount
	Root     tlog.Hash
	Heads    int              // saved heads that the export agrees with
	Series   map[string]int64 // last numbers of series of documents
}

// Known is what somebody who verifies an export knows from elsewhere.
type Known struct {
	Log    note.Verifier // the log's public key
	Heads  []string      // signed heads that were saved before
	Series []string      // series that the export must hold
}

// VerifyExport proves an export of ExportJSONL by itself, without a database: that
// every entry balances and is what was sealed, that the tree over them is that of the
// head, signed by the log's key, and of every saved head, and that balances, limits, holds,
// frozen periods, imports and series of documents are what the entries come to. It returns the
// first wrong thing of each kind. An error means that the file could not be read.
func VerifyExport(export io.ReadSeeker, known Known) (ExportSummary, []Finding, error) {
	v := &offline{
		accounts: map[string]jsonAccount{}, keys: map[string]bool{}, ids: map[string]bool{}, first: map[string]bool{},
		days: map[string]map[clock.Date]turnover{}, imports: map[string]jsonImport{}, taken: map[part]money.Amount{},
		told: map[string]bool{}, holds: map[string]money.Amount{}, against: map[string]money.Amount{},
		documents: map[string]int64{}, documented: map[string]documented{}, series: map[string]bool{},
	}
	for i, signed := range known.Heads {
		head, err := openHead(signed, known.Log)
		if err != nil {
			v.find("saved head", fmt.Sprintf("number %d", i+1), "%v", err)
			continue
		}
		v.saved = append(v.saved, head)
	}
	slices.SortFunc(v.saved, func(a, b tlog.Tree) int { return cmp.Compare(a.N, b.N) })
	if err := eachLine(export, func(kind string, line []byte) error { return v.read(kind, line, known.Log) }); err != nil {
		return v.summary, v.findings, fmt.Errorf("read the export: %w", err)
	}
	v.end()
	for _, name := range known.Series {
		if !v.series[name] {
			v.find("series", name, "the export does not hold it")
		}
	}
	if len(v.taken) > 0 || len(v.series) > 0 {
		if _, err := export.Seek(0, io.SeekStart); err != nil {
			return v.summary, v.findings, fmt.Errorf("read the export again: %w", err)
		}
		if err := eachLine(export, v.again); err != nil {
			return v.summary, v.findings, fmt.Errorf("read the export again: %w", err)
		}
		for p, amount := range v.taken {
			if amount > 0 {
				v.find("reversal", p.entry, "more is taken back of it than there was, or something else")
			}
		}
	}
	return v.summary, v.findings, nil
}

// A part is a side of an account and dimension in an entry.
type part struct {
	entry, account string
	dimensions     Dimensions
	debit          bool
}

// An offline verification holds totals and names, never the entries.
type offline struct {
	summary  ExportSummary
	findings []Finding
	first    map[string]bool
	accounts map[string]jsonAccount
	keys     map[string]bool
	ids      map[string]bool
	tree     tree
	saved    []tlog.Tree // by size; those that were reached are gone
	days     map[string]map[clock.Date]turnover
	imports  map[string]jsonImport // what the entries come to
	taken    map[part]money.Amount
	head     bool
	told     map[string]bool         // accounts whose balance the export says
	holds    map[string]money.Amount // what is left of a hold, both sides; gone when the export has said its state
	against  map[string]money.Amount // what is held against an account, on the other side than its normal one
	last     time.Time               // when the newest entry was recorded

	documents  map[string]int64      // last number of each series
	documented map[string]documented // by entry
	series     map[string]bool       // those that came to their end
	due        []jsonSeries
}

// documented is what a document says of its entry.
type documented struct {
	series string
	number int64
	amount money.Amount
}

func (v *offline) find(kind, object, detail string, args ...any) {
	if !v.first[kind] {
		v.first[kind] = true
		v.findings = append(v.findings, Finding{kind, object, fmt.Sprintf(detail, args...)})
	}
}

// eachLine reads JSON lines; json tells nothing of lines that are too long or cut.
func eachLine(r io.Reader, f func(kind string, line []byte) error) error {
	lines := bufio.NewReaderSize(r, 1<<20)
	for n := 1; ; n++ {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		var kind struct{ Type string }
		if err := json.Unmarshal(line, &kind); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		if err := f(kind.Type, line); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
}

func (v *offline) read(kind string, line []byte, log note.Verifier) error {
	switch kind {
	case "account":
		var j jsonAccount
		if err := json.Unmarshal(line, &j); err != nil {
			return err
		}
		v.summary.Accounts++
		v.accounts[j.Path] = j
	case "entry":
		var j jsonEntry
		if err := json.Unmarshal(line, &j); err != nil {
			return err
		}
		return v.entry(&j)
	case "balance":
		var j jsonBalance
		if err := json.Unmarshal(line, &j); err != nil {
			return err
		}
		if t := v.total(j.Account, forever); t != (turnover{int64(j.Debits), int64(j.Credits)}) {
			v.find("balance", j.Account, "says debits of %s and credits of %s, the entries come to %s and %s", j.Debits, j.Credits, money.Amount(t.debits), money.Amount(t.credits))
		}
		v.told[j.Account] = true
	case "period":
		var j jsonPeriod
		if err := json.Unmarshal(line, &j); err != nil {
			return err
		}
		return v.period(&j)
	case "import":
		var j jsonImport
		if err := json.Unmarshal(line, &j); err != nil {
			return err
		}
		got := v.imports[j.Name]
		if got.Entries != j.Entries || got.Lines != j.Lines || got.Debits != j.Debits {
			v.find("import", j.Name, "%d entries with debits of %s were imported, there are %d with %s", j.Entries, j.Debits, got.Entries, got.Debits)
		}
	case "hold":
		var j jsonHold
		if err := json.Unmarshal(line, &j); err != nil {
			return err
		}
		v.hold(&j)
	case "document":
		var j jsonDocument
		if err := json.Unmarshal(line, &j); err != nil {
			return err
		}
		v.document(&j)
	case "series":
		var j jsonSeries
		if err := json.Unmarshal(line, &j); err != nil {
			return err
		}
		v.endSeries(&j)
	case "head":
		var j jsonHead
		if err := json.Unmarshal(line, &j); err != nil {
			return err
		}
		v.checkHead(&j, log)
	default:
		return fmt.Errorf("type %q is not known", kind)
	}
	return nil
}

func (v *offline) entry(j *jsonEntry) error {
	e, err := j.entry()
	if err != nil {
		return err
	}
	leaf := tlog.RecordHash(e.canonical(j.Body))
	if leaf != j.Leaf {
		v.find("entry", e.ID, "is not what was recorded")
	}
	if v.keys[e.Key] || v.ids[e.ID] {
		v.find("key", e.ID, "its id or its key %s is used twice", e.Key)
	}
	v.keys[e.Key], v.ids[e.ID] = true, true
	if e.RecordedAt.After(v.last) {
		v.last = e.RecordedAt
	}
	if e.Held && e.Hold == "" {
		v.holds[e.ID] += 0 // its release may stand before it
	}
	var sum money.Amount
	for i, l := range e.Lines {
		a, ok := v.accounts[l.Account]
		if !ok || a.Currency != e.Currency {
			v.find("account", e.ID, "line %d in %s is on account %s, which the export does not have in that currency", i+1, e.Currency, l.Account)
		}
		sum += l.Amount
		v.line(&e, l)
	}
	if sum != 0 || len(e.Lines) < 2 {
		v.find("unbalanced", e.ID, "%d lines sum to %s", len(e.Lines), sum)
	}
	if e.SourceType == migrated && e.Reverses == "" { // a reversal names its entry's source
		im := v.imports[e.SourceID]
		im.Entries++
		im.Lines += int64(len(e.Lines))
		for _, l := range e.Lines {
			im.Debits += max(0, l.Amount)
		}
		v.imports[e.SourceID] = im
	}
	if j.Position == nil {
		v.summary.Waiting++
		return nil
	}
	if *j.Position != v.tree.size || v.summary.Waiting > 0 {
		v.find("position", e.ID, "is at position %d of the log where %d is expected", *j.Position, v.tree.size)
	}
	v.reach()
	v.tree.add(leaf)
	v.tree.full = nil
	return nil
}

// line adds to the days of an account, and notes what is taken back of another entry.
func (v *offline) line(e *Entry, l Line) {
	if target := cmp.Or(e.Reverses, e.Hold); target != "" && (e.Reverses != "" || e.Held) {
		v.taken[part{target, l.Account, l.Dimensions, l.Amount < 0}] += max(l.Amount, -l.Amount)
	}
	if e.Held {
		size := max(l.Amount, -l.Amount)
		if e.Hold != "" {
			size = -size
		}
		v.holds[cmp.Or(e.Hold, e.ID)] += size
		if (l.Amount < 0) == v.accounts[l.Account].Debit == (e.Hold == "") {
			v.against[l.Account] += size
		}
		return
	}
	days := v.days[l.Account]
	if days == nil {
		days = map[clock.Date]turnover{}
		v.days[l.Account] = days
	}
	t := days[e.EffectiveOn]
	if l.Amount > 0 {
		t.debits += int64(l.Amount)
		v.summary.Debits += l.Amount
	} else {
		t.credits -= int64(l.Amount)
	}
	days[e.EffectiveOn] = t
}

// again takes what an entry was from what was taken back of it, and compares it with
// its document.
func (v *offline) again(kind string, line []byte) error {
	if kind != "entry" {
		return nil
	}
	var j jsonEntry
	if err := json.Unmarshal(line, &j); err != nil {
		return err
	}
	v.compareDocument(&j)
	for _, l := range j.Lines {
		p := part{j.ID, l.Account, l.Dimensions, l.Amount > 0}
		if _, ok := v.taken[p]; ok {
			v.taken[p] -= max(l.Amount, -l.Amount)
		}
	}
	return nil
}

// reach compares with the saved heads of the size that the tree has now.
func (v *offline) reach() {
	for len(v.saved) > 0 && v.saved[0].N == v.tree.size {
		if got := v.tree.root(); got != v.saved[0].Hash {
			v.find("saved head", fmt.Sprintf("size %d", v.tree.size), "was signed with root %s, the entries give %s", v.saved[0].Hash, got)
		} else {
			v.summary.Heads++
		}
		v.saved = v.saved[1:]
	}
}

func (v *offline) total(account string, until clock.Date) (t turnover) {
	for day, d := range v.days[account] {
		if !day.After(until) {
			t.debits += d.debits
			t.credits += d.credits
		}
	}
	return t
}

func (v *offline) period(j *jsonPeriod) error {
	first, err := time.Parse("2006-01", j.Month)
	if err != nil {
		return fmt.Errorf("month %q: %w", j.Month, err)
	}
	on := clock.FromTime(first)
	var trial []TrialLine
	frozen := map[string]bool{}
	for _, b := range j.Balances {
		frozen[b.Account] = true
		if t := v.total(b.Account, lastDay(on)); t != (turnover{int64(b.Debits), int64(b.Credits)}) {
			v.find("period", j.Month, "%s: the frozen trial balance says %s and %s, the entries come to %s and %s",
				b.Account, b.Debits, b.Credits, money.Amount(t.debits), money.Amount(t.credits))
		}
		trial = append(trial, TrialLine{Account: Account{Path: b.Account, Currency: v.accounts[b.Account].Currency}, Debits: b.Debits, Credits: b.Credits})
	}
	for account := range v.days {
		if t := v.total(account, lastDay(on)); !frozen[account] && t != (turnover{}) {
			v.find("period", j.Month, "%s is not in the frozen trial balance", account)
		}
	}
	if hash := trialHash(on, trial); !bytes.Equal(hash[:], j.Hash) {
		v.find("period hash", j.Month, "is %x, the frozen trial balance gives %x", j.Hash, hash)
	}
	return nil
}

func (v *offline) checkHead(j *jsonHead, log note.Verifier) {
	v.head = true
	v.reach()
	v.summary.Entries, v.summary.Root = v.tree.size, v.tree.root()
	if j.Size != v.tree.size || j.Root != v.summary.Root {
		v.find("head", "log", "says %d entries with root %s, there are %d with root %s", j.Size, j.Root, v.tree.size, v.summary.Root)
	}
	if j.Signed == "" {
		v.find("signature", "log", "the head is not signed")
		return
	}
	signed, err := openHead(j.Signed, log)
	if err != nil {
		v.find("signature", "log", "%v", err)
	} else if signed != (tlog.Tree{N: v.tree.size, Hash: v.summary.Root}) {
		v.find("signature", "log", "%d entries with root %s are signed, there are %d with root %s", signed.N, signed.Hash, v.tree.size, v.summary.Root)
	}
}

// end finds what is missing.
func (v *offline) end() {
	v.reach()
	if !v.head {
		v.find("head", "log", "the export ends before its head")
	}
	for _, h := range v.saved {
		v.find("saved head", fmt.Sprintf("size %d", h.N), "was signed, and the export has %d entries only", v.tree.size)
	}
	for holdID := range v.holds {
		v.find("hold", holdID, "is held and the export does not know the hold")
	}
	for path, a := range v.accounts {
		t := v.total(path, forever)
		v.limit(a, t)
		if !v.told[path] && t != (turnover{}) {
			v.find("balance", path, "the export does not say what it holds; the entries come to %s and %s", money.Amount(t.debits), money.Amount(t.credits))
		}
	}
}

// limit is the rule of an account's lowest balance, and that a closed one holds nothing.
func (v *offline) limit(a jsonAccount, t turnover) {
	available := money.Amount(t.debits - t.credits)
	if !a.Debit {
		available = -available
	}
	available -= v.against[a.Path]
	switch {
	case a.Lowest != nil && available < *a.Lowest:
		v.find("limit", a.Path, "has %s available, at least %s required", available, *a.Lowest)
	case a.State == Closed && available != 0:
		v.find("limit", a.Path, "is closed and holds %s", available)
	}
}

func (v *offline) hold(j *jsonHold) {
	left, ok := v.holds[j.Entry]
	if !ok {
		v.find("hold", j.Entry, "is no hold among the entries, or came before")
		return
	}
	if (j.State == HoldOpen) != (left != 0) {
		v.find("hold", j.Entry, "is %s and still holds %s", j.State, left)
	}
	delete(v.holds, j.Entry)
}

func (v *offline) document(j *jsonDocument) {
	name := fmt.Sprintf("%s %d", j.Series, j.Number)
	if v.series[j.Series] || j.Number != v.documents[j.Series]+1 {
		v.find("series", name, "comes after number %d", v.documents[j.Series])
	}
	v.documents[j.Series] = j.Number
	if d, ok := v.documented[j.Entry]; ok {
		v.find("document", name, "is about entry %s, and so is %s %d", j.Entry, d.series, d.number)
	}
	if !v.ids[j.Entry] {
		v.find("document", name, "is about entry %s, which does not exist", j.Entry)
	}
	v.documented[j.Entry] = documented{j.Series, j.Number, j.Amount}
}

func (v *offline) endSeries(j *jsonSeries) {
	if j.Last != v.documents[j.Name] {
		v.find("series", j.Name, "%d numbers were given out, the export ends with %d", j.Last, v.documents[j.Name])
	}
	v.series[j.Name] = true
	v.due = append(v.due, *j)
	if v.summary.Series == nil {
		v.summary.Series = map[string]int64{}
	}
	v.summary.Series[j.Name] = j.Last
}

// compareDocument holds an entry against its document, once all are read.
func (v *offline) compareDocument(j *jsonEntry) {
	var debits money.Amount
	for _, l := range j.Lines {
		debits += max(0, l.Amount)
	}
	d, ok := v.documented[j.ID]
	if ok && d.amount != debits {
		v.find("document", fmt.Sprintf("%s %d", d.series, d.number), "is over %s, its entry %s over %s", d.amount, j.ID, debits)
	}
	for _, s := range v.due {
		due := time.Duration(s.Due) * time.Second
		switch {
		case ok && d.series == s.Name && j.Kind != s.Kind:
			v.find("document", fmt.Sprintf("%s %d", d.series, d.number), "is about an entry of kind %s, want %s", j.Kind, s.Kind)
		case !ok && j.Kind == s.Kind && v.last.Sub(j.RecordedAt) > due:
			v.find("document", j.ID, "has no number in %s", s.Name)
		}
	}
}
