package sap

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"guichet/simulators/control"
)

// Handler serves the control page and the control API:
//
//	GET  /_control/documents?docnum=                  newest first, with lines and answers
//	POST /_control/documents/{idoc}/reprocess         a refused document tries again
//	POST /_control/documents/{idoc}/close             a refused document ends without posting (68)
//	GET  /_control/files                              what was read
//	POST /_control/poll                               reads inbound and writes what is due, now
//	GET  /_control/periods, PUT {"open": ["2026-11"]} null: by the clock
//	GET  /_control/host-key                           {"host_key": "ssh-ed25519 …"}
//	*    /_control/faults                             see package control
func (s *Simulator) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.home)
	mux.HandleFunc("GET /documents/{idoc}", s.page)
	mux.HandleFunc("GET /_control/documents", s.documentsJSON)
	mux.HandleFunc("POST /_control/documents/{idoc}/reprocess", s.changeJSON(s.reprocess))
	mux.HandleFunc("POST /_control/documents/{idoc}/close", s.changeJSON(s.closeDocument))
	mux.HandleFunc("GET /_control/files", func(w http.ResponseWriter, r *http.Request) {
		control.JSON(w, http.StatusOK, map[string]any{"data": s.view("").Files})
	})
	mux.HandleFunc("POST /_control/poll", s.pollJSON)
	mux.HandleFunc("GET /_control/periods", func(w http.ResponseWriter, r *http.Request) {
		control.JSON(w, http.StatusOK, map[string]any{"open": s.view("").Periods})
	})
	mux.HandleFunc("PUT /_control/periods", s.periodsJSON)
	mux.HandleFunc("GET /_control/host-key", func(w http.ResponseWriter, r *http.Request) {
		control.JSON(w, http.StatusOK, map[string]string{"host_key": strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.HostKey())))})
	})
	s.faults.Routes(mux)
	return s.site.Handler(mux)
}

// pageSize bounds every list.
const pageSize = 500

// shown is a document with the answers that name it.
type shown struct {
	document
	Answers []answerView `json:"answers"`
}

type answerView struct {
	File    string    `json:"file"`
	Status  string    `json:"status"`
	Due     string    `json:"due"`
	Stamp   string    `json:"stamp"`
	Written bool      `json:"written"`
	Says    []message `json:"messages"`
}

// view is a copy of the state for people and tests.
type view struct {
	Documents []shown
	Files     []file
	Waiting   int // answers not yet written
	Doubles   int
	Periods   []string
	Faults    *control.Faults
}

// view copies the newest part of the state; docnum narrows the documents.
func (s *Simulator) view(docnum string) view {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := view{Documents: []shown{}, Files: []file{}, Periods: s.openPeriods(), Faults: s.faults}
	for _, d := range slices.Backward(s.documents) {
		if d.DoublePosting {
			v.Doubles++
		}
		if (docnum == "" || d.DocNum == docnum) && len(v.Documents) < pageSize {
			v.Documents = append(v.Documents, shown{document: *d, Answers: []answerView{}})
		}
	}
	at := map[string]int{}
	for i, d := range v.Documents {
		at[d.IDoc] = i
	}
	for _, a := range s.answers {
		if !a.Written {
			v.Waiting++
		}
		for _, r := range a.Reports {
			if i, ok := at[r.IDoc]; ok {
				v.Documents[i].Answers = append(v.Documents[i].Answers, answerView{
					File: a.fileName(), Status: r.Status, Due: a.Due.Format(stampForm), Stamp: a.Stamp.Format(stampForm), Written: a.Written, Says: r.Messages,
				})
			}
		}
	}
	for _, f := range slices.Backward(s.files) {
		if len(v.Files) < pageSize {
			v.Files = append(v.Files, *f)
		}
	}
	return v
}

const stampForm = "2006-01-02T15:04:05Z07:00"

func (s *Simulator) home(w http.ResponseWriter, r *http.Request) {
	s.site.Page(w, http.StatusOK, "home", s.view(""))
}

func (s *Simulator) page(w http.ResponseWriter, r *http.Request) {
	for _, d := range s.view("").Documents {
		if d.IDoc == r.PathValue("idoc") {
			s.site.Page(w, http.StatusOK, "document", d)
			return
		}
	}
	http.Error(w, "no such document", http.StatusNotFound)
}

func (s *Simulator) documentsJSON(w http.ResponseWriter, r *http.Request) {
	v := s.view(r.URL.Query().Get("docnum"))
	control.JSON(w, http.StatusOK, map[string]any{"data": v.Documents, "double_postings": v.Doubles, "answers_waiting": v.Waiting})
}

func (s *Simulator) changeJSON(change func(idoc string) (*document, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		d, err := change(r.PathValue("idoc"))
		switch {
		case errors.Is(err, errNotFound):
			control.Fail(w, http.StatusNotFound, "%v", err)
		case errors.Is(err, errPosted), errors.Is(err, errClosed):
			control.Fail(w, http.StatusConflict, "%v", err)
		case err != nil:
			s.o.Log.Error("change document", "error", err)
			control.Fail(w, http.StatusInternalServerError, "%v", err)
		case control.IsForm(r):
			http.Redirect(w, r, "/documents/"+d.IDoc, http.StatusSeeOther)
		default:
			control.JSON(w, http.StatusOK, d)
		}
	}
}

func (s *Simulator) pollJSON(w http.ResponseWriter, r *http.Request) {
	if err := s.Poll(); err != nil {
		control.Fail(w, http.StatusInternalServerError, "%v", err)
		return
	}
	if control.IsForm(r) {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	control.JSON(w, http.StatusOK, map[string]int{"answers_waiting": s.view("").Waiting})
}

func (s *Simulator) periodsJSON(w http.ResponseWriter, r *http.Request) {
	var in periods
	err := control.Decode(w, r, &in)
	if err == nil {
		err = s.setPeriods(in.Open)
	}
	if err != nil {
		control.Fail(w, http.StatusUnprocessableEntity, "%v", err)
		return
	}
	control.JSON(w, http.StatusOK, map[string]any{"open": s.view("").Periods})
}
