package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-rod/rod"
	"github.com/go-rod/rod/lib/proto"

	chrome "guichet/internal/browser"
	"guichet/internal/money"
)

// A tale is the main job as people live it: in a real browser, over the whole
// stack. Its chapters share what happened before; a chapter that fails ends it.
type tale struct {
	*story
	t        *testing.T
	chromium *rod.Browser
	picture  int
	said     *console
}

func TestStoryInARealBrowser(t *testing.T) {
	chromium := chrome.New(t)
	x := &tale{story: &story{stack: startTestStack(t), out: io.Discard}, t: t, chromium: chromium, said: &console{}}
	x.files = filepath.Join(x.dir, "files")
	x.must(os.MkdirAll(x.files, 0o755))
	x.must(x.seed(t.Context(), func(string, map[string]any) {}))
	x.must(x.startApp())

	resident, guest := x.person(), x.person()
	for _, chapter := range []struct {
		name string
		tell func()
	}{
		{"what anybody sees", x.anybody},
		{"a resident signs up at a department and orders an inspection", func() { x.signsUp(resident) }},
		{"pays it from the department, after going back once", func() { x.paysAtDepartment(resident) }},
		{"is known to the other departments at once", func() { x.signsInElsewhere(resident) }},
		{"pays three departments at once, after a declined card", func() { x.paysAtOnce(resident) }},
		{"a connection lost after paying loses no payment", func() { x.losesConnection(resident) }},
		{"a guest pays a fine and clicks twice", func() { x.paysAsGuest(guest) }},
		{"a guest pays in one of two tabs", func() { x.paysInTwoTabs(guest) }},
		{"the night settles, and SAP posts", x.settles},
		{"finance follows every cent", x.financeLooks},
		{"an agent answers a resident on the phone", x.agentLooks},
		{"the outside world, as simulated", x.outside},
	} {
		if !t.Run(chapter.name, func(t *testing.T) {
			x.t = t
			chapter.tell()
		}) {
			t.FailNow()
		}
	}
	x.t = t
	x.said.check(t)
	if text, err := os.ReadFile(filepath.Join(x.dir, "guichet.log")); err != nil || strings.Contains(string(text), "level=ERROR") {
		t.Errorf("the log tells of errors (%v):\n%s", err, grep(string(text), "level=ERROR"))
	}
}

func grep(text, words string) (found string) {
	for line := range strings.Lines(text) {
		if strings.Contains(line, words) {
			found += line
		}
	}
	return found
}

// startTestStack is a stack that ends with the test. Its database need not survive.
func startTestStack(t *testing.T) *stack {
	t.Helper()
	dir := stateOf(t, nil)
	place, err := claim(dir, "dev")
	if err != nil {
		t.Fatal(err)
	}
	log, file, err := stackLog(dir, slog.LevelInfo)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the log:\n%s", tail(file.Name()))
		}
		file.Close()
		place.release() //nolint:errcheck // the test is over
	})
	s, err := startStack(t.Context(), stackOptions{Place: place, Database: "story", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return s
}

func (x *tale) must(err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatal(err)
	}
}

// person opens a browser of somebody else: with cookies of its own.
func (x *tale) person() *rod.Page {
	x.t.Helper()
	b, err := x.chromium.Incognito()
	x.must(err)
	return x.tab(b)
}

// tab opens another page in a person's browser.
func (x *tale) tab(b *rod.Browser) *rod.Page {
	x.t.Helper()
	page, err := b.Page(proto.TargetCreateTarget{})
	x.must(err)
	chrome.Resize(x.t, page, chrome.Desktop)
	x.said.listen(x, page)
	return page
}

// A console collects what the browser complains of: errors of scripts, of the
// Content-Security-Policy, of anything that was not found.
type console struct {
	mu     sync.Mutex
	errors []string
}

func (c *console) listen(x *tale, page *rod.Page) {
	x.must(proto.LogEnable{}.Call(page))
	add := func(format string, args ...any) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.errors = append(c.errors, fmt.Sprintf(format, args...))
	}
	go page.EachEvent(
		func(e *proto.LogEntryAdded) {
			// A form that comes back with what was wrong is a page with another status.
			answer := e.Entry.Source == proto.LogLogEntrySourceNetwork && (strings.Contains(e.Entry.Text, "status of 422") || strings.Contains(e.Entry.Text, "status of 404"))
			aborted := strings.Contains(e.Entry.Text, "net::ERR_CONNECTION_ABORTED") // by the test itself
			if e.Entry.Level == proto.LogLogEntryLevelError && !answer && !aborted {
				add("%s: %s", e.Entry.URL, e.Entry.Text)
			}
		},
		func(e *proto.RuntimeExceptionThrown) { add("%s: %s", e.ExceptionDetails.URL, e.ExceptionDetails.Text) },
		func(e *proto.RuntimeConsoleAPICalled) {
			if e.Type == proto.RuntimeConsoleAPICalledTypeError {
				add("console.error: %v", e.Args)
			}
		},
	)()
}

func (c *console) check(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.errors {
		t.Errorf("the browser complains: %s", e)
	}
}

// look keeps pictures of a page that can be opened again: both languages, both
// sizes. It ends in lang, and checks the page with axe as its reader sees it: in
// French on a phone, in English at a desk.
func (x *tale) look(page *rod.Page, name, lang string) {
	x.t.Helper()
	x.picture++
	u := x.at(page)
	open := func(l string) {
		q := u.Query()
		q.Set("lang", l)
		u.RawQuery = q.Encode()
		chrome.Go(x.t, page, u.String())
	}
	if lang == "fr" {
		open("en")
		x.shoot(page, name+"-en", chrome.Viewport{})
		open("fr")
		x.shoot(page, name+"-fr", chrome.Phone)
		return
	}
	open("fr")
	x.shoot(page, name+"-fr", chrome.Viewport{})
	open("en")
	x.shoot(page, name+"-en", chrome.Desktop)
}

// see is look for a page as it stands, such as the answer to a form; axe sees it
// in the given size.
func (x *tale) see(page *rod.Page, name string, axe chrome.Viewport) {
	x.t.Helper()
	x.picture++
	x.shoot(page, name, axe)
}

func (x *tale) shoot(page *rod.Page, name string, axe chrome.Viewport) {
	x.t.Helper()
	for _, v := range []struct {
		name string
		size chrome.Viewport
	}{{"phone", chrome.Phone}, {"desktop", chrome.Desktop}} {
		chrome.Resize(x.t, page, v.size)
		if v.size == axe {
			chrome.Axe(x.t, page)
		}
		chrome.NoSideways(x.t, page)
		chrome.Shot(x.t, page, fmt.Sprintf("story-%02d-%s-%s", x.picture, name, v.name))
	}
}

// at is where a page stands.
func (x *tale) at(page *rod.Page) *url.URL {
	x.t.Helper()
	info, err := page.Info()
	x.must(err)
	u, err := url.Parse(info.URL)
	x.must(err)
	return u
}

// reads fails the test unless the page's main part holds the words.
func (x *tale) reads(page *rod.Page, words ...string) {
	x.t.Helper()
	text := plain(chrome.Text(x.t, page, "main"))
	for _, w := range words {
		if !strings.Contains(text, w) {
			x.t.Fatalf("%s does not say %q:\n%s", x.at(page), w, text)
		}
	}
}

// plain is text with ordinary blanks.
func plain(text string) string {
	return strings.NewReplacer("\u00a0", " ", "\u202f", " ").Replace(text)
}

// stands fails the test unless the page is one of the listener's.
func (x *tale) stands(page *rod.Page, n port, path string) {
	x.t.Helper()
	if u := x.at(page); !strings.HasPrefix(u.String(), x.ports.url(n)+path) {
		x.t.Fatalf("the page is %s (%q), want %s%s", u, chrome.Text(x.t, page, "h1"), x.ports.url(n), path)
	}
}

const (
	leaMail  = "lea.tremblay@example.ca"
	leaName  = "Léa Tremblay"
	payIt    = `form[action$="/pay"] button`
	cardForm = `form:has(input[name="number"])`
)

func (x *tale) anybody() {
	page := x.person()
	for _, p := range [][2]string{{"welcome", "/"}, {"find", "/pay"}, {"verify", "/verify"}, {"not-found", "/nowhere"}} {
		chrome.Go(x.t, page, x.ports.url(portPortal)+p[1])
		x.look(page, p[0], "en")
	}
	chrome.Go(x.t, page, x.ports.url(portPortal)+"/developers")
	x.see(page, "api-en", chrome.Desktop) // long, and in one language
}

func (x *tale) signsUp(page *rod.Page) {
	chrome.Go(x.t, page, x.ports.url(portApp)+"/permits?lang=fr")
	x.see(page, "permits-fr", chrome.Phone)
	chrome.Click(x.t, page, `a[href="/permits/login"]`)
	x.stands(page, portPortal, "")
	x.reads(page, "Permis de construire")
	x.look(page, "signin-email", "fr")
	chrome.Fill(x.t, page, "#email", leaMail)
	chrome.Click(x.t, page, `button[value="email"]`)
	x.look(page, "signin-code", "fr")
	chrome.Fill(x.t, page, "#code", x.code(leaMail))
	chrome.Click(x.t, page, `button[value="code"]`)
	x.look(page, "signin-name", "fr")
	chrome.Fill(x.t, page, "#name", leaName)
	chrome.Click(x.t, page, `button[value="profile"]`)
	x.look(page, "signin-notice", "fr")
	chrome.Click(x.t, page, `button[value="agree"]`)
	x.stands(page, portApp, "/permits")
	x.reads(page, leaName)

	// Two clicks are one order.
	x.twice(page, `form[action="/permits/order"] button`)
	x.reads(page, "184,19 $")
	if n := strings.Count(plain(chrome.Text(x.t, page, "main")), "184,19 $"); n != 1 {
		x.t.Fatalf("two clicks ordered %d inspections", n)
	}
	x.see(page, "permits-ordered-fr", chrome.Phone)
}

// code reads the sign-in code in the mail catcher.
func (x *tale) code(email string) string {
	x.t.Helper()
	m, err := x.mail(x.t.Context(), email, "")
	x.must(err)
	return strings.Map(digit, eightDigits.FindString(m.Text))
}

// twice clicks a button twice before the first answer is there.
func (x *tale) twice(page *rod.Page, selector string) {
	x.t.Helper()
	p := page.Timeout(patience)
	defer p.CancelTimeout()
	el, err := p.Element(selector)
	x.must(err)
	x.must(el.ScrollIntoView())
	shape, err := el.Shape()
	x.must(err)
	wait := p.WaitNavigation(proto.PageLifecycleEventNameLoad)
	x.must(p.Mouse.MoveTo(*shape.OnePointInside()))
	for range 2 {
		x.must(p.Mouse.Click(proto.InputMouseButtonLeft, 1))
	}
	wait()
	x.must(p.WaitLoad())
}

func (x *tale) paysAtDepartment(page *rod.Page) {
	chrome.Click(x.t, page, `form[action="/permits/pay"] button`)
	x.stands(page, portPortal, "/checkout/")
	x.reads(page, "184,19 $", leaMail)
	x.look(page, "review-department", "fr")
	chrome.Click(x.t, page, payIt)
	x.stands(page, portProcessor, "/c/pay/")
	x.see(page, "processor-fr", chrome.Phone)

	// The back button, and once more to the same page of the processor.
	session := x.at(page).Path
	x.must(page.NavigateBack())
	x.must(page.WaitLoad())
	x.stands(page, portPortal, "/checkout/")
	chrome.Click(x.t, page, payIt)
	if again := x.at(page).Path; again != session {
		x.t.Errorf("paying again after going back opens %s, first it was %s", again, session)
	}
	x.pays(page, cardGood)
	x.receiptLink(page, "Paiement reçu", "184,19 $")
	x.look(page, "outcome-department", "fr")
	chrome.Click(x.t, page, `main a[href^="`+x.ports.url(portApp)+`/permits"]`)
	x.stands(page, portApp, "/permits")
	x.reads(page, "Payé")
	x.see(page, "permits-paid-fr", chrome.Phone)
}

// pays fills in the processor's page and sends it.
func (x *tale) pays(page *rod.Page, card string) {
	x.t.Helper()
	x.fills(page, card)
	chrome.Click(x.t, page, cardForm+" button")
}

func (x *tale) fills(page *rod.Page, card string) {
	x.t.Helper()
	x.stands(page, portProcessor, "/c/pay/")
	for name, text := range map[string]string{"number": card, "expiry": "12/34", "cvc": "123", "name": leaName} {
		chrome.Fill(x.t, page, cardForm+` input[name="`+name+`"]`, text)
	}
	mail, err := page.Element(cardForm + ` input[name="email"]:not([readonly])`)
	x.must(err)
	x.must(mail.SelectAllText())
	x.must(mail.Input(leaMail))
}

// receiptLink waits until the page the payer came back to shows the way to the
// receipt, by looking again itself.
func (x *tale) receiptLink(page *rod.Page, words ...string) {
	x.t.Helper()
	x.stands(page, portPortal, "/checkout/")
	eventually(x.t, func() bool {
		has, _, err := page.Has(`main a[href^="/receipt/"]`)
		return err == nil && has
	})
	x.must(page.WaitLoad())
	x.reads(page, words...)
}

func (x *tale) signsInElsewhere(page *rod.Page) {
	x.subject = map[string]string{}
	for _, d := range []string{"parking", "water"} {
		chrome.Go(x.t, page, x.ports.url(portApp)+"/"+d+"/login")
		chrome.Click(x.t, page, `button[value="agree"]`)
		x.stands(page, portApp, "/"+d)
		x.reads(page, leaName)
	}
	rows, err := x.world.db.Query(x.t.Context(), `select d.code, p.sub from identity.pairwise p join department.department d on d.id = p.department_id order by 1 limit 10`)
	x.must(err)
	for rows.Next() {
		var code, sub string
		x.must(rows.Scan(&code, &sub))
		x.subject[code] = sub
	}
	x.must(rows.Err())
	if x.bills, err = x.raiseBills(x.t.Context(), func(string) bool { return true }, x.subject); err != nil || len(x.subject) != 3 {
		x.t.Fatalf("%d departments know the resident; raise bills: %v", len(x.subject), err)
	}
}

// bill is one of the demonstration data.
func (x *tale) bill(reference string) raised {
	x.t.Helper()
	i := slices.IndexFunc(x.bills, func(b raised) bool { return b.Reference == reference })
	if i < 0 {
		x.t.Fatalf("no bill %s", reference)
	}
	return x.bills[i]
}

func (x *tale) paysAtOnce(page *rod.Page) {
	chrome.Go(x.t, page, x.ports.url(portPortal)+"/")
	x.reads(page, "Stationnement en sens inverse", "Permis de construire", "Consommation d’eau")
	x.look(page, "home", "fr")
	// One bill is left for later.
	later, err := page.Element(`input[name="bill"][value="` + x.bill("DEMO-W-3002").ID + `"]`)
	x.must(err)
	x.must(later.Click(proto.InputMouseButtonLeft, 1))
	x.see(page, "home-some-fr", chrome.Phone)
	chrome.Click(x.t, page, ".bills-form button")
	x.reads(page, "651,73 $", "Permis de construire (démo)", "Stationnement et contraventions (démo)", "Eau et eaux usées (démo)")
	x.look(page, "review", "fr")
	chrome.Click(x.t, page, payIt)
	x.pays(page, cardDeclined)
	x.stands(page, portProcessor, "/c/pay/")
	x.reads(page, "refusée")
	x.see(page, "processor-declined-fr", chrome.Phone)
	x.pays(page, cardGood)
	x.receiptLink(page, "Paiement reçu", "651,73 $")
	x.look(page, "outcome", "fr")
	chrome.Click(x.t, page, `main a.button-large`)
	x.stands(page, portPortal, "/receipt/")
	x.reads(page, "Reçu", "651,73 $", "TVH", "00000 0000 RT0001", "Visa", "4242")
	x.look(page, "receipt", "fr")
	if got := x.at(page).Path; got == "" || !x.says(page, "html[lang^=fr]") {
		x.t.Errorf("the receipt %s is not in French", got)
	}
	link := chrome.Text(x.t, page, `.card-tint a[href*="/verify/"]`)
	x.must(until(x.t.Context(), "the entry sealed", func(ctx context.Context) (bool, error) {
		var waiting int
		err := x.world.db.QueryRow(ctx, `select count(*) from ledger.unposted`).Scan(&waiting)
		return waiting == 0, err
	}))
	chrome.Go(x.t, page, link)
	x.reads(page, "651,73 $")
	x.look(page, "verified", "fr")
	m, err := x.mail(x.t.Context(), leaMail, "reçu")
	x.must(err)
	if len(m.Attachments) != 1 {
		x.t.Errorf("the mail %q has %d attachments", m.Subject, len(m.Attachments))
	}
}

// says reports whether the page has what a selector finds.
func (x *tale) says(page *rod.Page, selector string) bool {
	x.t.Helper()
	has, _, err := page.Has(selector)
	x.must(err)
	return has
}

// losesConnection pays and never comes back: the page that leads back is cut off.
func (x *tale) losesConnection(page *rod.Page) {
	chrome.Go(x.t, page, x.ports.url(portPortal)+"/")
	chrome.Click(x.t, page, ".bills-form button")
	x.reads(page, "42,07 $")
	chrome.Click(x.t, page, payIt)
	cut := page.HijackRequests()
	x.must(cut.Add(x.ports.url(portPortal)+"/*", proto.NetworkResourceTypeDocument, func(h *rod.Hijack) {
		h.Response.Fail(proto.NetworkErrorReasonConnectionAborted)
	}))
	go cut.Run()
	x.fills(page, cardGood)
	button, err := page.Element(cardForm + " button")
	x.must(err)
	x.must(button.Click(proto.InputMouseButtonLeft, 1))
	var source string
	x.must(until(x.t.Context(), "the webhook applied", func(ctx context.Context) (bool, error) {
		err := x.world.db.QueryRow(ctx, `
			select e.source from payments.processor_event e join payments.payment p on p.session_id = e.object_id
			where p.amount_cents = 4207 and p.state = 'succeeded' and e.outcome = 'applied' limit 1`).Scan(&source)
		return err == nil, err
	}))
	x.must(cut.Stop())
	if source != "webhook" {
		x.t.Errorf("the payment was learnt of by %s", source)
	}
	chrome.Go(x.t, page, x.ports.url(portPortal)+"/")
	eventually(x.t, func() bool { // the receipt gets its number right after
		x.must(page.Reload())
		x.must(page.WaitLoad())
		return strings.Contains(plain(chrome.Text(x.t, page, "main")), "42,07 $")
	})
	x.reads(page, "Vous ne devez rien")
	x.look(page, "home-paid", "fr")
	chrome.Go(x.t, page, x.ports.url(portPortal)+"/account")
	x.reads(page, leaName)
	x.look(page, "account", "fr")
}

// finds looks a notice up as a guest.
func (x *tale) finds(page *rod.Page, b raised) {
	x.t.Helper()
	chrome.Go(x.t, page, x.ports.url(portPortal)+"/pay?lang=en")
	chrome.Fill(x.t, page, "#notice", strings.ToLower(b.Notice))
	chrome.Fill(x.t, page, "#key", strings.ToLower(b.GuestKey))
	chrome.Click(x.t, page, "main form button")
	x.stands(page, portPortal, "/checkout/")
}

func (x *tale) paysAsGuest(page *rod.Page) {
	fine := x.bill("DEMO-T-1002")
	chrome.Go(x.t, page, x.ports.url(portPortal)+"/pay?lang=en")
	chrome.Fill(x.t, page, "#notice", fine.Notice)
	chrome.Fill(x.t, page, "#key", "WRONG 1")
	chrome.Click(x.t, page, "main form button")
	x.reads(page, "We found no notice")
	x.see(page, "find-unknown-en", chrome.Desktop)
	x.finds(page, fine)
	x.reads(page, "$75.00", "Parked facing the wrong way")
	x.look(page, "review-guest", "en")
	chrome.Fill(x.t, page, "#email", guestMail)
	x.twice(page, payIt)
	x.pays(page, cardGood)
	x.receiptLink(page, "Payment received", "$75.00")
	x.look(page, "outcome-guest", "en")
	chrome.Click(x.t, page, `main a.button-large`)
	x.reads(page, "Receipt", "$75.00")
	x.look(page, "receipt-guest", "en")
	x.once(fine)
	chrome.Go(x.t, page, x.ports.url(portPortal)+"/pay?lang=en")
	chrome.Fill(x.t, page, "#notice", fine.Notice)
	chrome.Fill(x.t, page, "#key", fine.GuestKey)
	chrome.Click(x.t, page, "main form button")
	x.reads(page, "is paid")
	x.see(page, "find-paid-en", chrome.Desktop)
	_, err := x.mail(x.t.Context(), guestMail, "Your receipt")
	x.must(err)
}

// once fails the test unless a bill has one attempt to pay it, and was paid by it.
func (x *tale) once(b raised) {
	x.t.Helper()
	var attempts, paid, sum int
	x.must(x.world.db.QueryRow(x.t.Context(), `
		select count(distinct p.id), count(distinct p.id) filter (where p.state = 'succeeded'), coalesce(sum(p.amount_cents) filter (where p.state = 'succeeded'), 0)
		from payments.payment p join payments.checkout_bill c on c.checkout_id = p.checkout_id where c.bill_id = $1`, b.ID).Scan(&attempts, &paid, &sum))
	if attempts != 1 || paid != 1 || money.Amount(sum) != b.due() {
		x.t.Errorf("notice %s: %d attempts, %d paid, %s in all; want one of %s", b.Notice, attempts, paid, money.Amount(sum), b.due())
	}
}

func (x *tale) paysInTwoTabs(page *rod.Page) {
	fine := x.bill("DEMO-T-1003")
	x.finds(page, fine)
	x.reads(page, "$450.00")
	other := x.tab(page.Browser())
	chrome.Go(x.t, other, x.at(page).String())
	for _, p := range []*rod.Page{page, other} {
		x.front(p)
		chrome.Click(x.t, p, payIt)
	}
	if first, second := x.at(page).Path, x.at(other).Path; first != second {
		x.t.Errorf("two tabs opened two sessions of the processor: %s, %s", first, second)
	}
	x.fills(other, cardGood)
	x.front(page)
	x.pays(page, cardGood)
	x.receiptLink(page, "Payment received", "$450.00")
	x.front(other)
	chrome.Click(x.t, other, cardForm+" button")
	if u := x.at(other); strings.HasPrefix(u.String(), x.ports.url(portProcessor)) {
		x.reads(other, "This payment is complete")
		x.see(other, "processor-complete-en", chrome.Desktop)
		chrome.Click(x.t, other, "main a")
	}
	x.receiptLink(other, "Payment received", "$450.00")
	x.once(fine)
}

// front brings a tab to the front: one behind another is not painted, and a click
// waits for that for ever.
func (x *tale) front(page *rod.Page) {
	x.t.Helper()
	_, err := page.Activate()
	x.must(err)
}

func (x *tale) settles() {
	for _, step := range []func(context.Context) ([]fact, error){x.payOut, x.night, x.sapAnswers, x.trouble, x.prove} {
		_, err := step(x.t.Context())
		x.must(err)
	}
}

// signsInAsStaff goes through the city's directory.
func (x *tale) signsInAsStaff(page *rod.Page, who string) {
	x.t.Helper()
	chrome.Go(x.t, page, x.ports.url(portPortal)+"/desk?lang=en")
	x.stands(page, portDirectory, "/authorize")
	x.see(page, "directory-"+who, chrome.Desktop)
	chrome.Click(x.t, page, `button[value="`+who+`"]`)
	x.stands(page, portPortal, "/desk/")
}

func (x *tale) financeLooks() {
	page := x.person()
	x.signsInAsStaff(page, "staff-1001")
	for _, p := range []struct {
		name, path string // path, or a link on the page before
		words      []string
	}{
		{"today", "/desk/today?on=" + x.business, []string{"0.00"}},
		{"payouts", "/desk/payouts", []string{x.payout.ID}},
		{"payout", `a[href^="/desk/payouts/po_"]`, []string{"Settled"}},
		{"payout-bank-line", `main a[href^="/desk/bank/lines/"]`, nil},
		{"bank", "/desk/bank", nil},
		{"statement", `a[href^="/desk/bank/statements/"]`, nil},
		{"bank-lines", "/desk/bank/lines", nil},
		{"sap", "/desk/sap", []string{"Posted"}},
		{"batch", `main a[href^="/desk/sap/batches/"]`, []string{"Posted"}},
		{"document", `main a[href^="/desk/sap/documents/"]`, []string{"Posted"}},
		{"exceptions", "/desk/exceptions", []string{"$12.34"}},
		{"exception", `main a[href^="/desk/exceptions/"]:not([href*="csv"])`, []string{"$12.34"}},
		{"ledger", "/desk/ledger", []string{"assets:bank:main"}},
		{"account", `a[href="/desk/ledger/accounts/assets:bank:main"]`, nil},
		{"entry", `main a[href^="/desk/ledger/entries/"]`, nil},
		{"lookup-finance", "/desk/lookup", nil},
	} {
		x.opens(page, p.path)
		x.reads(page, p.words...)
		x.look(page, "desk-"+p.name, "en")
	}
}

// opens goes to a path of the portal, or clicks what a selector finds.
func (x *tale) opens(page *rod.Page, where string) {
	x.t.Helper()
	if strings.HasPrefix(where, "/") {
		chrome.Go(x.t, page, x.ports.url(portPortal)+where)
		return
	}
	chrome.Click(x.t, page, where)
}

func (x *tale) agentLooks() {
	page := x.person()
	x.signsInAsStaff(page, "staff-1003")
	chrome.Fill(x.t, page, "#number", x.bill("DEMO-P-2001").Notice)
	chrome.Click(x.t, page, "main form button")
	x.reads(page, leaName, "$448.19")
	x.look(page, "desk-bill", "en")
	chrome.Click(x.t, page, `main a[href^="/desk/lookup/payments/"]`)
	x.reads(page, "$651.73")
	x.look(page, "desk-payment", "en")
}

// outside keeps pictures of the simulators' own pages.
func (x *tale) outside() {
	page := x.person()
	for _, p := range []struct {
		name string
		port port
	}{{"mail", portMail}, {"processor", portProcessor}, {"bank", portBank}, {"sap", portSAP}, {"directory", portDirectory}, {"departments", portApp}} {
		chrome.Go(x.t, page, x.ports.url(p.port))
		x.see(page, "simulator-"+p.name, chrome.Desktop)
	}
	chrome.Go(x.t, page, x.ports.url(portMail))
	chrome.Click(x.t, page, `main a[href^="/messages/"]`)
	x.see(page, "simulator-message", chrome.Desktop)
}
