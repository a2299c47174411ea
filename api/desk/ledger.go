package desk

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5"

	"guichet/internal/clock"
	"guichet/internal/money"
	"guichet/ledger"
	"guichet/reconcile"
)

// ledgerPage is the trial balance.
type ledgerPage struct {
	view
	On      clock.Date
	Groups  []accountGroup
	Debits  money.Amount
	Credits money.Amount
}

// accountGroup is the accounts of one type.
type accountGroup struct {
	Type    ledger.Type
	Rows    []ledger.TrialLine
	Balance money.Amount
}

// Balanced reports that debits and credits are the same.
func (p ledgerPage) Balanced() bool { return p.Debits == p.Credits }

func (h *Handler) ledger(w http.ResponseWriter, r *http.Request) {
	p := ledgerPage{view: h.view(r)}
	lines, err := h.trialBalance(r, &p)
	if err != nil {
		h.fail(w, r, "read trial balance", err)
		return
	}
	for _, t := range lines { // by path, and so by type
		if n := len(p.Groups); n == 0 || p.Groups[n-1].Type != t.Account.Type {
			p.Groups = append(p.Groups, accountGroup{Type: t.Account.Type})
		}
		g := &p.Groups[len(p.Groups)-1]
		g.Rows = append(g.Rows, t)
		g.Balance += t.Balance
		p.Debits += t.Debits
		p.Credits += t.Credits
	}
	h.Site.Page(w, r, http.StatusOK, "desk/ledger", p)
}

func (h *Handler) trialBalance(r *http.Request, p *ledgerPage) ([]ledger.TrialLine, error) {
	on, err := p.date("on")
	if err != nil {
		return nil, err
	}
	if on == (clock.Date{}) {
		on = p.Today
	}
	p.On = on
	return h.Books.TrialBalance(r.Context(), h.DB, on)
}

func (h *Handler) ledgerCSV(w http.ResponseWriter, r *http.Request) {
	p := ledgerPage{view: h.view(r)}
	lines, err := h.trialBalance(r, &p)
	if err != nil {
		h.fail(w, r, "read trial balance", err)
		return
	}
	h.table(w, r)(tableOf("trial-balance-"+p.On.String(), []string{"account", "account_name", "type", "currency", "debits", "credits", "balance"}, lines,
		func(t ledger.TrialLine) []any {
			return []any{t.Account.Path, p.AccountName(t.Account), string(t.Account.Type), t.Account.Currency, t.Debits, t.Credits, t.Balance}
		}))
}

// AccountName is an account's name in the reader's language.
func (v view) AccountName(a ledger.Account) string {
	if v.Lang == "fr" {
		return a.NameFR
	}
	return a.NameEN
}

// accountPage is an account with a page of its lines, the newest first.
type accountPage struct {
	view
	Statement ledger.Statement
	Balance   money.Amount // now
	Newest    bool         // this is the first page
	Older     string       // address of the next page; empty: there is none
}

// SourceHref is where what caused a line is shown; empty: nowhere.
func (accountPage) SourceHref(l ledger.StatementLine) string {
	return objectHref(l.SourceType, l.SourceID)
}

func (h *Handler) account(w http.ResponseWriter, r *http.Request) {
	p, path := accountPage{view: h.view(r)}, chi.URLParam(r, "path")
	before := p.before()
	err := h.snapshot(r.Context(), func(tx pgx.Tx) (err error) {
		if p.Statement, err = h.Books.Statement(r.Context(), tx, path, before, pageRows); err != nil {
			return err
		}
		p.Balance, err = h.Books.Balance(r.Context(), tx, path)
		return err
	})
	if err != nil {
		h.fail(w, r, "read account", err)
		return
	}
	p.Newest = before == 0
	if p.Statement.Next != 0 {
		p.Older = "?" + url.Values{"before": {strconv.FormatInt(p.Statement.Next, 10)}}.Encode()
	}
	h.Site.Page(w, r, http.StatusOK, "desk/account", p)
}

// before is the number below which a page of an account's lines begins; 0: the newest.
func (v view) before() int64 {
	n, err := strconv.ParseInt(v.query.Get("before"), 10, 64)
	if err != nil || n < 0 { // not a number: the newest
		return 0
	}
	return n
}

func (h *Handler) accountCSV(w http.ResponseWriter, r *http.Request) {
	path := chi.URLParam(r, "path")
	var lines []ledger.StatementLine
	err := h.snapshot(r.Context(), func(tx pgx.Tx) error {
		s, err := h.Books.Statement(r.Context(), tx, path, 0, maxCSV+1)
		lines = s.Lines
		return err
	})
	if err != nil {
		h.fail(w, r, "read account", err)
		return
	}
	h.table(w, r)(tableOf(path, []string{"number", "effective", "recorded", "kind", "what", "source_type", "source", "amount", "balance", "entry"}, lines,
		func(l ledger.StatementLine) []any {
			return []any{number(l.Seq), l.EffectiveOn, l.RecordedAt, l.Kind, l.Description, l.SourceType, l.SourceID, l.Amount, l.Balance, l.EntryID}
		}))
}

// entryRow is a journal entry in a list.
type entryRow struct{ ledger.Entry }

// Debits is what the entry moves.
func (e entryRow) Debits() (sum money.Amount) {
	for _, l := range e.Lines {
		sum += max(l.Amount, 0)
	}
	return sum
}

// Bank is by how much the entry moves the bank account.
func (e entryRow) Bank() (sum money.Amount) {
	for _, l := range e.Lines {
		if l.Account == reconcile.BankAccount {
			sum += l.Amount
		}
	}
	return sum
}

// entryPage is one journal entry with its proof.
type entryPage struct {
	view
	Entry     entryRow
	Documents []reconcile.Document
	Proof     string // sealed, waiting or broken
	Index     int64  // position in the log, when sealed
	Head      string // signed, when sealed
}

// SourceHref is where what caused the entry is shown; empty: nowhere.
func (p entryPage) SourceHref() string { return objectHref(p.Entry.SourceType, p.Entry.SourceID) }

// Dimensions are what a line is about, in one line.
func (entryPage) Dimensions(d ledger.Dimensions) string {
	var parts []string
	for _, value := range []string{d.Department, d.Fund, d.CostCentre, d.Order, d.WBS, d.Channel, d.Tender} {
		if value != "" {
			parts = append(parts, value)
		}
	}
	return strings.Join(parts, " · ")
}

func (h *Handler) entry(w http.ResponseWriter, r *http.Request) {
	p := entryPage{view: h.view(r)}
	if err := h.readEntry(r.Context(), chi.URLParam(r, "id"), &p); err != nil {
		h.fail(w, r, "read entry", err)
		return
	}
	h.Site.Page(w, r, http.StatusOK, "desk/entry", p)
}

func (h *Handler) readEntry(ctx context.Context, entryID string, p *entryPage) error {
	err := h.snapshot(ctx, func(tx pgx.Tx) error {
		e, err := h.Books.Entry(ctx, tx, entryID)
		if err != nil {
			return err
		}
		p.Entry = entryRow{e}
		if p.Documents, err = reconcile.DocumentsOfEntry(ctx, tx, e.ID); err != nil {
			return err
		}
		proof, err := h.Books.Proof(ctx, tx, e.ID)
		switch {
		case errors.Is(err, ledger.ErrNotSealed):
			p.Proof = "waiting"
		case errors.Is(err, ledger.ErrLog):
			h.Log.ErrorContext(ctx, "an entry is not what was sealed", "entry", e.ID, "error", err)
			p.Proof = "broken"
		case err != nil:
			return err
		default:
			p.Proof, p.Index, p.Head = "sealed", proof.Index, proof.Head
		}
		return nil
	})
	if err != nil {
		return err
	}
	return h.who(ctx, &p.view, p.Entry.Actor)
}

// proof is the proof itself, for those who check it with the log's public key.
func (h *Handler) proof(w http.ResponseWriter, r *http.Request) {
	proof, err := h.Books.Proof(r.Context(), h.DB, chi.URLParam(r, "id"))
	if errors.Is(err, ledger.ErrNotSealed) {
		h.Site.Fail(w, r, http.StatusNotFound, "desk.entry.proof_waiting")
		return
	}
	if err != nil {
		h.fail(w, r, "prove entry", err)
		return
	}
	text, err := json.MarshalIndent(proof, "", "  ")
	if err != nil {
		h.fail(w, r, "write proof", err)
		return
	}
	download(w, "application/json", "proof-"+proof.EntryID+".json", text)
}
