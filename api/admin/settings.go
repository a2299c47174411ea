package admin

import (
	"errors"
	"net/http"
	"reflect"

	"guichet/api/web"
	"guichet/identity"
	"guichet/identity/provider"
)

// signingKeys shows the provider's keys, their states and when they change by themselves.
func (h *Handler) signingKeys(w http.ResponseWriter, r *http.Request) {
	h.showSigningKeys(w, r, http.StatusOK, nil)
}

func (h *Handler) showSigningKeys(w http.ResponseWriter, r *http.Request, status int, f *web.Form) {
	keys, err := h.Provider.Keys(r.Context())
	if err != nil {
		h.fail(w, r, "list signing keys", err)
		return
	}
	self := "/desk/admin/signing-keys"
	t := &table{Caption: say("signing.title"), Empty: say("signing.none"), Columns: messages("signing.kid", "client.alg", "col.state", "signing.created", "signing.active", "signing.changes")}
	tones := map[string]string{"active": "good", "next": "info", "retiring": "warn"}
	for _, k := range keys {
		changes := k.ChangesAt()
		t.Rows = append(t.Rows, []cell{code(k.Kid), code(k.Alg), tag(tones[k.State], "state."+k.State), h.when(r, &k.CreatedAt), h.when(r, k.ActivatedAt), h.when(r, &changes)})
	}
	algs := options("", provider.Algs(), raw)
	h.show(w, r, status, page{Title: say("signing.title"), Crumbs: home(), Lead: say("signing.lead"), Done: h.done(r), Form: f, Sections: []section{
		{Title: say("signing.list"), Table: t},
		{Title: say("signing.rotate"), Text: say("signing.rotate_text"), Forms: []form{{
			Action: self, Hidden: []hidden{{"do", "rotate"}}, Inputs: []input{{Kind: "select", Name: "alg", Label: say("client.alg"), Options: algs}}, Submit: say("signing.rotate"), Quiet: true,
		}}},
		{Title: say("signing.withdraw"), Text: say("signing.withdraw_text"), Forms: []form{{
			Action: self, Hidden: []hidden{{"do", "withdraw"}}, Inputs: []input{{Kind: "select", Name: "leaked", Label: say("client.alg"), Options: algs}}, Submit: say("signing.withdraw"), Danger: true,
		}}},
	}})
}

func (h *Handler) rotateKey(w http.ResponseWriter, r *http.Request) {
	f, ok := h.form(w, r)
	if !ok {
		return
	}
	var err error
	switch f.Value("do") {
	case "rotate":
		err = h.Provider.RotateKey(r.Context(), f.Value("alg"), reader(r).ID)
	case "withdraw":
		err = h.Provider.WithdrawKey(r.Context(), f.Value("leaked"), reader(r).ID)
	default:
		f.Fail("", "admin.unread")
	}
	switch {
	case errors.Is(err, provider.ErrTooSoon):
		f.Fail("alg", "admin.signing.too_soon")
	case errors.Is(err, provider.ErrAlg):
		f.Fail("", "admin.unread")
	case err != nil:
		h.fail(w, r, "rotate key", err)
		return
	}
	if !f.OK() {
		h.showSigningKeys(w, r, http.StatusUnprocessableEntity, f)
		return
	}
	h.see(w, r, "/desk/admin/signing-keys", "rotated")
}

// settings shows what is in force and changed by the deployment's configuration: whom we
// believe about people, and the brakes on sign-in.
func (h *Handler) settings(w http.ResponseWriter, r *http.Request) {
	partners := &table{Caption: say("partners.title"), Empty: say("partners.none"), Columns: messages("partners.issuer")}
	for _, issuer := range h.Partners {
		partners.Rows = append(partners.Rows, []cell{code(issuer)})
	}
	limits := &table{Caption: say("limits.title"), Empty: say("limits.title"), Columns: messages("limits.what", "limits.burst", "limits.per")}
	v := reflect.ValueOf(h.People.Limits())
	for i := range v.NumField() {
		l, ok := v.Field(i).Interface().(identity.Limit)
		if !ok {
			continue
		}
		limits.Rows = append(limits.Rows, []cell{code(v.Type().Field(i).Name), word("number", "Count", l.Burst), text(l.Per.String())})
	}
	h.show(w, r, http.StatusOK, page{Title: say("settings.title"), Crumbs: home(), Lead: say("settings.lead"), Sections: []section{
		{Title: say("partners.title"), Text: say("partners.text"), Table: partners}, {Title: say("limits.title"), Text: say("limits.text"), Table: limits},
	}})
}
