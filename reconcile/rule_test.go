package reconcile

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"guichet/internal/clock"
	"guichet/internal/money"
	"guichet/ledger"
)

func day(n int) clock.Date { return clock.Date{Year: 2026, Month: time.March, Day: n} }

func TestDecide(t *testing.T) {
	payout := func(id string, amount money.Amount, arrives int, trace string) Payout {
		return Payout{ID: id, Amount: amount, ArrivalOn: day(arrives), TraceID: trace, State: Itemised}
	}
	line := func(id string, amount money.Amount, value int, refs ...string) BankLine {
		return BankLine{ID: id, Amount: amount, ValueOn: day(value), BookedOn: day(value), Refs: refs}
	}
	for name, tt := range map[string]struct {
		payouts []Payout
		lines   []BankLine
		matches string
		ties    string
	}{
		"the reference decides between equal amounts": {
			[]Payout{payout("po_1GuichetA", 500, 16, ""), payout("po_1GuichetB", 500, 16, "")},
			[]BankLine{line("1", 500, 16, "po1GUICHETB"), line("2", 500, 16, "po-1-guichet-a")},
			"po_1GuichetA=2/payout-reference/1 po_1GuichetB=1/payout-reference/1", "",
		},
		"the trace id is a reference, wherever it stands": {
			[]Payout{payout("po_1", 500, 16, "TR00012345")},
			[]BankLine{{ID: "1", Amount: 500, ValueOn: day(30), Text: "EFT TR00012345 STRIPE"}},
			"po_1=1/payout-reference/1", "",
		},
		"a reference does not excuse a cent": {
			[]Payout{payout("po_1Guichet", 500, 16, "")}, []BankLine{line("1", 501, 16, "po_1Guichet")}, "", "",
		},
		"a short reference is an accident": {
			[]Payout{payout("po_1", 500, 30, "")}, []BankLine{line("1", 500, 16, "xxpo1xx")}, "", "",
		},
		"amount and date decide when unique": {
			[]Payout{payout("po_1", 500, 16, ""), payout("po_2", 600, 16, "")},
			[]BankLine{line("1", 600, 17), line("2", 500, 20)},
			"po_1=2/payout-amount-date/1 po_2=1/payout-amount-date/1", "",
		},
		"money does not arrive before it is announced, or a week later": {
			[]Payout{payout("po_1", 500, 16, "")}, []BankLine{line("1", 500, 15), line("2", 500, 21)}, "", "",
		},
		"two equal payouts on one day are a tie": {
			[]Payout{payout("po_1", 500, 16, ""), payout("po_2", 500, 16, "")},
			[]BankLine{line("1", 500, 16), line("2", 500, 16)},
			"", "po_1=1 po_1=2 po_2=1 po_2=2",
		},
		"one line for two equal payouts is a tie": {
			[]Payout{payout("po_1", 500, 16, ""), payout("po_2", 500, 16, "")}, []BankLine{line("1", 500, 16)}, "", "po_1=1 po_2=1",
		},
		"a tie by reference is not decided by the date": {
			[]Payout{payout("po_1Guichet", 500, 16, "")},
			[]BankLine{line("1", 500, 16, "po_1Guichet"), line("2", 500, 30, "po_1Guichet")},
			"", "po_1Guichet=1 po_1Guichet=2",
		},
		"with one pair gone by reference the rest is unique": {
			[]Payout{payout("po_1Guichet", 500, 16, ""), payout("po_2", 500, 16, "")},
			[]BankLine{line("1", 500, 16), line("2", 500, 16, "po_1Guichet")},
			"po_1Guichet=2/payout-reference/1 po_2=1/payout-amount-date/1", "",
		},
		"a collection is a debit": {
			[]Payout{payout("po_1", -500, 16, "")}, []BankLine{line("1", 500, 16), line("2", -500, 16)}, "po_1=2/payout-amount-date/1", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			matches, ties := decide(tt.payouts, tt.lines)
			var got, tied []string
			for _, m := range matches {
				got = append(got, fmt.Sprintf("%s=%s/%s", tt.payouts[m.payout].ID, tt.lines[m.line].ID, m.rule))
			}
			for _, m := range ties {
				tied = append(tied, fmt.Sprintf("%s=%s", tt.payouts[m.payout].ID, tt.lines[m.line].ID))
			}
			slices.Sort(got)
			if strings.Join(got, " ") != tt.matches || strings.Join(tied, " ") != tt.ties {
				t.Errorf("matches %v, ties %v; want %q, %q", got, tied, tt.matches, tt.ties)
			}
		})
	}
}

func TestMappingResolve(t *testing.T) {
	const file = `account,department,cost_centre,fund,tax,valid_from,gl_account,object_kind,object_number,tax_code,text
assets:bank:main,,,,,2020-01-01,101000,,,,
revenue:parking:*,,,,,2020-01-01,430100,cost-centre,4100,A0,
revenue:parking:*,,,,,2026-03-16,430101,cost-centre,4100,A0,
revenue:parking:tow,,,,,2020-01-01,430110,order,700123,,Towing
revenue:*,,,,,2020-01-01,430000,cost-centre,4900,A0,
revenue:permits:permits,,,,hst,2020-01-01,430200,cost-centre,4200,A1,
revenue:permits:permits,,,,,2020-01-01,430200,cost-centre,4200,A0,
revenue:water:water,,4300,,,2020-01-01,430300,cost-centre,4300,A0,
revenue:water:water,,,F1,,2020-01-01,430301,cost-centre,4300,A0,
assets:processor-clearing,,,,,2020-01-01,internal,,,,
`
	m, err := readMapping(strings.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		key  lineKey
		on   int
		want string
	}{
		"an exact path":                           {lineKey{account: "assets:bank:main"}, 1, "101000  "},
		"a whole branch":                          {lineKey{account: "revenue:parking:fines", tax: "none"}, 15, "430100 4100 A0"},
		"a later row from its date on":            {lineKey{account: "revenue:parking:fines", tax: "none"}, 16, "430101 4100 A0"},
		"the exact path before the branch":        {lineKey{account: "revenue:parking:tow"}, 16, "430110 700123 "},
		"the nearer branch before the wider":      {lineKey{account: "revenue:library:fines"}, 16, "430000 4900 A0"},
		"the tax code":                            {lineKey{account: "revenue:permits:permits", tax: "hst"}, 1, "430200 4200 A1"},
		"a row without tax code for any other":    {lineKey{account: "revenue:permits:permits", tax: "exempt"}, 1, "430200 4200 A0"},
		"a dimension":                             {lineKey{"revenue:water:water", "", ledger.Dimensions{CostCentre: "4300"}}, 1, "430300 4300 A0"},
		"a branch where the dimension is another": {lineKey{"revenue:water:water", "", ledger.Dimensions{CostCentre: "4301"}}, 1, "430000 4900 A0"},
		"two rows that fit equally":               {lineKey{"revenue:water:water", "", ledger.Dimensions{CostCentre: "4300", Fund: "F1"}}, 1, "several rows"},
		"no row":                                  {lineKey{account: "liabilities:hst"}, 1, "no row of the mapping to SAP fits liabilities:hst on 2026-03-01"},
		"internal":                                {lineKey{account: "assets:processor-clearing"}, 1, "internal"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := m.resolve(tt.key, day(tt.on))
			got := r.glAccount + " " + r.object.Number + " " + r.taxCode
			if r.internal {
				got = "internal"
			}
			if err != nil {
				got = err.Error()
			}
			if !strings.HasPrefix(got, tt.want) {
				t.Errorf("%s on %s: %q, want %q", tt.key, day(tt.on), got, tt.want)
			}
		})
	}
	if r, err := m.resolve(lineKey{account: "assets:bank:main"}, clock.Date{Year: 2019, Month: 12, Day: 31}); err == nil {
		t.Errorf("before the first date: %+v", r)
	}
}

func TestReadMappingNamesEveryFault(t *testing.T) {
	const heading = "account,tax,valid_from,gl_account,object_kind,object_number,tax_code\n"
	for name, tt := range map[string]struct{ file, want string }{
		"nothing":               {"", "heading"},
		"an unknown column":     {"account,valid_from,gl_account,colour\n", `column "colour"`},
		"a column twice":        {"account,account,valid_from,gl_account\n", "there twice"},
		"a column missing":      {"account,gl_account\n", "column valid_from is missing"},
		"a short row":           {heading + "assets:x,,2020-01-01\n", "wrong number of fields"},
		"a date":                {heading + "assets:x,,1.1.2020,101000,,,\n", "line 2: date"},
		"a star in the middle":  {heading + "assets:*:x,,2020-01-01,101000,,,\n", "line 2: account"},
		"a star without branch": {heading + "assets*,,2020-01-01,101000,,,\n", "line 2: account"},
		"an account of SAP":     {heading + "assets:x,,2020-01-01,00001010001,,,\n", "line 2: G/L account"},
		"no account of SAP":     {heading + "assets:x,,2020-01-01,,,,\n", "line 2: G/L account"},
		"an object":             {heading + "assets:x,,2020-01-01,101000,fund,1,\n", `line 2: cost object kind "fund"`},
		"an internal object":    {heading + "assets:x,,2020-01-01,internal,order,1,\n", "line 2: an internal row"},
		"our tax code":          {heading + "assets:x,gst,2020-01-01,101000,,,\n", `line 2: tax "gst"`},
		"SAP's tax code":        {heading + "assets:x,,2020-01-01,101000,,,A\n", "line 2: tax_code"},
		"a row twice":           {heading + "assets:x,,2020-01-01,101000,,,\nassets:x,,2020-01-01,101001,,,\n", "line 3: the same lines and date as in line 2"},
	} {
		if _, err := readMapping(strings.NewReader(tt.file)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %q", name, err, tt.want)
		}
	}
	_, err := readMapping(strings.NewReader(heading + "assets:x,,x,101000,,,\nassets:y,,2020-01-01,,,,\n"))
	if err == nil || !strings.Contains(err.Error(), "line 2") || !strings.Contains(err.Error(), "line 3") {
		t.Errorf("two faults: %v; want both", err)
	}
}

func FuzzReadMapping(f *testing.F) {
	f.Add("account,tax,valid_from,gl_account,object_kind,object_number,tax_code\nassets:x,hst,2020-01-01,101000,order,1,A1\n")
	f.Add("\ufeffaccount,valid_from,gl_account\n\"a\nb\",2020-01-01,internal\n")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := readMapping(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, r := range m {
			if r.account == "" || r.internal != (r.glAccount == "") {
				t.Fatalf("accepted %+v", r)
			}
		}
	})
}

func TestDatesAreDueInTheMorningAfter(t *testing.T) {
	for at, want := range map[string]string{
		"2026-03-17T02:59:59-04:00": "2026-03-15",
		"2026-03-17T03:00:00-04:00": "2026-03-16",
		"2026-03-08T03:00:00-04:00": "2026-03-07", // the hour from 2 to 3 does not exist
		"2026-11-01T01:30:00-05:00": "2026-10-30", // the hour from 1 to 2 exists twice
		"2026-11-01T03:00:00-05:00": "2026-10-31",
		"2027-01-01T12:00:00-05:00": "2026-12-31",
		"2028-03-01T12:00:00-05:00": "2028-02-29",
	} {
		when, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if got := lastDue(when.UTC()); got.String() != want {
			t.Errorf("at %s the last date due is %s, want %s", at, got, want)
		}
	}
}

// Over three years of nights every date is due once, in order, none skipped.
func TestEveryDateIsDueOnce(t *testing.T) {
	at := time.Date(2026, time.January, 1, 12, 0, 0, 0, time.UTC)
	last := lastDue(at)
	for range 3 * 366 * 24 {
		at = at.Add(time.Hour)
		if due := lastDue(at); due != last {
			if due != last.AddDays(1) {
				t.Fatalf("at %s: %s after %s", at, due, last)
			}
			last = due
		}
	}
}
