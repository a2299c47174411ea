// Package document draws the documents that people keep, as PDF in English and
// French. Today that is the receipt.
//
//	payments.Receipt ──Receipt──▶ PDF: e-mail, download
//
// The same receipt reads the same today and in ten years: everything in it comes
// from the receipt, nothing from the clock. It knows no database and no
// HTTP. The accessible record is the page in api/resident: no Go library writes
// tagged PDF.
package document

import (
	"bytes"
	"embed"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/go-pdf/fpdf"
	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/gomono"
	"golang.org/x/image/font/gofont/goregular"

	"guichet/api/web"
	"guichet/internal/id"
	"guichet/internal/money"
	"guichet/payments"
)

//go:embed locale
var files embed.FS

// A Printer draws documents. It may be used by many goroutines at once.
type Printer struct {
	site    *web.Site
	baseURL string
	host    string
}

// New returns a printer that takes its words from the site, where it registers
// them, and prints addresses under the base URL.
func New(site *web.Site, baseURL string) (*Printer, error) {
	u, err := url.Parse(baseURL)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("documents: base URL %q is no address", baseURL)
	}
	site.Register("document", files)
	return &Printer{site: site, baseURL: strings.TrimSuffix(baseURL, "/"), host: u.Host}, nil
}

// brands are the names of card networks as they write themselves.
var brands = map[string]string{
	"visa": "Visa", "mastercard": "Mastercard", "amex": "American Express", "discover": "Discover",
	"diners": "Diners Club", "jcb": "JCB", "unionpay": "UnionPay", "interac": "Interac",
}

// Brand is a card network as it writes itself; one that is not known stays as it is.
func Brand(code string) string {
	if name := brands[code]; name != "" {
		return name
	}
	return code
}

// Tender says how something was paid.
func Tender(d payments.Document) web.Message {
	if d.Tender != "card" {
		return web.Say("document.tender." + d.Tender)
	}
	brand := brands[d.CardBrand]
	if brand == "" || d.CardLast4 == "" {
		return web.Say("document.tender.card_plain")
	}
	return web.Say("document.tender.card", "Brand", brand, "Last4", d.CardLast4)
}

// VerifyURL is the address at which anybody can check a receipt.
func (p *Printer) VerifyURL(r payments.Receipt) string {
	return p.baseURL + "/verify/" + id.Group(r.VerifyCode)
}

// Sizes of the page, in millimetres: US letter, as Canada prints.
const (
	pageWidth = 215.9
	margin    = 20.0
	inner     = pageWidth - 2*margin
	amountCol = 28.0
	textCol   = inner - 3*amountCol
)

type colour [3]int

var (
	ink       = colour{20, 34, 43}
	soft      = colour{74, 90, 99}
	line      = colour{200, 208, 205}
	brand     = colour{15, 61, 76}
	verdigris = colour{70, 158, 138}
	tint      = colour{238, 241, 239}
)

// sheet is a PDF being drawn. The first error sticks, in fpdf's own way.
type sheet struct {
	*fpdf.Fpdf
	p    *Printer
	lang string
}

// Receipt draws a receipt in "en" or "fr".
func (p *Printer) Receipt(r payments.Receipt, lang string) ([]byte, error) {
	s := &sheet{Fpdf: fpdf.New("P", "mm", "Letter", ""), p: p, lang: lang}
	number := strconv.FormatInt(r.Number, 10)
	s.prepare(r, number)
	s.AddPage()
	s.heading(number)
	s.facts(r)
	for _, d := range r.Document.Departments {
		s.department(d)
	}
	for _, c := range r.Document.Credits {
		s.credit(c)
	}
	s.sum(r)
	s.check(r)
	var b bytes.Buffer
	if err := s.Output(&b); err != nil {
		return nil, fmt.Errorf("draw receipt %s: %w", number, err)
	}
	return b.Bytes(), nil
}

// prepare sets what the whole file has in common.
func (s *sheet) prepare(r payments.Receipt, number string) {
	s.AddUTF8FontFromBytes("go", "", goregular.TTF)
	s.AddUTF8FontFromBytes("go", "B", gobold.TTF)
	s.AddUTF8FontFromBytes("mono", "", gomono.TTF)
	s.SetMargins(margin, margin, margin)
	s.SetCellMargin(1.5)
	s.SetAutoPageBreak(true, 24)
	s.SetTitle(s.word("receipt.title")+" "+number, true)
	s.SetAuthor(s.p.site.City(s.lang), true)
	s.SetCreator("Guichet", true)
	s.SetLang(s.lang + "-CA")
	s.SetCreationDate(r.IssuedAt)
	s.SetModificationDate(r.IssuedAt)
	s.AliasNbPages("{pages}")
	s.SetFooterFunc(func() {
		s.SetY(-16)
		s.font("", 8, soft)
		s.CellFormat(inner, 5, s.word("receipt.page", "Number", number, "Page", s.PageNo(), "Pages", "{pages}"), "", 0, "L", false, 0, "")
	})
}

// word writes a message; a missing one makes the whole document fail.
func (s *sheet) word(key string, args ...any) string {
	return s.say(web.Say("document."+key, args...))
}

func (s *sheet) say(m web.Message) string {
	text, err := s.p.site.Write(s.lang, m)
	if err != nil {
		s.SetError(err)
	}
	return text
}

func (s *sheet) font(style string, size float64, c colour) {
	s.SetFont("go", style, size)
	s.SetTextColor(c[0], c[1], c[2])
}

func (s *sheet) rule(c colour, width float64) {
	s.SetDrawColor(c[0], c[1], c[2])
	s.SetLineWidth(width)
	s.Line(margin, s.GetY(), pageWidth-margin, s.GetY())
}

// heading is the mark, the city, and what this is.
func (s *sheet) heading(number string) {
	x, y := margin, margin
	s.SetDrawColor(brand[0], brand[1], brand[2])
	s.SetLineWidth(0.9)
	s.SetLineCapStyle("round")
	s.Arc(x+6, y+5, 4, 4, 0, 0, 180, "D")
	s.Line(x+2, y+5, x+2, y+10)
	s.Line(x+10, y+5, x+10, y+10)
	s.Line(x+4.3, y+7.4, x+7.7, y+7.4)
	s.SetDrawColor(verdigris[0], verdigris[1], verdigris[2])
	s.Line(x+0.5, y+10, x+11.5, y+10)
	s.SetLineCapStyle("butt")
	s.SetXY(x+15, y)
	s.font("B", 15, brand)
	s.CellFormat(80, 7, "Guichet", "", 2, "L", false, 0, "")
	s.font("", 9.5, soft)
	s.CellFormat(80, 5, s.p.site.City(s.lang), "", 0, "L", false, 0, "")
	s.SetXY(pageWidth-margin-80, y)
	s.font("B", 20, ink)
	s.CellFormat(80, 8, s.word("receipt.title"), "", 2, "R", false, 0, "")
	s.font("", 9.5, soft)
	s.CellFormat(80, 5, s.word("receipt.number", "Number", number), "", 0, "R", false, 0, "")
	s.SetY(y + 17)
	s.rule(verdigris, 0.8)
	s.Ln(6)
}

// facts are the three things one looks for first.
func (s *sheet) facts(r payments.Receipt) {
	paidAt, err := web.DateTime(s.lang, r.Document.PaidAt)
	if err != nil {
		s.SetError(err)
	}
	for _, f := range [][2]string{
		{s.word("receipt.paid_at"), paidAt},
		{s.word("receipt.paid_by"), s.say(Tender(r.Document))},
		{s.word("receipt.reference"), id.Group(r.Document.PaymentReference)},
	} {
		s.font("", 10, soft)
		s.CellFormat(52, 6.2, f[0], "", 0, "L", false, 0, "")
		s.font("", 10, ink)
		s.CellFormat(inner-52, 6.2, f[1], "", 1, "L", false, 0, "")
	}
	s.Ln(5)
}

// department is one department's table: lines, and what they come to.
func (s *sheet) department(d payments.ReceiptDepartment) {
	s.keep(34)
	s.font("B", 12, brand)
	s.CellFormat(inner, 7, d.Name(s.lang), "", 1, "L", false, 0, "")
	if d.HSTNumber != "" && d.Tax > 0 {
		s.font("", 8.5, soft)
		s.CellFormat(inner, 5, s.word("receipt.hst_number", "Number", d.HSTNumber), "", 1, "L", false, 0, "")
	}
	s.SetFillColor(tint[0], tint[1], tint[2])
	s.font("B", 8.5, soft)
	s.CellFormat(textCol, 6.5, s.word("receipt.what"), "", 0, "L", true, 0, "")
	for _, key := range []string{"net", "tax", "total"} {
		s.CellFormat(amountCol, 6.5, s.word("receipt."+key), "", 0, "R", true, 0, "")
	}
	s.Ln(7.5)
	for _, l := range d.Lines {
		s.line(l)
	}
	if len(d.Lines) > 1 {
		s.row("B", s.word("receipt.subtotal"), d.Net, d.Tax)
	}
	s.Ln(5)
}

func (s *sheet) line(l payments.ReceiptLine) {
	text := l.Description(s.lang)
	if l.Quantity > 1 {
		text = s.word("receipt.quantity", "Count", l.Quantity, "Description", text)
	}
	s.row("", text, l.Net, l.Tax)
	s.font("", 8.5, soft)
	s.SetY(s.GetY() - 1)
	s.MultiCell(textCol, 4.5, s.word("receipt.reference_line", "Notice", id.Group(l.Notice), "Reference", l.Reference), "", "L", false)
	s.Ln(1)
	s.rule(line, 0.2)
	s.Ln(1.5)
}

// row writes a text, over as many lines as it needs, and its amounts beside the first.
func (s *sheet) row(style, text string, net, tax money.Amount) {
	s.font(style, 10, ink)
	need := float64(len(s.SplitText(text, textCol-4)))*5.5 + 8
	s.keep(need)
	y := s.GetY()
	s.SetX(margin + textCol)
	for _, a := range []money.Amount{net, tax, net + tax} {
		s.CellFormat(amountCol, 5.5, a.Format(s.lang), "", 0, "R", false, 0, "")
	}
	s.SetXY(margin, y)
	s.MultiCell(textCol, 5.5, text, "", "L", false)
}

// keep starts a new page unless so many millimetres are left on this one.
func (s *sheet) keep(need float64) {
	_, height := s.GetPageSize()
	if s.GetY()+need > height-24 {
		s.AddPage()
	}
}

func (s *sheet) sum(r payments.Receipt) {
	s.keep(24)
	s.rule(ink, 0.5)
	s.Ln(2)
	s.font("B", 13, ink)
	s.CellFormat(inner-50, 8, s.word("receipt.paid"), "", 0, "L", false, 0, "")
	s.CellFormat(50, 8, r.Document.Amount.Format(s.lang), "", 1, "R", false, 0, "")
	s.font("", 8.5, soft)
	s.CellFormat(inner, 5, s.word("receipt.currency")+" "+s.word("receipt.hst_rate"), "", 1, "L", false, 0, "")
	s.Ln(4)
}

func (s *sheet) credit(c payments.ReceiptCredit) {
	s.keep(20)
	s.font("B", 10, ink)
	s.CellFormat(inner-50, 6, s.word("receipt.credit"), "", 0, "L", false, 0, "")
	s.CellFormat(50, 6, c.Amount.Format(s.lang), "", 1, "R", false, 0, "")
	s.font("", 9, soft)
	s.MultiCell(inner, 4.8, s.word("receipt.credit_text", "Notice", id.Group(c.Notice)), "", "L", false)
	s.Ln(4)
}

func (s *sheet) check(r payments.Receipt) {
	s.keep(36)
	s.SetFillColor(tint[0], tint[1], tint[2])
	s.Rect(margin, s.GetY(), inner, 33, "F")
	s.Ln(3)
	indent := func(style string, size float64, c colour, h float64, text string) {
		s.SetX(margin + 4)
		s.font(style, size, c)
		s.MultiCell(inner-8, h, text, "", "L", false)
	}
	indent("B", 10, ink, 5.5, s.word("receipt.check"))
	indent("", 8.5, soft, 4.4, s.word("receipt.check_text", "Host", s.p.host+"/verify"))
	s.Ln(1)
	s.SetX(margin + 4)
	s.font("", 8.5, soft)
	s.CellFormat(40, 5.5, s.word("receipt.code"), "", 0, "L", false, 0, "")
	s.SetFont("mono", "", 11)
	s.SetTextColor(ink[0], ink[1], ink[2])
	s.CellFormat(inner-48, 5.5, id.Group(r.VerifyCode), "", 1, "L", false, 0, "")
	s.SetX(margin + 4)
	s.SetFont("mono", "", 8)
	s.SetTextColor(brand[0], brand[1], brand[2])
	s.CellFormat(inner-8, 5, s.p.VerifyURL(r), "", 1, "L", false, 0, s.p.VerifyURL(r))
}
