package resident

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/go-chi/chi/v5"

	"guichet/api/document"
	"guichet/api/web"
	"guichet/internal/id"
	"guichet/ledger"
	"guichet/payments"
)

// receiptPage is a receipt as its payer sees it.
type receiptPage struct {
	payments.Receipt
	Tender    web.Message
	VerifyURL string
	// Who paid in whose name; both empty when the payer acted for themselves.
	PaidBy, PaidFor string
}

func (h *Handler) receipt(w http.ResponseWriter, r *http.Request) {
	receipt, err := h.receiptOf(r)
	if err != nil {
		h.fail(w, r, "read receipt", err)
		return
	}
	page := h.receiptPage(receipt)
	if page.PaidBy, page.PaidFor, err = h.bothPeople(r.Context(), receipt); err != nil {
		h.fail(w, r, "read who paid", err)
		return
	}
	h.Site.Page(w, r, http.StatusOK, "resident/receipt", page)
}

// receiptOf reads the receipt of the address, as the reader may see it.
func (h *Handler) receiptOf(r *http.Request) (payments.Receipt, error) {
	receipt, err := h.Payments.Receipt(r.Context(), h.viewer(r), chi.URLParam(r, "id"))
	if err == nil && !mayReceipt(r.Context(), receipt) {
		err = payments.ErrNotFound
	}
	return receipt, err
}

func (h *Handler) receiptPage(r payments.Receipt) receiptPage {
	return receiptPage{Receipt: r, Tender: document.Tender(r.Document), VerifyURL: h.Documents.VerifyURL(r)}
}

func (h *Handler) receiptPDF(w http.ResponseWriter, r *http.Request) {
	receipt, err := h.receiptOf(r)
	if err != nil {
		h.fail(w, r, "read receipt", err)
		return
	}
	lang := web.Lang(r)
	pdf, err := h.Documents.Receipt(receipt, lang)
	if err != nil {
		h.fail(w, r, "draw receipt", err)
		return
	}
	name := map[string]string{"en": "receipt", "fr": "recu"}[lang]
	header := w.Header()
	header.Set("Content-Type", "application/pdf")
	header.Set("Content-Disposition", fmt.Sprintf(`attachment; filename="%s-%d.pdf"`, name, receipt.Number))
	header.Set("Cache-Control", "private, no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(pdf) // a reader who has gone away is nobody's error
}

// verifyPage is what anybody who holds its code may know of a receipt.
type verifyPage struct {
	Form    *web.Form
	Receipt *payments.Receipt
	Proof   string // "sealed", "waiting", "broken"
	Index   int64  // position in the log, when sealed
}

// verifyPage shows the form for a code, and takes what was typed into it.
func (h *Handler) verifyPage(w http.ResponseWriter, r *http.Request) {
	typed := r.URL.Query().Get("code")
	if typed == "" {
		h.Site.Page(w, r, http.StatusOK, "resident/verify", verifyPage{})
		return
	}
	if code, ok := id.Normalize(typed); ok {
		h.see(w, r, "/verify/"+id.Group(code))
		return
	}
	form := &web.Form{Values: url.Values{"code": {typed}}}
	form.Fail("code", "resident.verify.slip")
	h.Site.Page(w, r, http.StatusUnprocessableEntity, "resident/verify", verifyPage{Form: form})
}

func (h *Handler) verify(w http.ResponseWriter, r *http.Request) {
	receipt, err := h.Payments.ReceiptByCode(r.Context(), chi.URLParam(r, "code"))
	if errors.Is(err, payments.ErrNotFound) {
		form := &web.Form{Values: url.Values{"code": {chi.URLParam(r, "code")}}}
		form.Fail("code", "resident.verify.not_found")
		h.Site.Page(w, r, http.StatusNotFound, "resident/verify", verifyPage{Form: form})
		return
	}
	if err != nil {
		h.fail(w, r, "read receipt by code", err)
		return
	}
	page := verifyPage{Receipt: &receipt, Proof: "sealed"}
	proof, err := h.Books.Proof(r.Context(), h.DB, receipt.EntryID)
	switch {
	case errors.Is(err, ledger.ErrNotSealed):
		page.Proof = "waiting"
	case errors.Is(err, ledger.ErrLog), errors.Is(err, ledger.ErrNotFound):
		h.Log.ErrorContext(r.Context(), "a receipt is not in the books", "receipt", receipt.ID, "error", err)
		page.Proof = "broken"
	case err != nil:
		h.fail(w, r, "prove receipt", err)
		return
	}
	page.Index = proof.Index
	h.Site.Page(w, r, http.StatusOK, "resident/verify", page)
}

// proof is the proof that a receipt's entry is in the books, for those who check it
// with the log's public key. It names the payer's opaque id, so only the payer gets it.
func (h *Handler) proof(w http.ResponseWriter, r *http.Request) {
	receipt, err := h.receiptOf(r)
	if err != nil {
		h.fail(w, r, "read receipt", err)
		return
	}
	proof, err := h.Books.Proof(r.Context(), h.DB, receipt.EntryID)
	if errors.Is(err, ledger.ErrNotSealed) {
		h.Site.Fail(w, r, http.StatusNotFound, "resident.verify.waiting_text")
		return
	}
	if err != nil {
		h.fail(w, r, "prove receipt", err)
		return
	}
	text, err := json.MarshalIndent(proof, "", "  ")
	if err != nil {
		h.fail(w, r, "write proof", err)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Content-Disposition", fmt.Sprintf(`attachment; filename="proof-%d.json"`, receipt.Number))
	header.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(text) // a reader who has gone away is nobody's error
}
