package admin

import (
	"errors"
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5"

	"guichet/api/web"
	"guichet/department"
	"guichet/identity/staff"
)

var staffCrumb = crumb{Href: "/desk/admin/staff", Label: say("staff.title")}

// channels that a role may be bound to.
var channels = []string{"counter", "phone", "kiosk", "email"}

func roleWord(role string) web.Message { return say("role." + slug(role)) }

// where names a department by id; "" is the whole city.
func where(r *http.Request, all []department.Department, departmentID string) web.Message {
	if departmentID == "" {
		return say("staff.city")
	}
	for _, d := range all {
		if d.ID == departmentID {
			return raw(d.Name(web.Lang(r)))
		}
	}
	return raw(departmentID)
}

// staffPage finds members, and shows what groups suggest and who is signed in.
func (h *Handler) staffPage(w http.ResponseWriter, r *http.Request) {
	h.showStaff(w, r, http.StatusOK, nil)
}

func (h *Handler) showStaff(w http.ResponseWriter, r *http.Request, status int, f *web.Form) {
	q := r.URL.Query()
	filter := staff.MemberFilter{Text: strings.TrimSpace(q.Get("q")), Role: q.Get("role")}
	all, err1 := h.Departments.All(r.Context())
	members, err2 := h.Staff.Members(r.Context(), filter)
	suggested, err3 := h.Staff.Suggested(r.Context())
	hints, err4 := h.Staff.Hints(r.Context())
	sessions, err5 := h.Staff.OpenSessions(r.Context(), "")
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		h.fail(w, r, "read staff", err)
		return
	}
	const self = "/desk/admin/staff"
	st := &table{Caption: say("suggested.title"), Empty: say("suggested.none"), Columns: messages("col.name", "col.group", "col.role", "col.department", "suggested.grant", "suggested.refuse")}
	for _, s := range suggested {
		fields := []hidden{{"member", s.MemberID}, {"hint", s.ID}}
		about := say("suggested.about", "Name", s.Name, "Role", s.Role)
		st.Rows = append(st.Rows, []cell{
			{Text: raw(s.Name), Href: self + "/" + s.MemberID},
			code(s.Group),
			{Text: roleWord(s.Role)},
			{Text: where(r, all, s.DepartmentID)},
			{Do: &button{Action: self, Fields: append([]hidden{{"do", "grant"}}, fields...), Label: say("suggested.grant"), About: about}},
			{Do: &button{Action: self, Fields: append([]hidden{{"do", "refuse"}}, fields...), Label: say("suggested.refuse"), About: about, Danger: true}},
		})
	}
	mt := &table{Caption: say("staff.list"), Empty: say("staff.none"), Columns: messages("col.name", "col.email", "staff.roles", "col.state", "staff.seen")}
	for _, m := range members {
		state := tag("good", "state.active")
		if m.Suspended {
			state = tag("bad", "state.suspended")
		}
		mt.Rows = append(mt.Rows, []cell{link(self+"/"+m.ID, m.Name), text(orDash(m.Email)), word("number", "Count", len(m.Roles)), state, h.when(r, &m.SeenAt)})
	}
	ht := &table{Caption: say("hint.title"), Empty: say("hint.none"), Columns: messages("col.group", "col.role", "col.department", "col.do")}
	for _, x := range hints {
		ht.Rows = append(ht.Rows, []cell{code(x.Group), {Text: roleWord(x.Role)}, {Text: where(r, all, x.DepartmentID)}, {Do: &button{
			Action: self, Fields: []hidden{{"do", "remove_hint"}, {"hint", x.ID}}, Label: say("hint.remove"), About: raw(x.Group),
		}}})
	}
	h.show(w, r, status, page{Title: say("staff.title"), Crumbs: home(), Lead: say("staff.lead"), Done: h.done(r), Form: f, Sections: []section{
		{Title: say("suggested.title"), Text: say("suggested.text"), Table: st},
		{Title: say("staff.list"), Table: mt},
		{Title: say("session.title"), Table: h.sessionTable(r, sessions)},
		{Title: say("hint.title"), Text: say("hint.text"), Table: ht, Forms: []form{{
			Action: self, Hidden: []hidden{{"do", "add_hint"}}, Title: say("hint.new"), Inputs: append([]input{{Kind: "text", Name: "group", Label: say("col.group"), Length: "200"}}, roleInputs(r, all, false)...),
			Submit: say("hint.add"), Quiet: true,
		}}},
	}, Filter: &form{Submit: say("filter"), Inputs: []input{
		{Kind: "text", Name: "q", Label: say("staff.find"), Value: filter.Text, Optional: true, Length: "100"},
		{Kind: "select", Name: "role", Label: say("col.role"), Options: append([]option{{"", say("any"), filter.Role == ""}}, options(filter.Role, staff.Roles(), roleWord)...)},
	}}})
}

// roleInputs choose a role, where it holds, and through which channel. The filter above the
// list has a field called role already.
func roleInputs(r *http.Request, all []department.Department, channel bool) []input {
	places := []option{{"", say("staff.city"), true}}
	for _, d := range all {
		places = append(places, option{d.ID, raw(d.Name(web.Lang(r))), false})
	}
	list := []input{
		{Kind: "select", Name: "new_role", Label: say("col.role"), Options: options("", staff.Roles(), roleWord)},
		{Kind: "select", Name: "department", Label: say("col.department"), Options: places},
	}
	if channel {
		list = append(list, input{Kind: "select", Name: "channel", Label: say("col.channel"), Options: append([]option{{"", say("any"), true}},
			options("", channels, func(v string) web.Message { return say("channel." + v) })...)})
	}
	return list
}

// sessionTable lists sessions. Each is ended on its member's page, with a reason.
func (h *Handler) sessionTable(r *http.Request, list []staff.OpenSession) *table {
	t := &table{Caption: say("session.title"), Empty: say("session.none"), Columns: messages("col.name", "session.since", "session.seen", "col.network", "session.device", "session.kind")}
	for _, s := range list {
		kind := tag("", "session.ordinary")
		if s.BreakGlass {
			kind = tag("bad", "session.break_glass")
		}
		t.Rows = append(t.Rows, []cell{link("/desk/admin/staff/"+s.MemberID, s.Name), h.when(r, &s.SignedInAt), h.when(r, &s.SeenAt), code(orDash(s.Network)), text(orDash(s.Device)), kind})
	}
	return t
}

func (h *Handler) changeHints(w http.ResponseWriter, r *http.Request) {
	f, ok := h.form(w, r)
	if !ok {
		return
	}
	ctx, by, done := r.Context(), reader(r).ID, "saved"
	err := h.in(ctx, func(tx pgx.Tx) error {
		switch f.Value("do") {
		case "grant", "refuse":
			return h.decideHint(r, tx, f, &done)
		case "remove_hint":
			return h.Staff.RemoveHint(ctx, tx, f.Value("hint"), by)
		case "add_hint":
			if f.Value("group") == "" {
				f.Fail("group", "admin.hint.group_missing")
				return nil
			}
			return h.Staff.AddHint(ctx, tx, staff.Hint{Group: f.Value("group"), Role: f.Value("new_role"), DepartmentID: f.Value("department")}, by)
		}
		f.Fail("", "admin.unread")
		return nil
	})
	switch {
	case errors.Is(err, staff.ErrBadRole):
		h.Site.Fail(w, r, http.StatusBadRequest, "")
	case errors.Is(err, staff.ErrOwnRole):
		f.Fail("", "admin.staff.yourself")
		h.showStaff(w, r, http.StatusUnprocessableEntity, f)
	case err != nil:
		h.fail(w, r, "change suggestions", err)
	case !f.OK():
		h.showStaff(w, r, http.StatusUnprocessableEntity, f)
	default:
		h.see(w, r, "/desk/admin/staff", done)
	}
}

// decideHint grants or refuses what is suggested now: what the directory has taken back
// meanwhile is not granted.
func (h *Handler) decideHint(r *http.Request, tx pgx.Tx, f *web.Form, done *string) error {
	suggested, err := h.Staff.Suggested(r.Context())
	if err != nil {
		return err
	}
	for _, s := range suggested {
		if s.MemberID != f.Value("member") || s.ID != f.Value("hint") {
			continue
		}
		if f.Value("do") == "refuse" {
			return h.Staff.RefuseHint(r.Context(), tx, s.MemberID, s.ID, reader(r).ID)
		}
		*done = "granted"
		return h.Staff.Grant(r.Context(), tx, s.MemberID, staff.Role{Name: s.Role, Department: s.DepartmentID}, reader(r).ID)
	}
	f.Fail("", "admin.suggested.gone")
	return nil
}

func (h *Handler) memberPage(w http.ResponseWriter, r *http.Request) {
	h.showMember(w, r, http.StatusOK, nil)
}

func (h *Handler) showMember(w http.ResponseWriter, r *http.Request, status int, f *web.Form) {
	m, err := h.Staff.Member(r.Context(), chi.URLParam(r, "id"))
	var grants []staff.Grant
	var sessions []staff.OpenSession
	var all []department.Department
	if err == nil {
		grants, err = h.Staff.Grants(r.Context(), m.ID)
	}
	if err == nil {
		sessions, err = h.Staff.OpenSessions(r.Context(), m.ID)
	}
	if err == nil {
		all, err = h.Departments.All(r.Context())
	}
	if err != nil {
		h.fail(w, r, "read member", err)
		return
	}
	names, err := h.Staff.Names(r.Context(), grantors(grants))
	if err != nil {
		h.fail(w, r, "read names", err)
		return
	}
	self := "/desk/admin/staff/" + m.ID
	state := tag("good", "state.active")
	if m.Suspended {
		state = tag("bad", "state.suspended")
	}
	gt := &table{Caption: say("staff.roles"), Empty: say("staff.no_roles"), Columns: messages("col.role", "col.department", "col.channel", "staff.granted", "staff.ended", "col.do")}
	for _, g := range grants {
		channel := word("any")
		if g.Channel != "" {
			channel = word("channel." + slug(g.Channel))
		}
		ended, do := word("none"), cell{Do: &button{
			Action: self, Fields: []hidden{{"do", "revoke"}, {"held", g.Role}, {"held_department", g.Department}, {"held_channel", g.Channel}},
			Label: say("staff.revoke"), About: roleWord(g.Role), Danger: true,
		}}
		if g.EndedAt != nil {
			ended, do = h.when(r, g.EndedAt), word("none")
		}
		by := cell{Text: say("staff.by", "When", h.when(r, &g.GrantedAt).Text.Args[1], "Who", nameOf(names, g.GrantedBy))}
		gt.Rows = append(gt.Rows, []cell{{Text: roleWord(g.Role)}, {Text: where(r, all, g.Department)}, channel, by, ended, do})
	}
	p := page{Title: raw(m.Name), Crumbs: home(staffCrumb), Done: h.done(r), Form: f, Sections: []section{
		{Title: say("staff.member"), Facts: []fact{
			one("col.email", text(orDash(m.Email))), one("col.state", state), one("staff.seen", h.when(r, &m.SeenAt)),
			one("partners.issuer", code(m.Issuer)), one("staff.subject", code(m.Subject)), one("staff.groups", text(orDash(strings.Join(m.Groups, ", ")))),
		}},
		{Title: say("staff.roles"), Table: gt, Forms: []form{{
			Action: self, Hidden: []hidden{{"do", "grant"}}, Title: say("staff.grant"), Inputs: roleInputs(r, all, true), Submit: say("staff.grant"), Quiet: true,
		}}},
		h.memberSessions(r, self, sessions),
	}}
	turn := section{Title: say("staff.suspend"), Text: say("staff.suspend_text"), Forms: []form{{
		Action: self, Hidden: []hidden{{"do", "suspend"}}, Inputs: []input{{Kind: "text", Name: "suspend_why", Label: say("why"), Length: "300"}}, Submit: say("staff.suspend"), Danger: true,
	}}}
	if m.Suspended {
		turn = section{Title: say("staff.resume"), Forms: []form{{
			Action: self, Hidden: []hidden{{"do", "resume"}}, Inputs: []input{{Kind: "text", Name: "resume_why", Label: say("why"), Length: "300"}}, Submit: say("staff.resume"),
		}}}
	}
	p.Sections = append(p.Sections, turn)
	h.show(w, r, status, p)
}

func grantors(grants []staff.Grant) []string {
	var ids []string
	for _, g := range grants {
		ids = append(ids, g.GrantedBy, g.EndedBy)
	}
	return ids
}

func nameOf(names map[string]string, actor string) string {
	if name, ok := names[actor]; ok {
		return name
	}
	return actor
}

// memberSessions are the sessions of one member, with the form that ends one.
func (h *Handler) memberSessions(r *http.Request, self string, sessions []staff.OpenSession) section {
	s := section{Title: say("session.title"), Table: h.sessionTable(r, sessions)}
	if len(sessions) == 0 {
		return s
	}
	var which []option
	for _, x := range sessions {
		which = append(which, option{x.ID, say("session.which", "Since", h.when(r, &x.SignedInAt).Text.Args[1], "Network", orDash(x.Network)), false})
	}
	s.Forms = []form{{Action: self, Hidden: []hidden{{"do", "end"}}, Title: say("session.end"), Inputs: []input{
		{Kind: "select", Name: "session", Label: say("session.title"), Options: which}, {Kind: "text", Name: "end_why", Label: say("why"), Length: "300"},
	}, Submit: say("session.end"), Danger: true}}
	return s
}

func (h *Handler) changeMember(w http.ResponseWriter, r *http.Request) {
	m, err := h.Staff.Member(r.Context(), chi.URLParam(r, "id"))
	if err != nil {
		h.fail(w, r, "read member", err)
		return
	}
	f, ok := h.form(w, r)
	if !ok {
		return
	}
	ctx, by, done := r.Context(), reader(r).ID, "saved"
	err = h.in(ctx, func(tx pgx.Tx) error {
		do := f.Value("do")
		if field := map[string]string{"suspend": "suspend_why", "resume": "resume_why", "end": "end_why"}[do]; field != "" && f.Value(field) == "" {
			f.Fail(field, "admin.why_missing")
			return nil
		}
		switch do {
		case "grant":
			done = "granted"
			return h.Staff.Grant(ctx, tx, m.ID, staff.Role{Name: f.Value("new_role"), Department: f.Value("department"), Channel: f.Value("channel")}, by)
		case "revoke":
			done = "revoked"
			return h.Staff.Revoke(ctx, tx, m.ID, staff.Role{Name: f.Value("held"), Department: f.Value("held_department"), Channel: f.Value("held_channel")}, by)
		case "suspend":
			return h.Staff.Suspend(ctx, tx, m.ID, by, f.Value("suspend_why"))
		case "resume":
			return h.Staff.Resume(ctx, tx, m.ID, by, f.Value("resume_why"))
		case "end":
			done = "ended"
			return h.Staff.EndOther(ctx, tx, f.Value("session"), by, f.Value("end_why"))
		}
		f.Fail("", "admin.unread")
		return nil
	})
	switch {
	case errors.Is(err, staff.ErrBadRole), errors.Is(err, staff.ErrNoSession):
		h.Site.Fail(w, r, http.StatusBadRequest, "")
	case errors.Is(err, staff.ErrOwnRole):
		f.Fail("", "admin.staff.yourself")
		h.showMember(w, r, http.StatusUnprocessableEntity, f)
	case err != nil:
		h.fail(w, r, "change member", err)
	case !f.OK():
		h.showMember(w, r, http.StatusUnprocessableEntity, f)
	default:
		h.see(w, r, "/desk/admin/staff/"+m.ID, done)
	}
}
