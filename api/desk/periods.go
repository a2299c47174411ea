package desk

import (
	"context"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/api/web"
	"guichet/internal/approval"
	"guichet/internal/clock"
	"guichet/ledger"
	"guichet/reconcile"
)

// periodsPage is the accounting months with what is asked for them.
type periodsPage struct {
	view
	Form     *web.Form
	Rows     []periodRow
	Requests []reconcile.PeriodRequest
}

// periodRow is one month.
type periodRow struct {
	ledger.Period
	Name  string                 // YYYY-MM
	Hash  string                 // of the frozen trial balance; empty while there is none
	Moves []reconcile.PeriodMove // that may be asked for
}

// LastDay is the day by which the month's trial balance is read.
func (r periodRow) LastDay() clock.Date {
	return clock.FromTime(r.Month.Time().AddDate(0, 1, -1))
}

// MayDecide reports whether the reader may decide about a request: an approver, and not
// whoever asked.
func (p periodsPage) MayDecide(r reconcile.PeriodRequest) bool {
	return hasAny(p.Member, approve, "") && r.By != p.Member.ID
}

// monthsShown are the months up to today's that are always shown, periodsShown all of them.
const (
	monthsShown  = 13
	periodsShown = 60
)

func (h *Handler) periods(w http.ResponseWriter, r *http.Request) {
	h.showPeriods(w, r, http.StatusOK, nil)
}

func (h *Handler) showPeriods(w http.ResponseWriter, r *http.Request, status int, form *web.Form) {
	p := periodsPage{view: h.view(r), Form: form}
	if err := h.readPeriods(r.Context(), &p); err != nil {
		h.fail(w, r, "read periods", err)
		return
	}
	h.Site.Page(w, r, status, "desk/periods", p)
}

func (h *Handler) readPeriods(ctx context.Context, p *periodsPage) error {
	var touched []ledger.Period
	err := h.snapshot(ctx, func(tx pgx.Tx) (err error) {
		if touched, err = h.Books.Periods(ctx, tx, periodsShown); err != nil {
			return err
		}
		p.Requests, err = reconcile.PeriodRequests(ctx, tx)
		return err
	})
	if err != nil {
		return err
	}
	known := map[clock.Date]bool{}
	for _, t := range touched {
		known[t.Month] = true
	}
	for back := range monthsShown {
		first := clock.FromTime(time.Date(p.Today.Year, p.Today.Month-time.Month(back), 1, 0, 0, 0, 0, time.UTC))
		if !known[first] {
			touched = append(touched, ledger.Period{Month: first, State: ledger.PeriodOpen})
		}
	}
	slices.SortFunc(touched, func(a, b ledger.Period) int { return b.Month.Time().Compare(a.Month.Time()) })
	closed := false // a closed month closes every month before it
	for _, t := range touched {
		if closed {
			t.State = ledger.PeriodClosed
		}
		closed = t.State == ledger.PeriodClosed
		row := periodRow{Period: t, Name: t.Month.String()[:len("2006-01")], Hash: hex.EncodeToString(t.TrialHash)}
		if p.MayHandle() {
			row.Moves = reconcile.PeriodMoves(row.Name, t.State, p.Requests)
		}
		p.Rows = append(p.Rows, row)
	}
	var actors []string
	for _, request := range p.Requests {
		actors = append(actors, request.By)
	}
	return h.who(ctx, &p.view, actors...)
}

// askPeriod asks for a month to be moved.
func (h *Handler) askPeriod(w http.ResponseWriter, r *http.Request) {
	h.movePeriod(w, r, func(f *web.Form) error {
		first, err := time.Parse("2006-01", f.Value("month"))
		if err != nil {
			return reconcile.ErrPeriodStep
		}
		return h.Nightly.AskPeriod(r.Context(), clock.FromTime(first), ledger.PeriodState(f.Value("to")))
	})
}

// decidePeriod carries out what was asked for, or refuses it.
func (h *Handler) decidePeriod(w http.ResponseWriter, r *http.Request) {
	h.movePeriod(w, r, func(f *web.Form) error {
		if f.Value("decision") == approval.Approved {
			return h.Nightly.ApprovePeriod(r.Context(), f.Value("request"))
		}
		return h.Nightly.RefusePeriod(r.Context(), f.Value("request"), "")
	})
}

// movePeriod does what a form says and goes back to the list, or says what is in the way.
func (h *Handler) movePeriod(w http.ResponseWriter, r *http.Request, do func(*web.Form) error) {
	form, err := web.ReadForm(w, r)
	if err != nil {
		h.Site.Fail(w, r, http.StatusBadRequest, "")
		return
	}
	err = do(form)
	var notReady *ledger.NotReadyError
	switch {
	case err == nil:
		h.see(w, r, "/desk/periods")
		return
	case errors.Is(err, approval.ErrSamePerson):
		form.Fail("", "desk.period.same_person")
	case errors.Is(err, approval.ErrPending):
		form.Fail("", "desk.period.pending")
	case errors.Is(err, reconcile.ErrPeriodStep), errors.Is(err, approval.ErrDecided), errors.Is(err, approval.ErrChanged), errors.Is(err, ledger.ErrPeriodClosed):
		form.Fail("", "desk.period.stale")
	case errors.As(err, &notReady):
		form.Fail("", "desk.period.not_ready", "Text", notReady.Error())
	default:
		h.fail(w, r, "move period", err)
		return
	}
	h.showPeriods(w, r, http.StatusConflict, form)
}

// toPeriods serves the address of a form when it is opened, not posted.
func (h *Handler) toPeriods(w http.ResponseWriter, r *http.Request) { h.see(w, r, "/desk/periods") }
