package bill

import (
	"cmp"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/clock"
	"guichet/internal/id"
)

// A Querier is a pool or a transaction.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Load reads bills with their lines, in id order. An unknown id is ErrNotFound.
func Load(ctx context.Context, q Querier, ids []string) ([]Bill, error) {
	bills, err := load(ctx, q, ids, "")
	if err == nil && len(bills) != distinct(ids) {
		return nil, ErrNotFound
	}
	return bills, err
}

// Lock is Load with the bills' rows locked, in id order: two payments over the
// same bills in another order would otherwise deadlock. No key changes, so rows
// that refer to a bill, such as a checkout's, need not wait.
func Lock(ctx context.Context, tx pgx.Tx, ids []string) ([]Bill, error) {
	bills, err := load(ctx, tx, ids, "for no key update of b")
	if err == nil && len(bills) != distinct(ids) {
		return nil, ErrNotFound
	}
	return bills, err
}

func distinct(ids []string) int {
	seen := make(map[string]bool, len(ids))
	for _, v := range ids {
		seen[v] = true
	}
	return len(seen)
}

func load(ctx context.Context, q Querier, ids []string, locking string) ([]Bill, error) {
	rows, err := q.Query(ctx, `
		select b.id, b.department_id, d.code, d.name_en, d.name_fr, b.notice_number, b.type, b.state, b.stage, b.held,
			coalesce(b.resident_id::text, ''), b.reference, b.issued_on, b.due_on, b.early_until, b.billed_cents, b.paid_cents,
			b.entry_id, b.version, b.updated_at
		from payments.bill b
		join department.department d on d.id = b.department_id
		where b.id = any($1::uuid[])
		order by b.id `+locking, ids)
	if err != nil {
		return nil, fmt.Errorf("load bills: %w", err)
	}
	bills, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Bill, error) {
		var b Bill
		var issued, due time.Time
		var early *time.Time
		err := row.Scan(&b.ID, &b.DepartmentID, &b.Department, &b.DepartmentEN, &b.DepartmentFR, &b.Notice, &b.Type, &b.State, &b.Stage, &b.Held,
			&b.ResidentID, &b.Reference, &issued, &due, &early, &b.Billed, &b.Paid,
			&b.EntryID, &b.Version, &b.UpdatedAt)
		b.IssuedOn, b.DueOn = clock.FromTime(issued), clock.FromTime(due)
		if early != nil {
			b.EarlyUntil = clock.FromTime(*early)
		}
		return b, err
	})
	if err != nil {
		return nil, fmt.Errorf("load bills: %w", err)
	}
	return bills, loadLines(ctx, q, bills)
}

// loadLines reads what hangs on the bills: their lines, what was paid of them, and
// who is paying now. It is a statement of its own, because one that has waited for
// a bill's row still sees everything else as it was before it waited.
func loadLines(ctx context.Context, q Querier, bills []Bill) error {
	at := make(map[string]*Bill, len(bills))
	ids := make([]string, len(bills))
	for i := range bills {
		at[bills[i].ID], ids[i] = &bills[i], bills[i].ID
	}
	rows, err := q.Query(ctx, `
		select l.bill_id, l.line, f.code, l.description_en, l.description_fr, l.quantity, l.net_cents, l.tax_cents, l.step_cents,
			exists (select 1 from payments.bill_adjustment j where j.bill_id = l.bill_id and j.line = l.line and j.kind = 'early_lapsed'),
			l.tax_code, l.revenue_account, l.fund, l.cost_centre, l.order_no, l.wbs,
			coalesce(p.net, 0), coalesce(p.step, 0), coalesce(p.tax, 0), r.until, coalesce(r.payment_id::text, '')
		from payments.bill_line l
		join payments.fee f on f.id = l.fee_id
		left join payments.reservation r on r.bill_id = l.bill_id
		left join lateral (
			select sum(a.net_cents)::bigint as net, sum(a.step_cents)::bigint as step, sum(a.tax_cents)::bigint as tax
			from payments.allocation a join payments.payment p on p.id = a.payment_id
			where a.bill_id = l.bill_id and a.line = l.line and p.state = 'succeeded'
				and not exists (select 1 from payments.credit c where c.payment_id = a.payment_id and c.bill_id = a.bill_id)
		) p on true
		where l.bill_id = any($1::uuid[])
		order by l.bill_id, l.line`, ids)
	if err != nil {
		return fmt.Errorf("load bill lines: %w", err)
	}
	var billID, paidBy string
	var until *time.Time
	var l Line
	d := &l.Dimensions
	_, err = pgx.ForEachRow(rows, []any{
		&billID, &l.Line, &l.Fee, &l.DescriptionEN, &l.DescriptionFR, &l.Quantity, &l.Net, &l.Tax, &l.Step,
		&l.Crystallised, &l.TaxCode, &l.Revenue, &d.Fund, &d.CostCentre, &d.Order, &d.WBS, &l.PaidNet, &l.PaidStep, &l.PaidTax, &until, &paidBy,
	}, func() error {
		b := at[billID]
		if until != nil {
			b.BeingPaidUntil, b.BeingPaidBy = *until, paidBy
		}
		d.Department = b.Department
		b.Lines = append(b.Lines, l)
		return nil
	})
	if err != nil {
		return fmt.Errorf("load bill lines: %w", err)
	}
	return nil
}

// Get reads one bill of a department, or ErrNotFound.
func (s *Service) Get(ctx context.Context, departmentID, billID string) (Bill, error) {
	b, err := ByID(ctx, s.db, billID)
	if err == nil && b.DepartmentID != departmentID {
		return Bill{}, ErrNotFound
	}
	return b, err
}

// A Filter narrows a list of a department's bills; empty fields do not.
type Filter struct {
	ResidentID string
	State      State
	After      string // id of the last bill of the page before
	Limit      int    // at most 100; zero is 100
}

// List reads a page of a department's bills, oldest first.
func (s *Service) List(ctx context.Context, departmentID string, f Filter) ([]Bill, error) {
	if f.Limit <= 0 || f.Limit > 100 {
		f.Limit = 100
	}
	if f.After != "" && !id.Valid(f.After) {
		return nil, fmt.Errorf("cursor: %w", ErrInvalid)
	}
	// Only what narrows is in the statement, so that each has its index. The order
	// names the table: "id" alone is the text that is selected, and no index has that.
	sql := `select b.id::text from payments.bill b where b.department_id = $1 and b.id > $2`
	args := []any{departmentID, cmp.Or(f.After, "00000000-0000-0000-0000-000000000000")}
	if f.ResidentID != "" {
		args = append(args, f.ResidentID)
		sql += fmt.Sprintf(` and b.resident_id = $%d`, len(args))
	}
	if f.State != "" {
		args = append(args, string(f.State))
		sql += fmt.Sprintf(` and b.state = $%d`, len(args))
	}
	args = append(args, f.Limit)
	return s.pick(ctx, sql+fmt.Sprintf(` order by b.id limit $%d`, len(args)), args...)
}

// OpenOf lists what a resident owes, all departments, the earliest due first.
func (s *Service) OpenOf(ctx context.Context, residentID string) ([]Bill, error) {
	return s.pick(ctx, `
		select b.id::text from payments.bill b
		where b.resident_id = $1 and b.state in ('open', 'part_paid')
		order by b.due_on, b.id limit 200`, residentID)
}

// pick loads the bills whose ids a query gives, in that query's order.
func (s *Service) pick(ctx context.Context, sql string, args ...any) ([]Bill, error) {
	rows, err := s.db.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("list bills: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("list bills: %w", err)
	}
	bills, err := Load(ctx, s.db, ids)
	if err != nil {
		return nil, err
	}
	at := make(map[string]Bill, len(bills))
	for _, b := range bills {
		at[b.ID] = b
	}
	ordered := make([]Bill, len(ids))
	for i, v := range ids {
		ordered[i] = at[v]
	}
	return ordered, nil
}

// ForGuest finds a bill by notice number and second factor. A notice that does not
// exist and a factor that does not fit are the same ErrNotFound. A typing slip
// that the check character finds is ErrInvalid: it says nothing about any bill.
func (s *Service) ForGuest(ctx context.Context, typedNotice, typedKey string) (Bill, error) {
	notice, ok := id.Normalize(typedNotice)
	if !ok {
		return Bill{}, fmt.Errorf("notice number: %w", ErrInvalid)
	}
	var billID string
	var want []byte
	err := s.db.QueryRow(ctx, `select id, guest_key_hash from payments.bill where notice_number = $1`, notice).Scan(&billID, &want)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return Bill{}, fmt.Errorf("find notice: %w", err)
	}
	// The comparison is done for unknown notices too, so that time tells nothing.
	if got := s.guestHash(notice, typedKey); subtle.ConstantTimeCompare(got, want) != 1 || guestKey(typedKey) == "" {
		return Bill{}, ErrNotFound
	}
	bills, err := Load(ctx, s.db, []string{billID})
	if err != nil {
		return Bill{}, err
	}
	return bills[0], nil
}
