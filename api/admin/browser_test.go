package admin_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/go-rod/rod/lib/proto"

	"guichet/api/web"
	"guichet/identity/provider"
	"guichet/identity/staff"
	"guichet/internal/browser"
)

// Every page on a desktop and a phone, in both languages, checked with axe.
func TestPagesInBrowser(t *testing.T) {
	b := browser.New(t)
	w := newWorld(t)
	w.client()
	must(t, w.provider.Refused(t.Context(), "parking-portal", provider.Refusal{Endpoint: "authorize", Code: provider.BadRedirect, Network: "203.0.113.0/24"}))
	must(t, w.provider.Refused(t.Context(), "parking-portal", provider.Refusal{Endpoint: "token", Code: "invalid_client", Network: "203.0.113.0/24"}))
	w.post("parking", "/desk/admin/clients/parking-portal", url.Values{"do": {"add"}, "redirect": {"https://parking.example/two"}})
	w.post("parking", "/desk/admin/departments/parking/keys", url.Values{"do": {"key"}, "name": {"permit system"}})
	w.post("parking", "/desk/admin/departments/parking/keys", url.Values{"do": {"hook"}, "url": {"https://hooks.example.ca/guichet"}})
	w.post("chief", "/desk/admin/staff", url.Values{"do": {"add_hint"}, "group": {"desk-311"}, "new_role": {staff.Agent311}})
	_, err := w.staff.SignedIn(t.Context(), staff.Upstream{Issuer: "https://directory.example", Subject: "dora", Name: "Demo Dora", Email: "dora@city.example", Groups: []string{"desk-311"}}, "", here)
	if err == nil {
		t.Fatal("a group let somebody in")
	}
	page := browser.Open(t, b, "about:blank", browser.Desktop)
	const client = "/desk/admin/clients/parking-portal"
	for _, p := range []struct{ name, who, path string }{
		{"overview", "chief", "/desk/admin"},
		{"clients", "chief", "/desk/admin/clients"},
		{"client", "chief", client},
		{"errors", "parking", client + "/errors"},
		{"secret", "parking", client + "/secret"},
		{"new-client", "parking", "/desk/admin/new-client"},
		{"approval", "chief", "/desk/admin/approvals/" + w.waits(provider.ApproveAddresses)},
		{"departments", "chief", "/desk/admin/departments"},
		{"keys", "parking", "/desk/admin/departments/parking/keys"},
		{"branding", "parking", "/desk/admin/departments/parking/branding"},
		{"signing-keys", "chief", "/desk/admin/signing-keys"},
		{"settings", "chief", "/desk/admin/settings"},
		{"staff", "chief", "/desk/admin/staff"},
		{"member", "chief", "/desk/admin/staff/" + w.memberID("parking")},
		{"audit", staff.Auditor, "/desk/audit"},
		{"audit-year", staff.Auditor, "/desk/audit?subject=nobody&span=year"},
	} {
		must(t, page.SetCookies([]*proto.NetworkCookieParam{{Name: "guichet-staff", Value: w.as(p.who), URL: w.url, HTTPOnly: true}}))
		for _, lang := range web.Languages {
			t.Run(p.name+"/"+lang, func(t *testing.T) {
				sep := "?"
				if strings.Contains(p.path, "?") {
					sep = "&"
				}
				browser.Resize(t, page, browser.Desktop)
				browser.Go(t, page, w.url+p.path+sep+"lang="+lang)
				for size, v := range map[string]browser.Viewport{"desktop": browser.Desktop, "phone": browser.Phone} {
					browser.Resize(t, page, v)
					browser.NoSideways(t, page)
					browser.Axe(t, page)
					browser.Shot(t, page, "admin-"+p.name+"-"+lang+"-"+size)
				}
			})
		}
	}
}

// A department's person proposes an application by keyboard and mouse, without script, and
// is told what is wrong beside the field.
func TestAClientIsProposedInBrowser(t *testing.T) {
	b := browser.New(t)
	w := newWorld(t)
	page := browser.Open(t, b, "about:blank", browser.Phone)
	must(t, page.SetCookies([]*proto.NetworkCookieParam{{Name: "guichet-staff", Value: w.as("parking"), URL: w.url, HTTPOnly: true}}))
	browser.Go(t, page, w.url+"/desk/admin")
	browser.Click(t, page, `main a[href="/desk/admin/new-client"]`)
	browser.Fill(t, page, "#id", "parking-portal")
	browser.Fill(t, page, "#name_en", "Parking Portal")
	browser.Fill(t, page, "#redirect", "http://parking.example/callback")
	browser.Click(t, page, "main form button")
	browser.Axe(t, page)
	browser.Shot(t, page, "admin-new-client-faults-en-phone")
	if text := browser.Text(t, page, ".error-summary"); !strings.Contains(text, "needed in English and in French") || !strings.Contains(text, "want https") {
		t.Errorf("the summary says %q", text)
	}
	browser.Fill(t, page, "#name_fr", "Portail du stationnement")
	browser.Fill(t, page, "#redirect", "https://parking.example/callback")
	browser.Click(t, page, "main form button")
	browser.Axe(t, page)
	browser.NoSideways(t, page)
	browser.Shot(t, page, "admin-new-client-made-en-phone")
	if text := browser.Text(t, page, "main"); !strings.Contains(text, "shown this once") {
		t.Errorf("the page says %q", text)
	}
	if a := w.do(http.MethodGet, "parking", "/desk/admin", nil); !strings.Contains(a.text(), "New client parking-portal") {
		t.Errorf("it does not wait: %s", a.text())
	}
}
