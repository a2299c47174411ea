package stripe

import (
	"embed"
	"maps"
	"net/http"
	"slices"
	"strings"

	"guichet/internal/money"
	"guichet/simulators/control"
)

//go:embed templates
var templates embed.FS

// pageRoutes are the pages a payer sees.
func (s *Simulator) pageRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /c/pay/{id}", s.showPage)
	mux.HandleFunc("POST /c/pay/{id}", s.takePayment)
	mux.HandleFunc("GET /c/pay/{id}/3ds", s.showPage)
	mux.HandleFunc("POST /c/pay/{id}/3ds", s.takeChallenge)
	mux.HandleFunc("GET /c/style.css", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFileFS(w, r, templates, "templates/style.css")
	})
}

// A form is the fields of one way to pay.
type form struct {
	ID, Method, Pay, Note string
	Fields                []field
	Open                  bool
}

// A field is one input of a form.
type field struct {
	ID, Name, Label, Hint, Type, Auto, Value, Wrong string
	Max                                             int
	Numeric, Fixed, Half                            bool
}

// A frame is what every page of the payer shows.
type frame struct {
	T     words
	Title string
}

type hint struct{ Number, Means string }

type payPage struct {
	frame
	Hints                       []hint
	ID, CancelURL, Total, Alert string
	Lines                       []payLine
	Card, Debit                 *form
}

type payLine struct {
	Name, Description, Amount string
	Quantity                  int64
}

type challengePage struct {
	frame
	ID, Total, Shown string
}

type messagePage struct {
	frame
	Text, Link string
}

// wordsFor picks the language: the session's locale, or what the browser asks for.
func wordsFor(locale text, r *http.Request) words {
	lang := string(locale)
	if lang == "" || lang == "auto" {
		lang = r.Header.Get("Accept-Language")
	}
	if strings.HasPrefix(strings.ToLower(lang), "fr") {
		return french
	}
	return english
}

// hints are the test numbers that the page names.
func (w words) hints() (out []hint) {
	for _, number := range hinted {
		out = append(out, hint{spaced(number), w.Means[testCards[number].hint]})
	}
	for _, account := range slices.Sorted(maps.Keys(debitAccounts)) {
		out = append(out, hint{account, w.Accounts[debitAccounts[account]]})
	}
	return out
}

func spaced(number string) string {
	var parts []string
	for len(number) > 4 {
		parts, number = append(parts, number[:4]), number[4:]
	}
	return strings.Join(append(parts, number), " ")
}

func (w words) money(cents int64) string { return money.Amount(cents).Format(w.Lang) }

// look reads a session for a page, with the e-mail address that is fixed in it.
func (s *Simulator) look(id string) (found *session, email string, err error) {
	err = s.update(eventRequest{}, func(t *tx) error {
		if c, ok := get[session](t, id); ok {
			found, email = c, t.prefilled(c)
		}
		return nil
	})
	return found, email, err
}

// showPage shows where a session stands: the form, the 3-D Secure step, or its end.
func (s *Simulator) showPage(w http.ResponseWriter, r *http.Request) {
	c, email, err := s.look(r.PathValue("id"))
	if err != nil {
		s.broken(w, r, err)
		return
	}
	s.show(w, r, c, http.StatusOK, typed{Payer: payer{Email: email}, fixed: email != ""})
}

// typed is what the payer entered, to be shown again: never card data.
type typed struct {
	Payer   payer
	fixed   bool // the e-mail comes with the session
	method  string
	wrong   []string
	decline string
}

func (s *Simulator) show(w http.ResponseWriter, r *http.Request, c *session, status int, in typed) {
	if c == nil {
		t := wordsFor("", r)
		s.sites[t.Lang].PageIn(w, http.StatusNotFound, t.Lang, "message", messagePage{frame{t, t.NoneTitle}, t.NoneText, ""})
		return
	}
	t := wordsFor(c.Locale, r)
	site := s.sites[t.Lang]
	switch {
	case c.Status == "complete":
		site.PageIn(w, status, t.Lang, "message", messagePage{frame{t, t.PaidTitle}, t.PaidText, c.successURL()})
	case c.Status == "expired":
		site.PageIn(w, http.StatusGone, t.Lang, "message", messagePage{frame{t, t.ExpiredTitle}, t.ExpiredText, string(c.CancelURL)})
	case c.Sim.Challenge != nil && strings.HasSuffix(r.URL.Path, "/3ds"):
		last4 := c.Sim.Challenge.Instrument.Method.Card.Last4
		site.PageIn(w, status, t.Lang, "challenge", challengePage{frame{t, t.ChallengeTitle}, c.ID, t.money(c.AmountTotal), t.ChallengeShown + " " + last4})
	default:
		site.PageIn(w, status, t.Lang, "pay", c.payPage(t, in))
	}
}

func (c *session) payPage(t words, in typed) payPage {
	p := payPage{frame: frame{t, t.Pay + " " + t.money(c.AmountTotal)}, Hints: t.hints(), ID: c.ID, CancelURL: string(c.CancelURL), Total: t.money(c.AmountTotal)}
	for _, l := range c.Sim.Lines {
		p.Lines = append(p.Lines, payLine{Name: l.Name, Description: string(l.Description), Quantity: l.Quantity, Amount: t.money(l.UnitAmount * l.Quantity)})
	}
	if in.decline != "" {
		p.Alert = t.declined(in.decline)
	}
	if len(in.wrong) > 0 {
		p.Alert = t.CheckFields
	}
	wrong := func(method, name string) string {
		if in.method == method && slices.Contains(in.wrong, name) {
			return t.Wrong[name]
		}
		return ""
	}
	pay := t.Pay + " " + p.Total
	if c.accepts("card") {
		p.Card = &form{ID: c.ID, Method: "card", Pay: pay, Fields: []field{
			{ID: "email", Name: "email", Label: t.Email, Type: "email", Auto: "email", Max: 200, Value: in.Payer.Email, Fixed: in.fixed, Wrong: wrong("card", "email")},
			{ID: "number", Name: "number", Label: t.Number, Type: "text", Numeric: true, Auto: "cc-number", Max: 24, Wrong: wrong("card", "number")},
			{ID: "expiry", Name: "expiry", Label: t.Expiry, Hint: t.ExpiryHint, Type: "text", Numeric: true, Auto: "cc-exp", Max: 7, Half: true, Wrong: wrong("card", "expiry")},
			{ID: "cvc", Name: "cvc", Label: t.CVC, Type: "text", Numeric: true, Auto: "cc-csc", Max: 4, Half: true, Wrong: wrong("card", "cvc")},
			{ID: "name", Name: "name", Label: t.Name, Type: "text", Auto: "cc-name", Max: 100, Value: in.Payer.Name, Wrong: wrong("card", "name")},
		}}
	}
	if c.accepts("acss_debit") {
		p.Debit = &form{ID: c.ID, Method: "acss_debit", Pay: pay, Note: t.DebitNote, Open: in.method == "acss_debit" || p.Card == nil, Fields: []field{
			{ID: "debit-email", Name: "email", Label: t.Email, Type: "email", Auto: "email", Max: 200, Value: in.Payer.Email, Fixed: in.fixed, Wrong: wrong("acss_debit", "email")},
			{ID: "debit-name", Name: "name", Label: t.Name, Type: "text", Auto: "name", Max: 100, Value: in.Payer.Name, Wrong: wrong("acss_debit", "name")},
			{ID: "institution", Name: "institution", Label: t.Institution, Type: "text", Numeric: true, Auto: "off", Max: 3, Half: true, Wrong: wrong("acss_debit", "institution")},
			{ID: "transit", Name: "transit", Label: t.Transit, Type: "text", Numeric: true, Auto: "off", Max: 5, Half: true, Wrong: wrong("acss_debit", "transit")},
			{ID: "account", Name: "account", Label: t.Account, Type: "text", Numeric: true, Auto: "off", Max: 17, Wrong: wrong("acss_debit", "account")},
		}}
	}
	return p
}

// takePayment is the button of the form.
func (s *Simulator) takePayment(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, control.MaxBody)
	if err := r.ParseForm(); err != nil {
		control.Fail(w, http.StatusBadRequest, "read form: %v", err)
		return
	}
	in := typed{method: r.PostForm.Get("method"), Payer: payer{Name: strings.TrimSpace(r.PostForm.Get("name")), Email: strings.TrimSpace(r.PostForm.Get("email"))}}
	var c *session
	var res result
	err := s.update(eventRequest{}, func(t *tx) error {
		var ok bool
		if c, ok = get[session](t, r.PathValue("id")); !ok || c.Status != "open" || !c.accepts(in.method) {
			return nil // the page says how it stands
		}
		if email := t.prefilled(c); email != "" {
			in.Payer.Email, in.fixed = email, true
		}
		var with instrument
		switch in.method {
		case "card":
			with, in.wrong = readCard(r.PostForm.Get("number"), r.PostForm.Get("expiry"), r.PostForm.Get("cvc"), t.now)
		case "acss_debit":
			with, in.wrong = readDebit(r.PostForm.Get("institution"), r.PostForm.Get("transit"), r.PostForm.Get("account"))
		}
		in.wrong = append(in.wrong, in.Payer.wrong()...)
		if len(in.wrong) > 0 {
			return nil
		}
		var err error
		res, err = t.pay(c, with, in.Payer)
		return err
	})
	if err != nil {
		s.broken(w, r, err)
		return
	}
	s.next(w, r, c, in, res)
}

// wrong names the fields of the payer that cannot be right.
func (p payer) wrong() (names []string) {
	if user, host, ok := strings.Cut(p.Email, "@"); !ok || user == "" || !strings.Contains(host, ".") || strings.ContainsAny(p.Email, " \r\n") {
		names = append(names, "email")
	}
	if p.Name == "" {
		names = append(names, "name")
	}
	return names
}

// next leads on from an attempt: to the merchant, to the bank's question, or back
// to the form.
func (s *Simulator) next(w http.ResponseWriter, r *http.Request, c *session, in typed, res result) {
	switch {
	case c == nil:
		s.show(w, r, nil, http.StatusNotFound, in)
	case c.Status == "complete":
		http.Redirect(w, r, c.successURL(), http.StatusSeeOther)
	case res.Challenge:
		http.Redirect(w, r, "/c/pay/"+c.ID+"/3ds", http.StatusSeeOther)
	default:
		in.decline = res.Decline
		r.URL.Path = "/c/pay/" + c.ID
		s.show(w, r, c, http.StatusUnprocessableEntity, in)
	}
}

// takeChallenge is the answer to the bank's question.
func (s *Simulator) takeChallenge(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, control.MaxBody)
	var c *session
	var res result
	in := typed{method: "card"}
	err := s.update(eventRequest{}, func(t *tx) error {
		var ok bool
		if c, ok = get[session](t, r.PathValue("id")); !ok || c.Status != "open" || c.Sim.Challenge == nil {
			return nil
		}
		asked := c.Sim.Challenge
		in.Payer, in.fixed = asked.Payer, t.prefilled(c) != ""
		if r.PostFormValue("outcome") == "complete" {
			var err error
			res, err = t.pay(c, asked.Instrument.authenticated(), asked.Payer)
			return err
		}
		pi, err := t.intentOf(c)
		if err != nil {
			return err
		}
		res.Decline = authenticationFailed
		failed := asked.Instrument
		failed.Decline = authenticationFailed
		return t.decline(c, pi, failed, asked.Payer)
	})
	if err != nil {
		s.broken(w, r, err)
		return
	}
	s.next(w, r, c, in, res)
}

// successURL is where the payer goes after paying.
func (c *session) successURL() string {
	return strings.ReplaceAll(c.SuccessURL, "{CHECKOUT_SESSION_ID}", c.ID)
}

func (s *Simulator) broken(w http.ResponseWriter, r *http.Request, err error) {
	s.opt.Log.ErrorContext(r.Context(), "card processor simulator", "path", r.URL.Path, "error", err)
	control.Fail(w, http.StatusInternalServerError, "the simulator failed: %v", err)
}
