package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"html"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"guichet/api/departments"
	"guichet/api/web"
	"guichet/api/web/webtest"
	"guichet/department"
	"guichet/internal/approval"
	"guichet/internal/browser"
	"guichet/internal/keyed"
	"guichet/ledger"
	"guichet/payments"
	"guichet/payments/paymentstest"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// document is the API's document, which needs nothing that works.
func document() *huma.OpenAPI {
	return departments.New(chi.NewRouter(), departments.Parts{BaseURL: "https://pay.example.ca"}).Document()
}

func TestDevelopersPage(t *testing.T) {
	page := pageOf(document())
	webtest.Room(t, "developers", files, webtest.Samples{"developers/reference": {page}})
	if len(page.Operations) < 6 || len(page.Events) < 2 || len(page.Kinds) < 10 {
		t.Errorf("%d operations, %d kinds of events, %d of problems", len(page.Operations), len(page.Events), len(page.Kinds))
	}
	for _, o := range page.Operations {
		if o.Status == "" || len(o.Answer) == 0 || len(o.Errors) == 0 || o.Method == "POST" && len(o.Fields) == 0 {
			t.Errorf("the page says too little of %s: %+v", o.ID, o)
		}
	}
}

// serve starts a server of the page and its style sheet.
func serve(t *testing.T) string {
	t.Helper()
	site := web.New(web.Options{BaseURL: "http://localhost", Dev: true})
	r := chi.NewRouter()
	r.Handle("/static/*", site.Static())
	r.Get("/developers", reference(site, document()))
	srv := httptest.NewServer(r)
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestDevelopersPageInBrowser(t *testing.T) {
	address := serve(t) + "/developers"
	page := browser.Open(t, browser.New(t), address, browser.Desktop)
	for _, lang := range web.Languages {
		browser.Go(t, page, address+"?lang="+lang)
		for name, size := range map[string]browser.Viewport{"desktop": browser.Desktop, "phone": browser.Phone} {
			browser.Resize(t, page, size)
			browser.Axe(t, page)
			browser.Shot(t, page, "developers-"+lang+"-"+name)
		}
		_, err := page.Eval(`() => document.querySelectorAll("details").forEach(d => d.open = true)`)
		must(t, err)
		browser.Axe(t, page)
		browser.Resize(t, page, browser.Phone)
		browser.NoSideways(t, page)
		browser.Resize(t, page, browser.Desktop)
		browser.Dark(t, page)
		browser.Axe(t, page)
		browser.Light(t, page)
	}
}

// shell runs a script and returns what it prints.
func shell(t *testing.T, script string, tools ...string) string {
	t.Helper()
	for _, tool := range append(tools, "bash") {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	out, err := exec.CommandContext(t.Context(), "bash", "-c", "set -euo pipefail\n"+script).Output()
	if err != nil {
		t.Fatalf("%v: %s", err, script)
	}
	return string(out)
}

func TestTheSignatureOnThePageIsOne(t *testing.T) {
	verifier, err := standardwebhooks.NewWebhook(sample.Secret)
	must(t, err)
	h := http.Header{"Webhook-Id": {sample.ID}, "Webhook-Timestamp": {sample.Timestamp}, "Webhook-Signature": {sample.Signature}}
	must(t, verifier.VerifyIgnoringTimestamp([]byte(sample.Body), h))
	if name, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(sample.Secret, "whsec_")); err != nil || string(name) != "guichet-demonstration-secret-000" {
		t.Errorf("the secret is %q, %v", name, err)
	}
	if got := shell(t, verify(), "openssl", "od", "base64"); "v1,"+strings.TrimSpace(got) != sample.Signature {
		t.Errorf("the shell makes %q, the page shows %q", got, sample.Signature)
	}
}

// nobody knows no subject.
type nobody struct{}

func (nobody) Resident(context.Context, string, string) (string, bool, error) { return "", false, nil }

// TestCommandsWork runs every command of the page as it stands, in an order that
// gives each what it needs.
func TestCommandsWork(t *testing.T) {
	c := paymentstest.New(t)
	links, err := keyed.Load(t.Context(), c.DB, c.Key, payments.CheckoutLinks)
	must(t, err)
	var handler http.Handler
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	t.Cleanup(srv.Close)
	r := chi.NewRouter()
	journal := ledger.NewQueue(c.Books, c.DB)
	go func() { _ = journal.Run(t.Context()) }() // ends with the test
	doc := departments.New(r, departments.Parts{
		Books: c.Books, Journal: journal, DB: c.DB, Departments: c.Depts, Bills: c.Bills, Subjects: nobody{}, Today: c.Today, BaseURL: srv.URL, Log: slog.New(slog.DiscardHandler),
		Payments: payments.New(payments.Parts{DB: c.DB, Books: c.Books, Bills: c.Bills, Departments: c.Depts, Queue: c.Queue, Links: links, Now: c.Clock.Now}, payments.Config{}),
	}).Document()
	handler = r
	var key string
	c.Do(t, func(tx pgx.Tx) (err error) {
		key, err = c.Depts.IssueKey(t.Context(), tx, c.Depart["parking"].ID, "page", "test")
		return err
	})
	journalKey := financeSystem(t, c)
	site := web.New(web.Options{})
	site.Register("developers", files)
	text, err := site.Render("en", "developers/reference", pageOf(doc))
	must(t, err)
	commands := map[string]string{} // as a reader copies them, by operation
	for _, m := range regexp.MustCompile(`(?s)id="([a-z-]+)">[^<]*</h3>.*?<pre[^>]*><code>(.*?)</code></pre>`).FindAllStringSubmatch(text, -1) {
		commands[m[1]] = html.UnescapeString(m[2])
	}
	made := map[string]string{"BILL": "", "CHECKOUT": "", "ENTRY": ""}
	run := func(opID string) {
		t.Helper()
		script := "export GUICHET_KEY=" + key + " GUICHET_JOURNAL_KEY=" + journalKey +
			" BILL=" + made["BILL"] + " CHECKOUT=" + made["CHECKOUT"] + " ENTRY=" + made["ENTRY"] + "\n" + commands[opID]
		var answer struct{ ID, Code string }
		out := shell(t, script, "curl")
		if err := json.Unmarshal([]byte(out), &answer); err != nil || commands[opID] == "" || answer.Code != "" {
			t.Fatalf("%s\n%s: %v", commands[opID], out, err)
		}
		delete(commands, opID)
		switch opID {
		case "create-bill":
			made["BILL"] = answer.ID
		case "create-checkout":
			made["CHECKOUT"] = answer.ID
		case "create-journal-entry":
			made["ENTRY"] = answer.ID
		}
	}
	for _, opID := range []string{
		"create-bill", "list-bills", "get-bill", "create-checkout", "get-checkout", "cancel-bill",
		"create-journal-entry", "get-journal-entry", "find-journal-entry", "create-journal-entries",
	} {
		run(opID)
	}
	for opID := range commands {
		t.Errorf("the command of %s was not run", opID)
	}
}

// financeSystem opens the accounts of the examples and returns a journal key to them.
func financeSystem(t *testing.T, c *paymentstest.City) (key string) {
	t.Helper()
	accounts := []string{"expenses:payroll", "liabilities:payroll"}
	c.Do(t, func(tx pgx.Tx) error {
		for _, path := range accounts {
			if err := c.Books.OpenAccount(t.Context(), tx, ledger.Account{Path: path, NameEN: path, NameFR: path}); err != nil {
				return err
			}
		}
		var waits string
		var err error
		key, waits, err = c.Depts.ProposeJournalKey(t.Context(), tx, department.JournalKey{
			DepartmentID: c.Depart["parking"].ID, Name: "page", Env: "test", Accounts: accounts, By: "first",
		})
		if err != nil {
			return err
		}
		return c.Depts.DecideKey(t.Context(), tx, approval.Decision{ID: waits, By: "second", At: c.Clock.Now()}, approval.Approved)
	})
	return key
}
