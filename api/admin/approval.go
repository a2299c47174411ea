package admin

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5"

	"guichet/api/web"
	"guichet/department"
	"guichet/identity/provider"
	"guichet/identity/staff"
	"guichet/internal/approval"
)

// read returns what an approval is about, if the reader may see it.
func (h *Handler) read(r *http.Request) (x waiting, err error) {
	err = pgx.BeginTxFunc(r.Context(), h.DB, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		a, err := approval.Get(r.Context(), tx, chi.URLParam(r, "id"))
		if err == nil {
			x, err = h.waitingFor(r, tx, a)
		}
		return err
	})
	return x, err
}

// approvalPage shows exactly what would be done, and the two answers.
func (h *Handler) approvalPage(w http.ResponseWriter, r *http.Request) {
	x, err := h.read(r)
	if err != nil {
		h.fail(w, r, "read approval", err)
		return
	}
	h.showApproval(w, r, http.StatusOK, x, nil)
}

func (h *Handler) showApproval(w http.ResponseWriter, r *http.Request, status int, x waiting, f *web.Form) {
	names, err := h.names(r, []waiting{x})
	if err != nil {
		h.fail(w, r, "read names", err)
		return
	}
	facts := []fact{
		one("col.object", cell{Text: raw(x.object), Href: x.href}), one("col.by", who(names, x.RequestedBy)), one("col.at", h.when(r, &x.RequestedAt)),
	}
	p := page{Title: say("kind." + slug(x.Kind)), Crumbs: home(), Form: f, Sections: []section{{Title: say("approval.what"), Facts: append(facts, h.terms(r, x)...)}}}
	self := "/desk/admin/approvals/" + x.ID
	decision := section{Title: say("approval.decision")}
	switch m := reader(r); {
	case x.Decision != "":
		decision.Facts = []fact{
			one("col.state", tag(map[string]string{approval.Approved: "good", approval.Refused: "bad"}[x.Decision], "state."+x.Decision)),
			one("col.by", who(names, x.DecidedBy)), one("col.at", h.when(r, x.DecidedAt)),
		}
		if x.Reason != "" {
			decision.Facts = append(decision.Facts, one("why", text(x.Reason)))
		}
	case m.ID == x.RequestedBy:
		decision.Text = say("approval.yours")
	case !m.Has(staff.Administrator, x.departmentID):
		decision.Text = say("approval.not_you")
	default:
		decision.Text = say("approval.text")
		decision.Forms = []form{
			{Action: self, Hidden: []hidden{{"decision", approval.Approved}}, Submit: say("approval.approve")},
			{Action: self, Hidden: []hidden{{"decision", approval.Refused}}, Inputs: []input{{Kind: "text", Name: "why", Label: say("why"), Length: "300"}}, Submit: say("approval.refuse"), Danger: true},
		}
	}
	p.Sections = append(p.Sections, decision)
	h.show(w, r, status, p)
}

// terms are what a second person agrees to, one by one.
func (h *Handler) terms(r *http.Request, x waiting) []fact {
	c := x.proposal.Client
	switch x.Kind {
	case department.ApproveKey:
		return []fact{one("key.begins", code(x.key.Prefix+"…"))}
	case provider.ApproveChange:
		return changed(c, x.proposal.Change)
	case provider.ApproveClient:
		facts := []fact{
			one("client.name_en", text(c.Name.EN)), one("client.name_fr", text(c.Name.FR)), one("col.department", text(c.Department.In(web.Lang(r)))),
			one("client.type", word("type."+c.Type)), one("client.auth_method", code(c.AuthMethod)), one("client.alg", code(c.Alg)),
			one("client.scopes", code(strings.Join(c.Scopes, " "))), one("client.consent", cell{Text: partyWord(strconv.FormatBool(c.FirstParty))}),
		}
		facts = append(facts, policyFacts(c.Policy)...)
		return append(facts, newAddresses(x.proposal)...)
	}
	return newAddresses(x.proposal)
}

func newAddresses(p provider.Proposal) []fact {
	var facts []fact
	for _, uri := range p.RedirectTo {
		facts = append(facts, one("client.kind_redirect", code(uri)))
	}
	for _, uri := range p.PostLogout {
		facts = append(facts, one("client.kind_post_logout", code(uri)))
	}
	return facts
}

// changed lists what a change replaces, old and new.
func changed(c provider.Registered, change provider.Change) []fact {
	var facts []fact
	add := func(name, old, new string) {
		facts = append(facts, one(name, code(old), word("becomes"), code(new)))
	}
	if change.Name != nil {
		add("client.name_en", c.Name.EN, change.Name.EN)
		add("client.name_fr", c.Name.FR, change.Name.FR)
	}
	if change.Scopes != nil {
		add("client.scopes", strings.Join(c.Scopes, " "), strings.Join(*change.Scopes, " "))
	}
	if change.Resources != nil {
		add("client.resources", strings.Join(c.Resources, " "), strings.Join(*change.Resources, " "))
	}
	if change.AuthMethod != nil {
		add("client.auth_method", c.AuthMethod, *change.AuthMethod)
	}
	if change.Alg != nil {
		add("client.alg", c.Alg, *change.Alg)
	}
	if change.FirstParty != nil {
		facts = append(facts, one("client.consent", cell{Text: partyWord(strconv.FormatBool(*change.FirstParty))}))
	}
	if change.Policy != nil {
		old, err1 := json.Marshal(c.Policy)
		now, err2 := json.Marshal(change.Policy)
		if err1 == nil && err2 == nil { // exactly what is stored: keys and switches alike
			add("client.policy", string(old), string(now))
		}
	}
	if change.Enable {
		facts = append(facts, one("col.state", word("state.disabled"), word("becomes"), word("state.active")))
	}
	return facts
}

// decide carries out the second person's answer.
func (h *Handler) decide(w http.ResponseWriter, r *http.Request) {
	x, err := h.read(r)
	if err != nil {
		h.fail(w, r, "read approval", err)
		return
	}
	f, ok := h.form(w, r)
	if !ok {
		return
	}
	m, decision := reader(r), f.Value("decision")
	if !m.Has(staff.Administrator, x.departmentID) {
		h.Site.Fail(w, r, http.StatusForbidden, "")
		return
	}
	switch {
	case decision == approval.Refused && f.Value("why") == "":
		f.Fail("why", "admin.why_missing")
	case decision != approval.Approved && decision != approval.Refused:
		f.Fail("", "admin.unread")
	default:
		err = h.in(r.Context(), func(tx pgx.Tx) error {
			d := approval.Decision{ID: x.ID, By: m.ID, Reason: f.Value("why"), At: h.Now()}
			switch {
			case x.Kind == department.ApproveKey:
				return h.Departments.DecideKey(r.Context(), tx, d, decision)
			case decision == approval.Approved:
				return h.Provider.Approve(r.Context(), tx, d)
			}
			return h.Provider.Refuse(r.Context(), tx, d)
		})
	}
	switch {
	case err == nil:
	case errors.Is(err, approval.ErrSamePerson):
		f.Fail("", "admin.approval.yours")
	case errors.Is(err, approval.ErrDecided):
		f.Fail("", "admin.approval.decided")
	case errors.Is(err, approval.ErrChanged):
		f.Fail("", "admin.approval.changed")
	default:
		if !told(f, err) {
			h.fail(w, r, "decide", err)
			return
		}
	}
	if !f.OK() {
		h.showApproval(w, r, http.StatusUnprocessableEntity, x, f)
		return
	}
	h.see(w, r, "/desk/admin", decision)
}
