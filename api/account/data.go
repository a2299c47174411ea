package account

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"

	"guichet/api/session"
	"guichet/api/web"
	"guichet/identity"
	"guichet/identity/provider"
)

// dataPage lets a person take their data, or leave.
type dataPage struct {
	view
	Closing *time.Time
	Ask     bool // closing was asked for and not yet confirmed
}

func (h *Handler) data(w http.ResponseWriter, r *http.Request) { h.showData(w, r, false) }

func (h *Handler) showData(w http.ResponseWriter, r *http.Request, ask bool) {
	page := dataPage{view: h.view(r, nil), Ask: ask}
	var err error
	if page.Closing, err = h.People.Closing(r.Context(), page.P.ID); err != nil {
		h.fail(w, r, "read closing", err)
		return
	}
	h.Site.Page(w, r, http.StatusOK, "account/data", page)
}

func (h *Handler) takeData(w http.ResponseWriter, r *http.Request, form *web.Form) {
	switch form.Value("do") {
	case "export":
		if h.needFresh(w, r) {
			h.export(w, r)
		}
	case "close":
		h.showData(w, r, true)
	case "close-sure":
		_, err := h.People.RequestClose(r.Context(), person(r), session.Visitor(r))
		if err != nil {
			h.fail(w, r, "close account", err)
			return
		}
		h.done(w, r, "/account", "asked")
	default:
		h.Site.Fail(w, r, http.StatusBadRequest, "")
	}
}

// Export is all that we hold of a person, in the order in which they would ask.
type Export struct {
	WrittenAt time.Time               `json:"written_at"`
	AccountID string                  `json:"account_id"`
	Name      string                  `json:"name"`
	Language  string                  `json:"language"`
	Phone     string                  `json:"phone,omitempty"`
	Address   identity.PostalAddress  `json:"address"`
	Emails    []identity.EmailAddress `json:"emails"`
	Passkeys  []identity.Passkey      `json:"passkeys"`
	App       bool                    `json:"authenticator_app"`
	Settings  identity.Settings       `json:"settings"`
	Devices   []identity.Device       `json:"sessions"`
	Known     []provider.Known        `json:"applications"`
	SignIns   []identity.Visit        `json:"sign_ins"`
	Receipts  []exportedReceipt       `json:"receipts"`
}

// exportedReceipt is a receipt as somebody outside needs it.
type exportedReceipt struct {
	Number   string    `json:"number"`
	Amount   string    `json:"amount"`
	IssuedAt time.Time `json:"issued_at"`
}

// The bounds of an export: more than anybody has.
const (
	maxExportedPages    = 200
	maxExportedReceipts = 10_000
)

// gather reads everything of a person.
func (h *Handler) gather(ctx context.Context, p identity.Person) (Export, error) {
	e := Export{WrittenAt: h.Now().UTC(), AccountID: p.ID}
	resident, err := h.People.Resident(ctx, p.ID)
	if err != nil {
		return e, err
	}
	e.Name, e.Language, e.Phone, e.Address = resident.Name, resident.Lang, resident.Phone, resident.Address
	has, err := h.People.Factors(ctx, p.ID)
	if err != nil {
		return e, err
	}
	e.App = has.App
	for _, read := range []func() error{
		func() (err error) { e.Emails, err = h.People.Emails(ctx, p.ID); return err },
		func() (err error) { e.Passkeys, err = h.People.Passkeys(ctx, p.ID); return err },
		func() (err error) { e.Settings, err = h.People.Settings(ctx, p.ID); return err },
		func() (err error) { e.Devices, err = h.People.Devices(ctx, p); return err },
		func() (err error) { e.Known, err = h.Provider.KnownTo(ctx, p.ID); return err },
	} {
		if err := read(); err != nil {
			return e, err
		}
	}
	before := h.Now().Add(time.Second)
	for range maxExportedPages {
		visits, more, err := h.People.History(ctx, p.ID, before)
		if err != nil {
			return e, err
		}
		e.SignIns = append(e.SignIns, visits...)
		if !more {
			break
		}
		before = visits[len(visits)-1].At
	}
	accounts, err := h.People.Accounts(ctx, p.ID)
	if err != nil {
		return e, err
	}
	for _, account := range accounts {
		receipts, err := h.Receipts(ctx, account, maxExportedReceipts)
		if err != nil {
			return e, err
		}
		for _, r := range receipts {
			e.Receipts = append(e.Receipts, exportedReceipt{fmt.Sprint(r.Number), r.Document.Amount.String(), r.IssuedAt})
		}
	}
	return e, nil
}

// export answers with a ZIP of the same data twice: for programs and for people.
func (h *Handler) export(w http.ResponseWriter, r *http.Request) {
	e, err := h.gather(r.Context(), person(r))
	if err != nil {
		h.fail(w, r, "gather data", err)
		return
	}
	if err := h.People.NoteExport(r.Context(), person(r), session.Visitor(r)); err != nil {
		h.fail(w, r, "note export", err)
		return
	}
	machine, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		h.fail(w, r, "write data", err)
		return
	}
	human, err := h.Site.Render(web.Lang(r), "account/export", e)
	if err != nil {
		h.fail(w, r, "write data", err)
		return
	}
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, file := range []struct {
		name string
		text []byte
	}{{"guichet.json", machine}, {"guichet.html", []byte(human)}} {
		part, err := z.CreateHeader(&zip.FileHeader{Name: file.name, Method: zip.Deflate, Modified: e.WrittenAt})
		if err == nil {
			_, err = part.Write(file.text)
		}
		if err != nil {
			h.fail(w, r, "pack data", err)
			return
		}
	}
	if err := z.Close(); err != nil {
		h.fail(w, r, "pack data", err)
		return
	}
	w.Header().Set("Content-Type", "application/zip")
	w.Header().Set("Content-Disposition", `attachment; filename="guichet.zip"`)
	w.Header().Set("Cache-Control", "no-store")
	w.Write(b.Bytes()) // a reader who has gone away is nobody's error
}

// mergePage prepares making two accounts one.
type mergePage struct {
	view
	identity.MergePreview
	Names []string // of the departments that know the person twice
}

func (h *Handler) merge(w http.ResponseWriter, r *http.Request) {
	h.Site.Page(w, r, http.StatusOK, "account/merge", mergePage{view: h.view(r, nil)})
}

// beginMerge starts a sign-in that proves the second account and opens no session.
func (h *Handler) beginMerge(w http.ResponseWriter, r *http.Request, _ *web.Form) {
	p := person(r)
	may, err := h.People.MayAddFactor(r.Context(), p) // the same proof of the first account
	if err != nil {
		h.fail(w, r, "begin merge", err)
		return
	}
	if !may {
		h.stepUp(w, r)
		return
	}
	pending, browser, err := h.People.Begin(r.Context(), identity.NewPending{MergeInto: p.ID, ReturnPath: "/account/merge", Visitor: session.Visitor(r)}, h.Sessions.SignInBrowser(r))
	if limited(w, err) {
		h.Site.Fail(w, r, http.StatusTooManyRequests, "")
		return
	}
	if err != nil {
		h.fail(w, r, "begin merge", err)
		return
	}
	h.Sessions.SetSignInBrowser(w, browser)
	h.see(w, r, "/signin/"+pending.ID)
}

func (h *Handler) previewMerge(w http.ResponseWriter, r *http.Request) {
	page := mergePage{view: h.view(r, nil)}
	var err error
	page.MergePreview, err = h.People.PreviewMerge(r.Context(), page.P, chi.URLParam(r, "id"), h.Sessions.SignInBrowser(r))
	if err != nil {
		h.fail(w, r, "preview merge", err)
		return
	}
	known, err := h.Provider.KnownTo(r.Context(), page.P.ID)
	if err != nil {
		h.fail(w, r, "preview merge", err)
		return
	}
	seen := map[string]bool{}
	for _, k := range known {
		for _, twice := range page.Departments {
			if k.DepartmentID == twice && !seen[twice] {
				seen[twice] = true
				page.Names = append(page.Names, k.Department.In(web.Lang(r)))
			}
		}
	}
	h.Site.Page(w, r, http.StatusOK, "account/merging", page)
}

func (h *Handler) confirmMerge(w http.ResponseWriter, r *http.Request, _ *web.Form) {
	err := h.People.Merge(r.Context(), person(r), chi.URLParam(r, "id"), h.Sessions.SignInBrowser(r))
	if errors.Is(err, identity.ErrStepUp) {
		h.see(w, r, "/account/merge") // the proof of the second account is too old by then, too
		return
	}
	if err != nil {
		h.fail(w, r, "merge accounts", err)
		return
	}
	h.done(w, r, "/account", "merged")
}

// secretOf is the secret of a link; anything of another form is none of ours.
func secretOf(r *http.Request) string {
	if s := chi.URLParam(r, "secret"); len(s) == 43 {
		return s
	}
	return ""
}
