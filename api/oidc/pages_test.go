package oidc

import (
	"net/url"
	"testing"
	"time"

	"guichet/api/web"
	"guichet/api/web/webtest"
	"guichet/identity"
)

func TestPages(t *testing.T) {
	form := &web.Form{Values: url.Values{}}
	form.Fail("", "oidc.code.limited")
	form.Fail("email", "oidc.email.bad")
	form.Fail("user_code", "oidc.device.wrong")
	form.Fail("code", "oidc.code.wrong", "Count", 2)
	form.Fail("name", "oidc.profile.bad")
	own := signInPage{Service: "Guichet", Email: "demo@example.com", Partners: newPartners([]Partner{{Key: "bank", NameEN: "Bank", NameFR: "Banque"}}, "", nil)}
	asked := signInPage{
		Form: form, Service: "Portal", Department: "Parking", FirstParty: true, Email: "demo@example.com",
		Name: "Demo", Sees: []string{"profile", "email", "guichet:act", "offline_access"}, Contexts: []acting{{Now: true}, {ID: "x", Name: "Boulangerie Démo", Type: "business"}},
	}
	asked.Brand = &brand{Style: "/branding/x/1/band.css", Logo: "/branding/x/1/logo", Alt: "Parking", Department: "Parking"}
	third, bare := asked, asked
	third.FirstParty = false
	bare.FirstParty, bare.Sees = false, nil
	upstairs := own
	upstairs.StepUp, upstairs.Factors = true, identity.Factors{Passkeys: 1, App: true}
	waiting := own
	waiting.Factors, waiting.Recovery = upstairs.Factors, &identity.Recovery{ReadyAt: time.Date(2026, 6, 4, 14, 0, 0, 0, time.UTC)}
	ready := waiting
	ready.Ready, ready.Recovery = true, &identity.Recovery{FinishBy: time.Date(2026, 6, 4, 14, 0, 0, 0, time.UTC)}
	webtest.Room(t, "oidc", files, webtest.Samples{
		"oidc/email":       {own, asked},
		"oidc/code":        {own, asked},
		"oidc/factor":      {own, asked, upstairs, waiting, ready},
		"oidc/profile":     {own, asked},
		"oidc/consent":     {asked, third, bare},
		"oidc/device":      {devicePage{Form: &web.Form{Values: url.Values{}}}, devicePage{Form: form}},
		"oidc/devicefound": {devicePage{Code: "BCDF-GHJK", Device: "Kiosk 4", Place: "City Hall", Department: "Parking", Sees: []string{"email"}}},
		"oidc/devicedone":  {devicePage{}, devicePage{In: true}},
		"oidc/choose":      {asked},
		"oidc/signout":     {signOutPage{Name: "Demo"}, signOutPage{"Demo", "portal", "https://portal.example/bye", "s"}},
		"oidc/signedout":   {nil},
		"oidc/breakglass":  {breakGlassForm{}, breakGlassForm{form}},
	})
}
