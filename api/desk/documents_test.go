package desk_test

import (
	"bytes"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"guichet/identity/delegation"
	"guichet/identity/staff"
	"guichet/internal/browser"
)

// upload posts a form with a document as a role.
func (w *world) upload(role string, form url.Values, file []byte) answer {
	w.t.Helper()
	var body bytes.Buffer
	m := multipart.NewWriter(&body)
	for name, values := range form {
		for _, v := range values {
			must(w.t, m.WriteField(name, v))
		}
	}
	part, err := m.CreateFormFile("file", "will.pdf")
	must(w.t, err)
	_, err = part.Write(file)
	must(w.t, err)
	must(w.t, m.Close())
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.url+"/desk/documents/new", &body)
	must(w.t, err)
	req.Header.Set("Content-Type", m.FormDataContentType())
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	req.AddCookie(&http.Cookie{Name: "guichet-staff", Value: w.as(role)})
	res, err := browserLike.Do(req)
	must(w.t, err)
	defer res.Body.Close()
	var text bytes.Buffer
	_, err = text.ReadFrom(res.Body)
	must(w.t, err)
	return answer{res.StatusCode, res.Header, text.String()}
}

// estate is the form of one whose executor has an account.
func (w *world) estate(executor string) url.Values {
	return url.Values{
		"type": {"estate"}, "name": {"Estate of Demo"}, "delegate": {executor}, "right": {"bills:view", "bills:pay"},
		"per_payment": {"2500,00"}, "until": {w.Today().AddDays(300).String()},
	}
}

// fresh makes the last proof of a member one of this moment.
func (w *world) fresh(role string) {
	w.t.Helper()
	w.as(role)
	_, err := w.DB.Exec(w.t.Context(), `
		update identity.staff_session s set proved_at = $2 from identity.staff_member m where m.id = s.member_id and m.subject = $1`, role, w.Clock.Now())
	must(w.t, err)
}

func TestADocumentNeedsTwoMembersOfStaff(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const email = "executor@demo.example"
	executor := w.resident("Demo Executor", email)
	will := []byte("%PDF-1.7 demo will")
	for name, change := range map[string]func(url.Values) []byte{
		"no document":  func(url.Values) []byte { return nil },
		"not a paper":  func(url.Values) []byte { return []byte("<script>") },
		"no account":   func(v url.Values) []byte { v.Set("delegate", "nobody@demo.example"); return will },
		"no type":      func(v url.Values) []byte { v.Set("type", "dog"); return will },
		"no right":     func(v url.Values) []byte { v.Del("right"); return will },
		"three years":  func(v url.Values) []byte { v.Set("until", w.Today().AddDays(1100).String()); return will },
		"no name":      func(v url.Values) []byte { v.Del("name"); return will },
		"no amount":    func(v url.Values) []byte { v.Set("per_month", "much"); return will },
		"wrong number": func(v url.Values) []byte { v.Set("business_number", "1"); return will },
	} {
		v := w.estate(email)
		if a := w.upload(staff.CounterClerk, v, change(v)); a.status != http.StatusUnprocessableEntity || !strings.Contains(a.body, "error-summary") {
			t.Errorf("%s: %d", name, a.status)
		}
	}
	a := w.upload(staff.Supervisor, w.estate(email), will)
	if a.status != http.StatusSeeOther {
		t.Fatalf("%d %s", a.status, a.body)
	}
	path := a.header.Get("Location")
	right := strings.TrimPrefix(path, "/desk/documents/")
	if page := w.page(staff.CounterClerk, path); !strings.Contains(page, "Estate of Demo") || !strings.Contains(page, "Demo Executor") || !strings.Contains(page, "A supervisor decides") {
		t.Errorf("the clerk sees %s", page)
	}
	if file := w.do(http.MethodGet, staff.CounterClerk, path+"/file", nil); file.body != string(will) || file.header.Get("Content-Type") != "application/pdf" {
		t.Errorf("the document comes back as %d %s %q", file.status, file.header.Get("Content-Type"), file.body)
	}
	if page := w.page(staff.CounterClerk, "/desk/documents"); !strings.Contains(page, "Estate of Demo") {
		t.Error("the list does not have it")
	}
	decide := func(role, do string) answer {
		return w.do(http.MethodPost, role, path, url.Values{"do": {do}, "why": {"not signed"}})
	}
	w.fresh(staff.Supervisor)
	if a := decide(staff.Supervisor, "approve"); a.status != http.StatusConflict || !strings.Contains(a.body, "somebody else decides") {
		t.Errorf("whoever registered it decides: %d", a.status)
	}
	if _, err := w.acting.Live(t.Context(), executor, right); err == nil {
		t.Fatal("in force without a second person")
	}
	must(t, w.acting.Approve(t.Context(), delegation.Decision{ID: right, By: w.member(staff.Administrator).ID}))
	if d, err := w.acting.Live(t.Context(), executor, right); err != nil || d.Scope.PerPayment != 250000 || !slices.Contains(d.Scope.Rights, delegation.PayBills) {
		t.Errorf("%+v, %v", d, err)
	}

	second := w.upload(staff.CounterClerk, w.estate(email), will).header.Get("Location")
	path = second
	if a := decide(staff.Supervisor, "refuse"); a.status != http.StatusSeeOther || a.header.Get("Location") != "/desk/documents" {
		t.Errorf("refused: %d %s", a.status, a.header.Get("Location"))
	}
	if a := decide(staff.Supervisor, "approve"); a.status != http.StatusNotFound {
		t.Errorf("approved after it was refused: %d", a.status)
	}
	var looks int
	must(t, w.DB.QueryRow(t.Context(), `select count(*) from ops.audit where action = 'staff.viewed' and object_type = 'delegation' and subject = $1`, executor).Scan(&looks))
	if looks < 2 {
		t.Errorf("%d looks are written down", looks)
	}
	// Its bills are shown with its name to those who speak with residents.
	d, err := w.acting.Live(t.Context(), executor, right)
	must(t, err)
	n := w.Bill("parking", "parking-accessible", 0)
	n.ResidentID = d.Party.ID
	b := w.Issue(t, n)
	if page := w.page(staff.Agent311, "/desk/lookup/bills/"+b.ID); !strings.Contains(page, "Estate of Demo") || !strings.Contains(page, "Others act for it") {
		t.Error("the bill does not say whose it is")
	}
}

func TestAStaleScreenApprovesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.resident("Demo Executor", "executor@demo.example")
	path := w.upload(staff.CounterClerk, w.estate("executor@demo.example"), []byte("%PDF-1.7")).header.Get("Location")
	_, err := w.DB.Exec(t.Context(), `update identity.staff_session set proved_at = null`)
	must(t, err)
	a := w.do(http.MethodPost, staff.Supervisor, path, url.Values{"do": {"approve"}})
	if a.status != http.StatusSeeOther || !strings.HasPrefix(a.header.Get("Location"), "/staff/signin?fresh=1") {
		t.Errorf("%d %s", a.status, a.header.Get("Location"))
	}
}

func TestDocumentsInBrowser(t *testing.T) {
	w := newWorld(t)
	w.resident("Demo Executor", "executor@demo.example")
	path := w.upload(staff.CounterClerk, w.estate("executor@demo.example"), []byte("%PDF-1.7")).header.Get("Location")
	page := browser.Open(t, browser.New(t), w.url+"/static/", browser.Desktop)
	w.signIn(page, staff.Supervisor)
	for name, at := range map[string]string{"documents": "/desk/documents", "document-new": "/desk/documents/new", "document": path} {
		for _, lang := range []string{"fr", "en"} {
			browser.Go(t, page, w.url+at+"?lang="+lang)
			for size, v := range map[string]browser.Viewport{"phone": browser.Phone, "desktop": browser.Desktop} {
				browser.Resize(t, page, v)
				browser.Axe(t, page)
				browser.NoSideways(t, page)
				browser.Shot(t, page, "desk-"+name+"-"+lang+"-"+size)
			}
		}
	}
}
