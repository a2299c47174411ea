package bill

import (
	"guichet/internal/clock"
	"guichet/internal/money"
)

// A Quote is what is due on a date, line by line. It depends on the bill and the
// date alone: asked again for the same date, it is the same.
type Quote struct {
	On    clock.Date
	Lines []QuoteLine
	Due   money.Amount
	Early *Early // what paying by a date saves; nil: nothing
}

// A QuoteLine is what is due of one line.
type QuoteLine struct {
	Line           int
	Net, Step, Tax money.Amount
	StepReason     bool // the early days are over: Step counts
}

// Total is the line's sum.
func (l QuoteLine) Total() money.Amount { return l.Net + l.Step + l.Tax }

// Early says until when the bill costs less, and how much less.
type Early struct {
	Until clock.Date
	Saves money.Amount
}

// Quote works out what is due on a date. Nothing is due of a bill that cannot be paid.
func (b Bill) Quote(on clock.Date) Quote {
	q := Quote{On: on}
	if !b.State.Payable() {
		return q
	}
	lapsed := b.EarlyUntil != (clock.Date{}) && on.After(b.EarlyUntil)
	var saves money.Amount
	for _, l := range b.Lines {
		ql := QuoteLine{Line: l.Line, Net: l.Net - l.PaidNet, Tax: l.Tax - l.PaidTax}
		switch {
		case l.Step > 0 && (lapsed || l.Crystallised):
			ql.Step, ql.StepReason = l.Step-l.PaidStep, true
		case l.Step > 0:
			saves += l.Step
		}
		q.Lines = append(q.Lines, ql)
		q.Due += ql.Total()
	}
	if saves > 0 {
		q.Early = &Early{Until: b.EarlyUntil, Saves: saves}
	}
	return q
}

// Overdue reports whether the due date has passed on a date and money is still due.
func (b Bill) Overdue(on clock.Date) bool { return b.State.Payable() && on.After(b.DueOn) }
