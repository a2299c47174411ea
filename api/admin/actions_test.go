package admin_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"image"
	"image/png"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/identity/provider"
	"guichet/identity/staff"
	"guichet/internal/audit"
)

func TestAClientIsProposedApprovedRotatedAndDisabled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.do(http.MethodPost, "parking", "/desk/admin/new-client", newClient())
	secret := shownSecret(t, a.body)
	if a.header.Get("Cache-Control") != "no-store" {
		t.Error("a page with a secret may be kept")
	}
	if page := w.get("parking", "/desk/admin/clients/parking-portal"); strings.Contains(page, secret) || !strings.Contains(page, "Proposed") {
		t.Errorf("after proposing: %s", page)
	}
	if w.proves(secret) {
		t.Error("a proposed client works")
	}
	approval := "/desk/admin/approvals/" + w.waits(provider.ApproveClient)
	if page := w.get("parking", approval); !strings.Contains(page, "another person decides") {
		t.Errorf("who proposed reads: %s", page)
	}
	page := w.get("chief", approval)
	for _, term := range []string{"Parking Portal", "Portail du stationnement", "https://parking.example/callback", "client_secret_basic", "openid profile email", "Demo parking"} {
		if !strings.Contains(page, term) {
			t.Errorf("the approver does not see %q: %s", term, page)
		}
	}
	w.post("chief", approval, url.Values{"decision": {"approved"}})
	if !w.proves(secret) {
		t.Fatal("an approved client does not work")
	}
	if a := w.do(http.MethodPost, "second", approval, url.Values{"decision": {"refused"}, "why": {"no"}}); a.status != http.StatusUnprocessableEntity || !strings.Contains(a.text(), "decided already") {
		t.Errorf("deciding twice: %d %s", a.status, a.text())
	}

	const self = "/desk/admin/clients/parking-portal"
	form := url.Values{"do": {"rotate"}, "overlap": {"24h"}, "seen": {w.now.Format(time.RFC3339Nano)}}
	w.now = w.now.Add(time.Minute)
	a = w.do(http.MethodPost, "parking", self+"/secret", form)
	next := shownSecret(t, a.body)
	if next == secret || !w.proves(secret) || !w.proves(next) {
		t.Error("not both secrets work")
	}
	if a := w.do(http.MethodPost, "parking", self+"/secret", form); a.status != http.StatusUnprocessableEntity || !w.proves(secret) {
		t.Errorf("the form sent twice: %d", a.status)
	}
	w.post("parking", self+"/secret", url.Values{"do": {"revoke"}})
	if w.proves(secret) || !w.proves(next) {
		t.Error("the old secret works, or the new one does not")
	}
	if a := w.do(http.MethodPost, "parking", self, url.Values{"do": {"disable"}}); a.status != http.StatusUnprocessableEntity || !w.proves(next) {
		t.Errorf("disabled without a reason: %d", a.status)
	}
	w.post("parking", self, url.Values{"do": {"disable"}, "why": {"leaked"}})
	if w.proves(next) {
		t.Error("a disabled client works")
	}
	w.post("parking", self, url.Values{"do": {"enable"}})
	if w.proves(next) {
		t.Error("one person enables")
	}
	w.post("chief", "/desk/admin/approvals/"+w.waits(provider.ApproveChange), url.Values{"decision": {"approved"}})
	if !w.proves(next) {
		t.Error("an enabled client does not work")
	}
}

func TestTermsAndAddressesChangeByTwoPersons(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.client()
	const self = "/desk/admin/clients/parking-portal"
	client := func() provider.Client {
		t.Helper()
		c, err := w.provider.Client(t.Context(), "parking-portal")
		must(t, err)
		return c
	}
	change := url.Values{"do": {"change"}, "name_en": {"Parking Portal"}, "name_fr": {"Portail du stationnement"}, "scope": {"openid"}, "alg": {"RS256"}, "auth_method": {"client_secret_post"}, "grace": {"20"}}
	w.post("parking", self, change)
	page := w.get("chief", "/desk/admin/approvals/"+w.waits(provider.ApproveChange))
	for _, term := range []string{"ES256 becomes RS256", "openid profile email becomes openid", "client_secret_basic becomes client_secret_post", `"grace_seconds":20`} {
		if !strings.Contains(page, term) {
			t.Errorf("the approver does not see %q: %s", term, page)
		}
	}
	if c := client(); c.Alg != provider.ES256 {
		t.Error("a proposed change is in force")
	}
	w.post("chief", "/desk/admin/approvals/"+w.waits(provider.ApproveChange), url.Values{"decision": {"approved"}})
	if c := client(); c.Alg != provider.RS256 || len(c.Scopes) != 1 || c.AuthMethod != provider.SecretPost || c.GraceSeconds == nil || *c.GraceSeconds != 20 {
		t.Errorf("after approval: %+v", c)
	}
	for name, c := range map[string]struct {
		form url.Values
		says string
	}{
		"nothing new":      {change, "what it is already"},
		"no openid":        {url.Values{"do": {"change"}, "name_en": {"A"}, "name_fr": {"B"}, "scope": {"email"}, "alg": {"RS256"}, "auth_method": {"client_secret_post"}}, "openid is missing"},
		"no number":        {url.Values{"do": {"change"}, "name_en": {"A"}, "name_fr": {"B"}, "scope": {"openid"}, "alg": {"RS256"}, "grace": {"x"}}, "number from 0 to 60"},
		"no address":       {url.Values{"do": {"add"}}, "at least one address"},
		"a bad address":    {url.Values{"do": {"add"}, "redirect": {"http://parking.example/cb"}}, "want https"},
		"a secret to none": {url.Values{"do": {"change"}, "name_en": {"A"}, "name_fr": {"B"}, "scope": {"openid"}, "alg": {"RS256"}, "auth_method": {"private_key_jwt"}}, "register another one"},
		"nothing at all":   {url.Values{"do": {"x"}}, "could not read"},
	} {
		if a := w.do(http.MethodPost, "parking", self, c.form); a.status != http.StatusUnprocessableEntity || !strings.Contains(a.text(), c.says) {
			t.Errorf("%s: %d, want %q: %s", name, a.status, c.says, a.text())
		}
	}
	w.post("parking", self, url.Values{"do": {"add"}, "redirect": {"https://parking.example/two\nhttps://parking.example/three\n"}})
	if c := client(); len(c.RedirectURIs) != 1 {
		t.Error("a proposed address is followed")
	}
	w.post("chief", "/desk/admin/approvals/"+w.waits(provider.ApproveAddresses), url.Values{"decision": {"refused"}, "why": {"unknown host"}})
	if c := client(); len(c.RedirectURIs) != 1 {
		t.Error("a refused address is followed")
	}
	w.post("parking", self, url.Values{"do": {"remove"}, "uri": {"https://parking.example/callback"}})
	if c := client(); len(c.RedirectURIs) != 0 {
		t.Error("a removed address is followed")
	}
	again := newClient()
	if a := w.do(http.MethodPost, "parking", "/desk/admin/new-client", again); a.status != http.StatusUnprocessableEntity || !strings.Contains(a.text(), "a client of this id already") {
		t.Errorf("a second client of the id: %d %s", a.status, a.text())
	}
}

func TestClientErrorsInPlainWords(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.client()
	must(t, w.provider.Refused(t.Context(), "parking-portal", provider.Refusal{Endpoint: "authorize", Code: provider.BadRedirect, Network: "203.0.113.0/24"}))
	must(t, w.provider.Refused(t.Context(), "parking-portal", provider.Refusal{Endpoint: "authorize", Code: "invalid_request", Description: "code_challenge is missing: PKCE is required"}))
	for lang, want := range map[string][]string{
		"en": {"The redirect_uri is not registered", "https://parking.example/callback", "PKCE is missing", "203.0.113.0/24"}, "fr": {"n’est pas inscrit", "il manque PKCE"},
	} {
		page := w.get("parking", "/desk/admin/clients/parking-portal/errors?lang="+lang)
		for _, words := range want {
			if !strings.Contains(page, words) {
				t.Errorf("%s: the page does not say %q: %s", lang, words, page)
			}
		}
	}
}

func TestKeysAndWebhooksAreShownOnceAndRevoked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const self = "/desk/admin/departments/parking/keys"
	page := w.post("parking", self, url.Values{"do": {"key"}, "name": {"permit system"}})
	i := strings.Index(page, "guichet_live_")
	if i < 0 {
		t.Fatalf("no key is shown: %s", page)
	}
	key := strings.Fields(page[i:])[0]
	works := func() bool {
		_, err := w.depts.Authenticate(t.Context(), key)
		return err == nil
	}
	if works() || strings.Contains(w.get("parking", self), key) {
		t.Error("a proposed live key works, or is shown again")
	}
	w.post("chief", "/desk/admin/approvals/"+w.waits("api_key.live"), url.Values{"decision": {"approved"}})
	if !works() {
		t.Error("an approved key does not work")
	}
	keys, err := w.depts.Keys(t.Context(), w.db, w.parking.ID)
	must(t, err)
	if a := w.do(http.MethodPost, "water", "/desk/admin/departments/water/keys", url.Values{"do": {"revoke_key"}, "id": {keys[0].ID}}); a.status != http.StatusNotFound || !works() {
		t.Errorf("another department revokes: %d", a.status)
	}
	w.post("parking", self, url.Values{"do": {"revoke_key"}, "id": {keys[0].ID}})
	if works() {
		t.Error("a revoked key works")
	}
	if page := w.post("parking", self, url.Values{"do": {"hook"}, "url": {"https://hooks.example.ca/guichet"}}); !strings.Contains(page, "whsec_") {
		t.Errorf("no secret is shown: %s", page)
	}
	for _, bad := range []string{"", "http://hooks.example.ca/", "https://10.0.0.1/", "https://hooks.example.ca:22/", "https://hooks.example.ca/guichet"} {
		if a := w.do(http.MethodPost, "parking", self, url.Values{"do": {"hook"}, "url": {bad}}); a.status != http.StatusUnprocessableEntity {
			t.Errorf("%q: %d", bad, a.status)
		}
	}
	endpoints, err := w.depts.Endpoints(t.Context(), w.db, w.parking.ID)
	must(t, err)
	w.post("parking", self, url.Values{"do": {"disable_hook"}, "id": {endpoints[0].ID}})
	if page := w.get("parking", self); !strings.Contains(page, "Disabled") || strings.Contains(page, "whsec_") {
		t.Errorf("after disabling: %s", page)
	}
}

// brand posts the branding form with a file.
func (w *world) brand(colour string, logo []byte) answer {
	w.t.Helper()
	var b bytes.Buffer
	form := multipart.NewWriter(&b)
	for name, value := range map[string]string{"colour": colour, "logo_en": "Parking", "logo_fr": "Stationnement"} {
		must(w.t, form.WriteField(name, value))
	}
	file, err := form.CreateFormFile("logo", "logo.png")
	must(w.t, err)
	_, err = file.Write(logo)
	must(w.t, err)
	must(w.t, form.Close())
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.url+"/desk/admin/departments/parking/branding", &b)
	must(w.t, err)
	r.Header.Set("Content-Type", form.FormDataContentType())
	return w.send(r, "parking")
}

func TestBranding(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var logo bytes.Buffer
	must(t, png.Encode(&logo, image.NewGray(image.Rect(0, 0, 64, 64))))
	if a := w.brand("#0f3d4c", logo.Bytes()); a.status != http.StatusSeeOther {
		t.Fatalf("%d %s", a.status, a.text())
	}
	for name, c := range map[string]struct {
		colour string
		logo   []byte
		status int
	}{
		"unreadable":    {"#cccccc", nil, http.StatusUnprocessableEntity},
		"no picture":    {"#0f3d4c", []byte("<svg/>"), http.StatusUnprocessableEntity},
		"far too large": {"#0f3d4c", make([]byte, 200<<10), http.StatusRequestEntityTooLarge},
	} {
		if a := w.brand(c.colour, c.logo); a.status != c.status {
			t.Errorf("%s: %d, want %d", name, a.status, c.status)
		}
	}
	if a := w.brand("#102030", nil); a.status != http.StatusSeeOther {
		t.Fatalf("without a new logo: %d", a.status)
	}
	b, err := w.depts.Branding(t.Context(), w.parking.ID)
	must(t, err)
	if b.Colour != "#102030" || !bytes.Equal(b.Logo, logo.Bytes()) {
		t.Errorf("%s with %d bytes of logo", b.Colour, len(b.Logo))
	}
}

func TestStaffAreGrantedEndedAndSuspended(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.as("chief")
	_, err := w.staff.SignedIn(t.Context(), staff.Upstream{Issuer: "https://directory.example", Subject: "dora", Name: "Demo Dora", Email: "dora@city.example", Groups: []string{"311"}}, "", here)
	if err == nil {
		t.Fatal("a group let somebody in")
	}
	dora := w.memberID("dora")
	w.post("chief", "/desk/admin/staff", url.Values{"do": {"add_hint"}, "group": {"311"}, "new_role": {staff.Agent311}})
	page := w.get("chief", "/desk/admin/staff")
	if !strings.Contains(page, "Demo Dora 311 311 agent") {
		t.Errorf("nothing is suggested: %s", page)
	}
	hints, err := w.staff.Hints(t.Context())
	must(t, err)
	w.post("chief", "/desk/admin/staff", url.Values{"do": {"grant"}, "member": {dora}, "hint": {hints[0].ID}})
	if a := w.do(http.MethodPost, "chief", "/desk/admin/staff", url.Values{"do": {"grant"}, "member": {dora}, "hint": {hints[0].ID}}); a.status != http.StatusUnprocessableEntity {
		t.Errorf("granting what is not suggested: %d", a.status)
	}
	token := w.again("dora", w.now)
	open := func() bool {
		_, err := w.staff.Session(t.Context(), token)
		return err == nil
	}
	self := "/desk/admin/staff/" + dora
	m, err := w.staff.Session(t.Context(), token)
	must(t, err)
	if a := w.do(http.MethodPost, "chief", self, url.Values{"do": {"end"}, "session": {m.SessionID}}); a.status != http.StatusUnprocessableEntity || !open() {
		t.Errorf("ended without a reason: %d", a.status)
	}
	w.post("chief", self, url.Values{"do": {"end"}, "session": {m.SessionID}, "end_why": {"left open"}})
	if open() {
		t.Error("an ended session is open")
	}
	token = w.again("dora", w.now)
	w.post("chief", self, url.Values{"do": {"grant"}, "new_role": {staff.CounterClerk}, "department": {w.parking.ID}, "channel": {"counter"}})
	w.post("chief", self, url.Values{"do": {"revoke"}, "held": {staff.Agent311}})
	if open() {
		t.Error("the session outlives a revoked role")
	}
	if page := w.get("chief", self); !strings.Contains(page, "Counter clerk Parking Counter") || !strings.Contains(page, "Demo chief") {
		t.Errorf("the member's page: %s", page)
	}
	token = w.again("dora", w.now)
	w.post("chief", self, url.Values{"do": {"suspend"}, "suspend_why": {"on leave"}})
	if open() {
		t.Error("a suspended member is signed in")
	}
	w.post("chief", self, url.Values{"do": {"resume"}, "resume_why": {"back"}})
	if token = w.again("dora", w.now); !open() {
		t.Error("a resumed member cannot sign in")
	}
	for name, form := range map[string]url.Values{
		"a role that does not exist": {"do": {"grant"}, "new_role": {"god"}}, "no session": {"do": {"end"}, "session": {"x"}, "end_why": {"y"}},
	} {
		if a := w.do(http.MethodPost, "chief", self, form); a.status != http.StatusBadRequest {
			t.Errorf("%s: %d", name, a.status)
		}
	}
	if a := w.do(http.MethodPost, "chief", "/desk/admin/staff/"+w.memberID("chief"), url.Values{"do": {"grant"}, "new_role": {staff.Auditor}}); a.status != http.StatusUnprocessableEntity || !strings.Contains(a.text(), "to themselves") {
		t.Errorf("a role for oneself: %d", a.status)
	}
}

func TestSigningKeysRotateOnThePage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const self = "/desk/admin/signing-keys"
	if a := w.do(http.MethodPost, "chief", self, url.Values{"do": {"rotate"}, "alg": {"ES256"}}); a.status != http.StatusUnprocessableEntity || !strings.Contains(a.text(), "not been published for a day") {
		t.Errorf("too soon: %d", a.status)
	}
	if page := w.post("chief", self, url.Values{"do": {"withdraw"}, "leaked": {"ES256"}}); !strings.Contains(page, "Gone") || !strings.Contains(page, "Replaced.") {
		t.Errorf("after a leak: %s", page)
	}
}

func TestTheAuditIsSearchedAndEachSearchIsPartOfIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const resident = "0198c0de-0000-7000-8000-00000000000a"
	for n := range 60 {
		w.in(func(tx pgx.Tx) error {
			ctx := audit.With(t.Context(), audit.Origin{Actor: "m1", ActorKind: audit.Staff, Network: "203.0.113.0/24", RequestID: "q1"})
			return audit.Record(ctx, tx, audit.Event{Action: "staff.viewed", ObjectType: "bill", ObjectID: "=b1", Subject: resident, At: w.now.AddDate(0, 0, -n*5)})
		})
	}
	page := w.get(staff.Auditor, "/desk/audit?action=staff.viewed")
	if strings.Count(page, "Seen by staff") != 50 || !strings.Contains(page, "bill =b1") {
		t.Errorf("%d rows on the first page: %s", strings.Count(page, "Seen by staff"), page)
	}
	a := w.do(http.MethodGet, staff.Auditor, "/desk/audit?action=staff.viewed", nil)
	_, rest, ok := strings.Cut(a.body, `rel="next" href="`)
	if !ok {
		t.Fatal("there is no next page")
	}
	next, _, _ := strings.Cut(rest, `"`)
	if page := w.get(staff.Auditor, "/desk/audit"+strings.ReplaceAll(next, "&amp;", "&")); strings.Count(page, "Seen by staff") != 10 {
		t.Errorf("%d rows on the second page", strings.Count(page, "Seen by staff"))
	}
	if page := w.get(staff.Auditor, "/desk/audit?subject="+resident+"&span=year"); !strings.Contains(page, "A resident’s year") || !strings.Contains(page, "2026-06") || !strings.Contains(page, "2025-09") {
		t.Errorf("a resident's year: %s", page)
	}
	if page := w.get(staff.Auditor, "/desk/audit?from=2026-05-20&to=2026-05-31&action=staff.viewed"); strings.Count(page, "Seen by staff") != 2 {
		t.Errorf("by date: %d", strings.Count(page, "Seen by staff"))
	}
	if a := w.do(http.MethodGet, staff.Auditor, "/desk/audit?from=yesterday", nil); a.status != http.StatusUnprocessableEntity {
		t.Errorf("no date: %d", a.status)
	}
	a = w.do(http.MethodGet, staff.Auditor, "/desk/audit.csv?subject="+resident, nil)
	rows, err := csv.NewReader(strings.NewReader(a.body)).ReadAll()
	must(t, err)
	if len(rows) < 61 || rows[len(rows)-1][4] != "'=b1" || !strings.Contains(a.header.Get("Content-Disposition"), "attachment") {
		t.Errorf("%d rows, last %v", len(rows), rows[len(rows)-1])
	}
	a = w.do(http.MethodGet, staff.Auditor, "/desk/audit.json?subject="+resident+"&action=staff.viewed", nil)
	var row audit.Row
	if lines := strings.Split(strings.TrimSpace(a.body), "\n"); len(lines) != 60 || json.Unmarshal([]byte(lines[0]), &row) != nil || row.Subject != resident {
		t.Errorf("%d lines, first %+v", len(lines), row)
	}
	var searches, about int
	must(t, w.db.QueryRow(t.Context(), `
		select count(*), count(*) filter (where subject = $1) from ops.audit where action = 'audit.searched' and actor = $2`, resident, w.memberID(staff.Auditor)).Scan(&searches, &about))
	if searches != 7 || about != 3 {
		t.Errorf("%d searches in the audit, %d about the resident; want 7 and 3", searches, about)
	}
}
