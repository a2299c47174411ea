package reconcile

import (
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/audit"
	"guichet/internal/clock"
	"guichet/ledger"
	"guichet/payments/fee"
	"guichet/reconcile/sap"
)

// A lineKey is what the mapping looks at in a line.
type lineKey struct {
	account string
	tax     string // our tax code; empty: the line has none
	ledger.Dimensions
}

func (k lineKey) String() string {
	parts := []string{k.account}
	for _, f := range []struct{ name, value string }{
		{"tax", k.tax}, {"department", k.Department}, {"fund", k.Fund}, {"cost centre", k.CostCentre}, {"order", k.Order}, {"WBS", k.WBS},
	} {
		if f.value != "" {
			parts = append(parts, f.name+" "+f.value)
		}
	}
	return strings.Join(parts, ", ")
}

// A mappingRow says what SAP calls the lines that fit it.
type mappingRow struct {
	// The lines: an account path, or all below one (revenue:parking:*), and
	// dimensions. Empty fits anything.
	account, department, fund, costCentre, order, wbs, tax string
	from                                                   clock.Date

	internal  bool // not exported: it cancels out within each entry
	glAccount string
	object    sap.CostObject
	taxCode   string
	text      string
}

// of are the fields that decide which lines a row is for.
func (r mappingRow) of() mappingRow {
	return mappingRow{account: r.account, department: r.department, fund: r.fund, costCentre: r.costCentre, order: r.order, wbs: r.wbs, tax: r.tax}
}

// fits reports whether a row is for a line, and how closely: the account first,
// then the number of dimensions it names.
func (r mappingRow) fits(k lineKey) (closeness int, ok bool) {
	switch prefix, wild := strings.CutSuffix(r.account, "*"); {
	case wild && strings.HasPrefix(k.account, prefix):
		closeness = len(prefix) * 10
	case r.account == k.account:
		closeness = 10_000
	default:
		return 0, false
	}
	for _, f := range [][2]string{{r.department, k.Department}, {r.fund, k.Fund}, {r.costCentre, k.CostCentre}, {r.order, k.Order}, {r.wbs, k.WBS}, {r.tax, k.tax}} {
		switch f[0] {
		case "":
		case f[1]:
			closeness++
		default:
			return 0, false
		}
	}
	return closeness, true
}

// A mapping is every row that was loaded, the later ones last.
type mapping []mappingRow

// resolve returns the row that holds for a line on a posting date. Two rows that
// fit equally closely are as bad as none.
func (m mapping) resolve(k lineKey, on clock.Date) (mappingRow, error) {
	current := map[mappingRow]mappingRow{} // by the lines they are for
	for _, r := range m {
		if _, ok := r.fits(k); !ok || r.from.After(on) {
			continue
		}
		if have, ok := current[r.of()]; !ok || !r.from.Before(have.from) {
			current[r.of()] = r
		}
	}
	best, second, closest := mappingRow{}, 0, 0
	for _, r := range current {
		switch c, _ := r.fits(k); {
		case c > closest:
			best, closest, second = r, c, 0
		case c == closest:
			second = c
		}
	}
	switch {
	case closest == 0:
		return mappingRow{}, fmt.Errorf("no row of the mapping to SAP fits %s on %s", k, on)
	case second == closest:
		return mappingRow{}, fmt.Errorf("several rows of the mapping to SAP fit %s on %s equally", k, on)
	}
	return best, nil
}

// mappingColumns are the columns of a mapping file, in any order.
var mappingColumns = []string{
	"account", "department", "fund", "cost_centre", "order", "wbs", "tax", "valid_from",
	"gl_account", "object_kind", "object_number", "tax_code", "text",
}

// maxMappingRows bounds a mapping file.
const maxMappingRows = 100_000

// readMapping reads a mapping file: CSV with a heading. gl_account "internal" keeps
// lines out of the export. Every fault is reported, with its line.
func readMapping(r io.Reader) (mapping, error) {
	in := csv.NewReader(r)
	heading, err := in.Read()
	if err != nil {
		return nil, fmt.Errorf("mapping: heading: %w", err)
	}
	column := map[string]int{}
	for i, name := range heading {
		name = strings.TrimSpace(strings.TrimPrefix(name, "\ufeff"))
		if _, twice := column[name]; twice || !slices.Contains(mappingColumns, name) {
			return nil, fmt.Errorf("mapping: column %q is unknown or there twice; want %s", name, strings.Join(mappingColumns, ", "))
		}
		column[name] = i
	}
	for _, name := range []string{"account", "valid_from", "gl_account"} {
		if _, ok := column[name]; !ok {
			return nil, fmt.Errorf("mapping: column %s is missing", name)
		}
	}
	var rows mapping
	var errs []error
	seen := map[mappingRow]int{}
	for range maxMappingRows {
		record, err := in.Read()
		if errors.Is(err, io.EOF) {
			return rows, errors.Join(errs...)
		}
		if err != nil {
			return nil, fmt.Errorf("mapping: %w", err) // csv names the line
		}
		line, _ := in.FieldPos(0)
		row, err := mappingRowOf(func(name string) string {
			if i, ok := column[name]; ok {
				return strings.TrimSpace(record[i])
			}
			return ""
		})
		key := row.of()
		key.from = row.from
		if first, twice := seen[key]; twice && err == nil {
			err = fmt.Errorf("the same lines and date as in line %d", first)
		}
		seen[key] = line
		if err != nil {
			errs = append(errs, fmt.Errorf("mapping: line %d: %w", line, err))
		}
		rows = append(rows, row)
	}
	return nil, fmt.Errorf("mapping: more than %d rows", maxMappingRows)
}

func mappingRowOf(field func(string) string) (mappingRow, error) {
	r := mappingRow{
		account: field("account"), department: field("department"), fund: field("fund"), costCentre: field("cost_centre"),
		order: field("order"), wbs: field("wbs"), tax: field("tax"), glAccount: field("gl_account"),
		object: sap.CostObject{Kind: sap.ObjectKind(field("object_kind")), Number: field("object_number")}, taxCode: field("tax_code"), text: field("text"),
	}
	var errs []error
	var err error
	if r.from, err = clock.ParseDate(field("valid_from")); err != nil {
		errs = append(errs, err)
	}
	if star := strings.Index(r.account, "*"); r.account == "" || star >= 0 && (star != len(r.account)-1 || !strings.HasSuffix(r.account, ":*")) {
		errs = append(errs, fmt.Errorf("account %q: want a path, or one that ends in :*", r.account))
	}
	if !slices.Contains([]string{"", string(fee.HST), string(fee.Exempt), string(fee.None)}, r.tax) {
		errs = append(errs, fmt.Errorf("tax %q: want hst, exempt, none or nothing", r.tax))
	}
	if r.internal = r.glAccount == "internal"; r.internal {
		r.glAccount = ""
		if r.object != (sap.CostObject{}) || r.taxCode != "" {
			errs = append(errs, errors.New("an internal row has no cost object and no tax code"))
		}
		return r, errors.Join(errs...)
	}
	errs = append(errs, sap.CheckAccount(r.glAccount), r.object.Check())
	if len(r.taxCode) != 0 && len(r.taxCode) != 2 {
		errs = append(errs, fmt.Errorf("tax_code %q: want 2 characters", r.taxCode))
	}
	return r, errors.Join(errs...)
}

// A MappingChange is what loading a mapping file does, or would do.
type MappingChange struct {
	Added   int `json:"added"`
	Changed int `json:"changed"`
	Same    int `json:"same"`
	// Unmapped are lines that wait for export and that nothing fits then.
	Unmapped []string `json:"unmapped"`
}

// LoadMapping adds the rows of a file to the mapping to SAP. A row for the same
// lines and date replaces the one before for documents that are still to be
// built; what is frozen stays. Loading the same file again changes nothing.
func (n *Nightly) LoadMapping(ctx context.Context, r io.Reader) (MappingChange, error) {
	return n.loadMapping(ctx, r, func(tx pgx.Tx) error { return tx.Commit(ctx) })
}

// TryMapping reports what LoadMapping would do, and does nothing.
func (n *Nightly) TryMapping(ctx context.Context, r io.Reader) (MappingChange, error) {
	return n.loadMapping(ctx, r, func(pgx.Tx) error { return nil })
}

func (n *Nightly) loadMapping(ctx context.Context, r io.Reader, end func(pgx.Tx) error) (MappingChange, error) {
	fresh, err := readMapping(r)
	if err != nil {
		return MappingChange{}, err
	}
	tx, err := n.db.Begin(ctx)
	if err != nil {
		return MappingChange{}, fmt.Errorf("load mapping: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // after a commit it does nothing
	have, err := currentMapping(ctx, tx)
	if err != nil {
		return MappingChange{}, err
	}
	type place struct {
		lines mappingRow
		from  clock.Date
	}
	known := map[place]mappingRow{}
	for _, row := range have {
		known[place{row.of(), row.from}] = row
	}
	var change MappingChange
	for _, row := range fresh {
		switch old, ok := known[place{row.of(), row.from}]; {
		case ok && old == row:
			change.Same++
			continue
		case ok:
			change.Changed++
		default:
			change.Added++
		}
		if err := n.addMapping(ctx, tx, row); err != nil {
			return MappingChange{}, err
		}
		have = append(have, row)
	}
	if change.Unmapped, err = n.unmapped(ctx, tx, have); err != nil {
		return MappingChange{}, err
	}
	if change.Added+change.Changed > 0 {
		if err := audit.Record(ctx, tx, audit.Event{
			Action: "mapping.loaded", ObjectType: "sap-mapping", ObjectID: n.cfg.CompanyCode, At: n.now(),
			Details: map[string]any{"added": change.Added, "changed": change.Changed},
		}); err != nil {
			return MappingChange{}, err
		}
	}
	if err := end(tx); err != nil {
		return MappingChange{}, fmt.Errorf("load mapping: %w", err)
	}
	return change, nil
}

func (n *Nightly) addMapping(ctx context.Context, tx pgx.Tx, r mappingRow) error {
	_, err := tx.Exec(ctx, `
		insert into reconcile.sap_mapping (account, department, fund, cost_centre, order_no, wbs, tax, valid_from, internal,
			gl_account, object_kind, object_number, tax_code, text, loaded_by, loaded_at)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)`,
		r.account, r.department, r.fund, r.costCentre, r.order, r.wbs, r.tax, r.from.Time(), r.internal,
		r.glAccount, string(r.object.Kind), r.object.Number, r.taxCode, r.text, audit.From(ctx).Actor, n.now())
	if err != nil {
		return fmt.Errorf("add mapping of %s: %w", r.account, err)
	}
	return nil
}

func currentMapping(ctx context.Context, q Querier) (mapping, error) {
	rows, err := q.Query(ctx, `
		select account, department, fund, cost_centre, order_no, wbs, tax, valid_from, internal, gl_account, object_kind, object_number, tax_code, text
		from reconcile.sap_mapping order by id limit $1`, 10*maxMappingRows)
	if err != nil {
		return nil, fmt.Errorf("read mapping: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r mappingRow, err error) {
		var from time.Time
		err = row.Scan(&r.account, &r.department, &r.fund, &r.costCentre, &r.order, &r.wbs, &r.tax, &from, &r.internal,
			&r.glAccount, &r.object.Kind, &r.object.Number, &r.taxCode, &r.text)
		r.from = clock.FromTime(from)
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("read mapping: %w", err)
	}
	return list, nil
}

// unmapped names the lines that wait for export and that a mapping does not know.
func (n *Nightly) unmapped(ctx context.Context, tx pgx.Tx, m mapping) ([]string, error) {
	entries, err := n.unexported(ctx, tx, clock.DateOf(n.now()))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		for _, l := range e.lines {
			if _, err := m.resolve(l.key(), e.on); err != nil {
				names = append(names, l.key().String())
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// textOf is what an item says: the row's own words, or our account.
func (r mappingRow) textOf(account string) string { return cmp.Or(r.text, account) }
