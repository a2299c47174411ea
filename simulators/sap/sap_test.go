package sap

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"guichet/simulators/control"
)

// world is SAP on real files, under a clock that the test moves. It is Tuesday,
// 24 November 2026.
type world struct {
	*Simulator
	dir    string
	client ssh.Signer
	now    atomic.Pointer[time.Time]
}

func start(t *testing.T, dir string) *world {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{dir: dir}
	if w.client, err = ssh.NewSignerFromKey(key); err != nil {
		t.Fatal(err)
	}
	w.setNow(time.Date(2026, 11, 24, 14, 0, 0, 0, time.UTC))
	w.Simulator, err = New(Options{
		Now: func() time.Time { return *w.now.Load() }, Dir: dir, Log: slog.New(slog.DiscardHandler), ClientKey: w.client.PublicKey(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func (w *world) setNow(t time.Time) { w.now.Store(&t) }

func (w *world) path(folder, name string) string { return filepath.Join(w.dir, "files", folder, name) }

// deliver puts a file and its trigger into inbound and lets SAP look.
func (w *world) deliver(t *testing.T, name, data string) {
	t.Helper()
	for n, b := range map[string]string{name: data, name + ".json": "{}"} {
		if err := os.WriteFile(w.path(inbound, n), []byte(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.poll(t)
}

func (w *world) poll(t *testing.T) {
	t.Helper()
	if err := w.Poll(); err != nil {
		t.Fatal(err)
	}
}

func (w *world) plant(t *testing.T, f control.Fault) {
	t.Helper()
	if _, err := w.faults.Plant(f); err != nil {
		t.Fatal(err)
	}
}

func (w *world) list(t *testing.T, folder string) []string {
	t.Helper()
	entries, err := os.ReadDir(w.path(folder, ""))
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// said is an answer as a reader that knows nothing of this package sees it.
type said struct {
	States []struct {
		DocNum string `xml:"DOCNUM"`
		Status string `xml:"STATUS"`
		Code   string `xml:"STACOD"`
		Object struct {
			Type string `xml:"OBJTYPE"`
			Key  string `xml:"OBJKEY"`
		} `xml:"E1PRTOB"`
	} `xml:"IDOC>E1ADHDR>E1STATE"`
	Date string `xml:"IDOC>EDI_DC40>CREDAT"`
	Time string `xml:"IDOC>EDI_DC40>CRETIM"`
}

// takeAnswers reads and removes the answers in the order of their names.
func (w *world) takeAnswers(t *testing.T) []said {
	t.Helper()
	var out []said
	for _, n := range w.list(t, outbound) {
		b, err := os.ReadFile(w.path(outbound, n))
		if err != nil {
			t.Fatal(err)
		}
		var s said
		if err := xml.Unmarshal(b, &s); err != nil {
			t.Fatalf("%s: %v", n, err)
		}
		validate(t, w.path(outbound, n))
		out = append(out, s)
		if err := os.Remove(w.path(outbound, n)); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// validate holds an answer against the published structure of ALEAUD01.
func validate(t *testing.T, file string) {
	t.Helper()
	out, err := exec.Command("xmllint", "--noout", "--schema", "testdata/aleaud01.subset.xsd", file).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Log("xmllint is not installed; the schema was not checked")
	} else if err != nil {
		t.Errorf("xmllint: %v\n%s", err, out)
	}
}

// codes lists "status code" of an answer in order.
func codes(s said) []string {
	var out []string
	for _, x := range s.States {
		out = append(out, x.Status+" "+x.Code)
	}
	return out
}

// The tests write their files by hand, at the published offsets.

// at places texts at offsets of a blank record.
func at(length int, fields map[int]string) string {
	b := bytes.Repeat([]byte(" "), length)
	for off, text := range fields {
		copy(b[off:], text)
	}
	return string(b)
}

// doc is an IDoc to be spoiled: texts by offset in each record.
type doc struct {
	num     string
	control map[int]string
	names   []string
	segs    []map[int]string
	edit    func(lines []string) []string // of the finished records
}

const (
	he = "E2BPACHE09000"
	gl = "E2BPACGL09000"
	ar = "E2BPACAR09000"
	tx = "E2BPACTX09000"
	cr = "E2BPACCR09000"
	ex = "E2BPPAREX000"
)

func (d *doc) add(name string, fields map[int]string) {
	d.names, d.segs = append(d.names, name), append(d.segs, fields)
}

// inspection is an inspection of 163.00 with 13 % HST, paid into the bank.
func inspection(num string) *doc {
	d := &doc{num: num, control: map[int]string{
		0: "EDI_DC40", 10: "100", 13: num, 29: "46C", 35: "2", 39: "ACC_DOCUMENT03", 99: "ACC_DOCUMENT",
		148: "GUICHET", 158: "LS", 162: "GUICHET", 263: "SAPPRD", 273: "LS", 277: "PRDCLNT100", 378: "20261124", 386: "090000",
		434: "GUI2611240000001", 504: "20261124090000",
	}}
	d.add(he, map[int]string{35: "RFBU", 39: "GUICHET", 51: "GUICHET 2026-11-24", 76: "1000", 80: "20261124", 88: "20261124", 104: "2026", 108: "11", 110: "SA", 112: "GUI2611240000001"})
	d.add(gl, map[int]string{0: "0000000001", 10: "0000101000", 20: "CARD SETTLEMENT", 137: "1000", 200: "TR7K3M92QX"})
	d.add(gl, map[int]string{0: "0000000002", 10: "0000430200", 20: "INSPECTIONS \xc9T\xc9", 137: "1000", 218: "A1", 297: "0000004200"})
	d.add(tx, map[int]string{0: "0000000003", 10: "0000210500", 20: "MWAS", 24: "MWS", 27: "A1"})
	d.amount("0000000001", "184.19", "")
	d.amount("0000000002", "163.00-", "")
	d.amount("0000000003", "21.19-", "163.00-")
	return d
}

func (d *doc) amount(item, amount, base string) {
	d.add(cr, map[int]string{0: item, 10: "00", 12: "CAD", 17: "CAD", 20: amount, 72: base})
}

func (d *doc) text() string {
	lines := []string{at(524, d.control)}
	for i, fields := range d.segs {
		level := "02"
		if i == 0 {
			level = "01"
		}
		head := map[int]string{0: d.names[i], 30: "100", 33: d.num, 49: fmt.Sprintf("%06d", i+1), 55: "000000", 61: level}
		for off, text := range fields {
			head[63+off] = text
		}
		lines = append(lines, at(1063, head))
	}
	if d.edit != nil {
		lines = d.edit(lines)
	}
	return strings.Join(lines, "\n") + "\n"
}

func TestGoodDocumentIsPostedAndAnswered(t *testing.T) {
	w := start(t, t.TempDir())
	const num = "0000000000000017"
	w.deliver(t, "GUICHET_17.idoc", inspection(num).text())

	d := w.view(num).Documents
	if len(d) != 1 || d[0].Status != "53" || d[0].DoublePosting || d[0].SeenBefore {
		t.Fatalf("documents %+v", d)
	}
	want := []line{
		{Item: "0000000001", Kind: "GL", Account: "0000101000", AccountName: "Bank", Amount: 18419, Currency: "CAD", Text: "CARD SETTLEMENT", Assignment: "TR7K3M92QX"},
		{Item: "0000000002", Kind: "GL", Account: "0000430200", AccountName: "Permits revenue", CostCentre: "0000004200", TaxCode: "A1", Amount: -16300, Currency: "CAD", Text: "INSPECTIONS ÉTÉ"},
		{Item: "0000000003", Kind: "TX", Account: "0000210500", AccountName: "HST payable", TaxCode: "A1", Amount: -2119, Base: -16300, Currency: "CAD"},
	}
	if !slices.Equal(d[0].Lines, want) {
		t.Errorf("lines %+v", d[0].Lines)
	}
	if h := d[0].Header; h.Reference != "GUI2611240000001" || h.PostingDate != "20261124" || h.DocumentType != "SA" {
		t.Errorf("header %+v", h)
	}
	if *d[0].Posting != (posting{"0100000001", "1000", "2026"}) {
		t.Errorf("posting %+v", d[0].Posting)
	}
	if in, arc := w.list(t, inbound), w.list(t, archive); len(in) != 0 || !slices.Equal(arc, []string{"GUICHET_17.idoc", "GUICHET_17.idoc.json"}) {
		t.Errorf("inbound %v, archive %v", in, arc)
	}

	answers := w.takeAnswers(t)
	if len(answers) != 1 || !slices.Equal(codes(answers[0]), []string{"53 SAPRW605"}) {
		t.Fatalf("answers %+v", answers)
	}
	x := answers[0].States[0]
	if x.DocNum != num || x.Object.Type != "BUS6035" || x.Object.Key != "BKPFF010000000110002026  PRDCLNT100" {
		t.Errorf("answer %+v", x)
	}
	if answers[0].Date != "20261124" || answers[0].Time != "090000" { // Toronto
		t.Errorf("stamp %s %s", answers[0].Date, answers[0].Time)
	}
	w.poll(t)
	if got := w.takeAnswers(t); got != nil {
		t.Errorf("answered again: %+v", got)
	}
}

// TestAnswersHaveTheShapeOfTheSamples compares element paths.
func TestAnswersHaveTheShapeOfTheSamples(t *testing.T) {
	w := start(t, t.TempDir())
	w.plant(t, control.Fault{Kind: "reject", Target: "0000000000000002"})
	w.deliver(t, "a.idoc", inspection("0000000000000001").text())
	w.deliver(t, "b.idoc", inspection("0000000000000002").text())
	names := w.list(t, outbound)
	if len(names) != 2 {
		t.Fatalf("answers %v", names)
	}
	for i, sample := range []string{"testdata/aleaud01.posted.xml", "testdata/aleaud01.error.xml"} {
		want, got := elements(t, sample), elements(t, w.path(outbound, names[i]))
		for _, own := range []string{"STAPA2_LNG", "STAPA3_LNG"} {
			want["ALEAUD01/IDOC/E1ADHDR/E1STATE/"+own] = true // in the schema, not in the sample
		}
		for p := range want {
			if !got[p] {
				t.Errorf("%s lacks %s", names[i], p)
			}
		}
		for p := range got {
			if !want[p] {
				t.Errorf("%s has %s, which the sample has not", names[i], p)
			}
		}
	}
}

func elements(t *testing.T, file string) map[string]bool {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	var stack []string
	d := xml.NewDecoder(bytes.NewReader(b))
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			stack = append(stack, tok.Name.Local)
			out[strings.Join(stack, "/")] = true
		case xml.EndElement:
			stack = stack[:len(stack)-1]
		}
	}
}

// TestPublishedSampleIsReadAtItsOffsets: the sample posts to accounts that this
// SAP does not have; everything else about it is right.
func TestPublishedSampleIsReadAtItsOffsets(t *testing.T) {
	w := start(t, t.TempDir())
	if err := w.setPeriods([]string{"2026-03"}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("testdata/sample.idoc.txt")
	if err != nil {
		t.Fatal(err)
	}
	w.deliver(t, "sample.idoc", string(b))
	d := w.view("").Documents[0]
	if d.Status != "51" || len(d.Lines) != 5 || d.Lines[2].Text != "RECREATION REGISTRATION" || d.Lines[4].Base != -10000 {
		t.Errorf("document %+v", d)
	}
	for _, m := range d.Messages[1:] {
		if !slices.Contains([]string{"931", "937"}, m.Number) { // unknown accounts and tax code
			t.Errorf("refused for %s", m)
		}
	}
}

func TestChecks(t *testing.T) {
	const num = "0000000000000017"
	set := func(record, off int, text string) func(*doc) {
		return func(d *doc) {
			if record == 0 {
				d.control[off] = text
				return
			}
			d.segs[record-1][off] = text
		}
	}
	edit := func(f func(lines []string) []string) func(*doc) { return func(d *doc) { d.edit = f } }
	replace := func(record, off int, text string) func(*doc) { // in the finished record, header included
		return edit(func(lines []string) []string {
			l := lines[record]
			lines[record] = l[:off] + text + l[off+len(text):]
			return lines
		})
	}
	tests := []struct {
		name   string
		change func(*doc)
		want   string // status and the first message after RW 609
	}{
		{"nothing wrong", func(*doc) {}, "53"},
		{"levels left out", func(d *doc) {
			d.edit = func(lines []string) []string {
				for i := range lines[1:] {
					lines[i+1] = lines[i+1][:55] + strings.Repeat(" ", 8) + lines[i+1][63:]
				}
				return lines
			}
		}, "53"},
		{"an extension behind the amounts", func(d *doc) { d.add(ex, map[int]string{0: "ZSTRUCT", 30: "x"}) }, "53"},
		{"no period in the header", func(d *doc) { set(1, 104, "    ")(d); set(1, 108, "  ")(d) }, "53"},

		// 56: records and control record
		{"a record too short", edit(func(l []string) []string { l[2] = l[2][:1062]; return l }), "56 E0 901"},
		{"a carriage return", edit(func(l []string) []string { l[2] += "\r"; return l }), "56 E0 902"},
		{"UTF-8 moves the columns", edit(func(l []string) []string { l[3] = strings.Replace(l[3], "\xc9", "É", 1); return l }), "56 E0 902"},
		{"a control record too long", edit(func(l []string) []string { l[0] += " "; return l }), "56 E0 901"},
		{"another client", set(0, 10, "200"), "56 E0 903"},
		{"a number that is not padded", func(d *doc) { d.num = "17              "; d.control[13] = d.num }, "56 E0 903"},
		{"the number zero", func(d *doc) { d.num = "0000000000000000"; d.control[13] = d.num }, "56 E0 903"},
		{"outbound", set(0, 35, "1"), "56 E0 903"},
		{"the test flag", set(0, 38, "X"), "56 E0 903"},
		{"another type", set(0, 39, "ACC_DOCUMENT99"), "56 E0 903"},
		{"another message", set(0, 99, "ACC_EMPLOYEE"), "56 E0 903"},
		{"an unknown partner", set(0, 162, "NOBODY "), "56 E0 903"},
		{"a receiver that is not this", set(0, 277, "QASCLNT100"), "56 E0 903"},
		{"no such day", set(0, 378, "20261131"), "56 E0 903"},
		{"a name that is not left-justified", set(0, 148, " GUICHET"), "56 E0 903"},

		// 60: segments
		{"an unknown segment", func(d *doc) { d.names[1] = "E2BPACGL08000" }, "60 E0 911"},
		{"another version of a segment", func(d *doc) { d.names[1] = "E2BPACGL09001" }, "60 E0 911"},
		{"an amount before the items", func(d *doc) { d.names[1], d.names[6] = d.names[6], d.names[1] }, "60 E0 912"},
		{"no header", func(d *doc) { d.names, d.segs = d.names[1:], d.segs[1:] }, "60 E0 914"},
		{"two headers", func(d *doc) {
			d.names = slices.Insert(d.names, 1, he)
			d.segs = slices.Insert(d.segs, 1, d.segs[0])
		}, "60 E0 914"},
		{"one amount", func(d *doc) { d.names, d.segs = d.names[:5], d.segs[:5] }, "60 E0 914"},
		{"a number left out of SEGNUM", replace(3, 49, "000004"), "60 E0 913"},
		{"a data record of another document", replace(3, 33, "0000000000000018"), "60 E0 913"},
		{"a wrong level", replace(3, 61, "01"), "60 E0 913"},
		{"a parent", replace(3, 55, "000001"), "60 E0 913"},

		// 51: field formats
		{"an account one column too far", func(d *doc) { delete(d.segs[1], 10); d.segs[1][11] = "000010100" }, "51 ZG 921"},
		{"an item number that is not padded", func(d *doc) { d.segs[1][0] = "1         " }, "51 ZG 921"},
		{"item number zero", func(d *doc) { d.segs[1][0] = "0000000000"; d.segs[4][0] = "0000000000" }, "51 ZG 921"},
		{"a value date that is none", set(2, 167, "2026-11-"), "51 ZG 921"},
		{"minus in front", set(6, 20, "-163.00"), "51 ZG 921"},
		{"a decimal comma", set(6, 20, "163,00-"), "51 ZG 921"},
		{"thousands separators", set(6, 20, "1.163.00-"), "51 ZG 921"},
		{"text behind the last field", set(1, 300, "x"), "51 ZG 922"},

		// 51: header
		{"no user", set(1, 39, "       "), "51 ZG 923"},
		{"no reference", set(1, 112, strings.Repeat(" ", 16)), "51 ZG 923"},
		{"another business transaction", set(1, 35, "RMRP"), "51 ZG 924"},
		{"a number that SAP gives", set(1, 128, "0100000001"), "51 ZG 924"},
		{"a period that is not the posting date's", set(1, 108, "10"), "51 ZG 924"},
		{"an unknown company code", set(1, 76, "2000"), "51 ZG 925"},
		{"an unknown document type", set(1, 110, "ZZ"), "51 ZG 926"},
		{"a closed period", func(d *doc) { set(1, 88, "20260930")(d); set(1, 108, "09")(d) }, "51 ZG 927"},
		{"a period to come", func(d *doc) { set(1, 88, "20261201")(d); set(1, 108, "12")(d) }, "51 ZG 927"},

		// 51: items
		{"an unknown account", set(2, 10, "0000999999"), "51 ZG 931"},
		{"revenue without a cost object", set(3, 297, "          "), "51 ZG 932"},
		{"revenue with two cost objects", set(3, 369, "000000700001"), "51 ZG 932"},
		{"bank with a cost centre", set(2, 297, "0000004200"), "51 ZG 933"},
		{"an unknown cost centre", set(3, 297, "0000004201"), "51 ZG 934"},
		{"a cost centre that is not padded", set(3, 297, "4200      "), "51 ZG 934"},
		{"an unknown order", func(d *doc) { set(3, 297, "          ")(d); set(3, 369, "000000700001")(d) }, "51 ZG 934"},
		{"a fund", set(3, 408, "F1"), "51 ZG 934"},
		{"a customer item", func(d *doc) {
			d.names = slices.Insert(d.names, 3, ar)
			d.segs = slices.Insert(d.segs, 3, map[int]string{0: "0000000004", 10: "0000001234"})
			d.amount("0000000004", "1.00", "")
		}, "51 ZG 934"},
		{"HST on a G/L item", set(2, 10, "0000210500"), "51 ZG 935"},
		{"tax on a revenue account", set(4, 10, "0000430200"), "51 ZG 936"},
		{"an unknown tax code", func(d *doc) { set(3, 218, "B7")(d); set(4, 27, "B7")(d) }, "51 ZG 937"},
		{"a tax item without a code", set(4, 27, "  "), "51 ZG 937"},
		{"an item number twice", func(d *doc) { d.segs[2][0] = "0000000001" }, "51 ZG 938"},
		{"an item of another company code", set(2, 137, "2000"), "51 ZG 925"},

		// 51: amounts
		{"an item without an amount", func(d *doc) { d.segs[5][0] = "0000000001" }, "51 ZG 939"},
		{"an amount without an item", func(d *doc) { d.amount("0000000009", "1.00", "") }, "51 ZG 940"},
		{"another currency", func(d *doc) { d.segs[5][12], d.segs[5][17] = "USD", "USD" }, "51 ZG 941"},
		{"an unknown currency type", set(6, 10, "30"), "51 ZG 941"},
		{"an amount of zero", func(d *doc) { d.segs[4][20] = "0.00  "; d.segs[5][20] = "0.00   " }, "51 ZG 942"},
		{"one cent off", set(5, 20, "184.20"), "51 RW 022"},
		{"company code currency that does not balance", func(d *doc) {
			for i, a := range []string{"184.19", "163.00-", "21.18-"} {
				d.add(cr, map[int]string{0: fmt.Sprintf("%010d", i+1), 10: "10", 12: "CAD", 17: "CAD", 20: a})
			}
		}, "51 RW 022"},
		{"company code currency beside", func(d *doc) {
			for i, a := range []string{"184.19", "163.00-", "21.19-"} {
				d.add(cr, map[int]string{0: fmt.Sprintf("%010d", i+1), 10: "10", 12: "CAD", 17: "CAD", 20: a})
			}
		}, "53"},

		// 51: tax
		{"a base that is not the items'", set(7, 72, "162.00-"), "51 ZG 951"},
		{"no base", set(7, 72, "       "), "51 ZG 951"},
		{"tax of another rate", func(d *doc) { d.segs[6][20] = "8.15-  "; d.segs[4][20] = "171.15" }, "51 ZG 952"},
		{"tax on the other side", func(d *doc) { d.segs[6][20] = "21.19 "; d.segs[4][20] = "141.81" }, "51 ZG 952"},
		{"tax without a tax item", func(d *doc) {
			d.names, d.segs = slices.Delete(d.names, 3, 4), slices.Delete(d.segs, 3, 4)
			d.names, d.segs = d.names[:5], d.segs[:5]
			d.segs[3][20] = "163.00"
		}, "51 ZG 953"},
		{"the rounding of a few bills is tolerated", func(d *doc) { d.segs[6][20] = "21.25-"; d.segs[4][20] = "184.25" }, "53"},
		{"a code without tax", func(d *doc) {
			d.names, d.segs = slices.Delete(d.names, 3, 4), slices.Delete(d.segs, 3, 4)
			d.names, d.segs = d.names[:5], d.segs[:5]
			d.segs[2][218], d.segs[3][20] = "A0", "163.00"
		}, "53"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := start(t, t.TempDir())
			d := inspection(num)
			tt.change(d)
			w.deliver(t, "x.idoc", d.text())
			docs := w.view("").Documents
			if len(docs) != 1 {
				t.Fatalf("documents %+v, files %+v", docs, w.view("").Files)
			}
			got := docs[0].Status
			messages := docs[0].Messages
			if got == "51" {
				if messages[0].Class+messages[0].Number != "RW609" {
					t.Errorf("first message %+v, want RW 609", messages[0])
				}
				messages = messages[1:]
			}
			if got != "53" {
				got += " " + messages[0].Class + " " + messages[0].Number
			}
			if got != tt.want {
				t.Errorf("got %s, want %s: %v", got, tt.want, docs[0].Messages)
			}
			for _, m := range docs[0].Messages {
				if len(m.Text) > maxText || strings.Contains(m.String(), "&") {
					t.Errorf("message %q reads %q", m.Text, m)
				}
			}
			if a := w.takeAnswers(t); len(a) != 1 || a[0].States[0].Status != docs[0].Status {
				t.Errorf("answers %+v", a)
			}
		})
	}
}

func TestTooManyItems(t *testing.T) {
	for n, want := range map[int]string{999: "53", 1000: "51"} {
		w := start(t, t.TempDir())
		d := inspection("0000000000000017")
		d.names, d.segs = d.names[:1], d.segs[:1]
		for i := range n {
			d.add(gl, map[int]string{0: fmt.Sprintf("%010d", i+1), 10: "0000219000"})
		}
		for i := range n - 1 {
			d.amount(fmt.Sprintf("%010d", i+1), "1.00", "")
		}
		d.amount(fmt.Sprintf("%010d", n), fmt.Sprintf("%d.00-", n-1), "")
		w.deliver(t, "x.idoc", d.text())
		got := w.view("").Documents[0]
		if got.Status != want || want == "51" && got.Messages[1].Class+got.Messages[1].Number != "F5727" {
			t.Errorf("%d items: %s %v", n, got.Status, got.Messages)
		}
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	for name, data := range map[string]string{
		"empty": "", "no control record": at(1063, map[int]string{0: he}) + "\n", "another format": "<?xml version=\"1.0\"?>\n",
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, t.TempDir())
			w.deliver(t, "x.idoc", data)
			v := w.view("")
			if len(v.Files) != 1 || v.Files[0].Trouble == "" || len(v.Documents) != 0 || len(w.list(t, outbound)) != 0 {
				t.Errorf("%+v", v)
			}
			if got := w.list(t, archive); len(got) != 2 {
				t.Errorf("archive %v", got)
			}
		})
	}
	t.Run("cut in the middle", func(t *testing.T) {
		w := start(t, t.TempDir())
		text := inspection("0000000000000017").text()
		w.deliver(t, "x.idoc", text[:len(text)-500])
		if d := w.view("").Documents; len(d) != 1 || d[0].Status != "56" {
			t.Errorf("%+v", d)
		}
	})
}

func TestHalfADeliveryIsLeftAlone(t *testing.T) {
	w := start(t, t.TempDir())
	text := inspection("0000000000000017").text()
	put := func(name, data string) {
		t.Helper()
		if err := os.WriteFile(w.path(inbound, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		w.poll(t)
	}
	put("x.idoc.tmp", text[:600])
	put("x.idoc.tmp.json", "{}")
	put(".hidden", text)
	put(".hidden.json", "{}")
	put("y.json", "{}")
	put("x.idoc", text)
	if v := w.view(""); len(v.Files) != 0 {
		t.Fatalf("read %+v before it was complete", v.Files)
	}
	put("x.idoc.json", "{}")
	if v := w.view(""); len(v.Files) != 1 || len(v.Documents) != 1 {
		t.Errorf("complete file: %+v", v)
	}
	if got := w.list(t, inbound); !slices.Equal(got, []string{".hidden", ".hidden.json", "x.idoc.tmp", "x.idoc.tmp.json", "y.json"}) {
		t.Errorf("inbound %v", got)
	}
}

func TestSeveralDocumentsInAFile(t *testing.T) {
	w := start(t, t.TempDir())
	bad := inspection("0000000000000002")
	bad.segs[4][20] = "184.20"
	w.deliver(t, "x.idoc", inspection("0000000000000001").text()+bad.text()+inspection("0000000000000003").text())
	var got []string
	for _, d := range w.view("").Documents {
		number := ""
		if d.Posting != nil {
			number = " " + d.Posting.Document
		}
		got = append(got, d.DocNum[15:]+" "+d.Status+number)
	}
	if want := []string{"3 53 0100000002", "2 51", "1 53 0100000001"}; !slices.Equal(got, want) {
		t.Errorf("documents %v, want %v", got, want)
	}
	if a := w.takeAnswers(t); len(a) != 1 || !slices.Equal(codes(a[0]), []string{"53 SAPRW605", "51 SAPRW609", "51 SAPRW022", "53 SAPRW605"}) {
		t.Errorf("answers %+v", a)
	}
}

func TestSecondDeliveryIsPostedAgainAndFlagged(t *testing.T) {
	const num = "0000000000000017"
	for name, second := range map[string]string{"under another name": "b.idoc", "under the same name": "a.idoc"} {
		t.Run(name, func(t *testing.T) {
			w := start(t, t.TempDir())
			w.deliver(t, "a.idoc", inspection(num).text())
			w.deliver(t, second, inspection(num).text())
			v := w.view("")
			if len(v.Documents) != 2 || v.Doubles != 1 || !v.Documents[0].DoublePosting || v.Documents[1].DoublePosting {
				t.Fatalf("%+v", v)
			}
			if v.Documents[0].Posting.Document == v.Documents[1].Posting.Document {
				t.Error("both have the same FI document")
			}
			if got := w.list(t, archive); len(got) != 4 {
				t.Errorf("archive %v", got)
			}
		})
	}
	t.Run("a refused number that comes again is no double posting", func(t *testing.T) {
		w := start(t, t.TempDir())
		w.plant(t, control.Fault{Kind: "reject"})
		w.deliver(t, "a.idoc", inspection(num).text())
		w.deliver(t, "b.idoc", inspection(num).text())
		if d := w.view("").Documents[0]; d.Status != "53" || d.DoublePosting || !d.SeenBefore {
			t.Errorf("%+v", d)
		}
	})
}

func TestFaults(t *testing.T) {
	const num = "0000000000000017"
	hour := control.Duration(time.Hour)
	type step struct {
		after time.Duration
		want  []string // status of each answer's last state, with its stamp
	}
	tests := []struct {
		name  string
		fault control.Fault
		steps []step
	}{
		{"late", control.Fault{Kind: "late", Delay: hour}, []step{{0, nil}, {time.Hour, []string{"53 100000"}}, {0, nil}}},
		{"twice", control.Fault{Kind: "twice", Delay: hour}, []step{{0, []string{"51 090000"}}, {time.Hour, []string{"53 100000"}}}},
		{"twice at once", control.Fault{Kind: "twice"}, []step{{0, []string{"51 090000"}}, {time.Second, []string{"53 090001"}}}},
		{"out of order", control.Fault{Kind: "out-of-order", Delay: hour}, []step{{0, []string{"53 090001"}}, {time.Hour, []string{"51 090000"}}}},
		{"out of order at once", control.Fault{Kind: "out-of-order"}, []step{{0, []string{"53 090001", "51 090000"}}}},
		{"never", control.Fault{Kind: "never"}, []step{{0, nil}, {24 * time.Hour, nil}}},
		{"reject", control.Fault{Kind: "reject", Target: num}, []step{{0, []string{"51 090000"}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			w := start(t, dir)
			w.plant(t, tt.fault)
			w.deliver(t, "x.idoc", inspection(num).text())
			for i, s := range tt.steps {
				// Each step in a new process: what was planned survives a kill.
				next := start(t, dir)
				next.setNow(w.now.Load().Add(s.after))
				next.poll(t)
				w = next
				var got []string
				for _, a := range w.takeAnswers(t) {
					got = append(got, a.States[len(a.States)-1].Status+" "+a.Time)
				}
				if !slices.Equal(got, s.want) {
					t.Errorf("step %d: answers %v, want %v", i, got, s.want)
				}
			}
		})
	}
	t.Run("reject every second", func(t *testing.T) {
		w := start(t, t.TempDir())
		w.plant(t, control.Fault{Kind: "reject", Times: -1, Every: 2})
		for i := range 4 {
			w.deliver(t, fmt.Sprintf("%d.idoc", i), inspection(fmt.Sprintf("%016d", i+1)).text())
		}
		var got []string
		for _, d := range w.view("").Documents {
			got = append(got, d.Status)
		}
		if !slices.Equal(got, []string{"51", "53", "51", "53"}) {
			t.Errorf("statuses, newest first: %v", got)
		}
	})
	t.Run("unknown", func(t *testing.T) {
		w := start(t, t.TempDir())
		w.plant(t, control.Fault{Kind: "unknown"})
		w.deliver(t, "x.idoc", inspection(num).text())
		a := w.takeAnswers(t)
		if len(a) != 1 || len(a[0].States) != 2 || a[0].States[0].DocNum != nobodys || a[0].States[1].DocNum != num {
			t.Errorf("answers %+v", a)
		}
	})
}

// TestKillAtEveryStep cuts the journal behind each of its lines and puts the
// files where they lay at that moment.
func TestKillAtEveryStep(t *testing.T) {
	const num = "0000000000000017"
	text := inspection(num).text()
	whole := start(t, t.TempDir())
	whole.deliver(t, "x.idoc", text)
	journal, err := os.ReadFile(filepath.Join(whole.dir, "journal.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(bytes.TrimSuffix(journal, []byte("\n")), []byte("\n"))
	if len(lines) != 3 { // read and decided, archived, answered
		t.Fatalf("journal has %d lines", len(lines))
	}
	put := func(w *world, folder, name, data string) {
		t.Helper()
		if err := os.WriteFile(w.path(folder, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	begin := func(keep int, torn string) (dir string) {
		t.Helper()
		dir = t.TempDir()
		for _, f := range []string{inbound, outbound, archive} {
			if err := os.MkdirAll(filepath.Join(dir, "files", f), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		b := append(bytes.Join(lines[:keep], nil), torn...)
		if err := os.WriteFile(filepath.Join(dir, "journal.jsonl"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	tests := []struct {
		name string
		keep int
		torn string
		lay  func(w *world)
	}{
		{"before anything", 0, "", func(w *world) { put(w, inbound, "x.idoc", text); put(w, inbound, "x.idoc.json", "{}") }},
		{"in the middle of the first line", 0, string(lines[0][:100]), func(w *world) { put(w, inbound, "x.idoc", text); put(w, inbound, "x.idoc.json", "{}") }},
		{"decided, not moved", 1, "", func(w *world) { put(w, inbound, "x.idoc", text); put(w, inbound, "x.idoc.json", "{}") }},
		{"file moved, trigger not", 1, "", func(w *world) { put(w, archive, "x.idoc", text); put(w, inbound, "x.idoc.json", "{}") }},
		{"both moved, not written down", 1, "", func(w *world) { put(w, archive, "x.idoc", text); put(w, archive, "x.idoc.json", "{}") }},
		{"moved, not answered", 2, "", func(w *world) { put(w, archive, "x.idoc", text); put(w, archive, "x.idoc.json", "{}") }},
		{"answered half", 2, "", func(w *world) {
			put(w, archive, "x.idoc", text)
			put(w, archive, "x.idoc.json", "{}")
			put(w, outbound, ".ALEAUD_0000000000778001.xml.tmp", "<ALEAUD01>")
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := start(t, begin(tt.keep, tt.torn))
			tt.lay(w)
			w.poll(t)
			w.poll(t)
			v := w.view("")
			if len(v.Documents) != 1 || v.Doubles != 0 || v.Documents[0].Status != "53" || v.Waiting != 0 {
				t.Errorf("%+v", v)
			}
			if in, arc := w.list(t, inbound), w.list(t, archive); len(in) != 0 || !slices.Equal(arc, []string{"x.idoc", "x.idoc.json"}) {
				t.Errorf("inbound %v, archive %v", in, arc)
			}
			if a := w.takeAnswers(t); len(a) != 1 || a[0].States[0].Status != "53" {
				t.Errorf("answers %+v", a)
			}
		})
	}
	t.Run("another file of the same name came meanwhile", func(t *testing.T) {
		w := start(t, begin(1, ""))
		put(w, archive, "x.idoc", text)
		put(w, archive, "x.idoc.json", "{}")
		put(w, inbound, "x.idoc", inspection("0000000000000018").text())
		put(w, inbound, "x.idoc.json", "{}")
		w.poll(t)
		if v := w.view(""); len(v.Documents) != 2 || v.Doubles != 0 || v.Files[0].Archived != "x.idoc.2" || v.Files[1].Archived != "x.idoc" {
			t.Errorf("%+v", v)
		}
	})
}

func TestPeopleAtSAPDecide(t *testing.T) {
	w := start(t, t.TempDir())
	srv := httptest.NewServer(w.Handler())
	defer srv.Close()
	call := func(method, path, body string) (int, string) {
		t.Helper()
		req, _ := http.NewRequest(method, srv.URL+path, strings.NewReader(body))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	closed := inspection("0000000000000001") // of a closed period
	closed.segs[0][88], closed.segs[0][108] = "20260930", "09"
	w.deliver(t, "a.idoc", closed.text())
	w.plant(t, control.Fault{Kind: "reject"})
	w.deliver(t, "b.idoc", inspection("0000000000000002").text())
	w.takeAnswers(t)
	first, second := w.view("0000000000000001").Documents[0].IDoc, w.view("0000000000000002").Documents[0].IDoc
	again := func(idoc string) string { return "/_control/documents/" + idoc + "/reprocess" }
	end := func(idoc string) string { return "/_control/documents/" + idoc + "/close" }

	if status, body := call("POST", again(first), ""); status != 200 || !strings.Contains(body, `"status":"51"`) {
		t.Errorf("while the period is closed: %d %s", status, body)
	}
	if status, body := call("PUT", "/_control/periods", `{"open":["2026-09"]}`); status != 200 {
		t.Fatalf("open the period: %d %s", status, body)
	}
	if status, body := call("POST", again(first), ""); status != 200 || !strings.Contains(body, `"status":"53"`) {
		t.Errorf("when the period is open: %d %s", status, body)
	}
	if status, body := call("POST", end(second), ""); status != 200 || !strings.Contains(body, `"status":"68"`) {
		t.Errorf("close: %d %s", status, body)
	}
	for path, want := range map[string]int{again(first): 409, end(first): 409, again(second): 409, end(second): 409, end("1"): 404} {
		if status, body := call("POST", path, ""); status != want {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, _ := call("PUT", "/_control/periods", `{"open":["2026-9"]}`); status != 422 {
		t.Errorf("a period that is none: %d", status)
	}
	if status, body := call("PUT", "/_control/periods", `{"open":null}`); status != 200 || !strings.Contains(body, `["2026-10","2026-11"]`) {
		t.Errorf("by the clock: %d %s", status, body)
	}
	if got := start(t, w.dir).openPeriods(); !slices.Equal(got, []string{"2026-10", "2026-11"}) {
		t.Errorf("after a kill: %v", got)
	}
	var got []string
	for _, a := range w.takeAnswers(t) {
		got = append(got, a.States[0].DocNum[15:]+" "+a.States[0].Status)
	}
	if want := []string{"1 51", "1 53", "2 68"}; !slices.Equal(got, want) {
		t.Errorf("answers %v, want %v", got, want)
	}
}

func TestPagesAndJSON(t *testing.T) {
	w := start(t, t.TempDir())
	srv := httptest.NewServer(w.Handler())
	defer srv.Close()
	get := func(path string) (int, string) {
		t.Helper()
		resp, err := http.Get(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	if status, body := get("/"); status != 200 || !strings.Contains(body, "Nothing has arrived.") {
		t.Errorf("empty page: %d\n%s", status, body)
	}
	d := inspection("0000000000000001")
	d.segs[1][20] = "<script>alert(1)</script>"
	w.deliver(t, "a.idoc", d.text())
	w.deliver(t, "b.idoc", d.text())
	for path, want := range map[string]string{
		"/":                           "Double posting.",
		"/documents/0000000004711002": "Double posting.",
		"/documents/0000000004711001": "&lt;script&gt;",
		"/_control/files":             `"name":"b.idoc"`,
		"/_control/periods":           `{"open":["2026-10","2026-11"]}`,
		"/_control/host-key":          `{"host_key":"ssh-ed25519 `,
	} {
		if status, body := get(path); status != 200 || !strings.Contains(body, want) || strings.Contains(body, "<script>alert") {
			t.Errorf("%s: %d lacks %s\n%s", path, status, want, body)
		}
	}
	if status, _ := get("/documents/1"); status != 404 {
		t.Errorf("unknown document: %d", status)
	}
	_, body := get("/_control/documents?docnum=0000000000000001")
	var list struct {
		Data []struct {
			IDoc    string
			Status  string
			Double  bool `json:"double_posting"`
			Answers []struct {
				File    string
				Written bool
			}
			Lines []struct {
				Amount int64 `json:"amount_cents"`
			}
		}
		Doubles int `json:"double_postings"`
	}
	if err := json.Unmarshal([]byte(body), &list); err != nil || len(list.Data) != 2 || list.Doubles != 1 || !list.Data[0].Double ||
		list.Data[0].Lines[0].Amount != 18419 || !list.Data[0].Answers[0].Written {
		t.Errorf("%v: %s", err, body)
	}
}

func FuzzSplit(f *testing.F) {
	f.Add([]byte(inspection("0000000000000017").text()))
	sample, err := os.ReadFile("testdata/sample.idoc.txt")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sample)
	f.Add([]byte("EDI_DC40\nEDI_DC40  100\n"))
	s := &Simulator{o: Options{Client: "100", System: "PRDCLNT100", Partner: "GUICHET", Now: func() time.Time { return time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC) }}}
	f.Fuzz(func(t *testing.T, data []byte) {
		docs, _ := s.split(data)
		for _, d := range docs {
			doc := &document{}
			s.judge(doc, d, nil)
			if doc.Status == "53" {
				var total int64
				for _, l := range doc.Lines {
					total += int64(l.Amount)
				}
				if total != 0 || len(doc.Lines) < 2 {
					t.Errorf("posted lines %+v", doc.Lines)
				}
			}
		}
	})
}
