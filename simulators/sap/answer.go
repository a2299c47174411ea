package sap

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"path"
	"time"

	"guichet/internal/clock"
)

// planner groups what is to be reported into answers: one for each moment of
// delivery, time stamp and partner.
type planner struct{ list []*answer }

// maxReports is what an ALEAUD IDoc takes.
const maxReports = 500

func (p *planner) add(due, stamp time.Time, to partner, r report) {
	for _, a := range p.list {
		if a.Due.Equal(due) && a.Stamp.Equal(stamp) && a.Partner == to && len(a.Reports) < maxReports {
			a.Reports = append(a.Reports, r)
			return
		}
	}
	p.list = append(p.list, &answer{Due: due, Stamp: stamp, Partner: to, Reports: []report{r}})
}

// answers numbers what was planned; names of files follow the numbers.
func (p *planner) answers(before int) []*answer {
	for i, a := range p.list {
		a.Number = before + i + 1
	}
	return p.list
}

func reportOf(d *document) report {
	return report{DocNum: d.DocNum, IDoc: d.IDoc, Status: d.Status, Messages: d.Messages, Posting: d.Posting}
}

// nobodys is a DOCNUM that no sender gives.
const nobodys = "9999999999999999"

// plan says when and what is answered for a document, with the faults.
func (s *Simulator) plan(p *planner, d *document, now time.Time) {
	if d.DocNum == "" {
		return // nobody would know what is meant
	}
	if _, hit := s.faults.Strike("unknown", d.DocNum); hit {
		r := report{DocNum: nobodys, IDoc: d.IDoc, Status: statusRefused, Messages: []message{msg("RW 609", "BKPFF", "$", s.o.System)}}
		p.add(now, now, d.Sender, r)
	}
	if _, hit := s.faults.Strike("never", d.DocNum); hit {
		return
	}
	final := reportOf(d)
	first := final // what the two-step answers say before
	if d.Posting != nil {
		first.Status, first.Posting = statusRefused, nil
		first.Messages = []message{msg("RW 609", "BKPFF", "$", s.o.System), msg("ZG 961")}
	}
	if x, hit := s.faults.Strike("late", d.DocNum); hit {
		due := now.Add(time.Duration(x.Delay))
		p.add(due, due, d.Sender, final)
		return
	}
	if x, hit := s.faults.Strike("twice", d.DocNum); hit {
		later := now.Add(max(time.Duration(x.Delay), time.Second)) // CRETIM has seconds
		p.add(now, now, d.Sender, first)
		p.add(later, later, d.Sender, final)
		return
	}
	if x, hit := s.faults.Strike("out-of-order", d.DocNum); hit {
		p.add(now, now.Add(time.Second), d.Sender, final)
		p.add(now.Add(time.Duration(x.Delay)), now, d.Sender, first)
		return
	}
	p.add(now, now, d.Sender, final)
}

// writeDue writes the answers whose time has come. The caller holds the lock.
func (s *Simulator) writeDue() error {
	now := s.o.Now()
	for _, a := range s.answers {
		if a.Written || a.Due.After(now) {
			continue
		}
		if err := s.write(a); err != nil {
			return fmt.Errorf("write answer %d: %w", a.Number, err)
		}
		if err := s.record(event{Written: a.Number}); err != nil {
			return fmt.Errorf("write answer %d: %w", a.Number, err)
		}
	}
	return nil
}

func (a *answer) docNum() string { return fmt.Sprintf("%016d", 778_000+a.Number) }

func (a *answer) fileName() string { return "ALEAUD_" + a.docNum() + ".xml" }

// write puts the answer into outbound: temporary name, then rename. After a kill
// the same bytes are written again under the same name.
func (s *Simulator) write(a *answer) error {
	data, err := s.aleaud(a)
	if err != nil {
		return err
	}
	temp := path.Join(outbound, "."+a.fileName()+".tmp")
	if err := s.root.WriteFile(temp, data, 0o644); err != nil {
		return errors.Join(err, s.root.Remove(temp))
	}
	return s.root.Rename(temp, path.Join(outbound, a.fileName()))
}

// The types below are ALEAUD01 in IDoc XML, as far as SAP fills it here.

type aleaud struct {
	XMLName xml.Name   `xml:"ALEAUD01"`
	IDoc    aleaudIDoc `xml:"IDOC"`
}

type aleaudIDoc struct {
	Begin   string        `xml:"BEGIN,attr"`
	Control aleaudControl `xml:"EDI_DC40"`
	Header  aleaudHeader  `xml:"E1ADHDR"`
}

type aleaudControl struct {
	Segment string `xml:"SEGMENT,attr"`
	TABNAM  string
	MANDT   string
	DOCNUM  string
	DIRECT  string
	IDOCTYP string
	MESTYP  string
	SNDPOR  string
	SNDPRT  string
	SNDPRN  string
	RCVPOR  string
	RCVPRT  string
	RCVPRN  string
	CREDAT  string
	CRETIM  string
}

type aleaudHeader struct {
	Segment string        `xml:"SEGMENT,attr"`
	MESTYP  string        `xml:"MESTYP_LNG"`
	States  []aleaudState `xml:"E1STATE"`
}

type aleaudState struct {
	Segment string `xml:"SEGMENT,attr"`
	DOCNUM  string
	STATUS  string
	STACOD  string
	STATXT  string
	STATYP  string
	STAMQU  string
	STAMID  string
	STAMNO  string
	Param1  string       `xml:"STAPA1_LNG,omitempty"`
	Param2  string       `xml:"STAPA2_LNG,omitempty"`
	Param3  string       `xml:"STAPA3_LNG,omitempty"`
	Param4  string       `xml:"STAPA4_LNG,omitempty"`
	Object  aleaudObject `xml:"E1PRTOB"`
}

type aleaudObject struct {
	Segment string `xml:"SEGMENT,attr"`
	DOCNUM  string
	LOGSYS  string
	OBJTYPE string `xml:",omitempty"`
	OBJKEY  string `xml:",omitempty"`
}

// aleaud writes the answer. A document with several messages has one E1STATE for
// each, as it has one status record for each.
func (s *Simulator) aleaud(a *answer) ([]byte, error) {
	stamp := a.Stamp.In(clock.Toronto)
	out := aleaud{IDoc: aleaudIDoc{
		Begin: "1",
		Control: aleaudControl{
			Segment: "1", TABNAM: "EDI_DC40", MANDT: s.o.Client, DOCNUM: a.docNum(), DIRECT: "1", IDOCTYP: "ALEAUD01", MESTYP: "ALEAUD",
			SNDPOR: "SAPPRD", SNDPRT: "LS", SNDPRN: s.o.System, RCVPOR: a.Partner.Port, RCVPRT: "LS", RCVPRN: a.Partner.System,
			CREDAT: stamp.Format("20060102"), CRETIM: stamp.Format("150405"),
		},
		Header: aleaudHeader{Segment: "1", MESTYP: "ACC_DOCUMENT"},
	}}
	for _, r := range a.Reports {
		object := aleaudObject{Segment: "1", DOCNUM: r.IDoc, LOGSYS: s.o.System}
		if p := r.Posting; p != nil {
			// Reference procedure 5, key 20, logical system 10.
			object.OBJTYPE, object.OBJKEY = "BUS6035", fmt.Sprintf("%-5s%-20s%-10s", "BKPFF", p.Document+p.Company+p.Year, s.o.System)
		}
		for _, m := range r.Messages {
			state := aleaudState{
				Segment: "1", DOCNUM: r.DocNum, STATUS: r.Status, STACOD: "SAP" + m.Class + m.Number, STATXT: m.Text, STATYP: m.Type,
				STAMQU: "SAP", STAMID: m.Class, STAMNO: m.Number, Object: object,
			}
			for i, to := range []*string{&state.Param1, &state.Param2, &state.Param3, &state.Param4} {
				if i < len(m.Params) {
					*to = m.Params[i]
				}
			}
			out.IDoc.Header.States = append(out.IDoc.Header.States, state)
		}
	}
	var b bytes.Buffer
	b.WriteString(xml.Header)
	enc := xml.NewEncoder(&b)
	enc.Indent("", "  ")
	if err := enc.Encode(out); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}
