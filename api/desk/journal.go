package desk

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5"

	"guichet/api/web"
	"guichet/internal/audit"
	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/money"
	"guichet/internal/table"
	"guichet/ledger"
	"guichet/reconcile"
)

// journalPage is the search of the journal.
type journalPage struct {
	view
	Asked       ledger.EntrySearch
	Form        map[string]string // what stands in the fields
	Departments []option
	Kinds       []string
	Paths       []string
	Rows        []entryRow
	First       bool
	Older       string      // address of the next page; empty: there is none
	Fault       web.Message // why nothing was searched; empty: it was
}

// searchFields are the fields of the search in the address.
var searchFields = []string{
	"entry", "key", "source_type", "source", "kind", "account", "department", "actor", "channel", "words",
	"amount_from", "amount_to", "recorded_from", "recorded_to", "effective_from", "effective_to",
}

// entryKinds are what entries are called, for a field that suggests them.
var entryKinds = []string{
	"bill.issued", "bill.adjusted", "bill.cancelled", "payment.succeeded", "settlement.department", "settlement.fees", "settlement.unexplained",
	"settlement.explained", "settlement.transfer", "adjustment", "reversal", "opening", "history", "hold", "capture", "release", "void", "expiry",
}

// search reads what is looked for from the address.
func (v view) search() (s ledger.EntrySearch, err error) {
	get := func(name string) string { return strings.TrimSpace(v.query.Get(name)) }
	s = ledger.EntrySearch{
		ID: get("entry"), Key: get("key"), SourceType: get("source_type"), SourceID: get("source"), Kind: get("kind"), Account: get("account"),
		Department: get("department"), Actor: get("actor"), Channel: get("channel"), Words: get("words"), Limit: pageRows,
	}
	for name, to := range map[string]*clock.Date{
		"recorded_from": &s.RecordedFrom, "recorded_to": &s.RecordedTo, "effective_from": &s.EffectiveFrom, "effective_to": &s.EffectiveTo,
	} {
		if *to, err = v.date(name); err != nil {
			return s, err
		}
	}
	for name, to := range map[string]*money.Amount{"amount_from": &s.AmountFrom, "amount_to": &s.AmountTo} {
		if *to, err = amountOf(get(name)); err != nil {
			return s, err
		}
	}
	at, last, _ := strings.Cut(v.query.Get("after"), "_")
	if moment, err := time.Parse(time.RFC3339Nano, at); err == nil && id.Valid(last) { // what is no place is the beginning
		s.After = ledger.EntryPlace{RecordedAt: moment, ID: last}
	}
	return s, nil
}

// amountOf reads an amount as people type it, in either language; empty is none.
func amountOf(text string) (money.Amount, error) {
	text = strings.NewReplacer("$", "", " ", "", "\u00a0", "", "\u202f", "").Replace(text)
	if text == "" {
		return 0, nil
	}
	if n := len(text); n > 3 && text[n-3] == ',' { // French: the cents follow a comma
		text = text[:n-3] + "." + text[n-2:]
	}
	a, err := money.Parse(strings.ReplaceAll(text, ",", ""))
	if err != nil || a <= 0 {
		return 0, &addressError{"desk.error.bad_amount"}
	}
	return a, nil
}

// narrowed reports whether anything was looked for.
func (v view) narrowed() bool {
	for _, name := range searchFields {
		if v.query.Get(name) != "" {
			return true
		}
	}
	return false
}

func (h *Handler) journal(w http.ResponseWriter, r *http.Request) {
	v, ok := h.named(w, r)
	if !ok {
		return
	}
	p := journalPage{view: v, Form: map[string]string{}, Departments: v.departments(), Kinds: entryKinds}
	for _, name := range searchFields {
		p.Form[name] = v.query.Get(name)
	}
	status := http.StatusOK
	s, err := v.search()
	if err == nil {
		p.First = s.After == ledger.EntryPlace{}
		err = h.findEntries(r.Context(), s, &p)
	}
	if fault := searchFault(err); fault != "" {
		status, p.Fault, err = http.StatusUnprocessableEntity, web.Say(fault), nil
	}
	if err == nil {
		p.Paths, err = h.paths(r.Context())
	}
	if err != nil {
		h.fail(w, r, "search the journal", err)
		return
	}
	h.Site.Page(w, r, status, "desk/journal", p)
}

// searchFault is what the searcher can mend; empty: nothing of that kind.
func searchFault(err error) string {
	var typed *addressError
	switch {
	case errors.As(err, &typed):
		return typed.key
	case errors.Is(err, ledger.ErrTooWide):
		return "desk.error.too_wide"
	case errors.Is(err, ledger.ErrUnknownAccount):
		return "desk.journal.no_account"
	case errors.Is(err, ledger.ErrInvalid):
		return "desk.error.bad_question"
	}
	return ""
}

func (h *Handler) findEntries(ctx context.Context, s ledger.EntrySearch, p *journalPage) error {
	if err := h.noteSearch(ctx, p.view); err != nil {
		return err
	}
	var found ledger.Search
	err := h.snapshot(ctx, func(tx pgx.Tx) (err error) {
		found, err = h.Books.SearchEntries(ctx, tx, s)
		return err
	})
	if err != nil {
		return err
	}
	p.Asked = found.Asked
	actors := make([]string, len(found.Entries))
	for i, e := range found.Entries {
		p.Rows = append(p.Rows, entryRow{e})
		actors[i] = e.Actor
	}
	if next := found.Next; next != (ledger.EntryPlace{}) {
		q := p.filters()
		q.Set("after", next.RecordedAt.Format(time.RFC3339Nano)+"_"+next.ID)
		p.Older = "?" + q.Encode()
	}
	return h.who(ctx, &p.view, actors...)
}

// noteSearch keeps who looked for what.
func (h *Handler) noteSearch(ctx context.Context, v view) error {
	if !v.narrowed() {
		return nil
	}
	asked := map[string]any{}
	for _, name := range searchFields {
		if value := v.query.Get(name); value != "" {
			asked[name] = value
		}
	}
	return pgx.BeginFunc(ctx, h.DB, func(tx pgx.Tx) error {
		return audit.Record(ctx, tx, audit.Event{Action: "journal.searched", ObjectType: "journal", Details: asked, At: h.Now()})
	})
}

func (h *Handler) journalTable(ctx context.Context, v view, _ *http.Request) (table.Table, error) {
	s, err := v.search()
	if err != nil {
		return table.Table{}, err
	}
	if err := h.noteSearch(ctx, v); err != nil {
		return table.Table{}, err
	}
	s.After = ledger.EntryPlace{}
	return h.reports(v).Search(ctx, s)
}

// Newest is where this list begins.
func (v view) Newest() string {
	if q := v.filters().Encode(); q != "" {
		return "?" + q
	}
	return "?"
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

// Late reports that the entry was asked for in a month that took no more.
func (e entryRow) Late() bool { return e.AskedOn != clock.Date{} }

// SourceHref is where what caused the entry is shown; empty: nowhere.
func (e entryRow) SourceHref() string { return objectHref(e.SourceType, e.SourceID) }

// entryPage is one journal entry with what it is bound to and its proof.
type entryPage struct {
	view
	Entry     entryRow
	accounts  map[string]ledger.Account
	Links     []ledger.Link
	Hold      *ledger.Hold // what became of it, when the entry is a hold
	Period    ledger.Period
	Documents []reconcile.Document
	Deeds     []audit.Row
	Proof     string // sealed, waiting or broken
	Index     int64  // position in the log, when sealed
	Head      string // signed, when sealed
}

// SourceHref is where what caused the entry is shown; empty: nowhere.
func (p entryPage) SourceHref() string { return p.Entry.SourceHref() }

// NameOf is the name of a line's account.
func (p entryPage) NameOf(l ledger.Line) string { return p.AccountName(p.accounts[l.Account]) }

// Month names the accounting month.
func (p entryPage) Month() string { return p.Period.Month.String()[:len("2006-01")] }

// DoneBy names who did a deed, as far as it may be told.
func (p entryPage) DoneBy(d audit.Row) web.Message {
	switch d.ActorKind {
	case audit.Resident, audit.Guest, audit.Department:
		return web.Say("desk.who." + d.ActorKind)
	}
	return p.Who(d.Actor)
}

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

// deedsShown is how many deeds on an entry and its source are listed.
const deedsShown = 50

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
		if p.accounts, err = h.Books.AccountsOf(ctx, tx, e); err != nil {
			return err
		}
		if err := h.readAround(ctx, tx, p); err != nil {
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
	actors := []string{p.Entry.Actor}
	for _, d := range p.Deeds {
		actors = append(actors, d.Actor)
	}
	return h.who(ctx, &p.view, actors...)
}

// readAround reads what an entry is bound to.
func (h *Handler) readAround(ctx context.Context, tx pgx.Tx, p *entryPage) (err error) {
	e := p.Entry.Entry
	if p.Links, err = h.Books.LinksTo(ctx, tx, e.ID); err != nil {
		return err
	}
	if e.Held && e.Hold == "" {
		hold, err := h.Books.HoldOf(ctx, tx, e.ID)
		if err != nil {
			return err
		}
		p.Hold = &hold
	}
	if p.Period, err = h.Books.PeriodOf(ctx, tx, e.EffectiveOn); err != nil {
		return err
	}
	if p.Documents, err = reconcile.DocumentsOfEntry(ctx, tx, e.ID); err != nil {
		return err
	}
	p.Deeds, err = audit.Of(ctx, tx, deedsShown, audit.Object{Type: "entry", ID: e.ID}, audit.Object{Type: e.SourceType, ID: e.SourceID})
	return err
}

func (h *Handler) entryTable(ctx context.Context, v view, r *http.Request) (table.Table, error) {
	return h.reports(v).Entry(ctx, chi.URLParam(r, "id"))
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
	whole(w, "application/json", "proof-"+proof.EntryID+".json", text)
}
