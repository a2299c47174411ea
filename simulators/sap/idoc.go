package sap

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"
)

// idoc is one IDoc of a file, cut into fields, with what is formally wrong.
type idoc struct {
	control  map[string]string
	segments []segment
	formal   []message // status 56
	syntax   []message // status 60
}

// segment is one data record.
type segment struct {
	record int    // in the file, from 1
	name   string // E1…
	fields map[string]string
	rest   string // behind the last known field
}

// docNum is what the sender calls the IDoc; it may be wrong, but it is all there
// is to answer to.
func (d *idoc) docNum() string { return d.control["DOCNUM"] }

// split cuts a file into IDocs. trouble says why there is none in it that could
// be answered.
func (s *Simulator) split(data []byte) (docs []*idoc, trouble string) {
	if len(data) == 0 {
		return nil, "the file is empty"
	}
	lines := bytes.Split(data, []byte("\n"))
	cutOff := len(lines[len(lines)-1]) > 0 // no line end behind the last record
	if !cutOff {
		lines = lines[:len(lines)-1]
	}
	var d *idoc
	for i, line := range lines {
		n := i + 1
		if bytes.HasPrefix(line, []byte("EDI_DC40")) {
			d = &idoc{control: map[string]string{}}
			docs = append(docs, d)
			s.readControl(d, n, line)
			continue
		}
		if d == nil {
			return nil, fmt.Sprintf("record %d is no control record", n)
		}
		d.readData(n, line)
	}
	if cutOff {
		d.formal = append(d.formal, msg("E0 904", len(lines)))
	}
	for _, d := range docs {
		d.checkOrder()
	}
	return docs, ""
}

// latin1 reads ISO 8859-1 (SAP code page 1100) and reports the first control
// character, if any.
func latin1(line []byte) (text string, bad byte) {
	runes := make([]rune, len(line))
	for i, b := range line {
		if (b < 0x20 || b >= 0x7f && b < 0xa0) && bad == 0 {
			bad = b
		}
		runes[i] = rune(b)
	}
	return string(runes), bad
}

// columns gives the text of a record one byte to a column, so that offsets hold:
// fields are decoded after cutting.
func (d *idoc) columns(n int, line []byte, length int) (string, bool) {
	if _, bad := latin1(line); bad != 0 {
		d.formal = append(d.formal, msg("E0 902", n, fmt.Sprintf("%02X", bad)))
	}
	if len(line) != length {
		d.formal = append(d.formal, msg("E0 901", n, len(line), length))
		return "", false
	}
	return string(line), true
}

// cutText cuts a record and decodes every value.
func cutText(layout, text string) (map[string]string, string) {
	values, rest := cut(layout, text)
	for k, v := range values {
		values[k], _ = latin1([]byte(v))
	}
	return values, rest
}

func (s *Simulator) readControl(d *idoc, n int, line []byte) {
	text, ok := d.columns(n, line, controlLength)
	if !ok {
		if len(line) >= 29 { // the number at least
			d.control["DOCNUM"], _ = latin1(bytes.TrimRight(line[13:29], " "))
		}
		return
	}
	d.control, _ = cutText("EDI_DC40", text)
	is := func(want string) func(string) bool { return func(v string) bool { return v == want } }
	blank := is("")
	given := func(v string) bool { return v != "" }
	checks := []struct {
		field    string
		ok       func(string) bool
		required string
	}{
		{"TABNAM", is("EDI_DC40"), "EDI_DC40"},
		{"MANDT", is(s.o.Client), s.o.Client},
		{"DOCNUM", isDocNum, "16 digits, not all zero"},
		{"DOCREL", given, "a release"},
		{"STATUS", blank, "blank"},
		{"DIRECT", is("2"), "2"},
		{"OUTMOD", blank, "blank"},
		{"EXPRSS", blank, "blank"},
		{"TEST", blank, "blank"},
		{"IDOCTYP", func(v string) bool { return idocTypes[v] }, "ACC_DOCUMENT03, 04 or 05"},
		{"CIMTYP", blank, "blank"},
		{"MESTYP", is("ACC_DOCUMENT"), "ACC_DOCUMENT"},
		{"MESCOD", blank, "blank"},
		{"MESFCT", blank, "blank"},
		{"SNDPOR", given, "a port"},
		{"SNDPRT", is("LS"), "LS"},
		{"SNDPFC", blank, "blank"},
		{"SNDPRN", is(s.o.Partner), s.o.Partner},
		{"RCVPOR", given, "a port"},
		{"RCVPRT", is("LS"), "LS"},
		{"RCVPFC", blank, "blank"},
		{"RCVPRN", is(s.o.System), s.o.System},
		{"CREDAT", isTime("20060102"), "a date"},
		{"CRETIM", isTime("150405"), "a time"},
	}
	for _, c := range checks {
		if v := d.control[c.field]; !c.ok(v) {
			d.formal = append(d.formal, msg("E0 903", c.field, v, c.required))
		}
	}
	for _, f := range layouts["EDI_DC40"] {
		if v := d.control[f.name]; strings.HasPrefix(v, " ") {
			d.formal = append(d.formal, msg("E0 903", f.name, v, "left-justified"))
		}
	}
}

func isDocNum(v string) bool {
	return len(v) == 16 && strings.Trim(v, "0123456789") == "" && strings.Trim(v, "0") != ""
}

func isTime(layout string) func(string) bool {
	return func(v string) bool {
		_, err := time.Parse(layout, v)
		return err == nil && len(v) == len(layout)
	}
}

// A segmentRule is one line of the basic type.
type segmentRule struct {
	name        string
	definition  string // name outside SAP
	least, most int
}

// segmentRules are the segments of the basic type in their order.
var segmentRules = []segmentRule{
	{"E1BPACHE09", "E2BPACHE09000", 1, 1},
	{"E1BPACGL09", "E2BPACGL09000", 0, maxRecords},
	{"E1BPACAR09", "E2BPACAR09000", 0, maxRecords},
	{"E1BPACTX09", "E2BPACTX09000", 0, maxRecords},
	{"E1BPACCR09", "E2BPACCR09000", 2, maxRecords},
	{"E1BPPAREX", "E2BPPAREX000", 0, maxRecords},
}

// maxRecords is what SEGNUM can count.
const maxRecords = 999999

func (d *idoc) readData(n int, line []byte) {
	text, ok := d.columns(n, line, dataLength)
	if !ok {
		return
	}
	head, _ := cutText("EDI_DD40", text)
	number := len(d.segments) + 1
	level := "02"
	if number == 1 {
		level = "01"
	}
	for _, c := range []struct {
		field, want string
		optional    bool
	}{
		{"MANDT", d.control["MANDT"], false},
		{"DOCNUM", d.docNum(), false},
		{"SEGNUM", fmt.Sprintf("%06d", number), false},
		{"PSGNUM", "000000", true}, // all segments of this type are at the top
		{"HLEVEL", level, true},
	} {
		if v := head[c.field]; v != c.want && (v != "" || !c.optional) {
			d.syntax = append(d.syntax, msg("E0 913", n, c.field, v, c.want))
		}
	}
	seg := segment{record: n}
	i := slices.IndexFunc(segmentRules, func(r segmentRule) bool { return r.definition == head["SEGNAM"] })
	if i < 0 {
		d.syntax = append(d.syntax, msg("E0 911", n, head["SEGNAM"]))
	} else {
		seg.name = segmentRules[i].name
		seg.fields, seg.rest = cutText(seg.name, text[layouts["EDI_DD40"][6].offset:])
	}
	d.segments = append(d.segments, seg)
}

// checkOrder holds the segments against the order and number of the basic type.
func (d *idoc) checkOrder() {
	if len(d.formal) > 0 {
		return // the records could not all be read
	}
	at := 0
	count := map[string]int{}
	before := "EDI_DC40"
	for _, seg := range d.segments {
		if seg.name == "" {
			continue // already refused
		}
		count[seg.name]++
		i := slices.IndexFunc(segmentRules, func(r segmentRule) bool { return r.name == seg.name })
		if i < at {
			d.syntax = append(d.syntax, msg("E0 912", seg.record, seg.name, before))
		}
		at, before = max(at, i), seg.name
	}
	for _, r := range segmentRules {
		if n := count[r.name]; n < r.least || n > r.most {
			d.syntax = append(d.syntax, msg("E0 914", r.name, n, r.least, r.most))
		}
	}
}

// of lists the segments of one name.
func (d *idoc) of(name string) []segment {
	var out []segment
	for _, s := range d.segments {
		if s.name == name {
			out = append(out, s)
		}
	}
	return out
}
