package desk_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"

	"guichet/identity/staff"
	"guichet/internal/id"
)

// access says who may use what. It is written down a second time here on purpose:
// whoever opens a route to more people must say so twice.
var access = map[string][]string{
	"GET /desk": staff.Roles(),

	"GET /desk/today": finance, "GET /desk/payouts": finance, "GET /desk/payouts/{id}": finance,
	"GET /desk/bank": finance, "GET /desk/bank/statements/{id}": finance,
	"GET /desk/bank/lines": finance, "GET /desk/bank/lines/{id}": finance,
	"GET /desk/sap": finance, "GET /desk/sap/batches/{id}": finance, "GET /desk/sap/batches/{id}/file": finance,
	"GET /desk/sap/batches/{id}/manifest": finance, "GET /desk/sap/documents/{id}": finance,
	"GET /desk/exceptions": finance, "GET /desk/exceptions/{id}": finance, "GET /desk/exceptions/{id}/{deed}": finance,
	"GET /desk/ledger": finance, "GET /desk/ledger/accounts/{path}": finance,
	"GET /desk/ledger/accounts": finance, "GET /desk/ledger/accounts/{path}/statement": finance, "GET /desk/ledger/general": finance,
	"GET /desk/ledger/activity": finance, "GET /desk/ledger/journal": finance, "GET /desk/ledger/entries/{id}": finance, "GET /desk/ledger/entries/{id}/proof": finance,

	"POST /desk/exceptions/{id}/note":     {staff.FinanceClerk, staff.FinanceApprover},
	"POST /desk/exceptions/{id}/assign":   {staff.FinanceClerk, staff.FinanceApprover},
	"POST /desk/exceptions/{id}/transfer": {staff.FinanceClerk},
	"POST /desk/exceptions/{id}/resolve":  {staff.FinanceClerk},

	"GET /desk/documents": counter, "GET /desk/documents/new": counter, "POST /desk/documents/new": counter,
	"GET /desk/documents/{id}": counter, "GET /desk/documents/{id}/file": counter, "POST /desk/documents/{id}": {staff.Supervisor},
	"GET /desk/periods": finance, "GET /desk/periods/decide": finance,
	"POST /desk/periods": {staff.FinanceClerk, staff.FinanceApprover}, "POST /desk/periods/decide": {staff.FinanceApprover},

	"GET /desk/lookup": phone, "POST /desk/lookup": phone, "GET /desk/lookup/bills/{id}": phone, "GET /desk/lookup/payments/{id}": phone,
}

// tables are the lists that can be had as files, in each format under its own address.
var tables = map[string][]string{
	"GET /desk/today/receivables": finance, "GET /desk/payouts": finance, "GET /desk/payouts/{id}/lines": finance, "GET /desk/bank": finance,
	"GET /desk/bank/lines": finance, "GET /desk/sap": finance, "GET /desk/sap/documents/{id}/items": finance, "GET /desk/exceptions": finance,
	"GET /desk/ledger": finance, "GET /desk/ledger/accounts": finance, "GET /desk/ledger/accounts/{path}/lines": finance,
	"GET /desk/ledger/accounts/{path}/statement": finance, "GET /desk/ledger/general": finance, "GET /desk/ledger/activity": finance,
	"GET /desk/ledger/journal": finance, "GET /desk/ledger/entries/{id}/lines": finance,
}

// allowed is who may use what, files included.
func allowed() map[string][]string {
	all := maps.Clone(access)
	for route, roles := range tables {
		for _, ending := range []string{".csv", ".xlsx", ".json"} {
			all[route+ending] = roles
		}
	}
	return all
}

var (
	counter = []string{staff.CounterClerk, staff.Supervisor}
	finance = []string{staff.FinanceClerk, staff.FinanceApprover, staff.Auditor}
	phone   = []string{staff.Agent311, staff.CounterClerk, staff.Supervisor, staff.FinanceClerk, staff.FinanceApprover, staff.Auditor}
)

func TestEveryRouteNamesItsRoles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	access := allowed()
	seen := map[string]bool{}
	err := chi.Walk(w.router, func(method, pattern string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		if strings.HasPrefix(pattern, "/static") {
			return nil
		}
		route := method + " " + pattern
		seen[route] = true
		allowed, ok := access[route]
		if !ok {
			t.Errorf("%s is not in the table of access", route)
			return nil
		}
		t.Run(route, func(t *testing.T) { w.walk(t, method, pattern, allowed) })
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for route := range access {
		if !seen[route] {
			t.Errorf("%s is in the table of access and not served", route)
		}
	}
	if len(seen) < 20 {
		t.Fatalf("only %d routes were walked", len(seen))
	}
}

// walk asks for one route as everybody.
func (w *world) walk(t *testing.T, method, pattern string, allowed []string) {
	path := strings.NewReplacer("{id}", id.New(), "{path}", "assets:none", "{deed}", "note").Replace(pattern)
	var form url.Values
	if method == http.MethodPost {
		form = url.Values{"note": {"seen"}, "reason": {"seen"}, "why": {"seen"}, "account": {"revenue:parking:fines"}, "number": {"1"}}
	}
	nobody := w.do(method, "", path, form)
	if to := nobody.header.Get("Location"); nobody.status != http.StatusSeeOther || !strings.HasPrefix(to, "/staff/signin?return=%2Fdesk") {
		t.Errorf("nobody: %d to %q, want the sign-in", nobody.status, to)
	}
	for _, role := range staff.Roles() {
		got, want := w.do(method, role, path, form), slices.Contains(allowed, role)
		if may := got.status != http.StatusForbidden; may != want || got.status >= 500 {
			t.Errorf("%s: %d, may use it: %v", role, got.status, want)
		}
	}
	// A role for one department opens nothing that shows them all.
	byDepartment := pattern == "/desk" || strings.HasPrefix(pattern, "/desk/lookup")
	for _, role := range []string{"parking-finance", "parking-agent"} {
		got := w.do(method, role, path, form)
		if may := got.status != http.StatusForbidden; may != byDepartment {
			t.Errorf("%s: %d, may use it: %v", role, got.status, byDepartment)
		}
	}
}

func TestTheDoorLeadsEverybodyToTheirFirstPage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for role, want := range map[string]string{
		staff.FinanceClerk: "/desk/today", staff.Auditor: "/desk/today", staff.Agent311: "/desk/lookup", staff.Supervisor: "/desk/lookup",
		"parking-finance": "/desk/lookup", "parking-agent": "/desk/lookup", staff.Administrator: "/desk/admin", staff.Department: "/desk/admin",
	} {
		t.Run(role, func(t *testing.T) {
			if got := w.do(http.MethodGet, role, "/desk", nil); got.header.Get("Location") != want {
				t.Errorf("%d to %q, want %q", got.status, got.header.Get("Location"), want)
			}
		})
	}
	t.Run("the language asked for is kept", func(t *testing.T) {
		if got := w.do(http.MethodGet, staff.Auditor, "/desk?lang=fr", nil).header.Get("Location"); got != "/desk/today?lang=fr" {
			t.Errorf("to %q", got)
		}
	})
	t.Run("navigation shows what may be opened", func(t *testing.T) {
		for role, want := range map[string]int{staff.FinanceClerk: 9, staff.Auditor: 10, staff.Agent311: 1, "parking-finance": 1} {
			page := w.do(http.MethodGet, role, "/desk/lookup", nil).body
			if got := strings.Count(page, `<li><a href="/desk/`); got != want {
				t.Errorf("%s: %d places, want %d", role, got, want)
			}
		}
	})
}

// A form that another site sends does nothing, whoever is signed in.
func TestAForeignFormIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, fmt.Sprintf("%s/desk/exceptions/%s/note", w.url, id.New()), strings.NewReader("note=x"))
	must(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	req.AddCookie(&http.Cookie{Name: "guichet-staff", Value: w.as(staff.FinanceClerk)})
	res, err := browserLike.Do(req)
	must(t, err)
	defer res.Body.Close()
	if res.StatusCode != http.StatusForbidden {
		t.Errorf("answered %d", res.StatusCode)
	}
}

// NUL and broken UTF-8 are nothing that a database can look up.
func TestWhatIsNoTextIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tried := 0
	for route, roles := range allowed() {
		method, pattern, _ := strings.Cut(route, " ")
		w.fresh(roles[0]) // who has to prove themselves first is sent away before anything is read
		for _, bad := range []string{"\x00", "\xff"} {
			path := strings.NewReplacer("{id}", url.PathEscape(bad), "{path}", url.PathEscape(bad), "{deed}", "note").Replace(pattern)
			var form url.Values
			if method == http.MethodPost {
				form = url.Values{"note": {bad}, "reason": {bad}, "why": {bad}, "account": {bad}, "number": {bad}}
			} else {
				path += "?" + url.Values{"state": {bad}, "kind": {bad}}.Encode()
			}
			if got := w.do(method, roles[0], path, form); got.status != http.StatusBadRequest {
				t.Errorf("%s with %q: %d, want 400", route, bad, got.status)
			}
			tried++
		}
	}
	if tried < 40 {
		t.Fatalf("only %d requests were tried", tried)
	}
}
