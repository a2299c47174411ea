package bank

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"guichet/internal/clock"
	"guichet/internal/money"
	"guichet/internal/xmlread"
)

// A field is a leaf this reader uses. Each occurs at most once in the element it
// belongs to, unless many is set.
type field struct {
	max  int // characters; ISO 20022 Max35Text and the like
	many bool
	only string // the one version that has it; "" is both
	set  func(c *camt, t xmlread.Token) error
}

// camtFields are the leaves that are read, by path.
var camtFields = map[string]field{
	stmtPath + "/Id":             {max: 35, set: func(c *camt, t xmlread.Token) error { c.stmt.ID = t.Text; return nil }},
	stmtPath + "/ElctrncSeqNb":   {max: 18, set: setSequence},
	stmtPath + "/CreDtTm":        {max: 40, set: setCreated},
	stmtPath + "/CpyDplctInd":    {max: 4, set: setDuplicate},
	stmtPath + "/StmtPgntn/PgNb": {max: 5, set: setPage},
	stmtPath + "/StmtPgntn/LastPgInd": {max: 5, set: func(c *camt, t xmlread.Token) error {
		if last, err := parseBool(t); err != nil || !last {
			return cmp.Or(err, t.Refuse("the statement goes on in another message: ask the bank for whole statements"))
		}
		return nil
	}},
	stmtPath + "/Acct/Id/IBAN":    {max: 34, set: setAccount},
	stmtPath + "/Acct/Id/Othr/Id": {max: 34, set: setAccount},
	stmtPath + "/Acct/Ccy":        {max: 3, set: func(c *camt, t xmlread.Token) error { return c.currency(t, t.Text) }},

	stmtPath + "/TxsSummry/TtlNtries/NbOfNtries":    {max: 15, set: setCount("all")},
	stmtPath + "/TxsSummry/TtlCdtNtries/NbOfNtries": {max: 15, set: setCount("CRDT")},
	stmtPath + "/TxsSummry/TtlDbtNtries/NbOfNtries": {max: 15, set: setCount("DBIT")},
	stmtPath + "/TxsSummry/TtlCdtNtries/Sum":        {max: 21, set: setSum("CRDT")},
	stmtPath + "/TxsSummry/TtlDbtNtries/Sum":        {max: 21, set: setSum("DBIT")},

	balPath + "/Tp/CdOrPrtry/Cd":    {max: 4, set: func(c *camt, t xmlread.Token) error { c.bal.kind = t.Text; return nil }},
	balPath + "/Tp/CdOrPrtry/Prtry": {max: 35, set: func(*camt, xmlread.Token) error { return nil }},
	balPath + "/Amt":                {max: 21, set: func(c *camt, t xmlread.Token) error { return c.amount(t, &c.bal.amount) }},
	balPath + "/CdtDbtInd":          {max: 4, set: func(c *camt, t xmlread.Token) error { return setDebit(t, &c.bal.debit) }},
	balPath + "/Dt/Dt":              {max: 40, set: func(c *camt, t xmlread.Token) error { return setDate(t, &c.bal.on) }},
	balPath + "/Dt/DtTm":            {max: 40, set: func(c *camt, t xmlread.Token) error { return setDate(t, &c.bal.on) }},

	entryPath + "/NtryRef":      {max: 35, set: func(c *camt, t xmlread.Token) error { c.entry.line.Reference = t.Text; return nil }},
	entryPath + "/AcctSvcrRef":  {max: 35, set: func(c *camt, t xmlread.Token) error { c.entry.line.ServicerRef = t.Text; return nil }},
	entryPath + "/AddtlNtryInf": {max: 500, set: func(c *camt, t xmlread.Token) error { c.entry.line.Text = t.Text; return nil }},
	entryPath + "/Amt":          {max: 21, set: func(c *camt, t xmlread.Token) error { return c.amount(t, &c.entry.amount) }},
	entryPath + "/CdtDbtInd":    {max: 4, set: func(c *camt, t xmlread.Token) error { return setDebit(t, &c.entry.debit) }},
	// CdtDbtInd of a reversal already says how the balance moves: it is not
	// turned round a second time.
	entryPath + "/RvslInd": {max: 5, set: func(c *camt, t xmlread.Token) (err error) {
		c.entry.line.Reversal, err = parseBool(t)
		return err
	}},
	entryPath + "/Sts":                        {max: 4, only: version02, set: setStatus},
	entryPath + "/Sts/Cd":                     {max: 4, only: version08, set: setStatus},
	entryPath + "/Sts/Prtry":                  {max: 35, set: setStatus},
	entryPath + "/BookgDt/Dt":                 {max: 40, set: func(c *camt, t xmlread.Token) error { return setDate(t, &c.entry.line.BookedOn) }},
	entryPath + "/BookgDt/DtTm":               {max: 40, set: func(c *camt, t xmlread.Token) error { return setDate(t, &c.entry.line.BookedOn) }},
	entryPath + "/ValDt/Dt":                   {max: 40, set: func(c *camt, t xmlread.Token) error { return setDate(t, &c.entry.line.ValueOn) }},
	entryPath + "/ValDt/DtTm":                 {max: 40, set: func(c *camt, t xmlread.Token) error { return setDate(t, &c.entry.line.ValueOn) }},
	entryPath + "/BkTxCd/Domn/Cd":             {max: 4, set: addCode},
	entryPath + "/BkTxCd/Domn/Fmly/Cd":        {max: 4, set: addCode},
	entryPath + "/BkTxCd/Domn/Fmly/SubFmlyCd": {max: 4, set: addCode},
	entryPath + "/BkTxCd/Prtry/Cd": {max: 35, set: func(c *camt, t xmlread.Token) error {
		c.entry.line.ProprietaryCode = t.Text
		return nil
	}},
	entryPath + "/BkTxCd/Prtry/Issr": {max: 35, set: func(c *camt, t xmlread.Token) error {
		c.entry.line.ProprietaryOwner = t.Text
		return nil
	}},

	dtlsPath + "/Btch/NbOfTxs": {max: 15, set: func(c *camt, t xmlread.Token) (err error) {
		c.dtls.count, err = parseCount(t)
		return err
	}},
	dtlsPath + "/Btch/TtlAmt":    {max: 21, set: func(c *camt, t xmlread.Token) error { return c.amount(t, &c.dtls.total) }},
	dtlsPath + "/Btch/CdtDbtInd": {max: 4, set: func(c *camt, t xmlread.Token) error { return setDebit(t, &c.dtls.debit) }},

	txPath + "/Refs/EndToEndId": {max: 35, set: func(c *camt, t xmlread.Token) error { c.tx.detail.EndToEndID = t.Text; return nil }},
	txPath + "/Refs/TxId":       {max: 35, set: func(c *camt, t xmlread.Token) error { c.tx.detail.TransactionID = t.Text; return nil }},
	txPath + "/Refs/InstrId":    {max: 35, set: func(c *camt, t xmlread.Token) error { c.tx.detail.InstructionID = t.Text; return nil }},
	// The amount of a transaction: at the top in 08, in AmtDtls in 02 (08 may have both).
	txPath + "/Amt":               {max: 21, only: version08, set: setTransactionAmount},
	txPath + "/AmtDtls/TxAmt/Amt": {max: 21, set: setTransactionAmount},
	txPath + "/CdtDbtInd":         {max: 4, only: version08, set: func(c *camt, t xmlread.Token) error { return setDebit(t, &c.tx.debit) }},
	txPath + "/RmtInf/Ustrd":      {max: 140, many: true, set: addText},
	txPath + "/AddtlTxInf":        {max: 500, set: addText},
	txPath + "/RmtInf/Strd/CdtrRefInf/Ref": {max: 35, many: true, set: func(c *camt, t xmlread.Token) error {
		if c.tx.detail.CreditorReference != "" {
			return addText(c, t) // one reference explains; further ones are read by people
		}
		c.tx.detail.CreditorReference = t.Text
		return nil
	}},
	txPath + "/RtrInf/Rsn/Cd": {max: 4, set: func(c *camt, t xmlread.Token) error { c.tx.detail.ReturnReason = t.Text; return nil }},
}

// currency checks that everything in the statement is in one currency, and that
// this is the one the books are kept in.
func (c *camt) currency(t xmlread.Token, code string) error {
	if code != money.CAD {
		return t.Refuse("currency %.10q, want %s", code, money.CAD)
	}
	c.stmt.Currency = code
	return nil
}

func (c *camt) amount(t xmlread.Token, into *money.Amount) error {
	if err := c.currency(t, t.Attribute("Ccy")); err != nil {
		return err
	}
	a, err := parseAmount(t.Text)
	if err != nil {
		return t.Refuse("%v", err)
	}
	*into = a
	return nil
}

// setTransactionAmount takes the first amount in the account's currency. What was
// paid abroad may have another one as well; the entry is what moved the balance.
func setTransactionAmount(c *camt, t xmlread.Token) error {
	if c.tx.known || t.Attribute("Ccy") != money.CAD {
		return nil
	}
	c.tx.known = true
	return c.amount(t, &c.tx.amount)
}

func setSequence(c *camt, t xmlread.Token) error {
	if strings.Trim(t.Text, "0123456789") != "" {
		return t.Refuse("%q is not a number", t.Text)
	}
	c.stmt.Sequence = t.Text
	return nil
}

// setCreated reads an ISO date and time. Without a zone it is the city's.
func setCreated(c *camt, t xmlread.Token) error {
	at, err := time.Parse(time.RFC3339Nano, t.Text)
	if err != nil {
		at, err = time.ParseInLocation("2006-01-02T15:04:05.999999999", t.Text, clock.Toronto)
	}
	if err != nil {
		return t.Refuse("%q is not a date and time", t.Text)
	}
	c.stmt.Created = at.UTC()
	return nil
}

func setDuplicate(c *camt, t xmlread.Token) error {
	if !slices.Contains([]string{"COPY", "DUPL", "CODU"}, t.Text) {
		return t.Refuse("%q is not COPY, DUPL or CODU", t.Text)
	}
	c.stmt.Duplicate = true
	return nil
}

func setPage(c *camt, t xmlread.Token) error {
	if n, err := parseCount(t); err != nil || n != 1 {
		return cmp.Or(err, t.Refuse("page %d of a statement: ask the bank for whole statements", n))
	}
	return nil
}

func setAccount(c *camt, t xmlread.Token) error {
	c.stmt.accounts++
	c.stmt.Account = t.Text
	return nil
}

func setCount(side string) func(*camt, xmlread.Token) error {
	return func(c *camt, t xmlread.Token) (err error) {
		c.stmt.counts[side], err = parseCount(t)
		return err
	}
}

func setSum(side string) func(*camt, xmlread.Token) error {
	return func(c *camt, t xmlread.Token) error {
		a, err := parseAmount(t.Text)
		if err != nil {
			return t.Refuse("%v", err)
		}
		c.stmt.sums[side] = a
		return nil
	}
}

// setStatus takes the entry's status. One that is not known is refused: nobody
// could say whether the entry counts.
func setStatus(c *camt, t xmlread.Token) error {
	if c.entry.status != "" || !slices.Contains([]string{"BOOK", "PDNG", "INFO", "FUTR"}, t.Text) {
		return t.Refuse("status %.35q is not one of BOOK, PDNG, INFO, FUTR", t.Text)
	}
	c.entry.status = t.Text
	return nil
}

func addCode(c *camt, t xmlread.Token) error {
	if c.entry.line.Code != "" {
		c.entry.line.Code += "/"
	}
	c.entry.line.Code += t.Text
	return nil
}

func addText(c *camt, t xmlread.Token) error {
	c.tx.text = append(c.tx.text, t.Text)
	return nil
}

func setDebit(t xmlread.Token, into *bool) error {
	switch t.Text {
	case "CRDT":
		*into = false
	case "DBIT":
		*into = true
	default:
		return t.Refuse("%.10q is neither CRDT nor DBIT", t.Text)
	}
	return nil
}

// setDate takes the day of an ISO date or date and time as the bank writes it: it
// is the bank's calendar that counts.
func setDate(t xmlread.Token, into *clock.Date) error {
	if *into != (clock.Date{}) {
		return t.Refuse("a second date")
	}
	day := t.Text
	if strings.HasSuffix(t.Path, "/DtTm") && len(day) > 10 && day[10] == 'T' {
		day = day[:10]
	}
	d, err := clock.ParseDate(day)
	if err != nil {
		return t.Refuse("%v", err)
	}
	*into = d
	return nil
}

func parseBool(t xmlread.Token) (bool, error) {
	switch t.Text {
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return false, t.Refuse("%q is neither true nor false", t.Text)
}

func parseCount(t xmlread.Token) (int, error) {
	n, err := strconv.ParseInt(t.Text, 10, 32)
	if err != nil || n < 0 {
		return 0, t.Refuse("%q is not a count", t.Text)
	}
	return int(n), nil
}
