package desk_test

import (
	"html"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"

	"guichet/identity/staff"
	"guichet/internal/id"
)

// Every address of the desk is opened by everybody who may, and wherever a person shows,
// or a person's bill or payment does, that look is in the audit: who, at what, at whom. The
// walk finds new addresses by itself and wants a page of each.
func TestEveryLookAtAPersonIsWrittenDown(t *testing.T) {
	t.Parallel()
	s := tell(t)
	samples := map[string][]string{} // pattern → paths
	note := func(path string) {
		bare, _, _ := strings.Cut(path, "?")
		c := chi.NewRouteContext()
		if s.router.Match(c, http.MethodGet, bare) {
			samples[c.RoutePattern()] = append(samples[c.RoutePattern()], path)
		}
	}
	for _, p := range s.pages() {
		note(p.path)
	}
	var patterns []string
	must(t, chi.Walk(s.router, func(method, pattern string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		if method != http.MethodGet || strings.HasPrefix(pattern, "/static") {
			return nil
		}
		patterns = append(patterns, pattern)
		if len(samples[pattern]) > 0 {
			return nil
		}
		// A file beside a page, or below it, is of the page's object.
		parent, last := pattern[:strings.LastIndex(pattern, "/")], pattern[strings.LastIndex(pattern, "/"):]
		for _, path := range samples[parent] {
			bare, _, _ := strings.Cut(path, "?")
			note(bare + strings.ReplaceAll(last, "{deed}", "note"))
		}
		if !strings.Contains(pattern, "{") {
			note(pattern)
		}
		return nil
	}))
	looks := func() (all, right int, member string) {
		t.Helper()
		must(t, s.DB.QueryRow(t.Context(), `
			select count(*), count(*) filter (where actor_kind = 'staff' and object_id <> ''), coalesce((select actor from ops.audit where action = 'staff.viewed' order by seq desc limit 1), '')
			from ops.audit where action = 'staff.viewed'`).Scan(&all, &right, &member))
		return all, right, member
	}
	shown := 0
	for _, pattern := range patterns {
		if len(samples[pattern]) == 0 {
			t.Errorf("GET %s has no page in the story: does it show a person?", pattern)
		}
		for _, path := range samples[pattern] {
			for _, role := range staff.Roles() {
				before, _, _ := looks()
				a := s.do(http.MethodGet, role, path, nil)
				after, right, member := looks()
				body := html.UnescapeString(a.body)
				person := strings.Contains(body, name) || strings.Contains(body, email) || strings.Contains(body, s.residentID)
				object := a.status == http.StatusOK && (strings.HasPrefix(pattern, "/desk/lookup/bills/") || strings.HasPrefix(pattern, "/desk/lookup/payments/"))
				if person {
					shown++
				}
				switch wrote := after - before; {
				case (person || object) && (wrote != 1 || right != after || member != s.member(role).ID):
					t.Errorf("%s as %s shows a person's things and writes %d looks (by %q)", path, role, wrote, member)
				case !person && !object && wrote != 0:
					t.Errorf("%s as %s shows nobody and writes %d looks", path, role, wrote)
				}
			}
		}
	}
	if shown < 5 || len(patterns) < 20 {
		t.Fatalf("only %d pages of %d patterns showed a person", shown, len(patterns))
	}
}

func TestAPurposeIsKeptWithTheLook(t *testing.T) {
	t.Parallel()
	s := tell(t)
	a := s.do(http.MethodPost, staff.Agent311, "/desk/lookup", url.Values{"number": {id.Group(s.fine.Notice)}, "purpose": {"call"}})
	if a.header.Get("Location") != "/desk/lookup/bills/"+s.fine.ID+"?for=call" {
		t.Fatalf("%d to %q", a.status, a.header.Get("Location"))
	}
	s.page(staff.Agent311, a.header.Get("Location"))
	s.page(staff.Agent311, "/desk/lookup/bills/"+s.fine.ID+"?for=gossip")
	var purposes string
	must(t, s.DB.QueryRow(t.Context(), `select string_agg(coalesce(details->>'purpose', 'none'), ' ' order by seq) from ops.audit where action = 'staff.viewed'`).Scan(&purposes))
	if purposes != "call none" {
		t.Errorf("purposes %q", purposes)
	}
}
