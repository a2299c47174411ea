package admin

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/api/web"
	"guichet/internal/audit"
	"guichet/internal/clock"
)

const (
	auditRows  = 50   // of a page
	auditYear  = 1000 // of a resident's year
	exportPage = 1000 // rows of a file that are read at once
)

// search is what an auditor asks for.
type search struct {
	audit.Filter
	query url.Values
	year  bool
}

// readSearch reads the address. Text that is no date is noted in the form.
func (h *Handler) readSearch(r *http.Request) (search, *web.Form) {
	q := r.URL.Query()
	s, f := search{query: url.Values{}}, &web.Form{Values: url.Values{}}
	value := func(name string) string {
		v := strings.TrimSpace(q.Get(name))
		if v != "" {
			s.query.Set(name, v)
		}
		f.Values.Set(name, v)
		return v
	}
	date := func(name string, shift int) time.Time {
		typed := value(name)
		if typed == "" {
			return time.Time{}
		}
		d, err := clock.ParseDate(typed)
		if err != nil || d.Year < 2000 || d.Year > 2199 {
			f.Fail(name, "admin.audit.bad_date")
			return time.Time{}
		}
		return d.AddDays(shift).Start()
	}
	s.Filter = audit.Filter{
		Actor: value("actor"), Subject: value("subject"), ObjectType: value("object_type"), ObjectID: value("object"), Action: value("action"),
		Network: value("network"), RequestID: value("request"), From: date("from", 0), To: date("to", 1),
	}
	if n, err := strconv.ParseInt(q.Get("before"), 10, 64); err == nil && n > 0 {
		s.Before = n
	}
	if value("span") == "year" && s.Subject != "" {
		s.year, s.From = true, h.Now().AddDate(-1, 0, 0)
	}
	return s, f
}

// noted records a search before its result is shown: what cannot be recorded is not shown.
func (h *Handler) noted(r *http.Request, s search, as string) error {
	details := s.Asked()
	details["as"] = as
	return h.in(r.Context(), func(tx pgx.Tx) error {
		return audit.Record(r.Context(), tx, audit.Event{
			Action: "audit.searched", ObjectType: "audit", Subject: s.Subject, At: h.Now(), Details: details,
		})
	})
}

// audit shows what was done: the newest first, page by page.
func (h *Handler) audit(w http.ResponseWriter, r *http.Request) {
	s, f := h.readSearch(r)
	if !f.OK() {
		h.show(w, r, http.StatusUnprocessableEntity, h.auditPage(s, f))
		return
	}
	s.Limit = auditRows + 1
	if s.year {
		s.Limit = auditYear
	}
	err := h.noted(r, s, "page")
	var rows []audit.Row
	if err == nil {
		rows, err = audit.Search(r.Context(), h.DB, s.Filter)
	}
	var names map[string]string
	if err == nil {
		names, err = h.Staff.Names(r.Context(), actors(rows))
	}
	if err != nil {
		h.fail(w, r, "search audit", err)
		return
	}
	p := h.auditPage(s, f)
	switch {
	case s.year:
		p.Title, p.Lead = say("audit.year_title"), say("audit.year_lead", "Subject", s.Subject)
		p.Sections = append(p.Sections, h.months(r, rows, names)...)
	default:
		if len(rows) > auditRows {
			rows = rows[:auditRows]
			s.query.Set("before", strconv.FormatInt(rows[auditRows-1].Seq, 10))
			p.Next = "?" + s.query.Encode()
			s.query.Del("before")
		}
		p.Sections = append(p.Sections, section{Title: say("audit.found"), Table: h.deeds(r, rows, names)})
	}
	h.show(w, r, http.StatusOK, p)
}

func (h *Handler) auditPage(s search, f *web.Form) page {
	field := func(kind, name, length string) input {
		return input{Kind: kind, Name: name, Label: say("audit." + name), Value: f.Value(name), Optional: true, Length: length}
	}
	p := page{Title: say("audit.title"), Lead: say("audit.lead"), Form: f, Filter: &form{Submit: say("filter"), Inputs: []input{
		field("text", "actor", "100"), field("text", "subject", "100"), field("text", "action", "100"), field("text", "object_type", "60"), field("text", "object", "200"),
		field("text", "network", "60"), field("text", "request", "100"), field("date", "from", ""), field("date", "to", ""),
	}}}
	files := []fact{one("audit.files", cell{Text: raw("CSV"), Href: "/desk/audit.csv?" + s.query.Encode()}, cell{Text: raw("JSON"), Href: "/desk/audit.json?" + s.query.Encode()})}
	if s.Subject != "" && !s.year {
		year := url.Values{"subject": {s.Subject}, "span": {"year"}}
		files = append(files, one("audit.year", cell{Text: say("audit.year_open"), Href: "/desk/audit?" + year.Encode()}))
	}
	p.Sections = []section{{Title: say("audit.take"), Facts: files}}
	return p
}

func actors(rows []audit.Row) []string {
	var ids []string
	for _, row := range rows {
		ids = append(ids, row.Actor)
	}
	return ids
}

// deeds is the table of rows. Identifiers lead on to everything about them.
func (h *Handler) deeds(r *http.Request, rows []audit.Row, names map[string]string) *table {
	t := &table{Caption: say("audit.found"), Empty: say("audit.none"), Columns: messages("col.at", "audit.action", "audit.actor", "audit.object", "audit.subject", "col.network", "audit.details")}
	about := func(name, value, shown string) cell {
		if value == "" {
			return word("none")
		}
		return cell{Text: raw(shown), Href: "/desk/audit?" + url.Values{name: {value}}.Encode(), Code: true}
	}
	for _, row := range rows {
		object := word("none")
		if row.ObjectID != "" {
			object = about("object", row.ObjectID, row.ObjectType+" "+row.ObjectID)
		}
		t.Rows = append(t.Rows, []cell{
			h.when(r, &row.At),
			{Text: h.deed(row.Action)},
			about("actor", row.Actor, nameOf(names, row.Actor)), object, about("subject", row.Subject, row.Subject),
			code(orDash(row.Network)), code(details(row)),
		})
	}
	return t
}

// deed is an action in words; one that has none stands for itself.
func (h *Handler) deed(action string) web.Message {
	m := say("deed." + slug(action))
	if _, err := h.Site.Write("en", m); err != nil {
		return raw(action)
	}
	return m
}

func details(row audit.Row) string {
	if string(row.Details) == "{}" {
		return "–"
	}
	return string(row.Details)
}

// months are the sections of a resident's year.
func (h *Handler) months(r *http.Request, rows []audit.Row, names map[string]string) []section {
	var list []section
	for len(rows) > 0 {
		first := rows[0].At.In(clock.Toronto)
		n := 0
		for n < len(rows) {
			if at := rows[n].At.In(clock.Toronto); at.Year() != first.Year() || at.Month() != first.Month() {
				break
			}
			n++
		}
		list = append(list, section{Title: raw(first.Format("2006-01")), Text: say("audit.deeds", "Count", n), Table: h.deeds(r, rows[:n], names)})
		rows = rows[n:]
	}
	if list == nil {
		list = []section{{Title: say("audit.found"), Text: say("audit.none")}}
	}
	return list
}

// export calls row for each row of a search, in pages, so that a long one holds neither
// memory nor a transaction.
func (h *Handler) export(w http.ResponseWriter, r *http.Request, as string, begin func(), row func(audit.Row) error) {
	s, f := h.readSearch(r)
	if !f.OK() {
		h.Site.Fail(w, r, http.StatusBadRequest, "admin.audit.bad_date")
		return
	}
	if err := h.noted(r, s, as); err != nil {
		h.fail(w, r, "export audit", err)
		return
	}
	s.Limit, s.Before = exportPage, 0
	begin()
	for {
		rows, err := audit.Search(r.Context(), h.DB, s.Filter)
		if err != nil {
			h.Log.ErrorContext(r.Context(), "export audit", "error", err)
			panic(http.ErrAbortHandler) // a file that is cut must not look whole
		}
		for _, x := range rows {
			if err := row(x); err != nil {
				return // the reader went away
			}
			s.Before = x.Seq
		}
		if len(rows) < exportPage {
			return
		}
	}
}

func (h *Handler) file(w http.ResponseWriter, kind, name string) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", name))
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
}

func (h *Handler) auditCSV(w http.ResponseWriter, r *http.Request) {
	out := csv.NewWriter(w)
	h.export(w, r, "csv", func() {
		h.file(w, "text/csv; charset=utf-8", "audit.csv")
		_ = out.Write([]string{"seq", "at", "action", "object_type", "object_id", "subject", "actor", "actor_kind", "channel", "network", "request_id", "details"})
	}, func(x audit.Row) error {
		record := []string{
			strconv.FormatInt(x.Seq, 10), x.At.UTC().Format(time.RFC3339Nano), x.Action, x.ObjectType, x.ObjectID, x.Subject, x.Actor, x.ActorKind, x.Channel, x.Network, x.RequestID, string(x.Details),
		}
		for i := range record {
			record[i] = harmless(record[i])
		}
		return out.Write(record)
	})
	out.Flush()
}

// harmless keeps a spreadsheet from taking text for a formula.
func harmless(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return "'" + s
	}
	return s
}

func (h *Handler) auditJSON(w http.ResponseWriter, r *http.Request) {
	out := json.NewEncoder(w)
	h.export(w, r, "json", func() { h.file(w, "application/jsonl; charset=utf-8", "audit.jsonl") }, func(x audit.Row) error { return out.Encode(x) })
}
