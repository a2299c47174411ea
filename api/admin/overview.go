package admin

import (
	"net/http"

	"guichet/department"
	"guichet/identity/provider"
	"guichet/internal/approval"

	"github.com/jackc/pgx/v5"
)

// overview is what waits for the reader, and where else to go.
func (h *Handler) overview(w http.ResponseWriter, r *http.Request) {
	waiting, err := h.waiting(r)
	if err != nil {
		h.fail(w, r, "list what waits", err)
		return
	}
	p := page{Title: say("title"), Lead: say("lead"), Done: h.done(r), Sections: []section{
		{Title: say("waiting.title"), Text: say("waiting.text"), Table: waiting},
		{Title: say("places.title"), Facts: []fact{
			one("places.clients", cell{Text: say("places.clients_text"), Href: "/desk/admin/clients"}),
			one("places.new", cell{Text: say("places.new_text"), Href: "/desk/admin/new-client"}),
			one("places.departments", cell{Text: say("places.departments_text"), Href: "/desk/admin/departments"}),
		}},
	}}
	if reader(r).Has(chiefs[0], "") {
		places := &p.Sections[1].Facts
		*places = append(*places,
			one("places.staff", cell{Text: say("places.staff_text"), Href: "/desk/admin/staff"}),
			one("places.signing_keys", cell{Text: say("places.signing_keys_text"), Href: "/desk/admin/signing-keys"}),
			one("places.settings", cell{Text: say("places.settings_text"), Href: "/desk/admin/settings"}))
	}
	h.show(w, r, http.StatusOK, p)
}

// A waiting thing is what an approval is about, as far as pages tell it.
type waiting struct {
	approval.Approval
	departmentID string
	object       string // client id or name of a key
	href         string // of the object's page
	proposal     provider.Proposal
	key          department.Key
}

// waitingFor reads an approval that the reader may see, or returns approval.ErrNotFound.
func (h *Handler) waitingFor(r *http.Request, tx pgx.Tx, a approval.Approval) (x waiting, err error) {
	x.Approval = a
	switch a.Kind {
	case department.ApproveKey:
		if x.key, err = h.Departments.ProposedKey(r.Context(), tx, a.ID); err != nil {
			return x, err
		}
		d, err := h.Departments.ByID(r.Context(), tx, x.key.DepartmentID)
		if err != nil {
			return x, err
		}
		x.departmentID, x.object, x.href = d.ID, x.key.Name, "/desk/admin/departments/"+d.Code+"/keys"
	case provider.ApproveClient, provider.ApproveAddresses, provider.ApproveChange:
		if x.proposal, err = h.Provider.Proposal(r.Context(), tx, a.ID); err != nil {
			return x, err
		}
		x.departmentID, x.object, x.href = x.proposal.Client.DepartmentID, x.proposal.Client.ID, "/desk/admin/clients/"+x.proposal.Client.ID
	default:
		return x, approval.ErrNotFound // other rooms' approvals have pages of their own
	}
	if !manages(reader(r), x.departmentID) {
		return x, approval.ErrNotFound
	}
	return x, nil
}

func (h *Handler) waiting(r *http.Request) (*table, error) {
	t := &table{
		Caption: say("waiting.title"), Empty: say("waiting.none"),
		Columns: messages("col.what", "col.object", "col.by", "col.at"),
	}
	var list []waiting
	err := pgx.BeginTxFunc(r.Context(), h.DB, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		pending, err := approval.Pending(r.Context(), tx)
		if err != nil {
			return err
		}
		for _, a := range pending {
			x, err := h.waitingFor(r, tx, a)
			if isMissing(err) {
				continue
			}
			if err != nil {
				return err
			}
			list = append(list, x)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	names, err := h.names(r, list)
	if err != nil {
		return nil, err
	}
	for _, x := range list {
		t.Rows = append(t.Rows, []cell{
			{Text: say("kind." + slug(x.Kind)), Href: "/desk/admin/approvals/" + x.ID},
			{Text: raw(x.object), Href: x.href},
			who(names, x.RequestedBy), h.when(r, &x.RequestedAt),
		})
	}
	return t, nil
}

func (h *Handler) names(r *http.Request, list []waiting) (map[string]string, error) {
	var ids []string
	for _, x := range list {
		ids = append(ids, x.RequestedBy, x.DecidedBy)
	}
	return h.Staff.Names(r.Context(), ids)
}
