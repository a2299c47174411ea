package sap

import (
	"fmt"
	"slices"
	"time"
)

// state is what the journal adds up to.
type state struct {
	files     []*file
	documents []*document // in order of arrival
	byIDoc    map[string]*document
	answers   []*answer
	periods   []string // YYYY-MM; nil: by the clock
}

// Document statuses.
const (
	statusPosted  = "53"
	statusRefused = "51"
	statusFormal  = "56"
	statusSyntax  = "60"
	statusClosed  = "68"
)

// document is an IDoc as SAP keeps it.
type document struct {
	IDoc   string    `json:"idoc"` // SAP's number
	DocNum string    `json:"docnum"`
	File   string    `json:"file"`
	Index  int       `json:"index"` // in the file
	At     time.Time `json:"at"`
	Status string    `json:"status"`
	// Messages of the last status.
	Messages []message `json:"messages"`
	Posting  *posting  `json:"posting,omitempty"`
	Header   header    `json:"header"`
	Lines    []line    `json:"lines"`
	// SeenBefore: the DOCNUM came before. DoublePosting: and was posted before, so
	// the same money is in the books twice.
	SeenBefore    bool `json:"seen_before"`
	DoublePosting bool `json:"double_posting"`

	Sender partner `json:"sender"`
}

// partner is where answers go: the sender of the control record.
type partner struct{ Port, System string }

// posting names the FI document.
type posting struct {
	Document string `json:"fi_document"`
	Company  string `json:"company_code"`
	Year     string `json:"fiscal_year"`
}

// file is a file that was read.
type file struct {
	Name     string    `json:"name"`
	SHA256   string    `json:"sha256"`
	Size     int       `json:"size"`
	At       time.Time `json:"at"`
	Trouble  string    `json:"trouble,omitempty"` // it could not be read, and nothing can be answered
	Archived string    `json:"archived,omitempty"`
}

// answer is one ALEAUD file, waiting or written.
type answer struct {
	Number  int       `json:"number"`
	Stamp   time.Time `json:"stamp"` // CREDAT, CRETIM
	Due     time.Time `json:"due"`
	Partner partner   `json:"partner"`
	Reports []report  `json:"reports"`
	Written bool      `json:"written"`
}

// report is what an answer says about one document.
type report struct {
	DocNum   string    `json:"docnum"`
	IDoc     string    `json:"idoc"`
	Status   string    `json:"status"`
	Messages []message `json:"messages"`
	Posting  *posting  `json:"posting,omitempty"`
}

// event is a line of the journal. Whatever is set happened together.
type event struct {
	File      *file       `json:"file,omitempty"`
	Documents []*document `json:"documents,omitempty"` // new or changed
	Answers   []*answer   `json:"answers,omitempty"`   // new
	Archived  *archived   `json:"archived,omitempty"`
	Written   int         `json:"written,omitempty"` // number of an answer
	Periods   *periods    `json:"periods,omitempty"`
}

// periods are the open ones by hand; nil means by the clock.
type periods struct {
	Open []string `json:"open"`
}

type archived struct {
	File int    `json:"file"` // index
	As   string `json:"as"`
}

func (s *Simulator) apply(e event) {
	if s.byIDoc == nil {
		s.byIDoc = map[string]*document{}
	}
	if e.File != nil {
		s.files = append(s.files, e.File)
	}
	for _, d := range e.Documents {
		if old, ok := s.byIDoc[d.IDoc]; ok {
			*old = *d
			continue
		}
		s.byIDoc[d.IDoc] = d
		s.documents = append(s.documents, d)
	}
	s.answers = append(s.answers, e.Answers...)
	if e.Archived != nil {
		s.files[e.Archived.File].Archived = e.Archived.As
	}
	if e.Written > 0 {
		s.answers[e.Written-1].Written = true
	}
	if e.Periods != nil {
		s.periods = e.Periods.Open
	}
}

// record makes an event happen. The caller holds the lock.
func (s *Simulator) record(e event) error {
	if err := s.journal.Append(e); err != nil {
		return err
	}
	s.apply(e)
	return nil
}

// idocNumber is SAP's number of the n-th document.
func idocNumber(n int) string { return fmt.Sprintf("%016d", 4_711_000+n) }

// nextPosting numbers FI documents per fiscal year without gaps. plus counts those
// that are about to be recorded.
func (s *Simulator) nextPosting(year string, plus []*document) *posting {
	n := 1
	for _, d := range slices.Concat(s.documents, plus) {
		if d.Posting != nil && d.Posting.Year == year {
			n++
		}
	}
	return &posting{Document: fmt.Sprintf("%010d", 100_000_000+n), Company: companyCode, Year: year}
}

func (s *Simulator) isOpen(period string) bool {
	if s.periods != nil {
		return slices.Contains(s.periods, period)
	}
	return slices.Contains(defaultPeriods(s.o.Now()), period)
}
