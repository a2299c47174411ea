package stripe

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"guichet/internal/clock"
	"guichet/simulators/control"
)

// controlRoutes are the levers of the simulator. Each takes JSON or a form with the
// same names; a browser's form is answered with the home page. The levers of the
// faults themselves are of package control.
func (s *Simulator) controlRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /{$}", s.showHome)
	mux.HandleFunc("GET /_control/state", s.lever(s.controlState))
	for pattern, do := range map[string]func(http.ResponseWriter, *http.Request) (any, error){
		"POST /_control/settle":               s.controlSettle,
		"POST /_control/webhooks/release":     s.controlRelease,
		"POST /_control/events/{id}/resend":   s.controlResend,
		"POST /_control/events/{id}/forge":    s.controlForge,
		"POST /_control/stray":                s.controlStray,
		"POST /_control/charges/{id}/dispute": s.controlDispute,
		"POST /_control/disputes/{id}/close":  s.controlDecide,
		"POST /_control/refunds/{id}":         s.controlRefund,
		"POST /_control/payment_intents/{id}": s.controlDebit,
		"POST /_control/payouts/run":          s.controlPayout,
		"POST /_control/payouts/{id}":         s.controlMovePayout,
	} {
		mux.HandleFunc(pattern, s.lever(do))
	}
}

// lever answers a control request with JSON, or leads a browser back to the home page.
func (s *Simulator) lever(do func(http.ResponseWriter, *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		result, err := do(w, r)
		var refused *apiError
		switch {
		case errors.As(err, &refused):
			control.Fail(w, refused.Status, "%s", refused.Message)
		case err != nil:
			s.broken(w, r, err)
		case control.IsForm(r):
			http.Redirect(w, r, "/", http.StatusSeeOther)
		default:
			control.JSON(w, http.StatusOK, result)
		}
	}
}

// read fills in from the body: JSON, or a form whose numbers and truths are read as
// such. An empty body leaves in as it is.
func read(w http.ResponseWriter, r *http.Request, in any) error {
	if control.IsForm(r) {
		r.Body = http.MaxBytesReader(w, r.Body, control.MaxBody)
		if err := r.ParseForm(); err != nil {
			return badParam("", "", "read form: %v", err)
		}
		form := object{}
		for k, v := range r.PostForm {
			form[k] = v[0]
			if n, err := strconv.ParseInt(v[0], 10, 64); err == nil {
				form[k] = n
			}
			if v[0] == "true" || v[0] == "false" {
				form[k] = v[0] == "true"
			}
		}
		body, err := json.Marshal(form)
		if err != nil {
			return err
		}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	if r.ContentLength == 0 {
		return nil
	}
	if err := control.Decode(w, r, in); err != nil {
		return badParam("", "", "%v", err)
	}
	return nil
}

// controlState shows what is stored, in short.
func (s *Simulator) controlState(http.ResponseWriter, *http.Request) (any, error) {
	out := object{}
	err := s.update(eventRequest{}, func(t *tx) error {
		counts := map[string]int{}
		for _, r := range s.store.rows {
			counts[r.kind()]++
		}
		out["now"], out["counts"], out["undelivered"] = t.now, counts, all[delivery](t)
		return nil
	})
	return out, err
}

func (s *Simulator) controlSettle(w http.ResponseWriter, r *http.Request) (any, error) {
	return object{}, s.Settle(r.Context())
}

// controlRelease sends what is held in an order shuffled by seed.
func (s *Simulator) controlRelease(w http.ResponseWriter, r *http.Request) (any, error) {
	var in struct {
		Seed uint64 `json:"seed"`
	}
	if err := read(w, r, &in); err != nil {
		return nil, err
	}
	order, err := s.release(r.Context(), in.Seed)
	return object{"events": order}, err
}

func (s *Simulator) controlResend(_ http.ResponseWriter, r *http.Request) (any, error) {
	return object{}, s.update(eventRequest{}, func(t *tx) error { return t.resend(r.PathValue("id")) })
}

func (s *Simulator) controlForge(w http.ResponseWriter, r *http.Request) (any, error) {
	var in struct {
		How string `json:"how"`
	}
	if err := read(w, r, &in); err != nil {
		return nil, err
	}
	answers, err := s.forge(r.Context(), r.PathValue("id"), in.How)
	return object{"answers": answers}, err
}

// controlStray moves our balance by something that our own service knows nothing
// of: a charge with its fee, or an adjustment of either sign.
func (s *Simulator) controlStray(w http.ResponseWriter, r *http.Request) (any, error) {
	in := struct {
		Kind        string `json:"kind"` // charge, adjustment
		AmountCents int64  `json:"amount_cents"`
		Description string `json:"description"`
		Available   bool   `json:"available"` // at once, not after two business days
	}{Kind: "adjustment", Description: "Adjustment by the processor"}
	if err := read(w, r, &in); err != nil {
		return nil, err
	}
	var line object
	err := s.update(eventRequest{}, func(t *tx) error {
		if in.AmountCents == 0 || in.AmountCents > maxAmount || in.AmountCents < -maxAmount || in.Kind == "charge" && in.AmountCents < minAmount {
			return badParam("", "amount_cents", "amount_cents is out of range")
		}
		var b *balanceTransaction
		var err error
		switch in.Kind {
		case "charge":
			b, err = t.strayCharge(in.AmountCents, in.Description, in.Available)
		case "adjustment":
			on := businessDays(t.now, 2)
			if in.Available {
				on = businessDays(t.now, 0)
			}
			b = t.balance(movement{kind: "adjustment", category: "other_adjustment", amount: in.AmountCents, currency: "cad", description: text(in.Description), available: on})
		default:
			err = badParam("", "kind", "kind: one of charge, adjustment")
		}
		if err != nil {
			return err
		}
		line, err = t.view(b)
		return err
	})
	return line, err
}

// strayCharge is a charge with its intent that no session of ours made.
func (t *tx) strayCharge(amount int64, description string, instant bool) (*balanceTransaction, error) {
	in, _ := readCard("4242424242424242", "12/"+strconv.Itoa(t.now.Year()+1), "123", t.now)
	pi := &intent{
		ID: newID("payment_intent"), Object: "payment_intent", Amount: amount, CaptureMethod: "automatic", Created: t.now.Unix(), Currency: "cad",
		Description: text(description), Metadata: map[string]string{}, PaymentMethodTypes: []string{"card"}, Status: needsMethod,
	}
	ch := t.newCharge(pi, in, payer{})
	ch.Status, ch.Paid, ch.Sim.Instant = succeeded, true, instant
	if err := t.collect(pi, ch, amount); err != nil {
		return nil, err
	}
	b, _ := get[balanceTransaction](t, string(ch.BalanceTransaction))
	if err := t.emit("charge.succeeded", ch, nil); err != nil {
		return nil, err
	}
	return b, t.emit("payment_intent.succeeded", pi, nil)
}

func (s *Simulator) controlDispute(w http.ResponseWriter, r *http.Request) (any, error) {
	in := struct {
		AmountCents int64  `json:"amount_cents"` // 0 for all that is left
		Reason      string `json:"reason"`
	}{Reason: "fraudulent"}
	if err := read(w, r, &in); err != nil {
		return nil, err
	}
	var shown object
	err := s.update(eventRequest{}, func(t *tx) error {
		d, err := t.dispute(r.PathValue("id"), in.AmountCents, in.Reason)
		if err != nil {
			return err
		}
		shown, err = t.view(d)
		return err
	})
	return shown, err
}

func (s *Simulator) controlDecide(w http.ResponseWriter, r *http.Request) (any, error) {
	var in struct {
		Won bool `json:"won"`
	}
	if err := read(w, r, &in); err != nil {
		return nil, err
	}
	return object{}, s.update(eventRequest{}, func(t *tx) error {
		d, ok := get[dispute](t, r.PathValue("id"))
		switch {
		case !ok:
			return missing("dispute", r.PathValue("id"), "id")
		case d.Status == "won" || d.Status == "lost":
			return badState("", "This dispute is already %s.", d.Status)
		}
		return t.decide(d, in.Won)
	})
}

func (s *Simulator) controlRefund(w http.ResponseWriter, r *http.Request) (any, error) {
	var in struct {
		Status string `json:"status"`
	}
	if err := read(w, r, &in); err != nil {
		return nil, err
	}
	return object{}, s.update(eventRequest{}, func(t *tx) error {
		if _, ok := get[refund](t, r.PathValue("id")); !ok {
			return missing("refund", r.PathValue("id"), "id")
		}
		if !slices.Contains([]string{"succeeded", "failed", "canceled"}, in.Status) {
			return badParam("", "status", "status: one of succeeded, failed, canceled")
		}
		return t.finishRefund(r.PathValue("id"), in.Status)
	})
}

// controlDebit ends a pre-authorised debit before its time.
func (s *Simulator) controlDebit(w http.ResponseWriter, r *http.Request) (any, error) {
	in := struct {
		Status  string `json:"status"` // succeeded, failed
		Failure string `json:"failure"`
	}{Failure: "insufficient_funds"}
	if err := read(w, r, &in); err != nil {
		return nil, err
	}
	return object{}, s.update(eventRequest{}, func(t *tx) error {
		pi, ok := get[intent](t, r.PathValue("id"))
		switch {
		case !ok:
			return missing("payment_intent", r.PathValue("id"), "id")
		case pi.Status != processing:
			return badState("payment_intent_unexpected_state", "This PaymentIntent is %s.", pi.Status)
		case in.Status == succeeded:
			return t.debitDone(pi.ID, "")
		case in.Status == "failed":
			return t.debitDone(pi.ID, in.Failure)
		}
		return badParam("", "status", "status: one of succeeded, failed")
	})
}

// controlPayout makes the payout that is due and moves it as far as until says. The
// bank is told before the answer if it can be reached, and later if not.
func (s *Simulator) controlPayout(w http.ResponseWriter, r *http.Request) (any, error) {
	in := struct {
		Currency    string `json:"currency"`
		ArrivalDate string `json:"arrival_date"` // today, or the next business day, when empty
		Until       string `json:"until"`        // pending, in_transit, paid
	}{Currency: "cad", Until: payoutPaid}
	if err := read(w, r, &in); err != nil {
		return nil, err
	}
	var shown object
	err := s.update(eventRequest{}, func(t *tx) error {
		arrives, err := arrival(t, in.ArrivalDate)
		if err != nil {
			return err
		}
		p, err := t.duePayout(in.Currency, arrives)
		if err != nil || p == nil {
			return err
		}
		switch in.Until {
		case payoutPending:
		case payoutInTransit:
			err = t.depart(p)
		case payoutPaid:
			err = t.arrive(p)
		default:
			err = badParam("", "until", "until: one of pending, in_transit, paid")
		}
		if err != nil {
			return err
		}
		shown, err = t.view(p)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := s.Settle(r.Context()); err != nil {
		return nil, err
	}
	told, err := s.bankTold()
	return object{"payout": shown, "bank_told": told}, err
}

func arrival(t *tx, date string) (clock.Date, error) {
	if date == "" {
		d := clock.DateOf(t.now)
		for !d.BusinessDay() {
			d = d.AddDays(1)
		}
		return d, nil
	}
	d, err := clock.ParseDate(date)
	if err != nil {
		return d, badParam("", "arrival_date", "arrival_date: YYYY-MM-DD")
	}
	return d, nil
}

// bankTold reports whether no message to the bank is waiting.
func (s *Simulator) bankTold() (told bool, err error) {
	err = s.update(eventRequest{}, func(t *tx) error {
		told = s.opt.BankURL != "" && len(all[credit](t)) == 0
		return nil
	})
	return told, err
}

func (s *Simulator) controlMovePayout(w http.ResponseWriter, r *http.Request) (any, error) {
	var in struct {
		Status      string `json:"status"` // in_transit, paid, failed
		FailureCode string `json:"failure_code"`
	}
	if err := read(w, r, &in); err != nil {
		return nil, err
	}
	var shown object
	err := s.update(eventRequest{}, func(t *tx) error {
		p, ok := get[payout](t, r.PathValue("id"))
		if !ok {
			return missing("payout", r.PathValue("id"), "id")
		}
		var err error
		switch in.Status {
		case payoutInTransit:
			err = t.depart(p)
		case payoutPaid:
			err = t.arrive(p)
		case payoutFailed:
			if in.FailureCode == "" {
				in.FailureCode = "account_closed"
			}
			err = t.failPayout(p, in.FailureCode)
		default:
			err = badParam("", "status", "status: one of in_transit, paid, failed")
		}
		if err != nil {
			return err
		}
		shown, err = t.view(p)
		return err
	})
	if err != nil {
		return nil, err
	}
	return shown, s.Settle(r.Context())
}

// A home is the page of the levers.
type home struct {
	Version                    string
	Now                        time.Time
	Available, Pending         string
	Waiting                    []*delivery
	Held                       int
	Faults                     *control.Faults
	Charges, Refunds, Disputes []homeRow
	Payouts, Events            []homeRow
}

// A homeRow is one line of a table of the home page.
type homeRow struct {
	At                      time.Time
	ID, Amount, State, Note string
	Act                     bool // the row's levers make sense
}

// shownRows is how many of each kind the home page shows: the newest.
const shownRows = 12

func (s *Simulator) showHome(w http.ResponseWriter, r *http.Request) {
	p := home{Version: apiVersion, Faults: s.faults}
	if err := s.update(eventRequest{}, func(t *tx) error { p.fill(t); return nil }); err != nil {
		s.broken(w, r, err)
		return
	}
	s.sites["en"].Page(w, http.StatusOK, "home", p)
}

func (p *home) fill(t *tx) {
	p.Now = t.now
	var available, pending int64
	for _, b := range all[balanceTransaction](t) {
		if t.available(b) {
			available += b.Net
		} else {
			pending += b.Net
		}
	}
	p.Available, p.Pending = english.money(available), english.money(pending)
	for _, d := range all[delivery](t) {
		if d.State == deliveryHeld {
			p.Held++
		} else if len(p.Waiting) < shownRows {
			p.Waiting = append(p.Waiting, d)
		}
	}
	for _, c := range latest[charge](t) {
		with := c.PaymentMethodDetails.Type
		if card := c.PaymentMethodDetails.Card; card != nil {
			with = card.Brand + " " + card.Last4
		}
		p.Charges = append(p.Charges, homeRow{unix(c.Created), c.ID, english.money(c.Amount), c.Status, with, c.Captured && !c.Disputed && !c.Refunded})
	}
	for _, x := range latest[refund](t) {
		p.Refunds = append(p.Refunds, homeRow{unix(x.Created), x.ID, english.money(x.Amount), x.Status, x.Charge, x.Status == "pending" || x.Status == succeeded})
	}
	for _, d := range latest[dispute](t) {
		p.Disputes = append(p.Disputes, homeRow{unix(d.Created), d.ID, english.money(d.Amount), d.Status, d.Reason, d.Status != "won" && d.Status != "lost"})
	}
	for _, o := range latest[payout](t) {
		p.Payouts = append(p.Payouts, homeRow{unix(o.Created), o.ID, english.money(o.Amount), o.Status, string(o.TraceID.Value), o.Status != payoutFailed})
	}
	for _, e := range latest[event](t) {
		p.Events = append(p.Events, homeRow{At: unix(e.Created), ID: e.ID, State: e.Type})
	}
}

// latest returns the newest rows of a kind, newest first.
func latest[T any, P interface {
	*T
	row
}](t *tx) []*T {
	ids := t.sim.store.byKind[P(new(T)).kind()]
	var out []*T
	for i := len(ids) - 1; i >= 0 && len(out) < shownRows; i-- {
		if r, ok := get[T, P](t, ids[i]); ok {
			out = append(out, r)
		}
	}
	return out
}
