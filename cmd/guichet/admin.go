package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/jackc/pgx/v5"

	"guichet/department"
	"guichet/internal/clock"
	"guichet/internal/money"
	"guichet/ledger"
	"guichet/payments/bill"
	"guichet/payments/fee"
)

// adminCmd is what an operator with the deployment's configuration may do. Every
// command may be run again: what is there with the same content is left alone, and
// what shows a secret refuses, or makes another key.
type adminCmd struct {
	Department adminDepartmentCmd `cmd:"" help:"Add a department, with its accounts."`
	Accounts   adminAccountsCmd   `cmd:"" help:"Open the ledger accounts of a CSV file."`
	Fees       adminFeesCmd       `cmd:"" help:"Load fees from a CSV file."`
	Client     adminClientCmd     `cmd:"" help:"OpenID Connect clients: add, list, rotate, revoke, disable, change, errors."`
	Key        adminKeyCmd        `cmd:"" help:"API keys: add, list, revoke."`
	Webhook    adminWebhookCmd    `cmd:"" help:"Webhook endpoints: add, list, revoke."`
	Mapping    adminMappingCmd    `cmd:"" help:"Load the mapping from our accounts to SAP from a CSV file."`
	Approve    adminApproveCmd    `cmd:"" help:"Approve, as a second person, what was proposed."`
	Refuse     adminRefuseCmd     `cmd:"" help:"Refuse, as a second person, what was proposed."`
	Staff      adminStaffCmd      `cmd:"" help:"Staff: grant, revoke, list, suspend, resume."`
	SigningKey adminSigningKeyCmd `cmd:"" help:"The provider's signing keys: list, rotate."`
	BreakGlass adminBreakGlassCmd `cmd:"" help:"The account for the day the directory is down: make, list, revoke."`
}

// do opens the deployment and runs f in one transaction of an administrator.
func (e env) do(ctx context.Context, f func(ctx context.Context, w *world, tx pgx.Tx) (any, error)) error {
	w, err := openWorld(ctx, e)
	if err != nil {
		return err
	}
	defer w.close()
	var result any
	err = pgx.BeginFunc(asAdmin(ctx), w.db, func(tx pgx.Tx) error {
		result, err = f(asAdmin(ctx), w, tx)
		return err
	})
	if err != nil {
		return err
	}
	return json.NewEncoder(e.out).Encode(result)
}

type adminDepartmentCmd struct {
	Code      string `arg:"" help:"Short name: lower case letters and digits."`
	NameEN    string `arg:"" name:"name-en" help:"Name in English."`
	NameFR    string `arg:"" name:"name-fr" help:"Name in French."`
	HSTNumber string `name:"hst-number" help:"Printed on its receipts."`
}

func (c *adminDepartmentCmd) Run(ctx context.Context, e env) error {
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		d, err := w.depts.Create(ctx, tx, department.Department{Code: c.Code, NameEN: c.NameEN, NameFR: c.NameFR, HSTNumber: c.HSTNumber})
		if err != nil {
			return nil, err
		}
		return map[string]string{"id": d.ID, "code": d.Code}, bill.OpenAccounts(ctx, tx, w.books, d)
	})
}

type adminAccountsCmd struct {
	File string `arg:"" type:"existingfile" help:"CSV with a header line: path, name_en, name_fr, department."`
}

func (c *adminAccountsCmd) Run(ctx context.Context, e env) error {
	rows, err := readCSVFile(c.File)
	if err != nil {
		return err
	}
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		for i, row := range rows {
			a := ledger.Account{Path: row["path"], NameEN: row["name_en"], NameFR: row["name_fr"], Department: row["department"]}
			if err := w.books.OpenAccount(ctx, tx, a); err != nil {
				return nil, fmt.Errorf("%s, line %d: %w", c.File, i+2, err)
			}
		}
		return map[string]int{"accounts": len(rows)}, nil
	})
}

type adminFeesCmd struct {
	File string `arg:"" type:"existingfile" help:"CSV with a header line: department, code, name_en, name_fr, effective_from, kind, amount, early_amount, early_days, tax, revenue_account, cost_centre, by_law."`
}

func (c *adminFeesCmd) Run(ctx context.Context, e env) error {
	rows, err := readCSVFile(c.File)
	if err != nil {
		return err
	}
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		for i, row := range rows {
			if err := addFee(ctx, w, tx, row); err != nil {
				return nil, fmt.Errorf("%s, line %d: %w", c.File, i+2, err)
			}
		}
		return map[string]int{"fees": len(rows)}, nil
	})
}

func addFee(ctx context.Context, w *world, tx pgx.Tx, row map[string]string) error {
	d, err := w.depts.ByCode(ctx, tx, row["department"])
	if err != nil {
		return fmt.Errorf("department %q: %w", row["department"], err)
	}
	v := fee.Version{
		Code: row["code"], NameEN: row["name_en"], NameFR: row["name_fr"], Kind: row["kind"], Tax: fee.Tax(row["tax"]),
		Revenue: row["revenue_account"], Dimensions: ledger.Dimensions{CostCentre: row["cost_centre"]}, ByLaw: row["by_law"],
	}
	if v.EffectiveFrom, err = clock.ParseDate(row["effective_from"]); err != nil {
		return err
	}
	if v.Amount, err = optionalAmount(row["amount"]); err != nil {
		return err
	}
	if v.Early, err = optionalAmount(row["early_amount"]); err != nil {
		return err
	}
	if days := row["early_days"]; days != "" {
		if v.EarlyDays, err = strconv.Atoi(days); err != nil {
			return fmt.Errorf("early_days %q: want a number", days)
		}
	}
	return fee.Add(ctx, tx, w.books, d.ID, v, w.clock.Now())
}

func optionalAmount(s string) (money.Amount, error) {
	if s == "" {
		return 0, nil
	}
	return money.Parse(s)
}

func readCSVFile(path string) ([]map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	rows, err := readCSV(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return rows, nil
}

// readCSV reads a file with a header line into rows by column name. Every row must
// have every column.
func readCSV(r io.Reader) ([]map[string]string, error) {
	in := csv.NewReader(r)
	head, err := in.Read()
	if err != nil {
		return nil, fmt.Errorf("header line: %w", err)
	}
	var rows []map[string]string
	for {
		record, err := in.Read()
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return nil, err
		}
		row := make(map[string]string, len(head))
		for i, name := range head {
			row[name] = record[i]
		}
		rows = append(rows, row)
	}
}

type adminMappingCmd struct {
	File   string `arg:"" type:"existingfile" help:"CSV with a header line; see the finance guide."`
	DryRun bool   `help:"Say what would change, and change nothing."`
}

func (c *adminMappingCmd) Run(ctx context.Context, e env) error {
	w, err := openWorld(ctx, e)
	if err != nil {
		return err
	}
	defer w.close()
	f, err := os.Open(c.File)
	if err != nil {
		return err
	}
	defer f.Close()
	load := w.nightly.LoadMapping
	if c.DryRun {
		load = w.nightly.TryMapping
	}
	change, err := load(asAdmin(ctx), f)
	if err != nil {
		return fmt.Errorf("load %s: %w", c.File, err)
	}
	return json.NewEncoder(e.out).Encode(change)
}
