package bank

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"guichet/internal/clock"
	"guichet/internal/money"
	"guichet/simulators/control"
)

// Handler serves the control page and the control API:
//
//	POST /_control/credits                        {"amount_cents", "currency", "reference", "text", "value_date"}
//	                                              → 201, or 200 when it is known; below zero is a debit
//	POST /_control/statements                     {"date"} → 201 {"data": [statement…]}
//	POST /_control/statements/{sequence}/deliver  sends the right file (again)
//	GET  /_control/statements, GET /_control/credits
//	*    /_control/faults                         see package control
func (b *Bank) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", b.home)
	mux.HandleFunc("GET /_control/credits", func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		defer b.mu.Unlock()
		control.JSON(w, http.StatusOK, map[string]any{"data": newest(b.entries), "balance_cents": b.balance()})
	})
	mux.HandleFunc("GET /_control/statements", func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		defer b.mu.Unlock()
		control.JSON(w, http.StatusOK, map[string]any{"data": newest(b.statements)})
	})
	mux.HandleFunc("POST /_control/credits", b.postCredit)
	mux.HandleFunc("POST /_control/statements", b.postStatement)
	mux.HandleFunc("POST /_control/statements/{sequence}/deliver", b.postDeliver)
	b.faults.Routes(mux)
	return b.site.Handler(mux)
}

const pageSize = 200

// newest gives the last pageSize of list, newest first.
func newest[T any](list []T) []T {
	out := slices.Clone(list[max(0, len(list)-pageSize):])
	if out == nil {
		out = []T{}
	}
	slices.Reverse(out)
	return out
}

func (b *Bank) home(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	data := struct {
		Account, Today string
		Balance        money.Amount
		Entries        []entry
		Statements     []statement
		Faults         *control.Faults
	}{b.o.Account, clock.DateOf(b.o.Now()).String(), b.balance(), newest(b.entries), newest(b.statements), b.faults}
	b.mu.Unlock()
	b.site.Page(w, http.StatusOK, "home", data)
}

func (b *Bank) postCredit(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Amount    money.Amount `json:"amount_cents"`
		Currency  string       `json:"currency"`
		Reference string       `json:"reference"`
		Text      string       `json:"text"`
		ValueDate string       `json:"value_date"`
	}
	var err error
	if control.IsForm(r) {
		r.Body = http.MaxBytesReader(w, r.Body, control.MaxBody)
		in.Currency, in.Reference, in.Text = money.CAD, strings.TrimSpace(r.PostFormValue("reference")), strings.TrimSpace(r.PostFormValue("text"))
		in.ValueDate = r.PostFormValue("value_date")
		in.Amount, err = money.Parse(strings.TrimSpace(r.PostFormValue("amount")))
	} else {
		err = control.Decode(w, r, &in)
	}
	if err != nil {
		control.Fail(w, http.StatusBadRequest, "%v", err)
		return
	}
	e, again, err := b.credit(entry{
		Reference: in.Reference, Amount: in.Amount, Currency: in.Currency, Text: in.Text, ValueDate: in.ValueDate,
	})
	status := http.StatusCreated
	if again {
		status = http.StatusOK
	}
	b.answer(w, r, status, e, err)
}

func (b *Bank) postStatement(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Date string `json:"date"`
	}
	if control.IsForm(r) {
		r.Body = http.MaxBytesReader(w, r.Body, control.MaxBody)
		in.Date = r.PostFormValue("date")
	} else if err := control.Decode(w, r, &in); err != nil {
		control.Fail(w, http.StatusBadRequest, "%v", err)
		return
	}
	list, err := b.closeDay(in.Date)
	b.answer(w, r, http.StatusCreated, map[string]any{"data": list}, err)
}

func (b *Bank) postDeliver(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.PathValue("sequence"))
	if err != nil {
		control.Fail(w, http.StatusNotFound, "%v", errNotFound)
		return
	}
	s, err := b.redeliver(n)
	b.answer(w, r, http.StatusOK, s, err)
}

// answer turns an outcome into JSON, or sends a form back to the page.
func (b *Bank) answer(w http.ResponseWriter, r *http.Request, status int, v any, err error) {
	switch {
	case errors.Is(err, errInvalid), errors.Is(err, errDate):
		control.Fail(w, http.StatusUnprocessableEntity, "%v", err)
	case errors.Is(err, errConflict):
		control.Fail(w, http.StatusConflict, "%v", err)
	case errors.Is(err, errNotFound):
		control.Fail(w, http.StatusNotFound, "%v", err)
	case err != nil:
		b.o.Log.Error("bank", "error", err)
		control.Fail(w, http.StatusInternalServerError, "%v", err)
	case control.IsForm(r):
		http.Redirect(w, r, "/", http.StatusSeeOther)
	default:
		control.JSON(w, status, v)
	}
}
