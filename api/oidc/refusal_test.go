package oidc_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"guichet/identity/provider"
)

// What a client did wrong is kept for its department, without a word of what it sent.
func TestRefusedRequestsAreKeptForTheDepartment(t *testing.T) {
	w := newWorld(t)
	a := w.parking()
	b := w.browser()
	break1 := a.request()
	break1.Set("redirect_uri", "https://parking-portal.example/secret-place")
	b.get(a.authorizeURL(break1))
	break2 := a.request()
	break2.Del("code_challenge")
	b.get(a.authorizeURL(break2))
	none := a.request()
	none.Set("prompt", "none")
	b.get(a.authorizeURL(none)) // the everyday answer "not signed in" is no fault
	unknown := a.request()
	unknown.Set("client_id", "nobody")
	b.get(a.authorizeURL(unknown))
	a.post(a.tokenForm("secret-code"))
	a.post(a.tokenForm("secret-code"), func(r *http.Request) { r.SetBasicAuth(a.id, "secret-guess") })
	a.post(url.Values{"grant_type": {"secret-grant"}})

	want := []string{"token unsupported_grant_type", "token invalid_client", "token invalid_grant", "authorize invalid_request", "authorize " + provider.BadRedirect}
	var list []provider.Refusal
	deadline := time.After(10 * time.Second)
	for len(list) < len(want) { // a refusal is kept after its answer has left
		select {
		case <-deadline:
			t.Fatalf("%d refusals kept: %+v", len(list), list)
		case <-time.After(10 * time.Millisecond):
		}
		var err error
		list, err = w.provider.Refusals(t.Context(), a.id)
		must(t, err)
	}
	got := map[string]bool{}
	for _, r := range list {
		got[r.Endpoint+" "+r.Code] = true
		if strings.Contains(r.Description, "secret") || strings.Contains(r.Code, "secret") || r.Network == "" {
			t.Errorf("kept %+v", r)
		}
	}
	for _, r := range want {
		if !got[r] {
			t.Errorf("%q is not kept: %v", r, got)
		}
	}
	if len(list) != len(want) {
		t.Errorf("%d kept: %+v", len(list), list)
	}
}
