package manual

import (
	"encoding/csv"
	"errors"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"guichet/internal/clock"
	"guichet/internal/money"
	"guichet/ledger"
)

// A Reason says why an entry is written by hand.
type Reason string

// Reasons lists the reasons.
func Reasons() []Reason {
	return []Reason{"accrual", "reclassification", "correction", "opening", "other"}
}

// A Mode says what a draft becomes.
type Mode string

const (
	Plain      Mode = ""           // an entry
	Reversal   Mode = "reversal"   // takes back another one, whole or in part; its lines are the opposite ones
	Correction Mode = "correction" // takes another one back whole, and replaces it by its lines
)

// Bounds of what is written.
const (
	MaxLines = 1000
	MaxText  = 2000 // characters of the explanation
	maxShort = 200  // of the description
	maxFiles = 20
)

// A Content is what a person wrote. In a draft it may be unfinished.
type Content struct {
	EffectiveOn clock.Date `json:"effective_on"`
	Reason      Reason     `json:"reason"`
	Explanation string     `json:"explanation"` // why, for the checker and for auditors
	Description string     `json:"description"` // in the books, for good
	Lines       []Line     `json:"lines"`
	Mode        Mode       `json:"mode,omitempty"`
	Of          string     `json:"of,omitempty"` // the entry that is reversed or corrected
	UndoOn      clock.Date `json:"undo_on"`      // the entry is reversed on this date; zero: it is not
	Tick        bool       `json:"tick"`         // the maker means the accounts that other rooms own
	Files       []File     `json:"files"`
}

// A Line is one side. Of Debit and Credit one is filled, when it is finished.
type Line struct {
	Account    string            `json:"account"`
	Debit      money.Amount      `json:"debit"`
	Credit     money.Amount      `json:"credit"`
	Dimensions ledger.Dimensions `json:"dimensions"`
}

// Empty reports that nothing is in a line.
func (l Line) Empty() bool { return l == Line{} }

// A File names an attachment.
type File struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
}

// Totals are the sums of both sides.
func (c Content) Totals() (debits, credits money.Amount) {
	for _, l := range c.Lines {
		debits += l.Debit
		credits += l.Credit
	}
	return debits, credits
}

// Out is by how much the debits are above the credits.
func (c Content) Out() money.Amount {
	debits, credits := c.Totals()
	return debits - credits
}

// A Fault is what keeps a draft from being submitted. Line counts from 1; 0 is the draft as a
// whole. What is a word for programs, such as "unbalanced".
type Fault struct {
	Line int
	What string
}

// Faults lists what is missing or wrong in itself; what the books say of it is Review's.
func (c Content) Faults() []Fault {
	var list []Fault
	add := func(line int, what string, bad bool) {
		if bad {
			list = append(list, Fault{line, what})
		}
	}
	add(0, "no-date", c.EffectiveOn == clock.Date{})
	add(0, "no-reason", !slices.Contains(Reasons(), c.Reason))
	add(0, "no-explanation", c.Explanation == "")
	add(0, "no-description", c.Description == "")
	add(0, "undo-early", c.UndoOn != clock.Date{} && !c.EffectiveOn.Before(c.UndoOn))
	add(0, "undo-late", c.UndoOn != clock.Date{} && c.EffectiveOn.AddDays(400).Before(c.UndoOn))
	add(0, "undo-of-reversal", c.UndoOn != clock.Date{} && c.Mode != Plain)
	add(0, "few-lines", len(c.Lines) < 2)
	for i, l := range c.Lines {
		add(i+1, "no-account", l.Account == "")
		add(i+1, "no-amount", l.Debit == 0 && l.Credit == 0)
		add(i+1, "both-sides", l.Debit != 0 && l.Credit != 0)
		add(i+1, "bad-amount", l.Debit < 0 || l.Credit < 0 || l.Debit > maxAmount || l.Credit > maxAmount)
	}
	add(0, "unbalanced", c.Out() != 0)
	return list
}

// maxAmount of a line is a billion dollars: what is above it was not meant.
const maxAmount money.Amount = 100_000_000_000

// bounded refuses what no draft may hold.
func (c Content) bounded() bool {
	long := func(s string, most int) bool {
		return utf8.RuneCountInString(s) > most || !utf8.ValidString(s) || strings.ContainsRune(s, 0)
	}
	if len(c.Lines) > MaxLines || len(c.Files) > maxFiles || long(c.Explanation, MaxText) || long(c.Description, maxShort) || len(c.Of) > 36 {
		return false
	}
	return !slices.ContainsFunc(c.Lines, func(l Line) bool {
		d := l.Dimensions
		return slices.ContainsFunc([]string{l.Account, d.Department, d.Fund, d.CostCentre, d.Order, d.WBS, d.Channel, d.Tender}, func(s string) bool { return long(s, maxShort) })
	})
}

// entryLines are the lines as the books take them.
func (c Content) entryLines() []ledger.Line {
	out := make([]ledger.Line, len(c.Lines))
	for i, l := range c.Lines {
		out[i] = ledger.Line{Account: l.Account, Amount: l.Debit - l.Credit, Dimensions: l.Dimensions}
	}
	return out
}

// LinesOf are an entry's lines as a person would write them.
func LinesOf(lines []ledger.Line) []Line {
	out := make([]Line, len(lines))
	for i, l := range lines {
		out[i] = Line{Account: l.Account, Debit: max(l.Amount, 0), Credit: max(-l.Amount, 0), Dimensions: l.Dimensions}
	}
	return out
}

// Columns are those of a file of lines; account and one of debit and credit are needed.
var Columns = []string{"account", "debit", "credit", "department", "fund", "cost_centre", "order", "wbs", "channel", "tender"}

// A LineFault says what is wrong in a file of lines. Line counts from 1, the header.
type LineFault struct {
	Line   int
	What   string // "no-header", "unknown-column", "not-csv", "no-account", "bad-amount", "too-many"
	Column string
}

// ReadLines reads lines from CSV with a header line. It returns everything that is wrong,
// up to a hundred faults, or the lines.
func ReadLines(text string) ([]Line, []LineFault) {
	in := csv.NewReader(strings.NewReader(strings.TrimPrefix(text, "\ufeff")))
	in.TrimLeadingSpace = true
	head, err := in.Read()
	if err != nil {
		return nil, []LineFault{{1, "no-header", ""}}
	}
	var faults []LineFault
	for i, name := range head {
		head[i] = strings.ToLower(strings.TrimSpace(name))
		if !slices.Contains(Columns, head[i]) {
			faults = append(faults, LineFault{1, "unknown-column", head[i]})
		}
	}
	if !slices.Contains(head, "account") {
		faults = append(faults, LineFault{1, "no-header", "account"})
	}
	if len(faults) > 0 {
		return nil, faults
	}
	var lines []Line
	for len(faults) < 100 {
		record, err := in.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			at := 1
			if bad := new(csv.ParseError); errors.As(err, &bad) {
				at = bad.Line
			}
			return nil, append(faults, LineFault{at, "not-csv", ""})
		}
		if len(lines) == MaxLines {
			return nil, append(faults, LineFault{0, "too-many", ""})
		}
		at, _ := in.FieldPos(0)
		l, wrong := readLine(head, record)
		for _, f := range wrong {
			f.Line = at
			faults = append(faults, f)
		}
		lines = append(lines, l)
	}
	if len(faults) > 0 {
		return nil, faults
	}
	return lines, nil
}

func readLine(head, record []string) (l Line, faults []LineFault) {
	d := &l.Dimensions
	into := map[string]*string{
		"account": &l.Account, "department": &d.Department, "fund": &d.Fund, "cost_centre": &d.CostCentre, "order": &d.Order, "wbs": &d.WBS,
		"channel": &d.Channel, "tender": &d.Tender,
	}
	sides := map[string]*money.Amount{"debit": &l.Debit, "credit": &l.Credit}
	for i, name := range head {
		text := strings.TrimSpace(record[i])
		if to, ok := into[name]; ok {
			*to = text
			continue
		}
		if text == "" {
			continue
		}
		amount, err := money.Parse(text)
		if err != nil || amount < 0 || amount > maxAmount {
			faults = append(faults, LineFault{0, "bad-amount", name})
			continue
		}
		*sides[name] = amount
	}
	if l.Account == "" {
		faults = append(faults, LineFault{0, "no-account", "account"})
	}
	if len(faults) == 0 && (l.Debit == 0) == (l.Credit == 0) {
		faults = append(faults, LineFault{0, "bad-amount", "debit"})
	}
	return l, faults
}
