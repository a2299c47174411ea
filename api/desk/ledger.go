package desk

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5"

	"guichet/internal/clock"
	"guichet/internal/money"
	"guichet/internal/table"
	"guichet/ledger"
	"guichet/ledger/report"
)

// ledgerPage is the trial balance.
type ledgerPage struct {
	view
	asOf
	Groups  []accountGroup
	Debits  money.Amount
	Credits money.Amount
	Period  ledger.Period // of the date
	Frozen  string        // hash of the frozen trial balance, when the date is the last of a closed month
	Changed bool          // the days do not give that hash any more
}

// asOf is a question's two sides of time, as they stand in the fields.
type asOf struct {
	On    clock.Date
	Known string
	at    time.Time // zero: now
}

// accountGroup is the accounts of one type.
type accountGroup struct {
	Type    ledger.Type
	Rows    []ledger.TrialLine
	Balance money.Amount
}

// Balanced reports that debits and credits are the same.
func (p ledgerPage) Balanced() bool { return p.Debits == p.Credits }

// LastDay is the last day of the period.
func (p ledgerPage) LastDay() clock.Date {
	return clock.FromTime(p.Period.Month.Time().AddDate(0, 1, -1))
}

// Month names the period.
func (p ledgerPage) Month() string { return p.Period.Month.String()[:len("2006-01")] }

// asOf reads the two sides of time from the address.
func (v view) asOf() (a asOf, err error) {
	if a.On, err = v.date("on"); err != nil {
		return a, err
	}
	if a.On == (clock.Date{}) {
		a.On = v.Today
	}
	a.Known = v.query.Get("known")
	a.at, err = v.moment("known")
	return a, err
}

// moment reads a moment of the address in the city's time; absent, it is zero.
func (v view) moment(name string) (time.Time, error) {
	text := v.query.Get(name)
	if text == "" {
		return time.Time{}, nil
	}
	for _, form := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05", time.RFC3339} {
		if t, err := time.ParseInLocation(form, text, clock.Toronto); err == nil && t.Year() >= 2000 && t.Year() < 2200 {
			return t, nil
		}
	}
	return time.Time{}, &addressError{"desk.error.bad_moment"}
}

func (h *Handler) ledger(w http.ResponseWriter, r *http.Request) {
	p := ledgerPage{view: h.view(r)}
	err := h.readTrial(r.Context(), &p)
	if err != nil {
		h.fail(w, r, "read trial balance", err)
		return
	}
	h.Site.Page(w, r, http.StatusOK, "desk/ledger", p)
}

func (h *Handler) readTrial(ctx context.Context, p *ledgerPage) (err error) {
	if p.asOf, err = p.view.asOf(); err != nil {
		return err
	}
	var lines []ledger.TrialLine
	err = h.snapshot(ctx, func(tx pgx.Tx) error {
		if lines, err = h.Books.TrialBalanceAsOf(ctx, tx, ledger.AsOf{On: p.On, KnownAt: p.at}); err != nil {
			return err
		}
		if p.Period, err = h.Books.PeriodOf(ctx, tx, p.On); err != nil {
			return err
		}
		if p.On != p.LastDay() {
			return nil
		}
		frozen, now, err := h.Books.CheckFrozen(ctx, tx, p.On)
		if errors.Is(err, ledger.ErrNotFound) { // not closed, or closed by a later month
			return nil
		}
		p.Frozen, p.Changed = hex.EncodeToString(frozen), !bytes.Equal(frozen, now)
		return err
	})
	if err != nil {
		return err
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
	return nil
}

func (h *Handler) trialTable(ctx context.Context, v view, _ *http.Request) (table.Table, error) {
	a, err := v.asOf()
	if err != nil {
		return table.Table{}, err
	}
	var lines []ledger.TrialLine
	at := ledger.AsOf{On: a.On, KnownAt: a.at}
	err = h.snapshot(ctx, func(tx pgx.Tx) error {
		lines, err = h.Books.TrialBalanceAsOf(ctx, tx, at)
		return err
	})
	return h.reports(v).Trial(lines, at), err
}

// AccountName is an account's name in the reader's language.
func (v view) AccountName(a ledger.Account) string { return report.Name(a, v.Lang) }

// accountPage is an account with a page of its lines, the newest first.
type accountPage struct {
	view
	Statement ledger.Statement
	Balance   money.Amount // now
	Newest    bool         // this is the first page
	Older     string       // address of the next page; empty: there is none
}

// SourceHref is where what caused a line is shown; empty: nowhere.
func (view) SourceHref(l ledger.StatementLine) string { return objectHref(l.SourceType, l.SourceID) }

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

func (h *Handler) linesTable(ctx context.Context, _ view, r *http.Request) (table.Table, error) {
	path := chi.URLParam(r, "path")
	var s ledger.Statement
	err := h.snapshot(ctx, func(tx pgx.Tx) (err error) {
		s, err = h.Books.Statement(ctx, tx, path, 0, maxRows+1)
		return err
	})
	if err != nil {
		return table.Table{}, err
	}
	return tableOf(h, "account-lines", path, []table.Column{
		table.Count("number"), table.Day("effective"), table.Moment("recorded"), table.Text("kind"), table.Text("what"), table.Text("source_type"), table.Text("source"),
		table.Amount("amount"), table.Amount("balance"), table.Text("currency"), table.Text("entry"),
	}, s.Lines, func(l ledger.StatementLine) []any {
		return []any{
			number(l.Seq), l.EffectiveOn, l.RecordedAt, l.Kind, l.Description, l.SourceType, l.SourceID,
			l.Amount, l.Balance, s.Account.Currency, l.EntryID,
		}
	})
}

// datedPage is an account by accounting date.
type datedPage struct {
	view
	dates
	Statement ledger.DatedStatement
	First     bool
	Later     string // address of the next page; empty: there is none
}

// dates are two accounting dates and what was known when, as they stand in the fields.
type dates struct {
	From, To clock.Date
	Known    string
	at       time.Time // zero: now
}

// StatementHref is an account's statement of the same dates, known at the same moment.
func (d dates) StatementHref(path string) string {
	q := url.Values{"from": {d.From.String()}, "to": {d.To.String()}}
	if d.Known != "" {
		q.Set("known", d.Known)
	}
	return "/desk/ledger/accounts/" + path + "/statement?" + q.Encode()
}

// dates reads them from the address. Left out, they are this month up to today.
func (v view) dates() (d dates, err error) {
	if d.From, err = v.date("from"); err != nil {
		return d, err
	}
	if d.To, err = v.date("to"); err != nil {
		return d, err
	}
	if d.To == (clock.Date{}) {
		d.To = v.Today
	}
	if d.From == (clock.Date{}) {
		d.From = d.To
		d.From.Day = 1
	}
	if d.To.Before(d.From) {
		return d, &addressError{"desk.error.dates_crossed"}
	}
	d.Known = v.query.Get("known")
	d.at, err = v.moment("known")
	return d, err
}

// Moved is what the account moved between the dates, debit positive.
func (p datedPage) Moved() money.Amount { return p.Statement.Closing - p.Statement.Opening }

func (h *Handler) datedStatement(w http.ResponseWriter, r *http.Request) {
	p := datedPage{view: h.view(r)}
	var err error
	if p.dates, err = p.view.dates(); err != nil {
		h.fail(w, r, "read dates", err)
		return
	}
	after := p.place()
	p.First = after == ledger.Place{}
	p.Statement, err = h.Books.StatementBetween(r.Context(), h.DB, ledger.StatementQuery{
		Path: chi.URLParam(r, "path"), From: p.From, To: p.To, KnownAt: p.at, After: after, Limit: pageRows,
	})
	if err != nil {
		h.fail(w, r, "read statement", err)
		return
	}
	if next := p.Statement.Next; next != (ledger.Place{}) {
		q := p.filters()
		q.Set("after", next.On.String()+"."+strconv.FormatInt(next.Seq, 10))
		p.Later = "?" + q.Encode()
	}
	h.Site.Page(w, r, http.StatusOK, "desk/dated", p)
}

// place is where the page of a statement begins; what is no place is the beginning.
func (v view) place() ledger.Place {
	day, number, _ := strings.Cut(v.query.Get("after"), ".")
	on, err := clock.ParseDate(day)
	if err != nil {
		return ledger.Place{}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 {
		return ledger.Place{}
	}
	return ledger.Place{On: on, Seq: n}
}

func (h *Handler) statementTable(ctx context.Context, v view, r *http.Request) (table.Table, error) {
	d, err := v.dates()
	if err != nil {
		return table.Table{}, err
	}
	return h.reports(v).General(ctx, ledger.GeneralQuery{Account: chi.URLParam(r, "path"), From: d.From, To: d.To, KnownAt: d.at})
}

// generalPage is the general ledger, account by account; its lines are a click away,
// and in the files.
type generalPage struct {
	view
	dates
	General     ledger.General
	Departments []option
	Under       string
	Paths       []string // that may be asked for
}

func (h *Handler) general(w http.ResponseWriter, r *http.Request) {
	v, ok := h.named(w, r)
	if !ok {
		return
	}
	p := generalPage{view: v, Under: v.query.Get("under")}
	q, err := v.generalQuery(&p.dates)
	if err == nil {
		p.General, err = h.Books.General(r.Context(), h.DB, q)
	}
	if err == nil {
		p.Paths, err = h.paths(r.Context())
	}
	if err != nil {
		h.fail(w, r, "read general ledger", err)
		return
	}
	p.Departments = v.departments()
	h.Site.Page(w, r, http.StatusOK, "desk/general", p)
}

func (v view) generalQuery(d *dates) (q ledger.GeneralQuery, err error) {
	if *d, err = v.dates(); err != nil {
		return q, err
	}
	return ledger.GeneralQuery{Under: v.query.Get("under"), Department: v.query.Get("department"), From: d.From, To: d.To, KnownAt: d.at}, nil
}

func (h *Handler) generalTable(ctx context.Context, v view, _ *http.Request) (table.Table, error) {
	var d dates
	q, err := v.generalQuery(&d)
	if err != nil {
		return table.Table{}, err
	}
	return h.reports(v).General(ctx, q)
}

// departments are the choices of a filter by department.
func (v view) departments() []option {
	chosen := v.query.Get("department")
	list := choices(v, "department", "none", []string{})
	for _, d := range v.depts {
		list = append(list, option{d.Code, asIs(d.Name(v.Lang)), d.Code == chosen})
	}
	return list
}

// maxPaths bounds what a field suggests.
const maxPaths = 2000

// paths are those of the accounts and of what is above them, in order.
func (h *Handler) paths(ctx context.Context) ([]string, error) {
	accounts, err := h.Books.Accounts(ctx, h.DB, "", maxPaths)
	if err != nil {
		return nil, err
	}
	var list []string
	seen := map[string]bool{}
	for _, a := range accounts {
		for i, r := range a.Path + ":" {
			if r == ':' && !seen[a.Path[:i]] {
				seen[a.Path[:i]] = true
				list = append(list, a.Path[:i])
			}
		}
	}
	return list, nil
}
