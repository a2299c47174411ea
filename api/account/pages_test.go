package account

import (
	"html/template"
	"net/url"
	"testing"
	"time"

	"guichet/api/oidc"
	"guichet/api/web"
	"guichet/api/web/webtest"
	"guichet/identity"
	"guichet/identity/provider"
)

func TestPages(t *testing.T) {
	noon := time.Date(2026, 6, 1, 16, 0, 0, 0, time.UTC)
	form := &web.Form{Values: url.Values{}}
	form.Fail("", "account.limited")
	form.Fail("code", "account.emails.wrong", "Count", 2)
	form.Fail("email", "account.emails.bad")
	form.Fail("name", "account.security.bad_name")
	v := view{P: identity.Person{ID: "p", Name: "Léa", Email: "lea@demo.example", SignedInAt: noon}}
	wrong := v
	wrong.Form = form
	var done []any
	for _, deed := range deeds {
		d := v
		d.Done = "account.done." + deed
		done = append(done, homePage{view: d})
	}
	emails := []identity.EmailAddress{{ID: "1", Address: "lea@demo.example", Main: true}, {ID: "2", Address: "lea@work.example", Bounced: "5.1.1"}}
	keys := []identity.Passkey{
		{ID: "1", Name: "Phone", Synced: true, CreatedAt: noon, UsedAt: &noon, WarnedAt: &noon},
		{ID: "2", Name: "Key", CreatedAt: noon},
	}
	bank := oidc.Partner{Key: "bank", NameEN: "Bank", NameFR: "Banque", Issuer: "https://bank.example"}
	partners := []partnerRow{{bank, nil}, {oidc.Partner{Key: "province"}, &identity.PartnerLink{LinkedAt: noon}}}
	known := []provider.Known{
		{ClientID: "a", Name: provider.Words{EN: "Portal", FR: "Portail"}, Since: noon, Agreed: true, Scopes: []string{"openid", "profile", "email"}},
		{ClientID: "b", Since: noon, Scopes: []string{"phone", "address", "offline_access"}},
	}
	var visits []identity.Visit
	for i, way := range []string{"email", "passkey", "security-key", "email+app", "email+backup-code", "counter", "partner", "email+passkey"} {
		visits = append(visits, identity.Visit{ID: string(rune('a' + i)), At: noon, Way: way, Outcome: []string{"ok", "failed", "refused"}[i%3], Service: "portal", Network: "203.0.113.0/24", Device: "Firefox, Linux", Disavowable: i%3 == 0})
	}
	devices := []identity.Device{{SessionID: "1", Name: "Firefox, Linux", Network: "203.0.113.0/24", SignedInAt: noon, SeenAt: noon, Current: true}, {SessionID: "2", SignedInAt: noon, SeenAt: noon, Departments: 2}}
	merging := mergePage{view: v, MergePreview: identity.MergePreview{Other: v.P, Emails: 1, Passkeys: 2}, Names: []string{"Parking", "Water"}}
	links := []any{}
	for _, purpose := range []string{identity.LinkCancelRecovery, identity.LinkRevertEmail, identity.LinkDisavow, identity.LinkUndoMerge} {
		links = append(links, linkPage{view{}, purpose})
	}
	webtest.Room(t, "account", files, webtest.Samples{
		"account/home": append(done, homePage{view: v, Closing: &noon, Limited: &noon, Recovery: &identity.Recovery{ReadyAt: noon, FinishBy: noon}},
			homePage{view: v, Factors: identity.Factors{Passkeys: 1}}),
		"account/profile":     {profilePage{v, identity.Resident{Name: "Léa", Lang: "fr"}}, profilePage{wrong, identity.Resident{}}},
		"account/emails":      {emailsPage{v, emails, ""}, emailsPage{wrong, emails, "new"}, emailsPage{wrong, emails, "2"}},
		"account/security":    {securityPage{view: v}, securityPage{wrong, keys, identity.Factors{Passkeys: 2, App: true, Backup: 9}, partners, "app"}, securityPage{v, keys, identity.Factors{}, nil, "1"}},
		"account/passkey":     {passkeyPage{v, "/"}, passkeyPage{wrong, "/bills"}},
		"account/app":         {appPage{v, identity.App{Secret: "ABCD EFGH"}, template.URL("otpauth://totp/x"), "/"}, appPage{wrong, identity.App{}, "", "/"}},
		"account/codes":       {codesPage{v, []string{"A", "B"}, "/"}, codesPage{v, nil, "/bills"}},
		"account/devices":     {devicesPage{v, devices}, devicesPage{v, devices[:1]}},
		"account/departments": {departmentsPage{v, nil}, departmentsPage{v, known}},
		"account/history":     {historyPage{view: v}, historyPage{v, visits, "2026-06-01T16:00:00Z", "a"}},
		"account/settings":    {settingsPage{v, identity.Settings{}}, settingsPage{v, identity.Settings{QuietDevices: true}}},
		"account/data":        {dataPage{view: v}, dataPage{v, &noon, false}, dataPage{v, nil, true}},
		"account/merge":       {mergePage{view: v}},
		"account/merging":     {merging, mergePage{view: v}},
		"account/link":        links,
		"account/linked":      links,
		"account/recover":     {nil},
		"account/export": {Export{
			WrittenAt: noon, Name: "Léa", Phone: "+16135550123", Address: identity.PostalAddress{Street: "1 Main"}, Emails: emails, Passkeys: keys, App: true,
			Devices: devices, Known: known, SignIns: visits, Receipts: []exportedReceipt{{"1", "1.00", noon}},
		}},
	})
}
