package admin

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5"

	"guichet/api/web"
	"guichet/identity/provider"
	"guichet/internal/approval"
)

var clientsCrumb = crumb{Href: "/desk/admin/clients", Label: say("clients.title")}

// clients lists those of the departments that the reader looks after.
func (h *Handler) clients(w http.ResponseWriter, r *http.Request) {
	departments, err := h.managed(r)
	if err != nil {
		h.fail(w, r, "list departments", err)
		return
	}
	ids := []string{}
	for _, d := range departments {
		ids = append(ids, d.ID)
	}
	list, err := h.Provider.Clients(r.Context(), ids)
	if err != nil {
		h.fail(w, r, "list clients", err)
		return
	}
	t := &table{Caption: say("clients.title"), Empty: say("clients.none"), Columns: messages("col.client", "col.name", "col.department", "col.state", "col.secret_since")}
	for _, c := range list {
		since := word("client.no_secret")
		if c.HasSecret() {
			since = h.when(r, &c.SecretMadeAt)
		}
		t.Rows = append(t.Rows, []cell{
			link("/desk/admin/clients/"+c.ID, c.ID), text(c.Name.In(web.Lang(r))), text(c.Department.In(web.Lang(r))), clientState(c.State), since,
		})
	}
	h.show(w, r, http.StatusOK, page{Title: say("clients.title"), Crumbs: home(), Done: h.done(r), Sections: []section{{
		Title: say("clients.list"), Table: t,
	}, {
		Title: say("places.new"), Facts: []fact{one("places.new", cell{Text: say("places.new_text"), Href: "/desk/admin/new-client"})},
	}}})
}

func clientState(state string) cell {
	return tag(map[string]string{"active": "good", "proposed": "info", "disabled": "bad"}[state], "state."+state)
}

// mine reads the client of the address if the reader looks after its department.
func (h *Handler) mine(r *http.Request) (provider.Registered, error) {
	c, err := h.Provider.Registered(r.Context(), chi.URLParam(r, "id"))
	if err == nil && !manages(reader(r), c.DepartmentID) {
		err = errOther
	}
	return c, err
}

func tabs(c provider.Registered, here string) []crumb {
	base := "/desk/admin/clients/" + c.ID
	list := []crumb{
		{Href: base, Label: say("client.terms")}, {Href: base + "/errors", Label: say("errors.title")},
	}
	if c.HasSecret() {
		list = append(list, crumb{Href: base + "/secret", Label: say("secret.title")})
	}
	for i := range list {
		list[i].Here = list[i].Href == base+here
	}
	return list
}

func (h *Handler) clientPage(w http.ResponseWriter, r *http.Request) {
	c, err := h.mine(r)
	if err != nil {
		h.fail(w, r, "read client", err)
		return
	}
	h.showClient(w, r, http.StatusOK, c, nil)
}

func (h *Handler) showClient(w http.ResponseWriter, r *http.Request, status int, c provider.Registered, f *web.Form) {
	self := "/desk/admin/clients/" + c.ID
	facts := []fact{
		one("col.state", clientState(c.State)), one("col.department", text(c.Department.In(web.Lang(r)))), one("client.type", word("type."+c.Type)),
		one("client.auth_method", code(c.AuthMethod)), one("client.alg", code(c.Alg)), one("client.scopes", code(strings.Join(c.Scopes, " "))),
		one("client.consent", word(map[bool]string{true: "client.first_party", false: "client.third_party"}[c.FirstParty])),
	}
	facts = append(facts, policyFacts(c.Policy)...)
	if len(c.Resources) > 0 {
		facts = append(facts, one("client.resources", code(strings.Join(c.Resources, " "))))
	}
	p := page{
		Title: raw(c.Name.In(web.Lang(r)) + " (" + c.ID + ")"), Crumbs: home(clientsCrumb), Tabs: tabs(c, ""), Done: h.done(r), Form: f,
		Sections: []section{
			{Title: say("client.terms"), Facts: facts},
			{Title: say("client.addresses"), Text: say("client.addresses_text"), Table: addresses(c, self), Forms: []form{{
				Action: self, Hidden: []hidden{{"do", "add"}}, Title: say("client.add"), Inputs: []input{
					{Kind: "textarea", Name: "redirect", Label: say("client.redirect"), Hint: say("client.lines"), Optional: true, Length: "4000"},
					{Kind: "textarea", Name: "post_logout", Label: say("client.post_logout"), Hint: say("client.lines"), Optional: true, Length: "4000"},
				}, Submit: say("client.propose"), Quiet: true,
			}}},
			{Title: say("client.change"), Text: say("client.change_text"), Forms: []form{h.changeForm(r, c, self)}},
		},
	}
	switch c.State {
	case "active":
		p.Sections = append(p.Sections, section{Title: say("client.disable"), Text: say("client.disable_text"), Forms: []form{{
			Action: self, Hidden: []hidden{{"do", "disable"}}, Inputs: []input{{Kind: "text", Name: "why", Label: say("why"), Length: "300"}}, Submit: say("client.disable_do"), Danger: true,
		}}})
	case "disabled":
		p.Sections = append(p.Sections, section{Title: say("client.enable"), Text: say("client.enable_text"), Forms: []form{{
			Action: self, Hidden: []hidden{{"do", "enable"}}, Submit: say("client.enable_do"),
		}}})
	}
	h.show(w, r, status, p)
}

func addresses(c provider.Registered, self string) *table {
	t := &table{Caption: say("client.addresses"), Empty: say("client.no_address"), Columns: messages("col.address", "col.kind", "col.state", "col.do")}
	row := func(kind, uri string, proposed bool) {
		state, do := tag("good", "state.active"), cell{Do: &button{
			Action: self, Fields: []hidden{{"do", "remove"}, {"uri", uri}}, Label: say("client.remove"), About: raw(uri),
		}}
		if proposed {
			state, do = tag("info", "state.proposed"), word("none")
		}
		t.Rows = append(t.Rows, []cell{code(uri), word("client.kind_" + slug(kind)), state, do})
	}
	for _, uri := range c.RedirectURIs {
		row("redirect", uri, false)
	}
	for _, uri := range c.PostLogout {
		row("post-logout", uri, false)
	}
	for _, a := range c.Proposed {
		row(a.Kind, a.URI, true)
	}
	return t
}

func (h *Handler) changeForm(r *http.Request, c provider.Registered, self string) form {
	f := form{Action: self, Hidden: []hidden{{"do", "change"}}, Submit: say("client.propose"), Inputs: []input{
		{Kind: "text", Name: "name_en", Label: say("client.name_en"), Value: c.Name.EN, Length: "100"},
		{Kind: "text", Name: "name_fr", Label: say("client.name_fr"), Value: c.Name.FR, Length: "100"},
		{Kind: "checks", Name: "scope", Label: say("client.scopes"), Options: scopes(c.Scopes)},
		{Kind: "select", Name: "alg", Label: say("client.alg"), Hint: say("client.alg_hint"), Options: options(c.Alg, provider.Algs(), raw)},
	}}
	if c.HasSecret() {
		f.Inputs = append(f.Inputs, input{Kind: "select", Name: "auth_method", Label: say("client.auth_method"), Options: options(c.AuthMethod, webMethods, raw)})
	}
	f.Inputs = append(f.Inputs, input{
		Kind: "textarea", Name: "resources", Label: say("client.resources"), Hint: say("client.lines"), Value: strings.Join(c.Resources, "\n"), Optional: true, Length: "4000",
	})
	f.Inputs = append(f.Inputs, policyInputs(c)...)
	if reader(r).Has(chiefs[0], "") { // a department does not declare itself the city's own
		f.Inputs = append(f.Inputs, input{Kind: "select", Name: "first_party", Label: say("client.consent"), Options: options(strconv.FormatBool(c.FirstParty), []string{"true", "false"}, partyWord)})
	}
	return f
}

// webMethods are how a web application may prove itself.
var webMethods = []string{provider.SecretBasic, provider.SecretPost}

func partyWord(v string) web.Message {
	return say(map[string]string{"true": "client.first_party", "false": "client.third_party"}[v])
}

func scopes(have []string) []option {
	var list []option
	for _, s := range provider.Scopes() {
		list = append(list, option{s, raw(s), slices.Contains(have, s)})
	}
	return list
}

// changeClient carries out what a form of the client's page asks for.
func (h *Handler) changeClient(w http.ResponseWriter, r *http.Request) {
	c, err := h.mine(r)
	if err != nil {
		h.fail(w, r, "read client", err)
		return
	}
	f, ok := h.form(w, r)
	if !ok {
		return
	}
	ctx, by, done := r.Context(), reader(r).ID, "proposed"
	err = h.in(ctx, func(tx pgx.Tx) (err error) {
		switch f.Value("do") {
		case "add":
			redirect, postLogout := lines(f.Value("redirect")), lines(f.Value("post_logout"))
			if len(redirect)+len(postLogout) == 0 {
				f.Fail("redirect", "admin.client.no_addresses")
				return nil
			}
			_, err = h.Provider.AddAddresses(ctx, tx, c.ID, redirect, postLogout, by)
		case "remove":
			done = "removed"
			err = h.Provider.RemoveAddress(ctx, tx, c.ID, f.Value("uri"), by)
		case "change":
			change := h.wanted(r, f, c)
			if !f.OK() {
				return nil
			}
			_, err = h.Provider.ProposeChange(ctx, tx, c.ID, change, by)
		case "enable":
			_, err = h.Provider.ProposeChange(ctx, tx, c.ID, provider.Change{Enable: true}, by)
		case "disable":
			if f.Value("why") == "" {
				f.Fail("why", "admin.why_missing")
				return nil
			}
			done = "disabled"
			err = h.Provider.Disable(ctx, tx, c.ID, by, f.Value("why"))
		default:
			f.Fail("", "admin.unread")
		}
		return err
	})
	switch {
	case !told(f, err):
		h.fail(w, r, "change client", err)
	case !f.OK():
		h.showClient(w, r, http.StatusUnprocessableEntity, c, f)
	default:
		h.see(w, r, "/desk/admin/clients/"+c.ID, done)
	}
}

// told turns what a room refused into words of the form. It reports whether it could: other
// errors are for fail.
func told(f *web.Form, err error) bool {
	var terms *provider.TermsError
	switch {
	case err == nil:
	case errors.As(err, &terms):
		for _, fault := range terms.Faults { // they name fields and limits that are the same in both languages
			f.Errors = append(f.Errors, web.FieldError{Message: raw(fault.Error())})
		}
	case errors.Is(err, approval.ErrPending):
		f.Fail("", "admin.client.pending")
	case errors.Is(err, provider.ErrNothing):
		f.Fail("", "admin.client.nothing")
	case errors.Is(err, provider.ErrTaken):
		f.Fail("id", "admin.client.taken")
	case errors.Is(err, provider.ErrNotFound):
		f.Fail("", "admin.client.not_active")
	default:
		return false
	}
	return true
}

// wanted reads the change form.
func (h *Handler) wanted(r *http.Request, f *web.Form, old provider.Registered) provider.Change {
	name, chosen, resources := provider.Words{EN: f.Value("name_en"), FR: f.Value("name_fr")}, inOrder(f.Values["scope"]), lines(f.Value("resources"))
	if resources == nil {
		resources = []string{}
	}
	alg := f.Value("alg")
	policy := wantedPolicy(f, old)
	c := provider.Change{Name: &name, Scopes: &chosen, Resources: &resources, Alg: &alg, Policy: &policy}
	if method := f.Value("auth_method"); method != "" {
		c.AuthMethod = &method
	}
	if party := f.Value("first_party"); party != "" && reader(r).Has(chiefs[0], "") {
		first := party == "true"
		c.FirstParty = &first
	}
	return c
}

// inOrder brings scopes into the order they are stored in; unknown ones come last, to be refused.
func inOrder(chosen []string) []string {
	out := []string{}
	for _, s := range provider.Scopes() {
		if slices.Contains(chosen, s) {
			out = append(out, s)
		}
	}
	for _, s := range chosen {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

func (h *Handler) newClientPage(w http.ResponseWriter, r *http.Request) {
	h.showNewClient(w, r, http.StatusOK, nil)
}

func (h *Handler) showNewClient(w http.ResponseWriter, r *http.Request, status int, f *web.Form) {
	departments, err := h.managed(r)
	if err != nil {
		h.fail(w, r, "list departments", err)
		return
	}
	var choice []option
	for _, d := range departments {
		choice = append(choice, option{d.Code, raw(d.Name(web.Lang(r))), f.Value("department") == d.Code})
	}
	have := provider.Scopes()
	if f != nil {
		have = f.Values["scope"]
	}
	inputs := []input{
		{Kind: "select", Name: "department", Label: say("col.department"), Options: choice},
		{Kind: "text", Name: "id", Label: say("client.ident"), Hint: say("client.id_hint"), Length: "64"},
		{Kind: "text", Name: "name_en", Label: say("client.name_en"), Hint: say("client.name_hint"), Length: "100"},
		{Kind: "text", Name: "name_fr", Label: say("client.name_fr"), Length: "100"},
		{Kind: "select", Name: "type", Label: say("client.type"), Options: options(f.Value("type"), []string{provider.Web, provider.Native}, func(v string) web.Message { return say("type." + v) })},
		{Kind: "select", Name: "auth_method", Label: say("client.auth_method"), Hint: say("client.auth_hint"), Options: options(f.Value("auth_method"), webMethods, raw)},
		{Kind: "select", Name: "alg", Label: say("client.alg"), Hint: say("client.alg_hint"), Options: options(f.Value("alg"), provider.Algs(), raw)},
		{Kind: "checks", Name: "scope", Label: say("client.scopes"), Options: scopes(have)},
		{Kind: "textarea", Name: "redirect", Label: say("client.redirect"), Hint: say("client.lines"), Length: "4000"},
		{Kind: "textarea", Name: "post_logout", Label: say("client.post_logout"), Hint: say("client.lines"), Optional: true, Length: "4000"},
	}
	h.show(w, r, status, page{Title: say("places.new"), Crumbs: home(clientsCrumb), Lead: say("client.new_lead"), Form: f, Sections: []section{{
		Title: say("client.terms"), Forms: []form{{Action: "/desk/admin/new-client", Inputs: inputs, Submit: say("client.propose")}},
	}}})
}

// newClient proposes a client, and shows its secret: it works once a second person agreed.
func (h *Handler) newClient(w http.ResponseWriter, r *http.Request) {
	f, ok := h.form(w, r)
	if !ok {
		return
	}
	d, err := h.Departments.ByCode(r.Context(), h.DB, f.Value("department"))
	if err == nil && !manages(reader(r), d.ID) {
		err = errOther
	}
	if err != nil {
		h.fail(w, r, "find department", err)
		return
	}
	n := provider.NewClient{
		By: reader(r).ID, ID: f.Value("id"), DepartmentID: d.ID, Name: provider.Words{EN: f.Value("name_en"), FR: f.Value("name_fr")},
		Type: f.Value("type"), AuthMethod: f.Value("auth_method"), Alg: f.Value("alg"), Scopes: inOrder(f.Values["scope"]),
		FirstParty: true, RedirectURIs: lines(f.Value("redirect")), PostLogout: lines(f.Value("post_logout")),
	}
	if n.Type == provider.Native {
		n.AuthMethod = provider.NoSecret
	}
	var created provider.Created
	err = h.in(r.Context(), func(tx pgx.Tx) (err error) {
		created, err = h.Provider.CreateClient(r.Context(), tx, n)
		return err
	})
	if !told(f, err) {
		h.fail(w, r, "propose client", err)
		return
	}
	if !f.OK() {
		h.showNewClient(w, r, http.StatusUnprocessableEntity, f)
		return
	}
	p := page{Title: say("client.made"), Crumbs: home(clientsCrumb), Done: say("done.proposed"), Secrets: []fact{one("col.client", code(n.ID))}, Sections: []section{{
		Title: say("client.next"), Text: say("client.next_text"), Facts: []fact{one("col.client", link("/desk/admin/clients/"+n.ID, n.ID))},
	}}}
	if created.Secret != "" {
		p.Secrets = append(p.Secrets, one("secret.title", code(created.Secret)))
	}
	h.show(w, r, http.StatusOK, p)
}

// overlaps are how long the secret before may work on, as the form offers it.
var overlaps = []string{"24h", "168h", "720h", "0s"}

func (h *Handler) secretPage(w http.ResponseWriter, r *http.Request) {
	c, err := h.mine(r)
	if err != nil {
		h.fail(w, r, "read client", err)
		return
	}
	h.showSecret(w, r, http.StatusOK, c, page{Done: h.done(r)})
}

func (h *Handler) showSecret(w http.ResponseWriter, r *http.Request, status int, c provider.Registered, p page) {
	self := "/desk/admin/clients/" + c.ID + "/secret"
	p.Title, p.Crumbs, p.Tabs = say("secret.of", "Client", c.ID), home(clientsCrumb), tabs(c, "/secret")
	facts := []fact{one("secret.made", h.when(r, &c.SecretMadeAt))}
	if c.OldSecretUntil != nil {
		facts = append(facts, one("secret.old_until", h.when(r, c.OldSecretUntil), cell{Do: &button{
			Action: self, Fields: []hidden{{"do", "revoke"}}, Label: say("secret.revoke_old"), Danger: true,
		}}))
	}
	p.Sections = []section{{Title: say("secret.title"), Facts: facts}}
	if p.Secrets == nil {
		p.Sections = append(p.Sections, section{Title: say("secret.rotate"), Text: say("secret.rotate_text"), Forms: []form{{
			Action: self, Hidden: []hidden{{"do", "rotate"}, {"seen", c.SecretMadeAt.Format(time.RFC3339Nano)}},
			Inputs: []input{{Kind: "select", Name: "overlap", Label: say("secret.overlap"), Options: options("", overlaps, func(v string) web.Message { return say("overlap." + v) })}},
			Submit: say("secret.rotate"),
		}}})
	}
	h.show(w, r, status, p)
}

func (h *Handler) rotateSecret(w http.ResponseWriter, r *http.Request) {
	c, err := h.mine(r)
	if err != nil {
		h.fail(w, r, "read client", err)
		return
	}
	f, ok := h.form(w, r)
	if !ok {
		return
	}
	if f.Value("do") == "revoke" {
		err := h.in(r.Context(), func(tx pgx.Tx) error { return h.Provider.RevokeOldSecret(r.Context(), tx, c.ID, reader(r).ID) })
		if err != nil {
			h.fail(w, r, "revoke old secret", err)
			return
		}
		h.see(w, r, "/desk/admin/clients/"+c.ID+"/secret", "revoked")
		return
	}
	overlap, err1 := time.ParseDuration(f.Value("overlap"))
	seen, err2 := time.Parse(time.RFC3339Nano, f.Value("seen"))
	if err := errors.Join(err1, err2); err != nil {
		h.Site.Fail(w, r, http.StatusBadRequest, "")
		return
	}
	var secret string
	err = h.in(r.Context(), func(tx pgx.Tx) (err error) {
		secret, err = h.Provider.RotateSecret(r.Context(), tx, provider.Rotation{Client: c.ID, By: reader(r).ID, Overlap: overlap, Seen: &seen})
		return err
	})
	switch {
	case errors.Is(err, provider.ErrRotated):
		f.Fail("", "admin.secret.rotated")
	case errors.Is(err, provider.ErrOverlap):
		f.Fail("overlap", "admin.secret.too_long")
	case errors.Is(err, provider.ErrNoSecret):
		f.Fail("", "admin.client.no_secret")
	case err != nil:
		h.fail(w, r, "rotate secret", err)
		return
	}
	if c, err = h.mine(r); err != nil {
		h.fail(w, r, "read client", err)
		return
	}
	if !f.OK() {
		h.showSecret(w, r, http.StatusUnprocessableEntity, c, page{Form: f})
		return
	}
	h.showSecret(w, r, http.StatusOK, c, page{Done: say("done.rotated"), Secrets: []fact{one("col.client", code(c.ID)), one("secret.new", code(secret))}})
}

// clientErrors shows the last refused requests in plain words.
func (h *Handler) clientErrors(w http.ResponseWriter, r *http.Request) {
	c, err := h.mine(r)
	var list []provider.Refusal
	if err == nil {
		list, err = h.Provider.Refusals(r.Context(), c.ID)
	}
	if err != nil {
		h.fail(w, r, "read client errors", err)
		return
	}
	t := &table{Caption: say("errors.title"), Empty: say("errors.none"), Columns: messages("col.at", "errors.means", "errors.do", "errors.endpoint", "errors.code", "col.network")}
	for _, e := range list {
		means, do := Explain(h.Site, web.Lang(r), e)
		t.Rows = append(t.Rows, []cell{h.when(r, &e.At), text(means), text(do), code(e.Endpoint), code(e.Code), code(e.Network)})
	}
	facts := []fact{}
	for _, uri := range c.RedirectURIs {
		facts = append(facts, one("client.kind_redirect", code(uri)))
	}
	h.show(w, r, http.StatusOK, page{Title: say("errors.of", "Client", c.ID), Crumbs: home(clientsCrumb), Tabs: tabs(c, "/errors"), Lead: say("errors.lead"), Sections: []section{
		{Title: say("client.addresses"), Facts: facts}, {Title: say("errors.title"), Table: t},
	}})
}
