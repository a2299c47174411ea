package desk

import (
	"context"
	"net/http"
	"slices"

	"github.com/jackc/pgx/v5"

	"guichet/internal/money"
	"guichet/internal/table"
	"guichet/ledger"
)

// activityPage is what moved, by dimensions.
type activityPage struct {
	view
	dates
	Under  string
	Paths  []string
	By     []grouping
	Chosen []string
	Lines  []ledger.ActivityLine
	Sums   []ledger.ActivityLine // per currency
	More   bool                  // there are more groups than the page shows
	Chart  *chart                // for one grouping
}

// A grouping may be chosen.
type grouping struct {
	Name   string
	Chosen bool
}

// groupsShown is how many groups a page shows.
const groupsShown = 500

func (h *Handler) activity(w http.ResponseWriter, r *http.Request) {
	v, ok := h.named(w, r)
	if !ok {
		return
	}
	p := activityPage{view: v, Under: v.query.Get("under")}
	q, err := v.activityQuery(&p.dates)
	if err == nil {
		q.Limit = groupsShown + 1
		err = h.snapshot(r.Context(), func(tx pgx.Tx) error {
			p.Lines, err = h.Books.Activity(r.Context(), tx, q)
			return err
		})
	}
	if err == nil {
		p.Paths, err = h.paths(r.Context())
	}
	if err != nil {
		h.fail(w, r, "read activity", err)
		return
	}
	p.Chosen = q.By
	for _, name := range ledger.Groupings() {
		p.By = append(p.By, grouping{name, slices.Contains(q.By, name)})
	}
	if p.More = len(p.Lines) > groupsShown; p.More {
		p.Lines = p.Lines[:groupsShown]
	} else {
		p.Sums = sumsOf(p.Lines)
		if len(q.By) == 1 {
			p.Chart = chartOf(p)
		}
	}
	h.Site.Page(w, r, http.StatusOK, "desk/activity", p)
}

// sumsOf adds up the groups of each currency.
func sumsOf(lines []ledger.ActivityLine) []ledger.ActivityLine {
	var sums []ledger.ActivityLine
	for _, l := range lines {
		i := slices.IndexFunc(sums, func(s ledger.ActivityLine) bool { return s.Currency == l.Currency })
		if i < 0 {
			sums, i = append(sums, ledger.ActivityLine{Currency: l.Currency}), len(sums)
		}
		sums[i].Debits += l.Debits
		sums[i].Credits += l.Credits
	}
	return sums
}

// Group is what the lines of a group have in common under a name, for people.
func (p activityPage) Group(l ledger.ActivityLine, by string) string {
	value := l.Value(by)
	switch {
	case value == "":
		return p.site.T(p.Lang, "desk.activity.without")
	case by == "department":
		for _, d := range p.depts {
			if d.Code == value {
				return d.Name(p.Lang)
			}
		}
	case by == "channel", by == "tender":
		if text, err := p.site.Write(p.Lang, p.Label(by, value)); err == nil {
			return text
		}
	}
	return value
}

// Net is what a group moved, debit positive.
func (activityPage) Net(l ledger.ActivityLine) money.Amount { return l.Debits - l.Credits }

// activityQuery reads the question; without a grouping it is by department.
func (v view) activityQuery(d *dates) (q ledger.ActivityQuery, err error) {
	if *d, err = v.dates(); err != nil {
		return q, err
	}
	q = ledger.ActivityQuery{Under: v.query.Get("under"), From: d.From, To: d.To}
	for _, name := range ledger.Groupings() { // in their order, each once
		if slices.Contains(v.query["by"], name) {
			q.By = append(q.By, name)
		}
	}
	if len(q.By) == 0 {
		q.By = []string{"department"}
	}
	return q, nil
}

func (h *Handler) activityTable(ctx context.Context, v view, _ *http.Request) (table.Table, error) {
	var d dates
	q, err := v.activityQuery(&d)
	if err != nil {
		return table.Table{}, err
	}
	return h.reports(v).Activity(ctx, q)
}

// A chart shows debits and credits of the groups that moved most, as bars beneath
// each other; the table says the same in figures.
type chart struct {
	Bars   []bar
	Left   int // groups that are not shown
	Height int
	Width  int
}

// A bar is one group of a chart; lengths are in the chart's own units.
type bar struct {
	Label           string
	Debits, Credits money.Amount
	DebitsWidth     int64
	CreditsWidth    int64
	Y               int
}

// The measures of a chart.
const (
	chartBars  = 12
	chartWidth = 380
	barHeight  = 58 // label, two bars and the space beneath
)

func chartOf(p activityPage) *chart {
	lines := slices.Clone(p.Lines)
	slices.SortStableFunc(lines, func(a, b ledger.ActivityLine) int {
		return int(max(-1, min(1, max(b.Debits, b.Credits)-max(a.Debits, a.Credits))))
	})
	c := &chart{Left: max(0, len(lines)-chartBars), Width: chartWidth}
	lines = lines[:len(lines)-c.Left]
	if len(lines) == 0 || len(p.Sums) > 1 { // lengths of two currencies cannot be compared
		return nil
	}
	longest := max(lines[0].Debits, lines[0].Credits)
	if longest == 0 {
		return nil
	}
	for i, l := range lines {
		length := func(a money.Amount) int64 { // the longest leaves room for its figure
			return int64(float64(a) / float64(longest) * (chartWidth - 110))
		}
		c.Bars = append(c.Bars, bar{
			Label: p.Group(l, p.Chosen[0]), Debits: l.Debits, Credits: l.Credits,
			DebitsWidth: length(l.Debits), CreditsWidth: length(l.Credits), Y: i * barHeight,
		})
	}
	c.Height = len(lines) * barHeight
	return c
}

// At is a place of a bar's part.
func (b bar) At(down int) int { return b.Y + down }

// After is where the figure of a bar of a length begins.
func (bar) After(length int64) int64 { return length + 8 }
