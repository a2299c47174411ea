package ledger

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// Dimensions say what a line is about. All are codes, never names of people; what
// does not apply stays empty.
type Dimensions struct {
	Department string `json:"department,omitempty"`
	Fund       string `json:"fund,omitempty"`
	CostCentre string `json:"cost_centre,omitempty"`
	Order      string `json:"order,omitempty"`
	WBS        string `json:"wbs,omitempty"`
	Channel    string `json:"channel,omitempty"`
	Tender     string `json:"tender,omitempty"`
}

// fields returns the values in the order of the columns of ledger.dimension.
func (d Dimensions) fields() [7]string {
	return [7]string{d.Department, d.Fund, d.CostCentre, d.Order, d.WBS, d.Channel, d.Tender}
}

func dimensionsOf(f [7]string) Dimensions {
	return Dimensions{f[0], f[1], f[2], f[3], f[4], f[5], f[6]}
}

// dimensionIDs returns the id of each combination and makes those that are new.
func (b *Books) dimensionIDs(ctx context.Context, tx pgx.Tx, all []Dimensions) (map[Dimensions]int64, error) {
	ids, missing := cached(b, &b.dimensions, all)
	if len(missing) == 0 {
		return ids, nil
	}
	// In one order: two transactions that make the same combinations would
	// otherwise wait for each other.
	slices.SortFunc(missing, func(x, y Dimensions) int {
		a, b := x.fields(), y.fields()
		return slices.CompareFunc(a[:], b[:], cmp.Compare[string])
	})
	missing = slices.Compact(missing)
	var columns [7][]string
	for _, d := range missing {
		for i, f := range d.fields() {
			columns[i] = append(columns[i], f)
		}
	}
	args := make([]any, len(columns))
	for i := range columns {
		args[i] = columns[i]
	}
	found, err := b.lookUpDimensions(ctx, tx, args, ids)
	if err != nil {
		return nil, err
	}
	if found == len(missing) {
		return ids, nil
	}
	if _, err := tx.Exec(ctx, makeDimensions, args...); err != nil {
		return nil, fmt.Errorf("make dimensions: %w", err)
	}
	// A later statement sees what another transaction made in the meantime.
	if found, err = b.lookUpDimensions(ctx, tx, args, ids); err != nil {
		return nil, err
	}
	if found != len(missing) {
		return nil, fmt.Errorf("make dimensions: %d of %d found", found, len(missing))
	}
	return ids, nil
}

const dimensionColumns = `department, fund, cost_centre, order_code, wbs, channel, tender`

const givenDimensions = `unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
	as given(` + dimensionColumns + `)`

const makeDimensions = `
insert into ledger.dimension (` + dimensionColumns + `)
select ` + dimensionColumns + ` from ` + givenDimensions + `
on conflict do nothing`

const findDimensions = `
select ` + dimensionColumns + `, id, ` + committed + `
from ledger.dimension t join ` + givenDimensions + ` using (` + dimensionColumns + `)`

// lookUpDimensions adds to ids what exists and returns how many it found.
func (b *Books) lookUpDimensions(ctx context.Context, tx pgx.Tx, args []any, ids map[Dimensions]int64) (int, error) {
	rows, err := tx.Query(ctx, findDimensions, args...)
	if err != nil {
		return 0, fmt.Errorf("look up dimensions: %w", err)
	}
	keep := map[Dimensions]int64{}
	var (
		f   [7]string
		id  int64
		old bool
		n   int
	)
	if _, err := pgx.ForEachRow(rows, []any{&f[0], &f[1], &f[2], &f[3], &f[4], &f[5], &f[6], &id, &old}, func() error {
		d := dimensionsOf(f)
		ids[d] = id
		if old {
			keep[d] = id
		}
		n++
		return nil
	}); err != nil {
		return 0, fmt.Errorf("look up dimensions: %w", err)
	}
	remember(b, &b.dimensions, keep)
	return n, nil
}
