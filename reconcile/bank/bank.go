// Package bank reads what the city's bank writes: account statements. It knows
// the bank's formats and arithmetic, and nothing of payouts, books or files on
// disk.
//
//	camt.053.001.02 / .08 ──▶ []Statement (lines in cents, credit positive)
//
// A file is accepted whole or refused whole: an *Error names the line, the record
// and the reason. In an accepted statement the opening balance and its lines give
// the closing balance to the cent. Names of payers and payees are not read: a
// bank line is explained by amounts, dates and references.
package bank

import (
	"fmt"
	"strings"
	"time"

	"guichet/internal/clock"
	"guichet/internal/money"
)

// MaxBytes bounds one file. A city's day on one account is far below.
const MaxBytes = 64 << 20

// A Statement is what the bank says of one account over one period.
type Statement struct {
	Format    string // "camt.053.001.08"
	Account   string // as the bank writes it, leading zeros kept
	ID        string // the bank's name for the statement
	Sequence  string // its electronic sequence number, digits; may be empty
	Created   time.Time
	Currency  string
	Duplicate bool // the bank itself marks it as a copy or a duplicate

	OpeningOn, ClosingOn clock.Date
	Opening, Closing     money.Amount // negative is overdrawn

	Lines     []Line // booked lines, in the bank's order
	NotBooked int    // pending and information lines, which move no balance
}

// An Identity tells statements apart: a second statement with the same one is a
// duplicate, whatever file it comes in.
type Identity struct {
	Account, ID, Sequence string
	ClosingOn             clock.Date
}

// Identity returns the statement's identity.
func (s *Statement) Identity() Identity {
	return Identity{Account: s.Account, ID: s.ID, Sequence: s.Sequence, ClosingOn: s.ClosingOn}
}

// A Line is one booked movement.
type Line struct {
	Number           int          // from 1, in the bank's order
	Amount           money.Amount // as it moves the balance: credit positive, debit negative
	Reversal         bool         // it takes back an earlier line; Amount already has that sign
	BookedOn         clock.Date
	ValueOn          clock.Date
	Reference        string // the bank's reference of the line
	ServicerRef      string // the account servicer's reference
	Code             string // ISO transaction code, "PMNT/RCDT/DMCT"
	ProprietaryCode  string // the bank's own code, such as BAI "165"
	ProprietaryOwner string // who issued that code
	Text             string
	BatchCount       int // transactions the bank counted in the line; Details may hold fewer
	Details          []Detail
}

// A Detail is one transaction inside a line.
type Detail struct {
	Amount            money.Amount // signed as Line.Amount; zero when the bank gives none
	EndToEndID        string       // the sender's reference, carried through
	TransactionID     string
	InstructionID     string
	CreditorReference string // structured: an account number at the city
	Text              string
	ReturnReason      string
}

// References returns every reference the line and its details carry, without
// repeats and without the bank's word for none.
func (l *Line) References() []string {
	var out []string
	seen := map[string]bool{"": true, "NOTPROVIDED": true, "NONREF": true}
	add := func(refs ...string) {
		for _, r := range refs {
			if !seen[strings.ToUpper(r)] {
				seen[strings.ToUpper(r)] = true
				out = append(out, r)
			}
		}
	}
	add(l.Reference, l.ServicerRef)
	for _, d := range l.Details {
		add(d.EndToEndID, d.TransactionID, d.InstructionID, d.CreditorReference)
	}
	return out
}

// An Error says why a file is refused, and where in it.
type Error struct {
	Line   int    // of the file, from 1
	Record string // element path or record type
	Reason string
}

func (e *Error) Error() string {
	if e.Record == "" {
		return fmt.Sprintf("line %d: %s", e.Line, e.Reason)
	}
	return fmt.Sprintf("line %d, %s: %s", e.Line, e.Record, e.Reason)
}

// balance returns the difference that must be zero: opening + lines − closing.
func (s *Statement) balance() (money.Amount, error) {
	sum, err := money.Add(s.Opening, -s.Closing)
	for i := 0; err == nil && i < len(s.Lines); i++ {
		sum, err = money.Add(sum, s.Lines[i].Amount)
	}
	return sum, err
}

// parseAmount reads an unsigned ISO 20022 amount of a currency with two decimals.
// The standard allows five; digits beyond the cents must be zero.
func parseAmount(s string) (money.Amount, error) {
	whole, cents, point := strings.Cut(s, ".")
	if point && (cents == "" || len(cents) > 5 || strings.Trim(cents[min(2, len(cents)):], "0") != "") {
		return 0, fmt.Errorf("amount %.30q is not in whole cents", s)
	}
	// 15 digits before the point keep every sum of a file inside an int64.
	if whole == "" || len(whole) > 15 || strings.Trim(whole+cents, "0123456789") != "" {
		return 0, fmt.Errorf("amount %.30q is not an unsigned decimal", s)
	}
	return money.Parse(whole + "." + (cents + "00")[:2])
}
