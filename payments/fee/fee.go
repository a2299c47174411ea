// Package fee keeps the catalogue of what the city charges and works out prices.
//
//	department's fee ─▶ version on a date ─▶ Price (pure arithmetic)
//
// A version is valid from its date until the next one begins, so versions never
// overlap. Versions are never changed: a new price is a new version.
// Pricing knows no clock and no SQL. Bills and their dates live in payments/bill.
package fee

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/audit"
	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/money"
	"guichet/ledger"
)

var (
	ErrNotFound = errors.New("fee not found")
	ErrExists   = errors.New("it is there already, with other content")
	ErrPrice    = errors.New("price cannot be worked out")
)

// A Tax is how a line is taxed.
type Tax string

const (
	HST    Tax = "hst"    // 13 % in Ontario
	Exempt Tax = "exempt" // Excise Tax Act, schedule V, part VI: permits and the like
	None   Tax = "none"   // outside the scope of the tax: fines
)

// HSTRate is Ontario's rate since 1 July 2010, in millionths.
const HSTRate = 130_000

// A Version is a fee as charged from a date on.
type Version struct {
	FeeID         string
	Department    string // code
	Code          string
	NameEN        string
	NameFR        string
	EffectiveFrom clock.Date
	Kind          string       // "flat": Amount each; "variable": the amount is given with the bill
	Amount        money.Amount // before tax
	Early         money.Amount // if paid within EarlyDays of issue; zero: no early amount
	EarlyDays     int
	Tax           Tax
	Revenue       string // account path
	Dimensions    ledger.Dimensions
	ByLaw         string
}

// A Querier is a pool or a transaction.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

var codeForm = regexp.MustCompile(`^[a-z][a-z0-9-]{1,59}$`)

func (v Version) check() error {
	switch {
	case !codeForm.MatchString(v.Code):
		return fmt.Errorf("fee code %q: want 2 to 60 lower case letters, digits and dashes, a letter first", v.Code)
	case v.NameEN == "" || v.NameFR == "":
		return fmt.Errorf("fee %s: a name in both languages is needed", v.Code)
	case v.Kind != "flat" && v.Kind != "variable":
		return fmt.Errorf("fee %s: kind %q: want flat or variable", v.Code, v.Kind)
	case v.Kind == "variable" && (v.Amount != 0 || v.Early != 0):
		return fmt.Errorf("fee %s: a variable fee has no amount of its own", v.Code)
	case v.Kind == "flat" && (v.Amount <= 0 || v.Amount > maxUnit):
		return fmt.Errorf("fee %s: amount %s: want more than zero and at most %s", v.Code, v.Amount, maxUnit)
	case v.Early < 0 || (v.Early > 0 && v.Early >= v.Amount):
		return fmt.Errorf("fee %s: the early amount must be below %s", v.Code, v.Amount)
	case (v.Early > 0) != (v.EarlyDays > 0):
		return fmt.Errorf("fee %s: an early amount and its days go together", v.Code)
	case v.Early > 0 && v.Tax == HST:
		return fmt.Errorf("fee %s: an early amount on a taxed fee is not supported", v.Code)
	case v.Tax != HST && v.Tax != Exempt && v.Tax != None:
		return fmt.Errorf("fee %s: tax %q: want hst, exempt or none", v.Code, v.Tax)
	case v.Revenue == "":
		return fmt.Errorf("fee %s: a revenue account is needed: a line without one cannot be billed", v.Code)
	}
	return nil
}

// Add enters a version into the catalogue, with its fee if that is new. Adding the
// same version again changes nothing; other content, or another name, is ErrExists. Its revenue account must be open: a line
// that the books would refuse is refused here, before anybody is billed.
func Add(ctx context.Context, tx pgx.Tx, books *ledger.Books, departmentID string, v Version, now time.Time) error {
	if err := v.check(); err != nil {
		return err
	}
	if _, err := books.Account(ctx, tx, v.Revenue); err != nil {
		return fmt.Errorf("fee %s: revenue account: %w", v.Code, err)
	}
	_, err := tx.Exec(ctx, `
		insert into payments.fee (id, department_id, code, name_en, name_fr) values ($1, $2, $3, $4, $5)
		on conflict (department_id, code) do nothing`, id.New(), departmentID, v.Code, v.NameEN, v.NameFR)
	if err != nil {
		return fmt.Errorf("add fee %s: %w", v.Code, err)
	}
	var feeID, nameEN, nameFR string
	err = tx.QueryRow(ctx, `select id, name_en, name_fr from payments.fee where department_id = $1 and code = $2`, departmentID, v.Code).
		Scan(&feeID, &nameEN, &nameFR)
	if err != nil {
		return fmt.Errorf("add fee %s: %w", v.Code, err)
	}
	if nameEN != v.NameEN || nameFR != v.NameFR { // bills are worded with it: not changed in passing
		return fmt.Errorf("add fee %s, which is named %q and %q: %w", v.Code, nameEN, nameFR, ErrExists)
	}
	var early, days any
	if v.Early > 0 {
		early, days = int64(v.Early), v.EarlyDays
	}
	d := v.Dimensions
	tag, err := tx.Exec(ctx, `
		insert into payments.fee_version (fee_id, effective_from, kind, amount_cents, early_cents, early_days, tax_code,
			revenue_account, fund, cost_centre, order_no, wbs, by_law, created_at, created_by)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
		on conflict (fee_id, effective_from) do nothing`,
		feeID, v.EffectiveFrom.Time(), v.Kind, v.Amount, early, days, string(v.Tax),
		v.Revenue, d.Fund, d.CostCentre, d.Order, d.WBS, v.ByLaw, now, audit.From(ctx).Actor)
	if err != nil {
		return fmt.Errorf("add version of fee %s: %w", v.Code, err)
	}
	if tag.RowsAffected() == 0 {
		old, err := On(ctx, tx, departmentID, v.Code, v.EffectiveFrom)
		if err != nil {
			return fmt.Errorf("add version of fee %s: %w", v.Code, err)
		}
		v.FeeID, v.Department, v.Dimensions.Department = old.FeeID, old.Department, old.Department
		if v != old {
			return fmt.Errorf("add version of fee %s from %s: %w", v.Code, v.EffectiveFrom, ErrExists)
		}
		return nil
	}
	return audit.Record(ctx, tx, audit.Event{
		Action: "fee.added", ObjectType: "fee", ObjectID: feeID, At: now,
		Details: map[string]any{"code": v.Code, "from": v.EffectiveFrom.String(), "amount_cents": int64(v.Amount)},
	})
}

// On returns the version of a department's fee in force on a date, or ErrNotFound.
func On(ctx context.Context, q Querier, departmentID, code string, on clock.Date) (Version, error) {
	v := Version{Code: code}
	var from time.Time
	d := &v.Dimensions
	err := q.QueryRow(ctx, `
		select f.id, d.code, f.name_en, f.name_fr, v.effective_from, v.kind, v.amount_cents,
			coalesce(v.early_cents, 0), coalesce(v.early_days, 0), v.tax_code, v.revenue_account, v.fund, v.cost_centre, v.order_no, v.wbs, v.by_law
		from payments.fee f
		join payments.fee_version v on v.fee_id = f.id
		join department.department d on d.id = f.department_id
		where f.department_id = $1 and f.code = $2 and v.effective_from <= $3
		order by v.effective_from desc limit 1`, departmentID, code, on.Time()).
		Scan(&v.FeeID, &v.Department, &v.NameEN, &v.NameFR, &from, &v.Kind, &v.Amount,
			&v.Early, &v.EarlyDays, &v.Tax, &v.Revenue, &d.Fund, &d.CostCentre, &d.Order, &d.WBS, &v.ByLaw)
	if errors.Is(err, pgx.ErrNoRows) {
		return Version{}, fmt.Errorf("fee %q on %s: %w", code, on, ErrNotFound)
	}
	if err != nil {
		return Version{}, fmt.Errorf("read fee %q: %w", code, err)
	}
	v.EffectiveFrom, d.Department = clock.FromTime(from), v.Department
	return v, nil
}

// A Price is what a line costs: Net and Tax from the day of issue, and Step on top
// once the early days are over.
type Price struct {
	Net, Tax, Step money.Amount
}

// Price works out quantity times the fee. given is the amount before tax of a
// variable fee, and must be zero for a flat one. Tax is rounded per line, half
// away from zero. Errors wrap ErrPrice.
func (v Version) Price(quantity int, given money.Amount) (Price, error) {
	if quantity < 1 || quantity > 10_000 {
		return Price{}, fmt.Errorf("fee %s: quantity %d: want 1 to 10,000: %w", v.Code, quantity, ErrPrice)
	}
	unit, step := v.Amount, money.Amount(0)
	switch {
	case v.Kind == "variable" && (given <= 0 || given > maxUnit):
		return Price{}, fmt.Errorf("fee %s: amount %s: want more than zero and at most %s: %w", v.Code, given, maxUnit, ErrPrice)
	case v.Kind == "variable":
		unit = given
	case given != 0:
		return Price{}, fmt.Errorf("fee %s has a price of its own: an amount may not be given: %w", v.Code, ErrPrice)
	case v.Early > 0:
		unit, step = v.Early, v.Amount-v.Early
	}
	p := Price{Net: unit * money.Amount(quantity), Step: step * money.Amount(quantity)}
	if v.Tax == HST {
		var err error
		if p.Tax, err = money.Percent(p.Net, HSTRate); err != nil {
			return Price{}, fmt.Errorf("fee %s: tax: %w", v.Code, err)
		}
	}
	return p, nil
}

// maxUnit keeps quantity × amount far from the range of an Amount: ten million dollars.
const maxUnit money.Amount = 10_000_000_00
