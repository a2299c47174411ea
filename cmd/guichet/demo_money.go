package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/clock"
	"guichet/internal/money"
	"guichet/reconcile"
)

// hooks is step 5: what was held back goes out shuffled, each webhook twice, and a
// forged one is refused.
func (st *story) hooks(ctx context.Context) ([]fact, error) {
	processor := st.ports.url(portProcessor)
	var released struct {
		Events []string `json:"events"`
	}
	if err := post(ctx, processor+"/_control/webhooks/release", map[string]int{"seed": 7}, &released, nil); err != nil {
		return nil, err
	}
	if len(released.Events) == 0 {
		return nil, errors.New("the processor had no webhook to send")
	}
	err := until(ctx, "every event handled", func(ctx context.Context) (bool, error) {
		var open, kept int
		err := st.world.db.QueryRow(ctx, `
			select count(*) filter (where handled_at is null), count(*) from payments.processor_event where id = any($1)`, released.Events).Scan(&open, &kept)
		return err == nil && open == 0 && kept == len(distinct(released.Events)), err
	})
	if err != nil {
		return nil, err
	}
	var forged struct {
		Answers []any `json:"answers"`
	}
	if err := post(ctx, processor+"/_control/events/"+released.Events[0]+"/forge", map[string]string{"how": "signature"}, &forged, nil); err != nil {
		return nil, err
	}
	if answer := fmt.Sprint(forged.Answers...); !strings.Contains(answer, "400") {
		return nil, fmt.Errorf("a forged webhook was answered %s", answer)
	}
	var paid, entries int
	if err := st.world.db.QueryRow(ctx, `
		select (select count(*) from payments.payment where state = 'succeeded'),
			(select count(*) from ledger.journal_entry where kind = 'payment.succeeded')`).Scan(&paid, &entries); err != nil {
		return nil, err
	}
	if paid != 2 || entries != 2 {
		return nil, fmt.Errorf("%d payments and %d entries after all webhooks, want 2 and 2", paid, entries)
	}
	return []fact{
		{"events, in the order sent", strings.Join(released.Events, " ")},
		{"payments and entries in the books", fmt.Sprintf("%d and %d: each event counted once", paid, entries)},
		{"a webhook with a forged signature", "refused"},
	}, nil
}

func distinct(all []string) []string {
	sorted := slices.Sorted(slices.Values(all))
	return slices.Compact(sorted)
}

// tellThem is step 6: receipts on the page and as PDF in both languages, in the
// mail, and what the departments heard.
func (st *story) tellThem(ctx context.Context) ([]fact, error) {
	var facts []fact
	for payer, b := range map[string]*browser{"resident": st.resident, "guest": st.guest} {
		for _, lang := range []string{"en", "fr"} {
			for name, path := range map[string]string{"html": "", "pdf": "/pdf"} {
				content, err := b.fetch(ctx, st.receipts[payer]+path+"?lang="+lang)
				if err != nil {
					return facts, fmt.Errorf("receipt of the %s: %w", payer, err)
				}
				f, err := st.keep(fmt.Sprintf("receipt-%s-%s.%s", payer, lang, name), content)
				if err != nil {
					return facts, err
				}
				facts = append(facts, f)
			}
		}
	}
	slices.SortFunc(facts, func(a, b fact) int { return strings.Compare(a.Value, b.Value) })
	for to, subject := range map[string]string{residentMail: "Votre reçu", guestMail: "Your receipt"} {
		m, err := st.mail(ctx, to, subject)
		if err != nil {
			return facts, err
		}
		if len(m.Attachments) != 1 {
			return facts, fmt.Errorf("the mail to %s has %d attachments, want the receipt", to, len(m.Attachments))
		}
		facts = append(facts, fact{"mail to " + to, m.Subject + ", with " + m.Attachments[0].Name})
	}
	entries, err := st.entries(ctx)
	if err != nil {
		return facts, err
	}
	facts = append(facts, entries...)
	heard, err := st.heard(ctx)
	return append(facts, heard...), err
}

// entries lists the journal entries of the two payments, as accountants read them.
func (st *story) entries(ctx context.Context) ([]fact, error) {
	rows, err := st.world.db.Query(ctx, `select id::text from payments.payment where state = 'succeeded' order by id limit 10`)
	if err != nil {
		return nil, err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	var facts []fact
	for _, paymentID := range ids {
		entries, err := st.world.books.EntriesBySource(ctx, st.world.db, "payment", paymentID, "", 10)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			facts = append(facts, fact{"journal entry", e.ID + "  " + e.Description})
			for _, l := range e.Lines {
				facts = append(facts, fact{"", fmt.Sprintf("%-36s %10s", l.Account, l.Amount)})
			}
		}
	}
	return facts, nil
}

// heard waits until every department's application has its paid bill's webhook.
func (st *story) heard(ctx context.Context) ([]fact, error) {
	var facts []fact
	for _, d := range demoDepartments {
		var events struct {
			Data []struct {
				ID   string `json:"id"`
				Type string `json:"type"`
			} `json:"data"`
		}
		err := until(ctx, "webhooks at "+d.code, func(ctx context.Context) (bool, error) {
			if err := get(ctx, st.ports.url(portApp)+"/_control/events?department="+d.code, &events); err != nil {
				return false, err
			}
			return slices.ContainsFunc(events.Data, func(e struct {
				ID   string `json:"id"`
				Type string `json:"type"`
			},
			) bool {
				return e.Type == "payment.succeeded"
			}), nil
		})
		if err != nil {
			return facts, err
		}
		facts = append(facts, fact{"signed webhooks to " + d.code, fmt.Sprintf("%d events verified", len(events.Data))})
	}
	return facts, nil
}

// fetch reads an address with the browser's cookies and leaves its page alone.
func (b *browser) fetch(ctx context.Context, address string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	resp, err := b.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(io.LimitReader(resp.Body, maxPage))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %d", req.URL.Path, resp.StatusCode)
	}
	return content, nil
}

const stray = 1234 // cents: the deliberate trouble

// payOut is step 7. A stray line is planted first: nobody's payment explains it.
func (st *story) payOut(ctx context.Context) ([]fact, error) {
	processor, bank := st.ports.url(portProcessor), st.ports.url(portBank)
	if err := post(ctx, processor+"/_control/stray", map[string]any{
		"kind": "adjustment", "amount_cents": stray,
		"description": "Goodwill of the processor (demonstration)",
	}, nil, nil); err != nil {
		return nil, err
	}
	target := clock.DateOf(st.clock.Now())
	for days := 0; days < 2; {
		if target = target.AddDays(1); target.BusinessDay() {
			days++
		}
	}
	// Ten in the morning of that day, whatever the time is now.
	if err := st.advance(ctx, target.Start().Add(10*time.Hour).Sub(st.clock.Now())); err != nil {
		return nil, err
	}
	var run struct {
		Payout   *payout `json:"payout"`
		BankTold bool    `json:"bank_told"`
	}
	if err := post(ctx, processor+"/_control/payouts/run", map[string]string{"until": "paid"}, &run, nil); err != nil {
		return nil, err
	}
	if run.Payout == nil || !run.BankTold {
		return nil, errors.New("the processor paid nothing out, or the bank did not hear of it")
	}
	st.payout, st.business = *run.Payout, clock.DateOf(st.clock.Now()).String()
	var statements struct {
		Data []struct {
			Sequence int      `json:"sequence"`
			Files    []string `json:"files"`
			Date     string   `json:"date"`
		} `json:"data"`
	}
	if err := post(ctx, bank+"/_control/statements", map[string]string{"date": st.business}, &statements, nil); err != nil {
		return nil, err
	}
	facts := []fact{
		{"the clock stands at", st.clock.Now().In(clock.Toronto).Format("2006-01-02 15:04")},
		{"payout " + st.payout.ID, money.Amount(st.payout.Amount).Format("en") + " net of fees"},
	}
	for _, s := range statements.Data {
		facts = append(facts, fact{"camt.053 statement of " + s.Date, strings.Join(s.Files, " ")})
	}
	return facts, nil
}

// night is step 8.
func (st *story) night(ctx context.Context) ([]fact, error) {
	var report reconcile.Report
	if err := st.command(ctx, &report, "nightly", st.business); err != nil {
		return nil, err
	}
	if report.Difference != 0 || report.Payouts.Count != 1 || report.Documents.Count == 0 {
		return nil, fmt.Errorf("the night ends with a difference of %s, %d payouts settled and %d documents", report.Difference, report.Payouts.Count, report.Documents.Count)
	}
	again := reconcile.Report{}
	if err := st.command(ctx, &again, "nightly", st.business); err != nil {
		return nil, err
	}
	if again.Documents != report.Documents || again.Payouts != report.Payouts {
		return nil, errors.New("running the night again changed it")
	}
	facts := []fact{
		{"bank lines of " + report.Date, fmt.Sprintf("%d, %s; difference to the books %s", report.BankLines.Count, report.BankLines.Amount, report.Difference)},
		{"processor fees", report.Fees.String()},
	}
	for _, d := range report.Departments {
		facts = append(facts, fact{"settled for " + d.Department, d.Gross.String()})
	}
	rows, err := st.world.db.Query(ctx, `select file_name, data from reconcile.sap_batch order by file_name limit 100`)
	if err != nil {
		return facts, err
	}
	var name string
	var content []byte
	_, err = pgx.ForEachRow(rows, []any{&name, &content}, func() error {
		f, err := st.keep(name, content)
		facts = append(facts, fact{"SAP batch, IDoc", f.Value})
		return err
	})
	return append(facts, fact{"the same night again", "changes nothing"}), err
}

// sapAnswers is step 9.
func (st *story) sapAnswers(ctx context.Context) ([]fact, error) {
	var posted struct {
		Data []struct {
			DocNum  string `json:"docnum"`
			Status  string `json:"status"`
			Posting *struct {
				Document string `json:"fi_document"`
				Company  string `json:"company_code"`
			} `json:"posting"`
			DoublePosting bool `json:"double_posting"`
		} `json:"data"`
	}
	if err := post(ctx, st.ports.url(portSAP)+"/_control/poll", map[string]any{}, nil, nil); err != nil {
		return nil, err
	}
	if err := get(ctx, st.ports.url(portSAP)+"/_control/documents", &posted); err != nil {
		return nil, err
	}
	var facts []fact
	for _, d := range posted.Data {
		if d.Status != "53" || d.Posting == nil || d.DoublePosting {
			return facts, fmt.Errorf("SAP gave document %s the status %s", d.DocNum, d.Status)
		}
		facts = append(facts, fact{"IDoc " + d.DocNum, "status 53, FI document " + d.Posting.Document + " in company code " + d.Posting.Company})
	}
	if len(facts) == 0 {
		return nil, errors.New("SAP received no document")
	}
	var read any
	if err := st.command(ctx, &read, "nightly", "--answers"); err != nil {
		return facts, err
	}
	desk := newBrowser()
	if err := st.staff(ctx, desk, "staff-1001", "/desk/sap?lang=en"); err != nil {
		return facts, err
	}
	if !desk.says("Posted") && !desk.says("posted") {
		return facts, fmt.Errorf("the finance page %q does not show the batch as posted", desk.heading())
	}
	page, err := st.keep("desk-sap.html", desk.page.body)
	return append(facts, fact{"the finance page shows", "posted"}, page), err
}

// staff signs a member of the demo directory in and opens a page of the desk.
func (st *story) staff(ctx context.Context, b *browser, subject, path string) error {
	if err := b.open(ctx, st.ports.url(portPortal)+path); err != nil {
		return err
	}
	if strings.HasPrefix(b.page.url.String(), st.ports.url(portDirectory)) {
		if err := b.press(ctx, subject, nil); err != nil {
			return err
		}
	}
	return b.open(ctx, st.ports.url(portPortal)+path)
}

// trouble is step 10.
func (st *story) trouble(ctx context.Context) ([]fact, error) {
	open, err := reconcile.OpenExceptions(ctx, st.world.db, 100)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(open, func(e reconcile.Exception) bool { return e.Kind == reconcile.Unexplained && e.Amount == stray })
	if i < 0 {
		return nil, fmt.Errorf("none of %d exceptions is the stray line of %s", len(open), money.Amount(stray))
	}
	if held, err := st.world.books.Balance(ctx, st.world.db, "liabilities:suspense:unexplained"); err != nil || held != -stray {
		return nil, errors.Join(fmt.Errorf("suspense holds %s, want %s", held, money.Amount(-stray)), err)
	}
	desk := newBrowser()
	if err := st.staff(ctx, desk, "staff-1001", "/desk/exceptions?lang=en"); err != nil {
		return nil, err
	}
	if !desk.says("12.34") {
		return nil, fmt.Errorf("the page %q does not show the exception", desk.heading())
	}
	return []fact{
		{"exception", open[i].ID},
		{"kind, owner, amount", fmt.Sprintf("%s, %s, %s", open[i].Kind, open[i].Owner, open[i].Amount)},
		{"in suspense until somebody clears it", money.Amount(stray).Format("en")},
	}, nil
}

// prove is step 11.
func (st *story) prove(ctx context.Context) ([]fact, error) {
	if err := until(ctx, "every entry posted", func(ctx context.Context) (bool, error) {
		var waiting int
		err := st.world.db.QueryRow(ctx, `select count(*) from ledger.unposted`).Scan(&waiting)
		return waiting == 0 && err == nil, err
	}); err != nil {
		return nil, err
	}
	wrong, err := st.world.verify(ctx)
	if err != nil {
		return nil, err
	}
	if len(wrong) > 0 {
		return nil, fmt.Errorf("guichet verify: %s", strings.Join(wrong, "; "))
	}
	facts := []fact{{"guichet verify", "every entry balances, balances equal postings, sub-ledgers equal control accounts, exported equals settled"}}
	checked := 0
	for _, p := range []struct {
		program, format, file string
		args                  []string
	}{
		{"hledger", "hledger", "ledger.journal", []string{"check", "--strict", "-f"}},
		{"bean-check", "beancount", "ledger.beancount", nil},
	} {
		path, err := st.export(ctx, p.format, p.file)
		if err != nil {
			return facts, err
		}
		if _, err := exec.LookPath(p.program); err != nil {
			facts = append(facts, fact{p.program, "not installed: the export was not checked by it: " + path})
			continue
		}
		check := exec.CommandContext(ctx, p.program, append(p.args, path)...)
		check.Env = utf8Locale(os.Environ())
		out, err := check.CombinedOutput()
		if err != nil {
			return facts, fmt.Errorf("%s refuses the export: %w\n%s", p.program, err, out)
		}
		checked++
		facts = append(facts, fact{p.program + " accepts", path})
	}
	if checked == 0 {
		return facts, errors.New("no independent accounting program is installed to check the export: apt-get install hledger")
	}
	head, err := st.world.books.Head(ctx, st.world.db)
	if err != nil {
		return facts, err
	}
	path := filepath.Join(st.files, "tree-head.txt")
	return append(facts, fact{"signed head of the log", path}), os.WriteFile(path, []byte(head), 0o644)
}

// utf8Locale adds a locale to an environment that names none: a fresh machine or a
// container has no other, and hledger reads files in the locale's encoding.
func utf8Locale(environ []string) []string {
	for _, v := range environ {
		if name, value, _ := strings.Cut(v, "="); value != "" && (name == "LC_ALL" || name == "LC_CTYPE" || name == "LANG") {
			return environ
		}
	}
	return append(environ, "LC_ALL=C.UTF-8")
}
