package bank

import (
	"errors"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"guichet/internal/clock"
	"guichet/internal/money"
	"guichet/internal/xmlread"
)

// ISO 20022 bank-to-customer statement, camt.053. The two versions banks in Canada
// send; they differ in a few places, marked in the tables below.
const (
	version02 = "urn:iso:std:iso:20022:tech:xsd:camt.053.001.02"
	version08 = "urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"
)

var camtLimits = xmlread.Limits{Bytes: MaxBytes, Depth: 32, Text: 2000}

const (
	stmtPath  = "Document/BkToCstmrStmt/Stmt"
	balPath   = stmtPath + "/Bal"
	entryPath = stmtPath + "/Ntry"
	dtlsPath  = entryPath + "/NtryDtls"
	txPath    = dtlsPath + "/TxDtls"
)

// ReadCAMT053 reads every statement of a camt.053 file. It returns an *Error when
// the file is to be refused, and any other error when reading it went wrong.
func ReadCAMT053(r io.Reader) ([]Statement, error) {
	c := camt{in: xmlread.New(r, camtLimits)}
	err := c.read()
	if bad := (*xmlread.Error)(nil); errors.As(err, &bad) {
		err = &Error{Line: bad.Line, Record: bad.Path, Reason: bad.Reason}
	}
	if err != nil {
		return nil, err
	}
	return c.out, nil
}

// camt is the state of one file being read: the open statement, balance, entry
// and transaction, each with the fields it has had so far.
type camt struct {
	in     *xmlread.Reader
	out    []Statement
	format string
	groups int // group headers

	stmt  statement
	bal   balance
	entry entry
	dtls  details
	tx    transaction
}

type statement struct {
	Statement
	fields   fields
	accounts int // identifications of the account: exactly one
	balances map[string]balance
	sums     map[string]money.Amount // TxsSummry: CRDT, DBIT
	counts   map[string]int          // TxsSummry: all, CRDT, DBIT
	all      totals                  // of every entry
	booked   totals                  // of those that count
}

// totals are an own count and sum per direction.
type totals struct {
	count map[string]int
	sum   map[string]money.Amount
}

type balance struct {
	fields fields
	kind   string
	amount money.Amount
	debit  bool
	on     clock.Date
}

type entry struct {
	fields  fields
	line    Line
	amount  money.Amount
	debit   bool
	status  string
	details money.Amount // sum of the transactions
	partial bool         // the details are not meant to add up to the entry
	seen    int          // transactions
}

// details is one NtryDtls: transactions, and what the bank says of them as a batch.
type details struct {
	fields  fields
	count   int // NbOfTxs; 0 when absent
	total   money.Amount
	debit   bool
	sum     money.Amount // of the transactions present
	present int
	partial bool
}

type transaction struct {
	fields fields
	detail Detail
	amount money.Amount
	known  bool // an amount in the account's currency was given
	debit  bool
	text   []string
}

// fields notes which single elements an open element has had.
type fields map[string]bool

func (c *camt) read() error {
	for {
		t, err := c.in.Next()
		if errors.Is(err, io.EOF) {
			if c.groups != 1 || len(c.out) == 0 {
				return &Error{Line: 1, Record: "Document/BkToCstmrStmt", Reason: "needs one GrpHdr and at least one Stmt"}
			}
			return nil
		}
		if err != nil {
			return err
		}
		if t.End {
			err = c.end(t)
		} else {
			err = c.start(t)
		}
		if err != nil {
			return err
		}
	}
}

func (c *camt) start(t xmlread.Token) error {
	switch t.Path {
	case "Document":
		switch c.in.Space() {
		case version02, version08:
			c.format = strings.TrimPrefix(c.in.Space(), "urn:iso:std:iso:20022:tech:xsd:")
		default:
			return t.Refuse("namespace %.80q is not camt.053 version 001.02 or 001.08", c.in.Space())
		}
	case "Document/BkToCstmrStmt/GrpHdr":
		c.groups++
	case stmtPath:
		c.stmt = statement{
			fields: fields{}, balances: map[string]balance{},
			sums: map[string]money.Amount{}, counts: map[string]int{},
			all: newTotals(), booked: newTotals(),
		}
		c.stmt.Format = c.format
	case balPath:
		c.bal = balance{fields: fields{}}
	case entryPath:
		c.entry = entry{fields: fields{}}
	case dtlsPath:
		if !c.entry.fields[entryPath+"/CdtDbtInd"] { // the details take their direction from it
			return t.Refuse("comes before the CdtDbtInd of its entry")
		}
		c.dtls = details{fields: fields{}}
	case txPath:
		c.tx = transaction{fields: fields{}, debit: c.entry.debit}
	case txPath + "/Chrgs":
		c.dtls.partial = true // charges may stand between the transactions and the entry
	case stmtPath + "/SplmtryData", entryPath + "/SplmtryData", txPath + "/SplmtryData":
		return c.in.Skip() // the only place where the schema allows foreign elements
	}
	if !strings.HasPrefix(t.Path, "Document") {
		return t.Refuse("the root is not Document")
	}
	return nil
}

func newTotals() totals {
	return totals{count: map[string]int{}, sum: map[string]money.Amount{}}
}

func (c *camt) end(t xmlread.Token) error {
	switch t.Path {
	case stmtPath:
		return c.endStatement(t)
	case balPath:
		return c.endBalance(t)
	case entryPath:
		return c.endEntry(t)
	case dtlsPath:
		return c.endDetails(t)
	case txPath:
		return c.endTransaction(t)
	}
	if t.Leaf {
		return c.leaf(t)
	}
	return nil
}

// leaf hands the text of a known element to its field.
func (c *camt) leaf(t xmlread.Token) error {
	f, known := camtFields[t.Path]
	if !known {
		return nil
	}
	if f.only != "" && f.only != c.in.Space() {
		return t.Refuse("%s has no such element here", c.format)
	}
	seen := c.fieldsOf(t.Path)
	switch {
	case seen[t.Path] && !f.many:
		return t.Refuse("occurs twice")
	case t.Text == "":
		return t.Refuse("is empty")
	case utf8.RuneCountInString(t.Text) > f.max:
		return t.Refuse("is longer than %d characters", f.max)
	}
	seen[t.Path] = true
	return f.set(c, t)
}

func (c *camt) fieldsOf(path string) fields {
	switch {
	case strings.HasPrefix(path, txPath+"/"):
		return c.tx.fields
	case strings.HasPrefix(path, dtlsPath+"/"):
		return c.dtls.fields
	case strings.HasPrefix(path, entryPath+"/"):
		return c.entry.fields
	case strings.HasPrefix(path, balPath+"/"):
		return c.bal.fields
	}
	return c.stmt.fields
}

func (c *camt) endBalance(t xmlread.Token) error {
	b := c.bal
	switch {
	case !b.fields[balPath+"/Tp/CdOrPrtry/Cd"] && !b.fields[balPath+"/Tp/CdOrPrtry/Prtry"]:
		return t.Refuse("has no type")
	case !b.fields[balPath+"/Amt"] || !b.fields[balPath+"/CdtDbtInd"]:
		return t.Refuse("has no Amt or no CdtDbtInd")
	case b.on == (clock.Date{}):
		return t.Refuse("has no date")
	}
	switch b.kind {
	case "OPBD", "CLBD", "PRCD":
		if _, twice := c.stmt.balances[b.kind]; twice {
			return t.Refuse("a second balance of type %s", b.kind)
		}
		if b.debit {
			b.amount = -b.amount
		}
		c.stmt.balances[b.kind] = b
	}
	return nil
}

func (c *camt) endTransaction(t xmlread.Token) error {
	x := &c.tx
	x.detail.Text = strings.Join(x.text, " ")
	c.dtls.present++
	c.entry.seen++
	if !x.known {
		c.dtls.partial = true
	} else {
		x.detail.Amount = x.amount
		if x.debit {
			x.detail.Amount = -x.amount
		}
		var err error
		if c.dtls.sum, err = money.Add(c.dtls.sum, x.detail.Amount); err != nil {
			return t.Refuse("the transactions leave the range of an amount")
		}
	}
	c.entry.line.Details = append(c.entry.line.Details, x.detail)
	return nil
}

// endDetails checks a batch against itself. NbOfTxs may exceed the transactions
// listed; the sum is then not expected to agree.
func (c *camt) endDetails(t xmlread.Token) error {
	d := &c.dtls
	const btch = dtlsPath + "/Btch"
	if d.fields[btch+"/NbOfTxs"] {
		if d.count < d.present {
			return t.Refuse("the batch counts %d transactions and lists %d", d.count, d.present)
		}
		d.partial = d.partial || d.count > d.present
	}
	if d.fields[btch+"/TtlAmt"] {
		// Without a direction of its own the batch has that of its entry.
		if d.debit || (!d.fields[btch+"/CdtDbtInd"] && c.entry.debit) {
			d.total = -d.total
		}
		if !d.partial && d.present > 0 && d.sum != d.total {
			return t.Refuse("the batch says %s and its transactions sum to %s", d.total, d.sum)
		}
	}
	c.entry.line.BatchCount += max(d.count, d.present)
	c.entry.partial = c.entry.partial || d.partial || d.present == 0
	var err error
	if c.entry.details, err = money.Add(c.entry.details, d.sum); err != nil {
		return t.Refuse("the transactions leave the range of an amount")
	}
	return nil
}

func (c *camt) endEntry(t xmlread.Token) error {
	e := &c.entry
	for _, need := range []string{"/Amt", "/CdtDbtInd"} {
		if !e.fields[entryPath+need] {
			return t.Refuse("has no %s", need[1:])
		}
	}
	if e.status == "" {
		return t.Refuse("has no status")
	}
	side := "CRDT"
	e.line.Amount = e.amount
	if e.debit {
		side, e.line.Amount = "DBIT", -e.amount
	}
	if e.seen > 0 && !e.partial && e.details != e.line.Amount {
		return t.Refuse("the entry is %s and its transactions sum to %s", e.line.Amount, e.details)
	}
	if err := c.stmt.all.add(side, e.amount); err != nil {
		return t.Refuse("the entries leave the range of an amount")
	}
	if e.status != "BOOK" {
		c.stmt.NotBooked++
		return nil
	}
	if err := c.stmt.booked.add(side, e.amount); err != nil {
		return t.Refuse("the entries leave the range of an amount")
	}
	if e.line.ValueOn == (clock.Date{}) {
		e.line.ValueOn = e.line.BookedOn
	}
	e.line.Number = len(c.stmt.Lines) + 1
	c.stmt.Lines = append(c.stmt.Lines, e.line)
	return nil
}

func (s *totals) add(side string, a money.Amount) (err error) {
	s.count[side]++
	s.sum[side], err = money.Add(s.sum[side], a)
	return err
}

// agrees reports whether the bank's summary is that of these entries.
func (s *totals) agrees(c *statement) bool {
	for _, side := range []string{"CRDT", "DBIT"} {
		if n, ok := c.counts[side]; ok && n != s.count[side] {
			return false
		}
		if sum, ok := c.sums[side]; ok && sum != s.sum[side] {
			return false
		}
	}
	n, ok := c.counts["all"]
	return !ok || n == s.count["CRDT"]+s.count["DBIT"]
}

func (c *camt) endStatement(t xmlread.Token) error {
	s := &c.stmt
	for _, need := range []string{"/Id", "/CreDtTm"} {
		if !s.fields[stmtPath+need] {
			return t.Refuse("has no %s", need[1:])
		}
	}
	if s.accounts != 1 {
		return t.Refuse("names %d accounts, want one IBAN or Othr/Id", s.accounts)
	}
	if err := s.takeBalances(t); err != nil {
		return err
	}
	for i := range s.Lines {
		// An entry without dates was booked on the day of the statement.
		if s.Lines[i].BookedOn == (clock.Date{}) {
			s.Lines[i].BookedOn = s.ClosingOn
		}
		if s.Lines[i].ValueOn == (clock.Date{}) {
			s.Lines[i].ValueOn = s.Lines[i].BookedOn
		}
	}
	// Banks differ in whether the summary counts lines that are not booked.
	if !s.booked.agrees(s) && !s.all.agrees(s) {
		return t.Refuse("the entries do not agree with TxsSummry")
	}
	diff, err := s.balance()
	if err != nil {
		return t.Refuse("the balances leave the range of an amount")
	}
	if diff != 0 {
		return t.Refuse("opening %s and the booked entries give %s, but closing is %s", s.Opening, s.Closing+diff, s.Closing)
	}
	if slices.ContainsFunc(c.out, func(o Statement) bool { return o.Identity() == s.Identity() }) {
		return t.Refuse("the same statement twice in one file")
	}
	c.out = append(c.out, s.Statement)
	return nil
}

// takeBalances finds opening and closing. PRCD, the closing balance before, is
// the opening balance where there is no OPBD.
func (s *statement) takeBalances(t xmlread.Token) error {
	opening, hasOpening := s.balances["OPBD"]
	previous, hasPrevious := s.balances["PRCD"]
	closing, hasClosing := s.balances["CLBD"]
	switch {
	case !hasClosing:
		return t.Refuse("has no closing balance (CLBD)")
	case !hasOpening && !hasPrevious:
		return t.Refuse("has no opening balance (OPBD or PRCD)")
	case hasOpening && hasPrevious && opening.amount != previous.amount:
		return t.Refuse("opens with %s, but the previous closing balance is %s", opening.amount, previous.amount)
	case !hasOpening:
		opening = previous
	}
	if closing.on.Before(opening.on) {
		return t.Refuse("closes on %s, before it opens on %s", closing.on, opening.on)
	}
	s.Opening, s.OpeningOn = opening.amount, opening.on
	s.Closing, s.ClosingOn = closing.amount, closing.on
	return nil
}
