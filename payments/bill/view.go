package bill

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/money"
)

// What staff look at. None of it asks who may see the bill: the caller does, and
// writes down who looked.

// ByID reads a bill of any department, or ErrNotFound.
func ByID(ctx context.Context, q Querier, billID string) (Bill, error) {
	if !id.Valid(billID) {
		return Bill{}, ErrNotFound
	}
	bills, err := Load(ctx, q, []string{billID})
	if err != nil {
		return Bill{}, err
	}
	return bills[0], nil
}

// ByNotice reads the bill whose notice number somebody typed, or ErrNotFound.
func ByNotice(ctx context.Context, q Querier, typed string) (Bill, error) {
	notice, ok := id.Normalize(typed)
	if !ok {
		return Bill{}, ErrNotFound
	}
	var billID string
	err := q.QueryRow(ctx, `select id from payments.bill where notice_number = $1`, notice).Scan(&billID)
	if errors.Is(err, pgx.ErrNoRows) {
		return Bill{}, ErrNotFound
	}
	if err != nil {
		return Bill{}, fmt.Errorf("find bill by notice: %w", err)
	}
	return ByID(ctx, q, billID)
}

// An Event is one step in the life of a bill.
type Event struct {
	Version  int64
	From, To State // From is empty for its issue
	Cause    string
	At       time.Time
}

// History lists what happened to a bill, oldest first.
func History(ctx context.Context, q Querier, billID string) ([]Event, error) {
	rows, err := q.Query(ctx, `
		select version, from_state, to_state, cause, at from payments.bill_event
		where bill_id = $1 order by version limit 1000`, billID)
	if err != nil {
		return nil, fmt.Errorf("read history of bill: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Event])
	if err != nil {
		return nil, fmt.Errorf("read history of bill: %w", err)
	}
	return list, nil
}

// Owing is what the open bills of one department come to, as they are in the books.
type Owing struct {
	Department     string // code
	NameEN, NameFR string
	Bills          int
	Amount         money.Amount
	Overdue        int
	OverdueAmount  money.Amount
}

// Name returns the department's name in "en" or "fr".
func (o Owing) Name(lang string) string {
	if lang == "fr" {
		return o.NameFR
	}
	return o.NameEN
}

// OwingByDepartment adds up what is open on a date, for every department, by code.
func OwingByDepartment(ctx context.Context, q Querier, on clock.Date) ([]Owing, error) {
	rows, err := q.Query(ctx, `
		select d.code, d.name_en, d.name_fr, coalesce(b.bills, 0), coalesce(b.amount, 0), coalesce(b.overdue, 0), coalesce(b.past, 0)
		from department.department d
		left join (
			select department_id, count(*) as bills, sum(billed_cents - paid_cents)::bigint as amount,
				count(*) filter (where due_on < $1) as overdue,
				sum(billed_cents - paid_cents) filter (where due_on < $1)::bigint as past
			from payments.bill where state in ('open', 'part_paid') group by department_id) b on b.department_id = d.id
		order by d.code limit 1000`, on.Time())
	if err != nil {
		return nil, fmt.Errorf("add up open bills: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Owing])
	if err != nil {
		return nil, fmt.Errorf("add up open bills: %w", err)
	}
	return list, nil
}
