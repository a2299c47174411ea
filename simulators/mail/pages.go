package mail

import (
	"errors"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"time"

	"guichet/simulators/control"
)

// Handler serves the inbox and the control API:
//
//	GET    /_control/messages?to=&since=&limit=   newest first; since is RFC 3339, inclusive
//	DELETE /_control/messages                     empties the inbox
//	GET    /_control/bounces
//	POST   /_control/bounces/send                 sends the reports that are due, now
//	*      /_control/faults                       see package control
func (c *Catcher) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", c.inbox)
	mux.HandleFunc("GET /messages/{id}", c.withMessage(c.message))
	mux.HandleFunc("GET /messages/{id}/html", c.withMessage(c.preview))
	mux.HandleFunc("GET /messages/{id}/raw", c.withMessage(func(w http.ResponseWriter, _ *http.Request, f file) {
		download(w, f.ID+".eml", f.Raw)
	}))
	mux.HandleFunc("GET /messages/{id}/attachments/{n}", c.withMessage(c.attachment))
	mux.HandleFunc("GET /_control/messages", c.messagesJSON)
	mux.HandleFunc("DELETE /_control/messages", c.clearJSON)
	mux.HandleFunc("POST /_control/messages/clear", c.clearForm)
	mux.HandleFunc("GET /_control/bounces", c.bouncesJSON)
	mux.HandleFunc("POST /_control/bounces/send", c.sendJSON)
	c.faults.Routes(mux)
	return c.site.Handler(mux)
}

const pageSize = 100

func (c *Catcher) inbox(w http.ResponseWriter, r *http.Request) {
	to := r.URL.Query().Get("to")
	c.site.Page(w, http.StatusOK, "inbox", struct {
		To       string
		Messages []stored
		Bounces  []bounce
		Faults   *control.Faults
	}{to, c.list(to, time.Time{}, pageSize), c.newestBounces(), c.faults})
}

// newestBounces lists the latest reports, newest first, without their bytes.
func (c *Catcher) newestBounces() []bounce {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := []bounce{}
	for _, b := range slices.Backward(c.bounces) {
		if len(out) == pageSize {
			break
		}
		b.Report = nil
		out = append(out, b)
	}
	return out
}

// withMessage finds the message that the path names.
func (c *Catcher) withMessage(next func(http.ResponseWriter, *http.Request, file)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		f, err := c.find(r.PathValue("id"))
		switch {
		case errors.Is(err, errNotFound):
			http.Error(w, "no such message", http.StatusNotFound)
		case err != nil:
			c.o.Log.Error("read message", "error", err)
			http.Error(w, "internal error", http.StatusInternalServerError)
		default:
			next(w, r, f)
		}
	}
}

func (c *Catcher) message(w http.ResponseWriter, _ *http.Request, f file) {
	c.site.Page(w, http.StatusOK, "message", struct {
		Envelope stored
		Content  content
		Raw      string
	}{f.stored, parse(f.Raw), lines(f.Raw)})
}

// preview shows the HTML part as a mail program would: no script, no outside
// loads, and no rights of this origin.
func (c *Catcher) preview(w http.ResponseWriter, _ *http.Request, f file) {
	w.Header().Set("Content-Security-Policy", "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Write([]byte(parse(f.Raw).HTML))
}

func (c *Catcher) attachment(w http.ResponseWriter, r *http.Request, f file) {
	list := parse(f.Raw).Attachments
	n, err := strconv.Atoi(r.PathValue("n"))
	if err != nil || n < 0 || n >= len(list) {
		http.Error(w, "no such attachment", http.StatusNotFound)
		return
	}
	download(w, list[n].Name, list[n].Body)
}

// download never lets a browser guess: what came by mail is only ever saved.
func download(w http.ResponseWriter, name string, body []byte) {
	disposition := mime.FormatMediaType("attachment", map[string]string{"filename": name})
	if name == "" || disposition == "" {
		disposition = "attachment"
	}
	w.Header().Set("Content-Disposition", disposition)
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Write(body)
}

// message in JSON: the envelope as stored, and the content taken apart.
type messageJSON struct {
	stored
	HeaderFrom  string           `json:"header_from"`
	HeaderTo    string           `json:"header_to"`
	Date        string           `json:"date"`
	MessageID   string           `json:"message_id"`
	Text        string           `json:"text"`
	HTML        string           `json:"html"`
	Attachments []attachmentJSON `json:"attachments"`
	RawURL      string           `json:"raw_url"`
	Trouble     string           `json:"trouble,omitempty"`
}

type attachmentJSON struct {
	Name string `json:"name"`
	Type string `json:"content_type"`
	Size int    `json:"size"`
	URL  string `json:"url"`
}

func (c *Catcher) messagesJSON(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	var since time.Time
	if v := q.Get("since"); v != "" {
		var err error
		if since, err = time.Parse(time.RFC3339, v); err != nil {
			control.Fail(w, http.StatusBadRequest, "since: want RFC 3339, such as 2026-11-24T09:00:00-05:00")
			return
		}
	}
	limit := 50
	if v := q.Get("limit"); v != "" {
		var err error
		if limit, err = strconv.Atoi(v); err != nil || limit < 1 || limit > pageSize {
			control.Fail(w, http.StatusBadRequest, "limit: want 1 to %d", pageSize)
			return
		}
	}
	data := []messageJSON{}
	for _, m := range c.list(q.Get("to"), since, limit) {
		f, err := c.find(m.ID)
		if errors.Is(err, errNotFound) {
			continue // emptied meanwhile
		}
		if err != nil {
			control.Fail(w, http.StatusInternalServerError, "%v", err)
			return
		}
		data = append(data, toJSON(f))
	}
	control.JSON(w, http.StatusOK, map[string]any{"data": data})
}

func toJSON(f file) messageJSON {
	p := parse(f.Raw)
	base := "/messages/" + f.ID
	m := messageJSON{
		stored: f.stored, HeaderFrom: p.From, HeaderTo: p.To, Date: p.Date, MessageID: p.MessageID,
		Text: p.Text, HTML: p.HTML, Attachments: []attachmentJSON{}, RawURL: base + "/raw", Trouble: p.Trouble,
	}
	for i, a := range p.Attachments {
		m.Attachments = append(m.Attachments, attachmentJSON{a.Name, a.Type, len(a.Body), base + "/attachments/" + strconv.Itoa(i)})
	}
	return m
}

func (c *Catcher) clearJSON(w http.ResponseWriter, _ *http.Request) {
	if err := c.clear(); err != nil {
		control.Fail(w, http.StatusInternalServerError, "%v", err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (c *Catcher) clearForm(w http.ResponseWriter, r *http.Request) {
	if err := c.clear(); err != nil {
		control.Fail(w, http.StatusInternalServerError, "%v", err)
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (c *Catcher) bouncesJSON(w http.ResponseWriter, _ *http.Request) {
	control.JSON(w, http.StatusOK, map[string]any{"data": c.newestBounces()})
}

func (c *Catcher) sendJSON(w http.ResponseWriter, r *http.Request) {
	n, err := c.SendBounces(r.Context())
	if err != nil {
		control.Fail(w, http.StatusBadGateway, "%v", err)
		return
	}
	control.JSON(w, http.StatusOK, map[string]int{"sent": n})
}
