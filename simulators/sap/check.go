package sap

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"guichet/internal/clock"
	"guichet/internal/money"
)

// header is E1BPACHE09 as posted.
type header struct {
	CompanyCode  string `json:"company_code"`
	DocumentType string `json:"document_type"`
	DocumentDate string `json:"document_date"` // YYYYMMDD
	PostingDate  string `json:"posting_date"`  // YYYYMMDD
	Reference    string `json:"reference"`
	Text         string `json:"header_text"`
	User         string `json:"user"`
}

// line is one item with its amount in document currency.
type line struct {
	Item        string       `json:"item"`
	Kind        string       `json:"kind"` // GL, AR, TX
	Account     string       `json:"account"`
	AccountName string       `json:"account_name"`
	CostCentre  string       `json:"cost_centre,omitempty"`
	Order       string       `json:"order,omitempty"`
	WBS         string       `json:"wbs,omitempty"`
	TaxCode     string       `json:"tax_code,omitempty"`
	Amount      money.Amount `json:"amount_cents"` // debit positive
	Base        money.Amount `json:"base_cents,omitempty"`
	Currency    string       `json:"currency"`
	Text        string       `json:"text,omitempty"`
	Assignment  string       `json:"assignment,omitempty"`
}

// checker collects what is wrong with the document of an IDoc.
type checker struct {
	d        *idoc
	open     func(period string) bool // YYYY-MM
	header   header
	lines    []line
	index    map[string]int // of lines, by item number
	problems []message
}

// maxProblems bounds what is said about one document; a file of garbage would
// otherwise be answered with a larger one.
const maxProblems = 20

func (c *checker) say(key string, params ...any) {
	if len(c.problems) < maxProblems {
		c.problems = append(c.problems, msg(key, params...))
	}
}

// run reads the document and checks everything about it. It wants an IDoc without
// formal and syntax errors.
func (c *checker) run() {
	c.formats()
	c.readHeader()
	c.readItems()
	if n := len(c.lines); n > maxItems {
		c.say("F5 727", n, maxItems)
	}
	c.readAmounts()
	c.checkTax()
}

// formats holds every value against its dictionary type and looks for text that
// slipped out of its columns.
func (c *checker) formats() {
	for _, seg := range c.d.segments {
		for _, f := range layouts[seg.name] {
			v := seg.fields[f.name]
			ok := true
			switch f.kind {
			case "NUMC":
				ok = v == "" || len(v) == f.length && strings.Trim(v, "0123456789") == ""
			case "DATS":
				ok = v == "" || isTime("20060102")(v)
			case "DEC-as-text":
				_, ok = parseAmount(v)
				ok = ok || v == ""
			default:
				ok = !strings.HasPrefix(v, " ")
			}
			if !ok {
				c.say("ZG 921", seg.name, f.name, v, map[string]string{
					"NUMC": "zero-padded number", "DATS": "date", "DEC-as-text": "amount", "CHAR": "left-justified text",
				}[f.kind])
			}
		}
		if strings.Trim(seg.rest, " ") != "" {
			c.say("ZG 922", seg.name)
		}
	}
}

func (c *checker) readHeader() {
	f := c.d.of("E1BPACHE09")[0].fields
	for _, name := range []string{"USERNAME", "COMP_CODE", "DOC_DATE", "PSTNG_DATE", "DOC_TYPE", "REF_DOC_NO"} {
		if f[name] == "" {
			c.say("ZG 923", name)
		}
	}
	// The rest of these is SAP's own to fill.
	for _, x := range [][2]string{{"BUS_ACT", "RFBU"}, {"OBJ_TYPE", ""}, {"OBJ_KEY", ""}, {"AC_DOC_NO", ""}} {
		if f[x[0]] != x[1] {
			c.say("ZG 924", x[0], f[x[0]], orBlank(x[1]))
		}
	}
	if f["COMP_CODE"] != "" && f["COMP_CODE"] != companyCode {
		c.say("ZG 925", f["COMP_CODE"])
	}
	if f["DOC_TYPE"] != "" && !documentTypes[f["DOC_TYPE"]] {
		c.say("ZG 926", f["DOC_TYPE"])
	}
	if posting, err := time.Parse("20060102", f["PSTNG_DATE"]); err == nil {
		if !c.open(posting.Format("2006-01")) {
			c.say("ZG 927", posting.Format("01"), posting.Format("2006"))
		}
		for _, x := range [][2]string{{"FISC_YEAR", posting.Format("2006")}, {"FIS_PERIOD", posting.Format("01")}} {
			if v := f[x[0]]; v != "" && v != x[1] {
				c.say("ZG 924", x[0], v, x[1])
			}
		}
	}
	c.header = header{
		CompanyCode: f["COMP_CODE"], DocumentType: f["DOC_TYPE"], DocumentDate: f["DOC_DATE"], PostingDate: f["PSTNG_DATE"],
		Reference: f["REF_DOC_NO"], Text: f["HEADER_TXT"], User: f["USERNAME"],
	}
}

func orBlank(s string) string {
	if s == "" {
		return "blank"
	}
	return s
}

// readItems reads G/L, customer and tax items.
func (c *checker) readItems() {
	for _, seg := range c.d.of("E1BPACGL09") {
		l := line{
			Kind: "GL", Item: seg.fields["ITEMNO_ACC"], Account: seg.fields["GL_ACCOUNT"], CostCentre: seg.fields["COSTCENTER"],
			Order: seg.fields["ORDERID"], WBS: seg.fields["WBS_ELEMENT"], TaxCode: seg.fields["TAX_CODE"],
			Text: seg.fields["ITEM_TEXT"], Assignment: seg.fields["ALLOC_NMBR"],
		}
		if v := seg.fields["COMP_CODE"]; v != "" && v != c.header.CompanyCode {
			c.say("ZG 925", v)
		}
		for _, x := range [][2]string{{"customer", "CUSTOMER"}, {"vendor", "VENDOR_NO"}, {"fund", "FUND"}, {"funds centre", "FUNDS_CTR"}} {
			if v := seg.fields[x[1]]; v != "" {
				c.say("ZG 934", itemNumber(l.Item), x[0], v)
			}
		}
		c.checkObjects(l)
		c.addItem(l)
	}
	for _, seg := range c.d.of("E1BPACAR09") {
		l := line{Kind: "AR", Item: seg.fields["ITEMNO_ACC"], Account: seg.fields["CUSTOMER"]}
		c.say("ZG 934", itemNumber(l.Item), "customer", l.Account) // this SAP has none
		c.addItem(l)
	}
	for _, seg := range c.d.of("E1BPACTX09") {
		l := line{Kind: "TX", Item: seg.fields["ITEMNO_ACC"], Account: seg.fields["GL_ACCOUNT"], TaxCode: seg.fields["TAX_CODE"]}
		if a, ok := accounts[l.Account]; ok && a.kind != taxAccount {
			c.say("ZG 936", itemNumber(l.Item), l.Account)
		} else if !ok {
			c.say("ZG 931", itemNumber(l.Item), l.Account)
		}
		if l.TaxCode == "" {
			c.say("ZG 937", itemNumber(l.Item), l.TaxCode)
		}
		c.addItem(l)
	}
}

func (c *checker) addItem(l line) {
	l.AccountName = accounts[l.Account].Name
	if l.TaxCode != "" {
		if _, ok := taxRates[l.TaxCode]; !ok {
			c.say("ZG 937", itemNumber(l.Item), l.TaxCode)
		}
	}
	if strings.Trim(l.Item, "0") == "" {
		c.say("ZG 921", "E1BPAC"+l.Kind+"09", "ITEMNO_ACC", l.Item, "item number")
	}
	if _, twice := c.index[l.Item]; twice {
		c.say("ZG 938", itemNumber(l.Item))
	}
	c.index[l.Item] = len(c.lines)
	c.lines = append(c.lines, l)
}

// checkObjects holds account and cost objects of a G/L item against each other.
func (c *checker) checkObjects(l line) {
	a, ok := accounts[l.Account]
	if !ok {
		c.say("ZG 931", itemNumber(l.Item), l.Account)
		return
	}
	given := 0
	for _, v := range []string{l.CostCentre, l.Order, l.WBS} {
		if v != "" {
			given++
		}
	}
	switch {
	case a.kind == taxAccount:
		c.say("ZG 935", itemNumber(l.Item), l.Account)
	case a.kind == profitLoss && given != 1:
		c.say("ZG 932", itemNumber(l.Item), l.Account, given)
	case a.kind == balanceSheet && given > 0:
		c.say("ZG 933", itemNumber(l.Item), l.Account)
	}
	if _, ok := costCentres[l.CostCentre]; l.CostCentre != "" && !ok {
		c.say("ZG 934", itemNumber(l.Item), "cost centre", l.CostCentre)
	}
	if l.Order != "" {
		c.say("ZG 934", itemNumber(l.Item), "order", l.Order)
	}
	if l.WBS != "" {
		c.say("ZG 934", itemNumber(l.Item), "WBS element", l.WBS)
	}
}

// readAmounts gives each item its amount, and sums per currency and currency type.
func (c *checker) readAmounts() {
	sums := map[[2]string]money.Amount{}         // by currency and currency type
	count := map[string]map[string]int{"00": {}} // by currency type and item; 00 is always required
	for _, seg := range c.d.of("E1BPACCR09") {
		item, kind, currency := seg.fields["ITEMNO_ACC"], seg.fields["CURR_TYPE"], seg.fields["CURRENCY"]
		at, known := c.index[item]
		if !known {
			c.say("ZG 940", itemNumber(item))
		}
		if currency != money.CAD || seg.fields["CURRENCY_ISO"] != money.CAD || kind != "00" && kind != "10" {
			c.say("ZG 941", itemNumber(item), currency, "type "+kind)
		}
		if count[kind] == nil {
			count[kind] = map[string]int{}
		}
		count[kind][item]++
		amount, ok := parseAmount(seg.fields["AMT_DOCCUR"])
		base, _ := parseAmount(seg.fields["AMT_BASE"]) // blank is none; a bad one is already named
		if !ok || amount == 0 {
			c.say("ZG 942", itemNumber(item))
		}
		k := [2]string{currency, kind}
		var err error
		if sums[k], err = money.Add(sums[k], amount); err != nil {
			c.say("F5 727", "Too many", maxItems)
			return // only a document far beyond the limit gets here
		}
		if known && kind == "00" {
			c.lines[at].Amount, c.lines[at].Base, c.lines[at].Currency = amount, base, currency
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(count)) {
		for _, l := range c.lines {
			if n := count[kind][l.Item]; n != 1 {
				c.say("ZG 939", itemNumber(l.Item), n, kind)
			}
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(sums), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }) {
		if sums[k] != 0 {
			c.say("RW 022", k[0], k[1], sums[k])
		}
	}
}

// checkTax holds the tax items against the items that carry their code. The
// rounding of many small bills adds up, so a cent and a hundredth of the tax are
// tolerated.
func (c *checker) checkTax() {
	base, taxed, tax := map[string]money.Amount{}, map[string]money.Amount{}, map[string]money.Amount{}
	items := map[string]int{}
	for _, l := range c.lines {
		if taxRates[l.TaxCode] == 0 && l.Kind != "TX" {
			continue
		}
		switch l.Kind {
		case "GL":
			taxed[l.TaxCode] += l.Amount
		case "TX":
			base[l.TaxCode] += l.Base
			tax[l.TaxCode] += l.Amount
			items[l.TaxCode]++
		}
	}
	for _, code := range slices.Sorted(maps.Keys(taxRates)) {
		if items[code] == 0 {
			if taxed[code] != 0 {
				c.say("ZG 953", code)
			}
			continue
		}
		if base[code] != taxed[code] {
			c.say("ZG 951", code, base[code], taxed[code])
		}
		want, err := money.Percent(base[code], taxRates[code]*10_000)
		if err != nil {
			continue // such an amount was refused above
		}
		if abs(tax[code]-want) > 1+abs(want)/100 {
			c.say("ZG 952", code, tax[code], base[code], want)
		}
	}
}

func abs(a money.Amount) money.Amount { return max(a, -a) }

var amountForm = regexp.MustCompile(`^[0-9]{1,13}\.[0-9]{2}-?$`)

// parseAmount reads an amount as SAP writes it: a decimal point, no separators,
// the minus behind. Thirteen digits let a document's sum stay in range.
func parseAmount(v string) (money.Amount, bool) {
	if !amountForm.MatchString(v) {
		return 0, false
	}
	digits, negative := strings.CutSuffix(v, "-")
	a, err := money.Parse(digits)
	if negative {
		a = -a
	}
	return a, err == nil
}

// itemNumber is ITEMNO_ACC for people: without its zeros.
func itemNumber(v string) string {
	if n, err := strconv.Atoi(v); err == nil {
		return strconv.Itoa(n)
	}
	return v
}

// defaultPeriods are open when nobody says otherwise: this month and the one
// before.
func defaultPeriods(now time.Time) []string {
	today := clock.DateOf(now)
	first := clock.Date{Year: today.Year, Month: today.Month, Day: 1}
	month := func(d clock.Date) string { return fmt.Sprintf("%04d-%02d", d.Year, d.Month) }
	return []string{month(first.AddDays(-1)), month(first)}
}
