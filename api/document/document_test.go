package document

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"guichet/api/web"
	"guichet/internal/browser"
	"guichet/internal/money"
	"guichet/payments"
	"guichet/payments/fee"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func newPrinter(t *testing.T) *Printer {
	t.Helper()
	p, err := New(web.New(web.Options{}), "https://pay.example.ca")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// sample is a receipt over three departments, with tax, a quantity and a credit.
func sample() payments.Receipt {
	return payments.Receipt{
		Number: 1042, ID: "01930000-0000-7000-8000-000000000001", VerifyCode: "7K3M92QX4B6TWZ0P", IssuedAt: time.Date(2026, 12, 1, 20, 5, 2, 0, time.UTC),
		Document: payments.Document{
			PaymentReference: "R4T7YQ2M9A", Tender: "card", CardBrand: "visa", CardLast4: "4242",
			PaidAt: time.Date(2026, 12, 1, 20, 5, 0, 0, time.UTC), Amount: 5500 + 16300 + 2119 + 2*9800 + 18743 + 2000, Currency: "CAD",
			Departments: []payments.ReceiptDepartment{
				{Code: "parking", NameEN: "Parking and by-law fines", NameFR: "Stationnement et contraventions aux règlements", Net: 5500, Lines: []payments.ReceiptLine{
					{Notice: "7K3M92QXD1", Reference: "PV-2026-118204", DescriptionEN: "Parked facing the wrong way", DescriptionFR: "Véhicule stationné dans le mauvais sens", Quantity: 1, Net: 5500, TaxCode: fee.None},
				}},
				{Code: "permits", NameEN: "Building permits", NameFR: "Permis de construire", HSTNumber: "86393 2014 RT0001", Net: 16300 + 19600, Tax: 2119, Lines: []payments.ReceiptLine{
					{Notice: "2H8PWX7R0C", Reference: "A26-004417", DescriptionEN: "Additional inspection, outside regular hours, as requested by the applicant for the rear addition", DescriptionFR: "Inspection supplémentaire, en dehors des heures normales, demandée par le requérant pour l’agrandissement arrière", Quantity: 1, Net: 16300, Tax: 2119, TaxCode: fee.HST},
					{Notice: "2H8PWX7R0C", Reference: "A26-004417", DescriptionEN: "Permit fee", DescriptionFR: "Droit de permis", Quantity: 2, Net: 19600, TaxCode: fee.Exempt},
				}},
				{Code: "water", NameEN: "Water", NameFR: "Eau", Net: 18743, Lines: []payments.ReceiptLine{
					{Notice: "9ZT4C5V1NE", Reference: "W-0417 3391", DescriptionEN: "Water and wastewater, September and October", DescriptionFR: "Eau et eaux usées, septembre et octobre", Quantity: 1, Net: 18743, TaxCode: fee.Exempt},
				}},
			},
			Credits: []payments.ReceiptCredit{{Notice: "5GQ0M8D2XK", Amount: 2000}},
		},
	}
}

func TestReceipt(t *testing.T) {
	p := newPrinter(t)
	for _, lang := range web.Languages {
		t.Run(lang, func(t *testing.T) {
			pdf, err := p.Receipt(sample(), lang)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "receipt."+lang+".txt", textOf(t, pdf))
			picture(t, "receipt-pdf-"+lang, pdf)
		})
	}
}

func TestLongReceiptGoesOverSeveralPages(t *testing.T) {
	r := sample()
	d := &r.Document.Departments[0]
	for range 60 {
		d.Lines = append(d.Lines, d.Lines[0])
	}
	pdf, err := newPrinter(t).Receipt(r, "fr")
	if err != nil {
		t.Fatal(err)
	}
	text := string(textOf(t, pdf))
	if !strings.Contains(text, "page 5 de 5") || strings.Count(text, "PV-2026-118204") != 61 {
		t.Errorf("want 5 numbered pages and 61 lines, got %d lines in:\n%s", strings.Count(text, "PV-2026-118204"), text)
	}
}

func TestUnknownTenderIsAnError(t *testing.T) {
	r := sample()
	r.Document.Tender = "barter"
	if pdf, err := newPrinter(t).Receipt(r, "en"); err == nil {
		t.Errorf("got %d bytes, want an error: a document is whole or not made", len(pdf))
	}
}

func TestTenderOfEveryKind(t *testing.T) {
	p := newPrinter(t)
	// As the database allows: payments.payment.tender.
	for _, tender := range []string{"card", "cash", "cheque", "interac", "online_banking", "pre_authorised_debit", "credit"} {
		for _, lang := range web.Languages {
			if text, err := p.site.Write(lang, Tender(payments.Document{Tender: tender})); err != nil || text == "" {
				t.Errorf("%s in %s: %q, %v", tender, lang, text, err)
			}
		}
	}
}

func TestDepartmentSumsToItsLines(t *testing.T) {
	for _, d := range sample().Document.Departments {
		var net, tax money.Amount
		for _, l := range d.Lines {
			net, tax = net+l.Net, tax+l.Tax
		}
		if net != d.Net || tax != d.Tax {
			t.Errorf("the sample's %s is %s and %s, its lines %s and %s", d.Code, d.Net, d.Tax, net, tax)
		}
	}
}

// textOf reads a PDF with poppler, which is not the library that wrote it.
func textOf(t *testing.T, pdf []byte) []byte {
	t.Helper()
	bin, err := exec.LookPath("pdftotext")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("no pdftotext: install poppler-utils")
		}
		t.Skip("no pdftotext: install poppler-utils")
	}
	cmd := exec.CommandContext(t.Context(), bin, "-layout", "-", "-")
	cmd.Stdin = bytes.NewReader(pdf)
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("pdftotext: %v", err)
	}
	return text
}

// picture keeps the first page where browser tests keep theirs, for people to look at.
func picture(t *testing.T, name string, pdf []byte) {
	t.Helper()
	bin, err := exec.LookPath("pdftoppm")
	if err != nil {
		return // textOf has said what is missing
	}
	cmd := exec.CommandContext(t.Context(), bin, "-png", "-r", "96", "-f", "1", "-singlefile", "-", filepath.Join(browser.Artefacts(t), name))
	cmd.Stdin = bytes.NewReader(pdf)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("pdftoppm: %v\n%s", err, out)
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test -update rewrites it); got:\n%s", file, got)
	}
}
