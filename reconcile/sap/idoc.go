package sap

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"guichet/internal/clock"
	"guichet/internal/money"
)

// messageType is the message type of every document we send.
const messageType = "ACC_DOCUMENT"

// Settings are the names a city and its SAP have agreed on.
type Settings struct {
	IDocType       string // IDOCTYP: "ACC_DOCUMENT03"; 04 and 05 have the same segments
	Client         string // MANDT: SAP client, 3 digits
	Release        string // DOCREL: "46C", "731"
	SenderPort     string // SNDPOR
	SenderSystem   string // SNDPRN: our logical system
	ReceiverPort   string // RCVPOR: "SAP" and the system's id
	ReceiverSystem string // RCVPRN: SAP's logical system, "PRDCLNT100"
	User           string // USERNAME of the posting
	SegmentVersion string // suffix of the external segment names: "000"
	TaxCondition   string // COND_KEY of tax items: "MWAS" is output tax
	TaxKey         string // ACCT_KEY of tax items: "MWS"
}

// check returns every setting that is missing or does not fit.
func (s Settings) check() error {
	var errs []error
	for _, f := range []struct {
		name, value string
		least, most int
	}{
		{"IDoc type", s.IDocType, 1, 30},
		{"client", s.Client, 3, 3},
		{"release", s.Release, 0, 4},
		{"sender port", s.SenderPort, 1, 10},
		{"sender system", s.SenderSystem, 1, 10},
		{"receiver port", s.ReceiverPort, 1, 10},
		{"receiver system", s.ReceiverSystem, 1, 10},
		{"user", s.User, 1, 12},
		{"segment version", s.SegmentVersion, 0, 3},
		{"tax condition", s.TaxCondition, 0, 4},
		{"tax key", s.TaxKey, 0, 3},
	} {
		if !isKey(f.value, f.least, f.most) {
			errs = append(errs, fmt.Errorf("SAP setting %s %q: want %d to %d letters or digits", f.name, f.value, f.least, f.most))
		}
	}
	return errors.Join(errs...)
}

// A Writer writes flat IDoc files. It keeps no state and may be used by many
// goroutines at once.
type Writer struct {
	settings Settings
	layouts  map[string]layout
}

// NewWriter checks the settings, all at once, and loads the record layouts.
func NewWriter(s Settings) (*Writer, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	layouts, err := loadLayouts(layoutFiles)
	if err != nil {
		return nil, err
	}
	return &Writer{settings: s, layouts: layouts}, nil
}

// A Numbered document has its IDoc number: 16 digits, given once and for ever.
type Numbered struct {
	DocNum string
	Document
}

// A File is one hand-over: the bytes for SAP, and the bytes of the manifest that
// follows and says they are whole. Keep both: sending again sends the same.
type File struct {
	Name     string
	Data     []byte
	Manifest []byte
}

// ManifestName is the name the manifest is handed over under.
func (f File) ManifestName() string { return f.Name + ".json" }

// A Manifest lets the receiver check a file before it takes it. Amounts are plain
// decimals.
type Manifest struct {
	File        string `json:"file"`
	SHA256      string `json:"sha256"`
	Bytes       int    `json:"bytes"`
	IDocs       int    `json:"idocs"`
	Segments    int    `json:"segments"` // data records, without the control records
	Currency    string `json:"currency"`
	Debits      string `json:"debits"`
	Credits     string `json:"credits"`
	FirstDocNum string `json:"first_docnum"`
	LastDocNum  string `json:"last_docnum"`
}

// File writes documents of one currency into one file, in the order given.
// The same arguments give the same bytes.
func (w *Writer) File(name string, docs []Numbered, at time.Time) (File, error) {
	if !isFileName(name) {
		return File{}, fmt.Errorf("file name %q: want letters, digits, points, dashes", name)
	}
	if len(docs) == 0 {
		return File{}, fmt.Errorf("file %s: no documents", name)
	}
	var out bytes.Buffer
	m := Manifest{File: name, IDocs: len(docs), Currency: docs[0].Currency}
	var debits, credits money.Amount
	for i, d := range docs {
		if d.Currency != m.Currency {
			return File{}, fmt.Errorf("file %s: documents in %s and %s", name, m.Currency, d.Currency)
		}
		if i > 0 && d.DocNum <= docs[i-1].DocNum {
			return File{}, fmt.Errorf("file %s: document number %s after %s", name, d.DocNum, docs[i-1].DocNum)
		}
		n, err := w.idoc(&out, d, at)
		if err != nil {
			return File{}, fmt.Errorf("document %s: %w", d.Reference, err)
		}
		m.Segments += n
		dr, cr, err := d.Totals()
		if err != nil {
			return File{}, err
		}
		if debits, err = money.Add(debits, dr); err != nil {
			return File{}, err
		}
		if credits, err = money.Add(credits, cr); err != nil {
			return File{}, err
		}
	}
	sum := sha256.Sum256(out.Bytes())
	m.SHA256, m.Bytes = hex.EncodeToString(sum[:]), out.Len()
	m.Debits, m.Credits = debits.String(), credits.String()
	m.FirstDocNum, m.LastDocNum = docs[0].DocNum, docs[len(docs)-1].DocNum
	manifest, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return File{}, fmt.Errorf("manifest of %s: %w", name, err)
	}
	return File{Name: name, Data: out.Bytes(), Manifest: append(manifest, '\n')}, nil
}

// idoc writes one document: control record, header, G/L items, tax items, amounts,
// in the order of the IDoc type. It returns the number of data records.
func (w *Writer) idoc(out *bytes.Buffer, d Numbered, at time.Time) (int, error) {
	if err := d.Check(); err != nil {
		return 0, err
	}
	if !isDocNum(d.DocNum) {
		return 0, fmt.Errorf("document number %q: want 16 digits, not all zero", d.DocNum)
	}
	if err := w.control(out, d, at); err != nil {
		return 0, err
	}
	s := segments{w: w, out: out, docNum: d.DocNum}
	s.add("E1BPACHE09", "01", w.header(d))
	for i, l := range d.Lines {
		values := map[string]string{
			"ITEMNO_ACC": strconv.Itoa(i + 1), "GL_ACCOUNT": padNumber(l.Account, 10), "ITEM_TEXT": cut(l.Text, 50),
			"COMP_CODE": d.CompanyCode, "ALLOC_NMBR": l.Assignment, "TAX_CODE": l.TaxCode,
		}
		switch f := objectFields[l.Object.Kind]; l.Object.Kind {
		case CostCentre, Order:
			values[f.field] = padNumber(l.Object.Number, f.length)
		case WBS:
			values[f.field] = l.Object.Number
		}
		s.add("E1BPACGL09", "02", values)
	}
	for i, x := range d.Taxes {
		s.add("E1BPACTX09", "02", map[string]string{
			"ITEMNO_ACC": strconv.Itoa(len(d.Lines) + i + 1), "GL_ACCOUNT": padNumber(x.Account, 10),
			"COND_KEY": w.settings.TaxCondition, "ACCT_KEY": w.settings.TaxKey, "TAX_CODE": x.Code,
		})
	}
	amount := func(item int, a money.Amount, base string) {
		s.add("E1BPACCR09", "02", map[string]string{
			"ITEMNO_ACC": strconv.Itoa(item), "CURR_TYPE": "00", "CURRENCY": d.Currency, "CURRENCY_ISO": d.Currency,
			"AMT_DOCCUR": amountText(a), "AMT_BASE": base,
		})
	}
	for i, l := range d.Lines {
		amount(i+1, l.Amount, "")
	}
	for i, x := range d.Taxes {
		amount(len(d.Lines)+i+1, x.Amount, amountText(x.Base))
	}
	return s.n, s.err
}

// control writes EDI_DC40. DIRECT 2 is inbound, seen from SAP.
func (w *Writer) control(out *bytes.Buffer, d Numbered, at time.Time) error {
	local := at.In(clock.Toronto)
	day, hour := local.Format("20060102"), local.Format("150405")
	rec, err := w.layouts["EDI_DC40"].record(map[string]string{
		"TABNAM": "EDI_DC40", "MANDT": w.settings.Client, "DOCNUM": d.DocNum, "DOCREL": w.settings.Release,
		"DIRECT": "2", "IDOCTYP": w.settings.IDocType, "MESTYP": messageType,
		"SNDPOR": w.settings.SenderPort, "SNDPRT": "LS", "SNDPRN": w.settings.SenderSystem,
		"RCVPOR": w.settings.ReceiverPort, "RCVPRT": "LS", "RCVPRN": w.settings.ReceiverSystem,
		"CREDAT": day, "CRETIM": hour, "ARCKEY": d.Reference, "SERIAL": day + hour,
	})
	if err != nil {
		return err
	}
	out.Write(rec)
	out.WriteByte('\n')
	return nil
}

func (w *Writer) header(d Numbered) map[string]string {
	values := map[string]string{
		"BUS_ACT": "RFBU", "USERNAME": w.settings.User, "HEADER_TXT": cut(d.HeaderText, 25), "COMP_CODE": d.CompanyCode,
		"DOC_DATE": dateText(d.DocumentDate), "PSTNG_DATE": dateText(d.PostingDate),
		"DOC_TYPE": d.Type, "REF_DOC_NO": d.Reference,
	}
	if d.FiscalYear != 0 {
		values["FISC_YEAR"] = strconv.Itoa(d.FiscalYear)
	}
	if d.FiscalPeriod != 0 {
		values["FIS_PERIOD"] = strconv.Itoa(d.FiscalPeriod)
	}
	return values
}

// segments appends the data records of one IDoc and numbers them. The first error
// stays.
type segments struct {
	w      *Writer
	out    *bytes.Buffer
	docNum string
	n      int
	err    error
}

func (s *segments) add(name, level string, values map[string]string) {
	if s.err != nil {
		return
	}
	s.n++
	data, err := s.w.layouts[name].record(values)
	if err != nil {
		s.err = err
		return
	}
	head, err := s.w.layouts["EDI_DD40"].record(map[string]string{
		// In a file the segment has its external name: E2, and the version of its
		// definition.
		"SEGNAM": "E2" + name[2:] + s.w.settings.SegmentVersion, "MANDT": s.w.settings.Client, "DOCNUM": s.docNum,
		"SEGNUM": padNumber(strconv.Itoa(s.n), 6), "PSGNUM": "000000", "HLEVEL": level,
	})
	if err != nil {
		s.err = err
		return
	}
	copy(head[headLength:], data)
	s.out.Write(head)
	s.out.WriteByte('\n')
}

// amountText writes an amount as IDocs carry it: point, two decimals, minus last.
func amountText(a money.Amount) string {
	if a < 0 {
		return (-a).String() + "-"
	}
	return a.String()
}

func dateText(d clock.Date) string { return d.Time().Format("20060102") }
