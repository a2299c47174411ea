package admin

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5"

	"guichet/api/web"
	"guichet/department"
)

var departmentsCrumb = crumb{Href: "/desk/admin/departments", Label: say("departments.title")}

func (h *Handler) departments(w http.ResponseWriter, r *http.Request) {
	list, err := h.managed(r)
	if err != nil {
		h.fail(w, r, "list departments", err)
		return
	}
	t := &table{Caption: say("departments.title"), Empty: say("departments.none"), Columns: messages("col.department", "col.code", "key.title", "branding.title")}
	for _, d := range list {
		base := "/desk/admin/departments/" + d.Code
		t.Rows = append(t.Rows, []cell{
			text(d.Name(web.Lang(r))), code(d.Code),
			{Text: say("departments.keys_of", "Department", d.Name(web.Lang(r))), Href: base + "/keys"},
			{Text: say("departments.branding_of", "Department", d.Name(web.Lang(r))), Href: base + "/branding"},
		})
	}
	h.show(w, r, http.StatusOK, page{Title: say("departments.title"), Crumbs: home(), Sections: []section{{Title: say("departments.list"), Table: t}}})
}

// department reads the department of the address if the reader looks after it.
func (h *Handler) department(r *http.Request) (department.Department, error) {
	d, err := h.Departments.ByCode(r.Context(), h.DB, chi.URLParam(r, "code"))
	if err == nil && !manages(reader(r), d.ID) {
		err = errOther
	}
	return d, err
}

func departmentTabs(d department.Department, here string) []crumb {
	base := "/desk/admin/departments/" + d.Code
	list := []crumb{{Href: base + "/keys", Label: say("key.title")}, {Href: base + "/branding", Label: say("branding.title")}}
	for i := range list {
		list[i].Here = list[i].Href == base+here
	}
	return list
}

func (h *Handler) keysPage(w http.ResponseWriter, r *http.Request) {
	d, err := h.department(r)
	if err != nil {
		h.fail(w, r, "read department", err)
		return
	}
	h.showKeys(w, r, http.StatusOK, d, page{Done: h.done(r)})
}

func (h *Handler) showKeys(w http.ResponseWriter, r *http.Request, status int, d department.Department, p page) {
	keys, err := h.Departments.Keys(r.Context(), h.DB, d.ID)
	var endpoints []department.Endpoint
	if err == nil {
		endpoints, err = h.Departments.Endpoints(r.Context(), h.DB, d.ID)
	}
	if err != nil {
		h.fail(w, r, "list keys", err)
		return
	}
	self := "/desk/admin/departments/" + d.Code + "/keys"
	kt := &table{Caption: say("key.title"), Empty: say("key.none"), Columns: messages("col.name", "key.begins", "col.state", "key.used", "col.at", "col.do")}
	for _, k := range keys {
		state, do := tag("good", "state.active"), cell{Do: &button{
			Action: self, Fields: []hidden{{"do", "revoke_key"}, {"id", k.ID}}, Label: say("key.revoke"), About: raw(k.Name), Danger: true,
		}}
		switch {
		case k.RevokedAt != nil:
			state, do = tag("", "state.revoked"), word("none")
		case k.State == "proposed":
			state = tag("info", "state.proposed")
		case k.State == "refused":
			state, do = tag("bad", "state.refused"), word("none")
		}
		kt.Rows = append(kt.Rows, []cell{text(k.Name), code(k.Prefix + "…"), state, h.when(r, k.LastUsedOn), h.when(r, &k.CreatedAt), do})
	}
	et := &table{Caption: say("hook.title"), Empty: say("hook.none"), Columns: messages("col.address", "col.state", "hook.delivered", "hook.failing", "col.do")}
	for _, e := range endpoints {
		state, do := tag("good", "state.active"), cell{Do: &button{
			Action: self, Fields: []hidden{{"do", "disable_hook"}, {"id", e.ID}}, Label: say("hook.disable"), About: raw(e.URL), Danger: true,
		}}
		if e.State == "disabled" {
			state, do = tag("", "state.disabled"), word("none")
		}
		et.Rows = append(et.Rows, []cell{code(e.URL), state, h.when(r, e.Delivered), word("number", "Count", e.Failing), do})
	}
	p.Title, p.Crumbs, p.Tabs = raw(d.Name(web.Lang(r))), home(departmentsCrumb), departmentTabs(d, "/keys")
	p.Sections = []section{
		{Title: say("key.title"), Text: say("key.text"), Table: kt, Forms: []form{{
			Action: self, Hidden: []hidden{{"do", "key"}}, Title: say("key.new"), Inputs: []input{{Kind: "text", Name: "name", Label: say("key.name"), Length: "100"}}, Submit: say("key.issue"), Quiet: true,
		}}},
		{Title: say("hook.title"), Text: say("hook.text"), Table: et, Forms: []form{{
			Action: self, Hidden: []hidden{{"do", "hook"}}, Title: say("hook.new"), Inputs: []input{{Kind: "text", Name: "url", Label: say("hook.url"), Hint: say("hook.url_hint"), Length: "500"}}, Submit: say("hook.register"), Quiet: true,
		}}},
	}
	h.show(w, r, status, p)
}

// changeKeys carries out what a form of the keys page asks for. A secret is shown in the
// answer, this once.
func (h *Handler) changeKeys(w http.ResponseWriter, r *http.Request) {
	d, err := h.department(r)
	if err != nil {
		h.fail(w, r, "read department", err)
		return
	}
	f, ok := h.form(w, r)
	if !ok {
		return
	}
	p, done := page{Form: f}, ""
	err = h.in(r.Context(), func(tx pgx.Tx) (err error) {
		switch f.Value("do") {
		case "key":
			p.Done, p.Secrets, err = h.issueKey(r, tx, d, f)
		case "revoke_key":
			done, err = "revoked", h.Departments.RevokeKey(r.Context(), tx, d.ID, f.Value("id"))
		case "hook":
			p.Done, p.Secrets, err = h.registerHook(r, tx, d, f)
		case "disable_hook":
			done, err = "disabled", h.Departments.DisableEndpoint(r.Context(), tx, d.ID, f.Value("id"))
		default:
			f.Fail("", "admin.unread")
		}
		return err
	})
	switch {
	case err != nil:
		h.fail(w, r, "change keys", err)
	case !f.OK():
		h.showKeys(w, r, http.StatusUnprocessableEntity, d, p)
	case done != "":
		h.see(w, r, "/desk/admin/departments/"+d.Code+"/keys", done)
	default:
		p.Form = nil
		h.showKeys(w, r, http.StatusOK, d, p)
	}
}

// issueKey makes a key. One that moves real money waits for a second person.
func (h *Handler) issueKey(r *http.Request, tx pgx.Tx, d department.Department, f *web.Form) (done web.Message, secrets []fact, err error) {
	name := f.Value("name")
	if name == "" || len(name) > 100 {
		f.Fail("name", "admin.key.name_missing")
		return done, nil, nil
	}
	var secret string
	if h.Live {
		done = say("done.proposed")
		secret, _, err = h.Departments.ProposeKey(r.Context(), tx, d.ID, name, "live", reader(r).ID)
	} else {
		done = say("done.issued")
		secret, err = h.Departments.IssueKey(r.Context(), tx, d.ID, name, "test")
	}
	return done, []fact{one("key.secret", code(secret))}, err
}

// registerHook registers a public address. One inside the network is for the command line:
// it needs somebody who knows the network.
func (h *Handler) registerHook(r *http.Request, tx pgx.Tx, d department.Department, f *web.Form) (done web.Message, secrets []fact, err error) {
	address := f.Value("url")
	if u, bad := url.Parse(address); bad != nil || u.Scheme != "https" || u.Host == "" {
		f.Fail("url", "admin.hook.url_bad")
		return done, nil, nil
	}
	secret, err := h.Departments.AddEndpoint(r.Context(), tx, d.ID, address, false)
	switch {
	case errors.Is(err, department.ErrExists):
		f.Fail("url", "admin.hook.exists")
	case errors.Is(err, department.ErrAddress):
		f.Fail("url", "admin.hook.url_bad")
	default:
		return say("done.issued"), []fact{one("hook.secret", code(secret))}, err
	}
	return done, nil, nil
}

func (h *Handler) brandingPage(w http.ResponseWriter, r *http.Request) {
	d, err := h.department(r)
	if err != nil {
		h.fail(w, r, "read department", err)
		return
	}
	h.showBranding(w, r, http.StatusOK, d, page{Done: h.done(r)})
}

func (h *Handler) showBranding(w http.ResponseWriter, r *http.Request, status int, d department.Department, p page) {
	b, err := h.Departments.Branding(r.Context(), d.ID)
	if err != nil {
		h.fail(w, r, "read branding", err)
		return
	}
	self := "/desk/admin/departments/" + d.Code + "/branding"
	facts := []fact{one("branding.name", text(d.NameEN), text(d.NameFR)), one("branding.colour", code(orDash(b.Colour)))}
	logo := word("none")
	if b.Logo != nil {
		logo = word("branding.logo_is", "Bytes", len(b.Logo))
	}
	p.Title, p.Crumbs, p.Tabs = raw(d.Name(web.Lang(r))), home(departmentsCrumb), departmentTabs(d, "/branding")
	p.Sections = []section{{Title: say("branding.title"), Text: say("branding.text"), Facts: append(facts, one("branding.logo", logo)), Forms: []form{{
		Action: self, Upload: true, Inputs: []input{
			{Kind: "text", Name: "colour", Label: say("branding.colour"), Hint: say("branding.colour_hint"), Value: b.Colour, Length: "7"},
			{Kind: "file", Name: "logo", Label: say("branding.logo"), Hint: say("branding.logo_hint"), Optional: true},
			{Kind: "text", Name: "logo_en", Label: say("branding.logo_en"), Value: b.LogoEN, Optional: true, Length: "100"},
			{Kind: "text", Name: "logo_fr", Label: say("branding.logo_fr"), Value: b.LogoFR, Optional: true, Length: "100"},
			{Kind: "checks", Name: "remove", Label: say("branding.remove"), Options: []option{{"logo", say("branding.remove_logo"), false}}},
		}, Submit: say("branding.save"),
	}}}}
	h.show(w, r, status, p)
}

func orDash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

func (h *Handler) setBranding(w http.ResponseWriter, r *http.Request) {
	d, err := h.department(r)
	if err != nil {
		h.fail(w, r, "read department", err)
		return
	}
	f, logo, ok := h.upload(w, r)
	if !ok {
		return
	}
	old, err := h.Departments.Branding(r.Context(), d.ID)
	if err != nil {
		h.fail(w, r, "read branding", err)
		return
	}
	b := department.Branding{Colour: f.Value("colour"), Logo: old.Logo, LogoEN: f.Value("logo_en"), LogoFR: f.Value("logo_fr")}
	switch {
	case logo != nil:
		b.Logo = logo
	case f.Value("remove") == "logo":
		b.Logo = nil
	}
	err = h.in(r.Context(), func(tx pgx.Tx) error { return h.Departments.SetBranding(r.Context(), tx, d.ID, b) })
	known := false
	for refused, say := range map[error][2]string{
		department.ErrColour: {"colour", "admin.branding.colour_bad"}, department.ErrContrast: {"colour", "admin.branding.contrast"},
		department.ErrLogo: {"logo", "admin.branding.logo_bad"}, department.ErrLogoText: {"logo_en", "admin.branding.logo_text"},
	} {
		if errors.Is(err, refused) {
			known = true
			f.Fail(say[0], say[1])
		}
	}
	switch {
	case known:
		h.showBranding(w, r, http.StatusUnprocessableEntity, d, page{Form: f})
	case err != nil:
		h.fail(w, r, "set branding", err)
	default:
		h.see(w, r, "/desk/admin/departments/"+d.Code+"/branding", "saved")
	}
}

// upload reads a form with a logo; nil when none was chosen. One byte more than is allowed is
// read, so that it is refused and not cut.
func (h *Handler) upload(w http.ResponseWriter, r *http.Request) (*web.Form, []byte, bool) {
	r.Body = http.MaxBytesReader(w, r.Body, department.MaxLogo+16<<10)
	err := r.ParseMultipartForm(department.MaxLogo + 16<<10)
	if err != nil {
		status := http.StatusBadRequest
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			status = http.StatusRequestEntityTooLarge
		}
		h.Site.Fail(w, r, status, "")
		return nil, nil, false
	}
	f := &web.Form{Values: r.PostForm}
	for name := range f.Values {
		if v := f.Value(name); !utf8.ValidString(v) || strings.ContainsRune(v, 0) {
			h.Site.Fail(w, r, http.StatusBadRequest, "")
			return nil, nil, false
		}
	}
	file, _, err := r.FormFile("logo")
	if errors.Is(err, http.ErrMissingFile) {
		return f, nil, true
	}
	if err != nil {
		h.Site.Fail(w, r, http.StatusBadRequest, "")
		return nil, nil, false
	}
	defer file.Close()
	logo, err := io.ReadAll(io.LimitReader(file, department.MaxLogo+1))
	if err != nil {
		h.Site.Fail(w, r, http.StatusBadRequest, "")
		return nil, nil, false
	}
	if len(logo) == 0 { // an empty choice, as browsers send it
		logo = nil
	}
	return f, logo, true
}
