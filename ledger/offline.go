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
	Heads    int // saved heads that the export agrees with
}

// VerifyExport proves an export of ExportJSONL by itself, without a database: that
// every entry balances and is what was sealed, that the tree over them is that of the
// head, signed by the log's key, and of every saved head, and that balances, frozen periods
// and imports are what the entries come to. It returns the first wrong thing of each
// kind. An error means that the file could not be read.
func VerifyExport(export io.ReadSeeker, log note.Verifier, saved ...string) (ExportSummary, []Finding, error) {
	v := &offline{
		accounts: map[string]Account{}, keys: map[string]bool{}, ids: map[string]bool{}, first: map[string]bool{},
		days: map[string]map[clock.Date]turnover{}, imports: map[string]jsonImport{}, taken: map[part]money.Amount{},
		told: map[string]bool{},
	}
	for i, signed := range saved {
		head, err := openHead(signed, log)
		if err != nil {
			v.find("saved head", fmt.Sprintf("number %d", i+1), "%v", err)
			continue
		}
		v.saved = append(v.saved, head)
	}
	slices.SortFunc(v.saved, func(a, b tlog.Tree) int { return int(min(1, max(-1, a.N-b.N))) })
	if err := eachLine(export, func(kind string, line []byte) error { return v.read(kind, line, log) }); err != nil {
		return v.summary, v.findings, fmt.Errorf("read the export: %w", err)
	}
	v.end()
	if len(v.taken) > 0 {
		if _, err := export.Seek(0, io.SeekStart); err != nil {
			return v.summary, v.findings, fmt.Errorf("read the export again: %w", err)
		}
		if err := eachLine(export, v.giveBack); err != nil {
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
	accounts map[string]Account
	keys     map[string]bool
	ids      map[string]bool
	tree     tree
	saved    []tlog.Tree // by size; those that were reached are gone
	days     map[string]map[clock.Date]turnover
	imports  map[string]jsonImport // what the entries come to
	taken    map[part]money.Amount
	head     bool
	told     map[string]bool // accounts whose balance the export says
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
		v.accounts[j.Path] = Account{Path: j.Path, Currency: j.Currency}
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
	if e.SourceType == migrated {
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

// giveBack takes what an entry was from what was taken back of it.
func (v *offline) giveBack(kind string, line []byte) error {
	if kind != "entry" {
		return nil
	}
	var j jsonEntry
	if err := json.Unmarshal(line, &j); err != nil {
		return err
	}
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
		trial = append(trial, TrialLine{Account: v.accounts[b.Account], Debits: b.Debits, Credits: b.Credits})
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
	for path := range v.accounts {
		if t := v.total(path, forever); !v.told[path] && t != (turnover{}) {
			v.find("balance", path, "the export does not say what it holds; the entries come to %s and %s", money.Amount(t.debits), money.Amount(t.credits))
		}
	}
}
