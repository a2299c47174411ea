package admin_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"

	"guichet/identity/staff"
	"guichet/internal/id"
)

// access says a second time, on purpose, who may use what: by role, and whether the role
// must hold for the whole city and the proof be fresh.
var access = map[string]struct {
	roles       []string
	city, fresh bool
}{
	"GET /desk/admin": {managing, false, false}, "GET /desk/admin/clients": {managing, false, false},
	"GET /desk/admin/new-client": {managing, false, false}, "POST /desk/admin/new-client": {managing, false, false},
	"GET /desk/admin/clients/{id}": {managing, false, false}, "POST /desk/admin/clients/{id}": {managing, false, false},
	"GET /desk/admin/clients/{id}/errors": {managing, false, false},
	"GET /desk/admin/clients/{id}/secret": {managing, false, true}, "POST /desk/admin/clients/{id}/secret": {managing, false, true},
	"GET /desk/admin/approvals/{id}": {managing, false, true}, "POST /desk/admin/approvals/{id}": {managing, false, true},
	"GET /desk/admin/departments":             {managing, false, false},
	"GET /desk/admin/departments/{code}/keys": {managing, false, true}, "POST /desk/admin/departments/{code}/keys": {managing, false, true},
	"GET /desk/admin/departments/{code}/branding": {managing, false, false}, "POST /desk/admin/departments/{code}/branding": {managing, false, false},
	"GET /desk/admin/signing-keys": {chiefly, true, false}, "POST /desk/admin/signing-keys": {chiefly, true, true}, "GET /desk/admin/settings": {chiefly, true, false},
	"GET /desk/admin/staff": {chiefly, true, false}, "POST /desk/admin/staff": {chiefly, true, true},
	"GET /desk/admin/staff/{id}": {chiefly, true, false}, "POST /desk/admin/staff/{id}": {chiefly, true, true},
	"GET /desk/audit": {auditing, true, false}, "GET /desk/audit.csv": {auditing, true, false}, "GET /desk/audit.json": {auditing, true, false},
}

var (
	managing = []string{staff.Administrator, staff.Department}
	chiefly  = []string{staff.Administrator}
	auditing = []string{staff.Auditor}
)

func TestEveryRouteNamesItsRoles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
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
		path := strings.NewReplacer("{id}", id.New(), "{code}", "nowhere").Replace(pattern)
		var form url.Values
		if method == http.MethodPost {
			form = url.Values{"do": {"x"}}
		}
		if a := w.do(method, "", path, form); a.status != http.StatusSeeOther || !strings.HasPrefix(a.header.Get("Location"), "/staff/signin?return=") {
			t.Errorf("%s: nobody gets %d", route, a.status)
		}
		for _, role := range staff.Roles() { // as() holds each for the whole city
			a, want := w.do(method, role, path, form), slices.Contains(allowed.roles, role)
			if may := a.status != http.StatusForbidden; may != want || a.status >= 500 {
				t.Errorf("%s as %s: %d, may use it: %v", route, role, a.status, want)
			}
		}
		for _, who := range []string{"parking-admin", "parking-auditor"} {
			want := !allowed.city && who == "parking-admin"
			if a := w.do(method, who, path, form); (a.status != http.StatusForbidden) != want {
				t.Errorf("%s as %s: %d, may use it: %v", route, who, a.status, want)
			}
		}
		return nil
	})
	must(t, err)
	if len(seen) != len(access) {
		t.Errorf("%d routes are served, %d in the table", len(seen), len(access))
	}
	// The same again on a screen that was left open for six minutes.
	w.now = w.now.Add(6 * 60 * 1e9)
	for route, allowed := range access {
		method, pattern, _ := strings.Cut(route, " ")
		var form url.Values
		if method == http.MethodPost {
			form = url.Values{"do": {"x"}}
		}
		a := w.do(method, allowed.roles[0], strings.NewReplacer("{id}", id.New(), "{code}", "nowhere").Replace(pattern), form)
		if asked := strings.HasPrefix(a.header.Get("Location"), "/staff/signin?fresh=1&return="); asked != allowed.fresh {
			t.Errorf("%s with an old proof: %d to %q", route, a.status, a.header.Get("Location"))
		}
	}
}

// Another department's is not there: neither to see nor to change.
func TestADepartmentSeesOnlyItsOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.post("parking", "/desk/admin/new-client", newClient())
	waits := w.waits("client.create")
	for _, path := range []string{
		"/desk/admin/clients/parking-portal", "/desk/admin/clients/parking-portal/errors", "/desk/admin/clients/parking-portal/secret",
		"/desk/admin/departments/parking/keys", "/desk/admin/departments/parking/branding", "/desk/admin/approvals/" + waits,
	} {
		if a := w.do(http.MethodGet, "water", path, nil); a.status != http.StatusNotFound {
			t.Errorf("GET %s: %d", path, a.status)
		}
		if a := w.do(http.MethodGet, "parking", path, nil); a.status != http.StatusOK {
			t.Errorf("GET %s as its own: %d", path, a.status)
		}
		if strings.HasSuffix(path, "/errors") {
			continue
		}
		if a := w.do(http.MethodPost, "water", path, url.Values{"do": {"rotate"}, "decision": {"approved"}}); a.status != http.StatusNotFound {
			t.Errorf("POST %s: %d", path, a.status)
		}
	}
	if page := w.get("water", "/desk/admin") + w.get("water", "/desk/admin/clients") + w.get("water", "/desk/admin/departments"); strings.Contains(page, "arking") {
		t.Errorf("water reads of parking: %s", page)
	}
	form := newClient()
	if a := w.do(http.MethodPost, "water", "/desk/admin/new-client", form); a.status != http.StatusNotFound {
		t.Errorf("water proposes for parking: %d", a.status)
	}
	if a := w.do(http.MethodPost, "parking-2", "/desk/admin/approvals/"+waits, url.Values{"decision": {"approved"}}); a.status != http.StatusForbidden {
		t.Errorf("a member of the department approves: %d", a.status)
	}
	if a := w.do(http.MethodPost, "parking-admin", "/desk/admin/approvals/"+waits, url.Values{"decision": {"approved"}}); a.status != http.StatusSeeOther {
		t.Errorf("the department's administrator approves: %d %s", a.status, a.text())
	}
}
