package sap

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"guichet/internal/clock"
	"guichet/internal/xmlread"
)

// An Answer is one state that SAP reports for one of our documents (E1STATE of an
// ALEAUD message). The same document may be answered several times: not posted
// today, posted tomorrow.
type Answer struct {
	DocNum     string    // E1STATE-DOCNUM: our number; it may be one we do not know
	At         time.Time // CREDAT and CRETIM of the message, in the city's zone
	Status     string    // IDoc status, 2 digits
	Severity   string    // STATYP: S, I, W, E, A
	Class      string    // STAMID, message class
	Number     string    // STAMNO
	Text       string    // STATXT with its parameters filled in
	System     string    // E1PRTOB-LOGSYS
	SAPDocNum  string    // E1PRTOB-DOCNUM: SAP's own IDoc number
	ObjectKey  string    // E1PRTOB-OBJKEY as sent
	Document   string    // from ObjectKey: FI document number, when posted
	Company    string
	FiscalYear int
}

// An Outcome is what an answer means for the document.
type Outcome string

const (
	InProgress Outcome = "in-progress" // SAP has it and is not done
	Posted     Outcome = "posted"      // final
	Rejected   Outcome = "rejected"    // needs work; SAP may still post it
	Closed     Outcome = "closed"      // SAP will never post it
)

// outcomes are the inbound IDoc statuses that decide something. All others
// (50, 62, 64, 66, 75 …) are steps on the way.
var outcomes = map[string]Outcome{
	"53": Posted,
	"51": Rejected, "52": Rejected, "54": Rejected, "56": Rejected,
	"60": Rejected, "63": Rejected, "65": Rejected,
	"68": Closed,
}

// Outcome returns what the status means.
func (a Answer) Outcome() Outcome { return cmp.Or(outcomes[a.Status], InProgress) }

// Supersedes reports whether a is the current answer when b was before: posted is
// final, otherwise the later one counts.
func (a Answer) Supersedes(b Answer) bool {
	switch {
	case b.Outcome() == Posted:
		return false
	case a.Outcome() == Posted:
		return true
	}
	return !a.At.Before(b.At)
}

// An answer file carries up to 500 confirmations an IDoc; a megabyte holds a
// thousand.
var answerLimits = xmlread.Limits{Bytes: 16 << 20, Depth: 12, Text: 2000}

const (
	idocPath   = "ALEAUD01/IDOC"
	statePath  = idocPath + "/E1ADHDR/E1STATE"
	objectPath = statePath + "/E1PRTOB"
)

// ReadALEAUD reads an answer file: XML of IDoc type ALEAUD01, with any number of
// IDocs and states. A file that is not one is refused whole. Answers about other
// message types are left out.
func ReadALEAUD(r io.Reader) ([]Answer, error) {
	in := xmlread.New(r, answerLimits)
	var out, idoc []Answer        // idoc: of the open IDOC
	states := 0                   // of any message type
	values := map[string]string{} // of the open IDOC, E1STATE and E1PRTOB, by path
	drop := func(prefix string) { // forget what belonged to an element that starts anew
		for path := range values {
			if strings.HasPrefix(path, prefix+"/") {
				delete(values, path)
			}
		}
	}
	for {
		t, err := in.Next()
		if errors.Is(err, io.EOF) {
			if states == 0 {
				return nil, errors.New("no confirmation (E1STATE) in the file")
			}
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		switch {
		case !t.End && !strings.HasPrefix(t.Path+"/", "ALEAUD01/"):
			return nil, t.Refuse("the root is not ALEAUD01")
		case !t.End && t.Path == idocPath:
			idoc = nil
			clear(values)
		case !t.End && (t.Path == statePath || t.Path == idocPath+"/E1ADHDR"):
			drop(t.Path)
		case t.End && t.Path == statePath:
			states++
			// MESTYP has 6 characters: longer names are in MESTYP_LNG alone.
			const header = idocPath + "/E1ADHDR/"
			if of := cmp.Or(values[header+"MESTYP_LNG"], values[header+"MESTYP"]); of != "" && of != messageType {
				continue
			}
			a, err := stateAnswer(t, values)
			if err != nil {
				return nil, err
			}
			idoc = append(idoc, a)
		case t.End && t.Path == idocPath:
			at, err := idocTime(t, values)
			if err != nil {
				return nil, err
			}
			for _, a := range idoc {
				a.At = at
				out = append(out, a)
			}
		case t.End && t.Leaf:
			if _, twice := values[t.Path]; !twice { // of several E1PRTOB the first names the object
				values[t.Path] = t.Text
			}
		}
	}
}

// stateAnswer makes an Answer of the fields of one E1STATE.
func stateAnswer(t xmlread.Token, values map[string]string) (Answer, error) {
	state := func(field string) string { return values[statePath+"/"+field] }
	a := Answer{
		DocNum: state("DOCNUM"), Status: state("STATUS"), Severity: state("STATYP"),
		Class: state("STAMID"), Number: state("STAMNO"), Text: messageText(state),
		System: values[objectPath+"/LOGSYS"], SAPDocNum: values[objectPath+"/DOCNUM"], ObjectKey: values[objectPath+"/OBJKEY"],
	}
	if a.DocNum == "" || len(a.DocNum) > 16 {
		return Answer{}, t.Refuse("DOCNUM %.40q is not an IDoc number", a.DocNum)
	}
	if len(a.Status) != 2 || strings.Trim(a.Status, "0123456789") != "" {
		return Answer{}, t.Refuse("STATUS %.40q is not two digits", a.Status)
	}
	if key := postedKey.FindStringSubmatch(a.ObjectKey); key != nil && a.Outcome() == Posted {
		a.Document, a.Company = key[1], key[2]
		a.FiscalYear, _ = strconv.Atoi(key[3]) // four digits by the pattern
	}
	return a, nil
}

// postedKey takes apart E1PRTOB-OBJKEY: reference procedure 5, then document 10,
// company code 4, fiscal year 4. Its length varies between systems, so it is read
// by pattern and kept as sent.
var postedKey = regexp.MustCompile(`^BKPFF([0-9A-Z]{10})([0-9A-Z]{4})([0-9]{4})(?:\s|$)`)

var placeholder = regexp.MustCompile(`&[1-4]?`)

// messageText fills &1 … &4 (or bare & in order) of STATXT. The long parameters
// are whole where the short ones are cut.
func messageText(state func(string) string) string {
	next := 0
	text := placeholder.ReplaceAllStringFunc(state("STATXT"), func(p string) string {
		n := next
		if len(p) == 2 {
			n = int(p[1] - '1')
		} else {
			next++
		}
		if n > 3 {
			return p
		}
		i := strconv.Itoa(n + 1)
		return cmp.Or(state("STAPA"+i+"_LNG"), state("STAPA"+i))
	})
	return strings.Join(strings.Fields(text), " ")
}

func idocTime(t xmlread.Token, values map[string]string) (time.Time, error) {
	text := values[idocPath+"/EDI_DC40/CREDAT"] + values[idocPath+"/EDI_DC40/CRETIM"]
	at, err := time.ParseInLocation("20060102150405", text, clock.Toronto)
	if err != nil {
		return time.Time{}, t.Refuse("CREDAT and CRETIM %.40q are not a date and a time", text)
	}
	return at.UTC(), nil
}

// String describes the answer for a log or a note: status, SAP's text, document.
func (a Answer) String() string {
	s := fmt.Sprintf("%s (%s %s) %s", a.Status, a.Class, a.Number, a.Text)
	if a.Document != "" {
		s += fmt.Sprintf(": document %s %s %d", a.Document, a.Company, a.FiscalYear)
	}
	return s
}
