package api

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"

	"guichet/ledger"
)

// proofs shows the world that the books were not rewritten: the newest signed head, the
// key to check it with, and the proof that it continues an older one. Nothing in
// them tells of an entry.
type proofs struct {
	books *ledger.Books
	db    ledger.Querier
	log   *slog.Logger
}

func (p proofs) head(w http.ResponseWriter, r *http.Request) {
	head, err := p.books.Head(r.Context(), p.db)
	if err == nil && head == "" {
		err = ledger.ErrNotSealed
	}
	p.answer(w, r, "text/plain; charset=utf-8", []byte(head), err)
}

func (p proofs) key(w http.ResponseWriter, r *http.Request) {
	key, err := p.books.LogVerifier(r.Context(), p.db)
	p.answer(w, r, "text/plain; charset=utf-8", []byte(key+"\n"), err)
}

func (p proofs) consistency(w http.ResponseWriter, r *http.Request) {
	from, err := strconv.ParseInt(r.URL.Query().Get("from"), 10, 64)
	if err != nil {
		http.Error(w, "from: want the size of an older head", http.StatusBadRequest)
		return
	}
	proof, err := p.books.Consistency(r.Context(), p.db, from)
	if err != nil {
		p.answer(w, r, "", nil, err)
		return
	}
	text, err := json.Marshal(proof)
	p.answer(w, r, "application/json", text, err)
}

func (p proofs) answer(w http.ResponseWriter, r *http.Request, kind string, text []byte, err error) {
	switch {
	case err == nil:
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Cache-Control", "no-store") // a witness wants the newest
		_, _ = w.Write(text)                        // whoever has left does not need it
	case errors.Is(err, ledger.ErrNotSealed):
		http.Error(w, "nothing is signed yet", http.StatusNotFound)
	case errors.Is(err, ledger.ErrInvalid):
		http.Error(w, "the log never had that size", http.StatusBadRequest)
	default:
		p.log.ErrorContext(r.Context(), "prove the books", "error", err)
		http.Error(w, "not now", http.StatusInternalServerError)
	}
}
