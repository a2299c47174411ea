package sap

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"guichet/internal/clock"
	"guichet/internal/money"
)

func settings() Settings {
	return Settings{
		IDocType: "ACC_DOCUMENT03", Client: "100", Release: "46C",
		SenderPort: "GUICHET", SenderSystem: "GUICHET", ReceiverPort: "SAPPRD", ReceiverSystem: "PRDCLNT100",
		User: "GUICHET", SegmentVersion: "000", TaxCondition: "MWAS", TaxKey: "MWS",
	}
}

// sample is the document of testdata/acc_document03.idoc.txt.
func sample() Document {
	day := clock.Date{Year: 2026, Month: time.March, Day: 16}
	return Document{
		CompanyCode: "1000", Currency: "CAD", DocumentDate: day, PostingDate: day, FiscalYear: 2026, FiscalPeriod: 3,
		Type: "SA", HeaderText: "GUICHET 20260316 STRIPE", Reference: "GUI2603160000001",
		Lines: []Line{
			{Account: "113150", Amount: 60800, Text: "STRIPE CLEARING 2026-03-16", Assignment: "20260316"},
			{Account: "412000", Amount: -7500, Text: "PARKING FINES", Assignment: "20260316", Object: CostObject{CostCentre, "501000"}},
			{Account: "415500", Amount: -10000, Text: "RECREATION REGISTRATION", Assignment: "20260316", Object: CostObject{CostCentre, "502200"}, TaxCode: "O1"},
			{Account: "417000", Amount: -42000, Text: "BUILDING PERMITS", Assignment: "20260316", Object: CostObject{CostCentre, "503300"}},
		},
		Taxes: []TaxLine{{Account: "224500", Code: "O1", Amount: -1300, Base: -10000}},
	}
}

var written = time.Date(2026, time.March, 17, 6, 15, 0, 0, time.UTC) // 02:15 in Toronto

func write(t *testing.T, docs ...Numbered) File {
	t.Helper()
	w, err := NewWriter(settings())
	if err != nil {
		t.Fatal(err)
	}
	f, err := w.File("GUICHET_0000260316.idoc", docs, written)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFileIsTheSampleByteForByte(t *testing.T) {
	want, err := os.ReadFile("testdata/acc_document03.idoc.txt")
	if err != nil {
		t.Fatal(err)
	}
	got := write(t, Numbered{"0000000000260316", sample()})
	if !bytes.Equal(got.Data, want) {
		for i, line := range bytes.Split(got.Data, []byte("\n")) {
			t.Errorf("record %d:\n%s", i+1, bytes.TrimRight(line, " "))
		}
	}
}

func TestManifestSaysWhatIsInTheFile(t *testing.T) {
	second := sample()
	second.Reference = "GUI2603160000002"
	f := write(t, Numbered{"0000000000260316", sample()}, Numbered{"0000000000260317", second})
	sum := sha256.Sum256(f.Data)
	want := Manifest{
		File: "GUICHET_0000260316.idoc", SHA256: hex.EncodeToString(sum[:]), Bytes: len(f.Data),
		IDocs: 2, Segments: 22, Currency: "CAD", Debits: "1216.00", Credits: "1216.00",
		FirstDocNum: "0000000000260316", LastDocNum: "0000000000260317",
	}
	var got Manifest
	if err := json.Unmarshal(f.Manifest, &got); err != nil {
		t.Fatal(err)
	}
	if got != want || f.ManifestName() != "GUICHET_0000260316.idoc.json" {
		t.Errorf("%s: %+v\nwant %+v", f.ManifestName(), got, want)
	}
}

func TestNoCharacterMovesAColumn(t *testing.T) {
	d := sample()
	d.HeaderText = "Gîte d’œuvres – Łódź 東京 et plus encore"
	d.Lines[1].Text = "Stationnement\r\nincliné\t\u0085été " + strings.Repeat("é", 60)
	f := write(t, Numbered{"0000000000260316", d})
	records := bytes.Split(bytes.TrimSuffix(f.Data, []byte("\n")), []byte("\n"))
	if len(records) != 12 {
		t.Fatalf("%d records, want 12", len(records))
	}
	for i, r := range records {
		want := 1063
		if i == 0 {
			want = 524
		}
		if len(r) != want {
			t.Errorf("record %d has %d bytes, want %d", i+1, len(r), want)
		}
	}
	if got, want := string(records[1][114:139]), "G\xeete d'oeuvres - L\xf3dz ?? "; got != want {
		t.Errorf("header text %q, want %q", got, want)
	}
	if got, want := string(records[3][83:133]), "Stationnement  inclin\xe9  \xe9t\xe9 "+strings.Repeat("\xe9", 22); got != want {
		t.Errorf("item text %q, want %q", got, want)
	}
}

func TestCostObjectsGoToTheirOwnField(t *testing.T) {
	for kind, tt := range map[ObjectKind]struct {
		number, want string
		at, length   int
	}{
		CostCentre: {"4100", "0000004100", 297, 10},
		Order:      {"700123", "000000700123", 369, 12},
		WBS:        {"C.2026-118", "C.2026-118              ", 345, 24},
	} {
		d := sample()
		d.Lines[1].Object = CostObject{kind, tt.number}
		record := bytes.Split(write(t, Numbered{"0000000000260316", d}).Data, []byte("\n"))[3][63:]
		if got := string(record[tt.at : tt.at+tt.length]); got != tt.want {
			t.Errorf("%s %s is written %q at %d, want %q", kind, tt.number, got, tt.at, tt.want)
		}
	}
}

func TestDocumentCheckRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(d *Document)
		want  string
	}{
		"one cent off":                    {func(d *Document) { d.Lines[0].Amount++ }, "debits 608.01, credits 608.00"},
		"a tax line one cent off":         {func(d *Document) { d.Taxes[0].Amount-- }, "does not balance"},
		"a zero line":                     {func(d *Document) { d.Lines[1].Amount = 0 }, "line 2: amount is zero"},
		"tax without base":                {func(d *Document) { d.Taxes[0].Base = 0 }, "want both"},
		"tax and base of different signs": {func(d *Document) { d.Taxes[0].Base = 10000 }, "of one sign"},
		"a long reference":                {func(d *Document) { d.Reference += "X" }, "reference"},
		"no reference":                    {func(d *Document) { d.Reference = "" }, "reference"},
		"a short company code":            {func(d *Document) { d.CompanyCode = "100" }, "company code"},
		"an account with a blank":         {func(d *Document) { d.Lines[0].Account = "1131 50" }, "line 1: G/L account"},
		"an account too long":             {func(d *Document) { d.Lines[0].Account = "00001131500" }, "line 1: G/L account"},
		"an object without number":        {func(d *Document) { d.Lines[1].Object.Number = "" }, "line 2: cost-centre"},
		"an unknown object":               {func(d *Document) { d.Lines[1].Object.Kind = "fund" }, `"fund" is not`},
		"a tax code too long":             {func(d *Document) { d.Lines[2].TaxCode = "O12" }, "line 3: tax code"},
		"no posting date":                 {func(d *Document) { d.PostingDate = clock.Date{} }, "posting date"},
		"a single line":                   {func(d *Document) { d.Lines, d.Taxes = d.Lines[:1], nil }, "1 items"},
		"amounts beyond the range": {func(d *Document) {
			d.Lines[0].Amount, d.Lines[1].Amount = 1<<62, 1<<62
		}, "out of range"},
		"901 items": {func(d *Document) {
			for range 896 {
				d.Lines = append(d.Lines, Line{Account: "1", Amount: 1})
			}
		}, "901 items"},
	} {
		d := sample()
		tt.spoil(&d)
		if err := d.Check(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %q", name, err, tt.want)
		}
		w, err := NewWriter(settings())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.File("x.idoc", []Numbered{{"0000000000000001", d}}, written); err == nil {
			t.Errorf("%s: written all the same", name)
		}
	}
}

func TestFileRefusesNumbersThatAreNotOwnAndRising(t *testing.T) {
	w, err := NewWriter(settings())
	if err != nil {
		t.Fatal(err)
	}
	for name, numbers := range map[string][]string{
		"zero": {"0000000000000000"}, "too short": {"260316"}, "no digits": {"000000000026031X"},
		"the same twice": {"0000000000260316", "0000000000260316"}, "none": {},
	} {
		var docs []Numbered
		for _, n := range numbers {
			docs = append(docs, Numbered{n, sample()})
		}
		if _, err := w.File("x.idoc", docs, written); err == nil {
			t.Errorf("document number %s is accepted", name)
		}
	}
	for _, name := range []string{"", "../x", ".x", "x.tmp", "a b"} {
		if _, err := w.File(name, []Numbered{{"0000000000260316", sample()}}, written); err == nil {
			t.Errorf("file name %q is accepted", name)
		}
	}
}

func TestNewWriterNamesEveryBadSetting(t *testing.T) {
	s := settings()
	s.Client, s.User, s.ReceiverSystem = "1", "", "A SYSTEM"
	_, err := NewWriter(s)
	for _, want := range []string{"client", "user", "receiver system"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

func TestLayoutsThatOverlapAreRefused(t *testing.T) {
	const heading = "field,offset,length,type,certainty\n"
	for name, rows := range map[string]string{
		"overlap": "A,0,5,CHAR,\nB,4,1,CHAR,\n", "beyond the record": "A,995,6,CHAR,\n", "twice": "A,0,1,CHAR,\nA,1,1,CHAR,\n", "no number": "A,x,1,CHAR,\n",
	} {
		if _, err := loadLayouts(fstest.MapFS{"layout/S.csv": {Data: []byte(heading + rows)}}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestAmountText(t *testing.T) {
	for in, want := range map[money.Amount]string{151380000: "1513800.00", -151380000: "1513800.00-", 5: "0.05", -5: "0.05-"} {
		if got := amountText(in); got != want {
			t.Errorf("amountText(%d) = %q, want %q", in, got, want)
		}
	}
}
