package bank

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strings"
	"time"

	"guichet/internal/clock"
	"guichet/internal/money"
)

// The types below are camt.053.001.08 (BankToCustomerStatementV08) as far as this
// bank writes it, in the schema's order and names.

type document struct {
	XMLName xml.Name `xml:"urn:iso:std:iso:20022:tech:xsd:camt.053.001.08 Document"`
	MsgID   string   `xml:"BkToCstmrStmt>GrpHdr>MsgId"`
	Created string   `xml:"BkToCstmrStmt>GrpHdr>CreDtTm"`
	Stmt    stmt     `xml:"BkToCstmrStmt>Stmt"`
}

type stmt struct {
	ID        string    `xml:"Id"`
	Sequence  int       `xml:"ElctrncSeqNb"`
	Created   string    `xml:"CreDtTm"`
	From      string    `xml:"FrToDt>FrDtTm"`
	To        string    `xml:"FrToDt>ToDtTm"`
	Account   string    `xml:"Acct>Id>Othr>Id"`
	Currency  string    `xml:"Acct>Ccy"`
	Bank      servicer  `xml:"Acct>Svcr>FinInstnId"`
	Balances  []balance `xml:"Bal"`
	Entries   int       `xml:"TxsSummry>TtlNtries>NbOfNtries"`
	Credits   total     `xml:"TxsSummry>TtlCdtNtries"`
	Debits    total     `xml:"TxsSummry>TtlDbtNtries"`
	Movements []ntry    `xml:"Ntry"`
}

type servicer struct {
	System string `xml:"ClrSysMmbId>ClrSysId>Cd"`
	Member string `xml:"ClrSysMmbId>MmbId"`
	Name   string `xml:"Nm"`
}

type amount struct {
	Currency string `xml:"Ccy,attr"`
	Value    string `xml:",chardata"`
}

type balance struct {
	Code   string `xml:"Tp>CdOrPrtry>Cd"`
	Amount amount `xml:"Amt"`
	Side   string `xml:"CdtDbtInd"`
	Date   string `xml:"Dt>Dt"`
}

type total struct {
	Count int    `xml:"NbOfNtries"`
	Sum   string `xml:"Sum"`
}

type ntry struct {
	Ref      string `xml:"NtryRef"`
	Amount   amount `xml:"Amt"`
	Side     string `xml:"CdtDbtInd"`
	Reversal bool   `xml:"RvslInd,omitempty"`
	Status   string `xml:"Sts>Cd"`
	Booked   string `xml:"BookgDt>Dt"`
	Value    string `xml:"ValDt>Dt"`
	BankRef  string `xml:"AcctSvcrRef"`
	Code     txCode `xml:"BkTxCd"`
	Details  tx     `xml:"NtryDtls>TxDtls"`
}

type txCode struct {
	Domain      string `xml:"Domn>Cd"`
	Family      string `xml:"Domn>Fmly>Cd"`
	SubFamily   string `xml:"Domn>Fmly>SubFmlyCd"`
	Proprietary string `xml:"Prtry>Cd"`
	Issuer      string `xml:"Prtry>Issr"`
}

type tx struct {
	EndToEnd string `xml:"Refs>EndToEndId"`
	Amount   amount `xml:"Amt"`
	Side     string `xml:"CdtDbtInd"`
	Text     string `xml:"RmtInf>Ustrd,omitempty"`
}

// camt writes the file of a statement, spoiled by the fault.
func (b *Bank) camt(s statement, fault string) ([]byte, error) {
	currency, closing := money.CAD, s.Closing
	switch fault {
	case wrongCurrency:
		currency = "USD"
	case wrongTotal:
		closing++
	}
	day, err := clock.ParseDate(s.Date)
	if err != nil {
		return nil, err
	}
	// Written the next morning: the time follows from the day, not from the clock.
	created := time.Date(day.Year, day.Month, day.Day+1, 5, 15, 0, 0, clock.Toronto).Format(time.RFC3339)
	d := document{
		MsgID: fmt.Sprintf("STMT%s%05d", strings.ReplaceAll(s.Date, "-", ""), s.Sequence), Created: created,
		Stmt: stmt{
			ID: fmt.Sprintf("STMT-%05d", s.Sequence), Sequence: s.Sequence, Created: created,
			From:    day.Start().Format(time.RFC3339),
			To:      day.AddDays(1).Start().Add(-time.Second).Format(time.RFC3339),
			Account: b.o.Account, Currency: currency, Bank: servicer{"CACPA", "099900002", "Example Bank"},
			Balances: []balance{
				balanceOf("OPBD", s.Opening, currency, s.Date),
				balanceOf("CLBD", closing, currency, s.Date),
			},
		},
	}
	var credits, debits money.Amount
	for i, number := range s.Entries {
		e := b.entries[number-1]
		n := ntryOf(e, currency)
		n.Ref = fmt.Sprintf("RB%s%05d", day.Time().Format("060102"), i+1)
		n.BankRef = n.Ref
		d.Stmt.Movements = append(d.Stmt.Movements, n)
		d.Stmt.Entries++
		if e.Amount > 0 {
			credits += e.Amount
			d.Stmt.Credits.Count++
		} else {
			debits -= e.Amount
			d.Stmt.Debits.Count++
		}
	}
	d.Stmt.Credits.Sum, d.Stmt.Debits.Sum = credits.String(), debits.String()

	var out bytes.Buffer
	out.WriteString(xml.Header)
	enc := xml.NewEncoder(&out)
	enc.Indent("", "  ")
	if err := enc.Encode(d); err != nil {
		return nil, fmt.Errorf("write camt.053: %w", err)
	}
	out.WriteByte('\n')
	if fault == malformed {
		out.Truncate(bytes.LastIndex(out.Bytes(), []byte("</CdtDbtInd>")) + 5)
	}
	return out.Bytes(), nil
}

// sideOf splits a signed amount as ISO 20022 does: never negative, and a side.
func sideOf(a money.Amount, currency string) (amount, string) {
	if a < 0 {
		return amount{currency, (-a).String()}, "DBIT"
	}
	return amount{currency, a.String()}, "CRDT"
}

func balanceOf(code string, a money.Amount, currency, date string) balance {
	amt, side := sideOf(a, currency)
	return balance{Code: code, Amount: amt, Side: side, Date: date}
}

// ntryOf writes a booked transfer in or out. The proprietary codes are those of
// BAI2: 165 preauthorised credit, 455 preauthorised debit.
func ntryOf(e entry, currency string) ntry {
	amt, side := sideOf(e.Amount, currency)
	code := txCode{"PMNT", "RCDT", "DMCT", "165", "BAI"}
	if side == "DBIT" {
		code = txCode{"PMNT", "ICDT", "DMCT", "455", "BAI"}
	}
	return ntry{
		Amount: amt, Side: side, Reversal: e.Reversal, Status: "BOOK", Booked: e.BookedOn, Value: e.ValueDate,
		Code: code, Details: tx{EndToEnd: e.Reference, Amount: amt, Side: side, Text: e.Text},
	}
}
