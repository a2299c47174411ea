// Package sap speaks with the city's SAP: it writes accounting documents as IDoc
// files, hands them over, and reads the answers. It knows SAP's fields and
// nothing of payouts, bills or our accounts: what it is given already carries
// SAP's numbers.
//
//	Document ──Writer──▶ File (bytes, manifest) ──Handover──▶ SAP's directory
//	                                 Answer ◀──ReadALEAUD── SAP's answer files
//
// A Document that does not sum to zero is never written. A File is written once
// and kept: sending again sends the same bytes. Whether a file arrived is decided
// by evidence, never by guessing (see Handover).
package sap

import (
	"errors"
	"fmt"
	"strings"

	"guichet/internal/clock"
	"guichet/internal/money"
)

// MaxItems bounds one document. FI takes 999 lines; SAP's own programs stop at
// 900 and leave the rest to lines that posting generates.
const MaxItems = 900

// A Document is one accounting document, in the terms of IDoc type ACC_DOCUMENT.
// Lines and taxes together sum to zero.
type Document struct {
	CompanyCode  string // COMP_CODE, 4 characters
	Currency     string // ISO 4217
	DocumentDate clock.Date
	PostingDate  clock.Date // decides the fiscal period
	FiscalYear   int        // FISC_YEAR and FIS_PERIOD: zero lets SAP derive them
	FiscalPeriod int
	Type         string // DOC_TYPE, 2 characters: "SA" is a G/L posting
	HeaderText   string // HEADER_TXT, cut to 25 characters
	Reference    string // REF_DOC_NO (XBLNR), at most 16: what people search for
	Lines        []Line
	Taxes        []TaxLine
}

// A Line is a G/L item. Debit is positive.
type Line struct {
	Account    string // GL_ACCOUNT
	Object     CostObject
	TaxCode    string // TAX_CODE, 2 characters, on lines subject to tax
	Amount     money.Amount
	Text       string // ITEM_TEXT, cut to 50 characters
	Assignment string // ALLOC_NMBR, at most 18: SAP's clearing key
}

// A TaxLine is a computed tax item. SAP does not compute tax on an interface
// document: it is told amount and base, of the same sign.
type TaxLine struct {
	Account      string
	Code         string
	Amount, Base money.Amount
}

// A CostObject is what a revenue or expense line is charged to; the zero value is
// none, as on balance sheet lines.
type CostObject struct {
	Kind   ObjectKind
	Number string
}

// An ObjectKind says which of SAP's fields a cost object goes to.
type ObjectKind string

const (
	NoObject   ObjectKind = ""
	CostCentre ObjectKind = "cost-centre" // COSTCENTER, 10
	Order      ObjectKind = "order"       // ORDERID, 12
	WBS        ObjectKind = "wbs"         // WBS_ELEMENT, 24
)

// objectFields are the field and length of each kind of cost object.
var objectFields = map[ObjectKind]struct {
	field  string
	length int
}{
	CostCentre: {"COSTCENTER", 10},
	Order:      {"ORDERID", 12},
	WBS:        {"WBS_ELEMENT", 24},
}

// Check returns every reason why the object cannot be used, or nil.
func (o CostObject) Check() error {
	f, known := objectFields[o.Kind]
	switch {
	case o == CostObject{}:
		return nil
	case !known:
		return fmt.Errorf("cost object kind %q is not cost-centre, order or wbs", o.Kind)
	case !isKey(o.Number, 1, f.length):
		return fmt.Errorf("%s %q: want 1 to %d letters, digits, points or dashes", o.Kind, o.Number, f.length)
	}
	return nil
}

// CheckAccount returns why a G/L account cannot be one, or nil.
func CheckAccount(account string) error {
	if !isKey(account, 1, 10) {
		return fmt.Errorf("G/L account %q: want 1 to 10 letters or digits", account)
	}
	return nil
}

// Check returns every reason why the document may not be sent, or nil.
func (d *Document) Check() error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !isKey(d.CompanyCode, 4, 4) {
		fail("company code %q: want 4 characters", d.CompanyCode)
	}
	if !isKey(d.Currency, 3, 3) {
		fail("currency %q: want 3 letters", d.Currency)
	}
	if !isKey(d.Type, 2, 2) {
		fail("document type %q: want 2 characters", d.Type)
	}
	if !isKey(d.Reference, 1, 16) {
		fail("reference %q: want 1 to 16 letters, digits, points or dashes", d.Reference)
	}
	if d.DocumentDate == (clock.Date{}) || d.PostingDate == (clock.Date{}) {
		fail("document date or posting date is missing")
	}
	if n := len(d.Lines) + len(d.Taxes); n < 2 || n > MaxItems {
		fail("%d items, want 2 to %d", n, MaxItems)
	}
	for i, l := range d.Lines {
		if err := errors.Join(CheckAccount(l.Account), l.Object.Check()); err != nil {
			fail("line %d: %w", i+1, err)
		}
		if l.Amount == 0 {
			fail("line %d: amount is zero", i+1)
		}
		if l.TaxCode != "" && !isKey(l.TaxCode, 2, 2) {
			fail("line %d: tax code %q: want 2 characters", i+1, l.TaxCode)
		}
		if l.Assignment != "" && !isKey(l.Assignment, 1, 18) {
			fail("line %d: assignment %q: want at most 18 letters, digits, points or dashes", i+1, l.Assignment)
		}
	}
	for i, x := range d.Taxes {
		if err := CheckAccount(x.Account); err != nil {
			fail("tax line %d: %w", i+1, err)
		}
		if !isKey(x.Code, 2, 2) {
			fail("tax line %d: tax code %q: want 2 characters", i+1, x.Code)
		}
		if x.Amount == 0 || x.Base == 0 || (x.Amount > 0) != (x.Base > 0) {
			fail("tax line %d: tax %s on base %s: want both, of one sign", i+1, x.Amount, x.Base)
		}
	}
	debits, credits, err := d.Totals()
	if err != nil {
		fail("%w", err)
	} else if debits != credits {
		fail("debits %s, credits %s: the document does not balance", debits, credits)
	}
	return errors.Join(errs...)
}

// Totals returns the sums of debits and of credits, both as positive amounts.
func (d *Document) Totals() (debits, credits money.Amount, err error) {
	add := func(a money.Amount) {
		if err != nil {
			return
		}
		if a > 0 {
			debits, err = money.Add(debits, a)
		} else {
			credits, err = money.Add(credits, -a)
		}
	}
	for _, l := range d.Lines {
		add(l.Amount)
	}
	for _, x := range d.Taxes {
		add(x.Amount)
	}
	return debits, credits, err
}

// isKey reports whether s is made of characters that mean the same in every code
// page and survive blank padding.
func isKey(s string, least, most int) bool {
	const keyCharacters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_/"
	return len(s) >= least && len(s) <= most && strings.Trim(s, keyCharacters) == ""
}

// isDocNum reports whether s is an IDoc number. All zeros mean none to SAP.
func isDocNum(s string) bool {
	return len(s) == 16 && strings.Trim(s, "0123456789") == "" && strings.Trim(s, "0") != ""
}

// padNumber fills a numeric key with zeros on the left, as SAP keeps it; keys with
// letters stay as they are.
func padNumber(s string, length int) string {
	if strings.Trim(s, "0123456789") != "" || len(s) >= length {
		return s
	}
	return strings.Repeat("0", length-len(s)) + s
}
