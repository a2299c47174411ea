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
	"guichet/identity/provider"
	"guichet/identity/staff"
	"guichet/internal/approval"
	"guichet/internal/clock"
	"guichet/internal/config"
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
	Client     adminClientCmd     `cmd:"" help:"Register an OpenID Connect client; prints its secret once."`
	Key        adminKeyCmd        `cmd:"" help:"Issue an API key; prints it once."`
	Webhook    adminWebhookCmd    `cmd:"" help:"Register a webhook endpoint; prints its signing secret once."`
	Mapping    adminMappingCmd    `cmd:"" help:"Load the mapping from our accounts to SAP from a CSV file."`
	Approve    adminApproveCmd    `cmd:"" help:"Approve, as a second person, what was proposed for a client."`
	Staff      adminStaffCmd      `cmd:"" help:"Grant a role to a member of staff who has signed in before."`
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

type adminClientCmd struct {
	Department  string   `arg:"" help:"Code of the department."`
	ID          string   `arg:"" help:"Client id."`
	NameEN      string   `arg:"" name:"name-en" help:"Name in English."`
	NameFR      string   `arg:"" name:"name-fr" help:"Name in French."`
	RedirectURI []string `name:"redirect-uri" required:"" help:"Exact redirect address; may be given again."`
	PostLogout  []string `name:"post-logout-uri" help:"Exact address after sign-out; may be given again."`
	ThirdParty  bool     `name:"third-party" help:"Not a city department: people are asked for consent."`
	By          string   `help:"Who proposes it; outside development a second person approves."`
}

func (c *adminClientCmd) Run(ctx context.Context, e env) error {
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		d, err := w.depts.ByCode(ctx, tx, c.Department)
		if err != nil {
			return nil, fmt.Errorf("department %q: %w", c.Department, err)
		}
		created, err := w.provider.CreateClient(ctx, tx, provider.NewClient{
			ID: c.ID, DepartmentID: d.ID,
			Name: provider.Words{EN: c.NameEN, FR: c.NameFR}, FirstParty: !c.ThirdParty, RedirectURIs: c.RedirectURI, PostLogout: c.PostLogout, By: c.By,
		})
		return map[string]string{"client_id": c.ID, "client_secret": created.Secret, "waits_for_approval": created.Approval}, err
	})
}

type adminKeyCmd struct {
	Department string `arg:"" help:"Code of the department."`
	Name       string `arg:"" help:"What the key is for."`
}

func (c *adminKeyCmd) Run(ctx context.Context, e env) error {
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		d, err := w.depts.ByCode(ctx, tx, c.Department)
		if err != nil {
			return nil, fmt.Errorf("department %q: %w", c.Department, err)
		}
		kind := "test"
		if w.cfg.Env == config.Production {
			kind = "live"
		}
		key, err := w.depts.IssueKey(ctx, tx, d.ID, c.Name, kind)
		return map[string]string{"api_key": key}, err
	})
}

type adminWebhookCmd struct {
	Department string `arg:"" help:"Code of the department."`
	URL        string `arg:"" help:"Where events are posted."`
	Private    bool   `help:"Allow plain http, and an address inside the network or on this machine."`
}

func (c *adminWebhookCmd) Run(ctx context.Context, e env) error {
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		d, err := w.depts.ByCode(ctx, tx, c.Department)
		if err != nil {
			return nil, fmt.Errorf("department %q: %w", c.Department, err)
		}
		secret, err := w.depts.AddEndpoint(ctx, tx, d.ID, c.URL, c.Private)
		if errors.Is(err, department.ErrExists) {
			return nil, fmt.Errorf("%s has the webhook address %s already; its secret was shown then", c.Department, c.URL)
		}
		if err != nil && !c.Private {
			return nil, fmt.Errorf("%w (--private allows plain http and addresses inside the network)", err)
		}
		return map[string]string{"secret": secret}, err
	})
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

type adminApproveCmd struct {
	Approval string `arg:"" help:"Id of what waits, as the proposing command printed it."`
	By       string `required:"" help:"Who approves: not the one who proposed."`
}

func (c *adminApproveCmd) Run(ctx context.Context, e env) error {
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		return map[string]string{"approved": c.Approval}, w.provider.Approve(ctx, tx, approval.Decision{ID: c.Approval, By: c.By, At: w.clock.Now()})
	})
}

type adminStaffCmd struct {
	Email      string `arg:"" help:"The member's address in the city's directory."`
	Role       string `arg:"" help:"Role, such as finance-clerk."`
	Department string `help:"Code of the department; the whole city when left out."`
	By         string `required:"" help:"Who grants it."`
}

func (c *adminStaffCmd) Run(ctx context.Context, e env) error {
	return e.do(ctx, func(ctx context.Context, w *world, tx pgx.Tx) (any, error) {
		members, err := w.staff.MembersByEmail(ctx, c.Email)
		if err != nil {
			return nil, err
		}
		if len(members) != 1 {
			return nil, fmt.Errorf("%d members of staff with the address %s have tried to sign in at /desk; want one", len(members), c.Email)
		}
		role := staff.Role{Name: c.Role}
		if c.Department != "" {
			d, err := w.depts.ByCode(ctx, tx, c.Department)
			if err != nil {
				return nil, fmt.Errorf("department %q: %w", c.Department, err)
			}
			role.Department = d.ID
		}
		return map[string]string{"member": members[0].ID, "role": c.Role}, w.staff.Grant(ctx, tx, members[0].ID, role, c.By)
	})
}
