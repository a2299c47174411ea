package mail

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	gomail "github.com/emersion/go-message/mail"
	"github.com/emersion/go-smtp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"guichet/internal/jobs"
	"guichet/internal/seal"
	"guichet/internal/testdb"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var words = fstest.MapFS{
	"mailtext/receipt.en.txt": {Data: []byte("Subject: Receipt {{.Number}}\n\nThank you, {{.Name}}.\n\nVerify it at https://city.example/verify/{{.Code}}.\nIt is <final> & \"signed\".\n")},
	"mailtext/receipt.fr.txt": {Data: []byte("Subject: Reçu {{.Number}}\n\nMerci, {{.Name}}.\n\nVérifiez-le : https://city.example/verify/{{.Code}}.\n")},
}

var data = map[string]string{"Number": "42", "Name": "Zoë", "Code": "7K3M"}

// people resolves every recipient to one address and remembers who bounced.
type people struct {
	mu     sync.Mutex
	gone   bool
	email  string
	marked []string
}

func (p *people) Address(context.Context, string) (Address, error) {
	if p.gone {
		return Address{}, fmt.Errorf("forgotten: %w", ErrGone)
	}
	return Address{Email: p.email, Name: "Zoë Côté"}, nil
}

func (p *people) Bounced(_ context.Context, _ pgx.Tx, to, status string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.marked = append(p.marked, to+" "+status)
	return nil
}

// A postOffice is an SMTP server that keeps what it takes and answers as told.
type postOffice struct {
	mu      sync.Mutex
	taken   []letter
	answers map[string][]error // by step, used up one by one
	got     chan letter
}

type letter struct {
	from, to string
	raw      []byte
}

func (p *postOffice) NewSession(*smtp.Conn) (smtp.Session, error) { return &counter{p: p}, nil }

func (p *postOffice) answer(step string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.answers[step]
	if len(list) == 0 {
		return nil
	}
	p.answers[step] = list[1:]
	return list[0]
}

type counter struct {
	p *postOffice
	l letter
}

func (c *counter) Reset()        { c.l = letter{} }
func (c *counter) Logout() error { return nil }

func (c *counter) Mail(from string, _ *smtp.MailOptions) error {
	c.l.from = from
	return c.p.answer("MAIL")
}

func (c *counter) Rcpt(to string, _ *smtp.RcptOptions) error {
	c.l.to = to
	return c.p.answer("RCPT")
}

func (c *counter) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if err := c.p.answer("DATA"); err != nil {
		return err
	}
	c.l.raw = raw
	c.p.mu.Lock()
	c.p.taken = append(c.p.taken, c.l)
	c.p.mu.Unlock()
	c.p.got <- c.l
	return nil
}

func openOffice(t *testing.T) (*postOffice, string) {
	t.Helper()
	p := &postOffice{answers: make(map[string][]error), got: make(chan letter, 10)}
	s := smtp.NewServer(p)
	s.Domain = "post.example"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return p, l.Addr().String()
}

// A town is an outbox with everything around it.
type town struct {
	db     *pgxpool.Pool
	outbox *Outbox
	people *people
	office *postOffice
	addr   string
	queue  *jobs.Queue
}

func newTown(t *testing.T) *town {
	t.Helper()
	db := testdb.New(t)
	queue, err := jobs.New(db, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	templates, err := NewTemplates(words)
	if err != nil {
		t.Fatal(err)
	}
	key, err := seal.New(make([]byte, seal.Size))
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, time.November, 24, 17, 0, 0, 0, time.UTC)
	c := &town{db: db, queue: queue, people: &people{email: "zoe@example.org"}}
	c.outbox = New(db, queue, templates, key, func() time.Time { return at })
	c.office, c.addr = openOffice(t)
	return c
}

// work starts sending. It is called after the office was told how to behave.
func (c *town) work(t *testing.T) {
	t.Helper()
	w := river.NewWorkers()
	err := c.outbox.AddWorkers(w, SMTP{
		Addr: c.addr, Security: Plain, From: Address{"guichet@city.example", "Ville d’Exemple"}, ReturnPath: "bounces@city.example",
	}, c.people, c.people)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.queue.Work(t.Context(), jobs.Options{Workers: w}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.queue.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

func (c *town) enqueue(t *testing.T, m Message) error {
	t.Helper()
	return pgx.BeginFunc(t.Context(), c.db, func(tx pgx.Tx) error { return c.outbox.Enqueue(t.Context(), tx, m) })
}

// settled waits until the message is in the state and returns its last error.
func (c *town) settled(t *testing.T, key, want string) string {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		var state, lastError string
		var erased bool
		err := c.db.QueryRow(t.Context(), "select state, last_error, data is null from ops.mail where key = $1", key).Scan(&state, &lastError, &erased)
		if err != nil {
			t.Fatal(err)
		}
		if state == want {
			if erased != (state != "queued") {
				t.Errorf("mail %s is %s, content erased: %v", key, state, erased)
			}
			return lastError
		}
		select {
		case <-deadline:
			t.Fatalf("mail %s is %s (%s), want %s", key, state, lastError, want)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func receipt(key string) Message {
	return Message{
		Key: key, To: "resident:r1", Lang: "fr", Template: "receipt", Data: data,
		Attachments: []Attachment{{Name: "reçu-42.pdf", MediaType: "application/pdf", Bytes: []byte("%PDF-1.4 pretend")}},
	}
}

func TestMessageIsSentOnceWithTextHTMLAndAttachment(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	for range 2 {
		if err := c.enqueue(t, receipt("receipt/1")); err != nil {
			t.Fatal(err)
		}
	}
	c.work(t)
	l := <-c.office.got
	c.settled(t, "receipt/1", "sent")

	var mailID, token string
	if err := c.db.QueryRow(t.Context(), "select id, return_token from ops.mail").Scan(&mailID, &token); err != nil {
		t.Fatal(err)
	}
	if want := "bounces+" + token + "@city.example"; l.from != want || l.to != "zoe@example.org" {
		t.Errorf("envelope %s to %s, want %s to zoe@example.org", l.from, l.to, want)
	}
	r, err := gomail.CreateReader(bytes.NewReader(l.raw))
	if err != nil {
		t.Fatal(err)
	}
	subject, _ := r.Header.Subject()
	messageID, _ := r.Header.MessageID()
	if subject != "Reçu 42" || messageID != mailID+"@city.example" || r.Header.Get("Auto-Submitted") != "auto-generated" {
		t.Errorf("subject %q, message id %q, auto-submitted %q", subject, messageID, r.Header.Get("Auto-Submitted"))
	}
	var parts []string
	for {
		p, err := r.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(p.Body)
		if err != nil {
			t.Fatal(err)
		}
		kind := p.Header.Get("Content-Type")
		parts = append(parts, strings.SplitN(kind, ";", 2)[0])
		if strings.HasPrefix(kind, "text/") && !strings.Contains(string(body), "Merci, Zoë.") {
			t.Errorf("%s lacks the text: %s", kind, body)
		}
		if h, ok := p.Header.(*gomail.AttachmentHeader); ok {
			if name, err := h.Filename(); err != nil || name != "reçu-42.pdf" || string(body) != "%PDF-1.4 pretend" {
				t.Errorf("attachment %q of %d bytes, %v", name, len(body), err)
			}
		}
	}
	if want := []string{"text/plain", "text/html", "application/pdf"}; !slices.Equal(parts, want) {
		t.Errorf("parts %v, want %v", parts, want)
	}
	if n, err := c.queue.Waiting(t.Context()); err != nil || len(c.office.taken) != 1 {
		t.Errorf("sent %d times, %v waiting, %v", len(c.office.taken), n, err)
	}
}

func TestContentIsSealedWhileItWaits(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	if err := c.enqueue(t, receipt("receipt/1")); err != nil {
		t.Fatal(err)
	}
	var all string
	err := c.db.QueryRow(t.Context(), `
select (select string_agg(m::text || encode(m.data, 'escape'), '') from ops.mail m) || (select string_agg(j::text, '') from river.river_job j)`).Scan(&all)
	if err != nil {
		t.Fatal(err)
	}
	for _, private := range []string{"Zo", "7K3M", "example.org", "Merci"} {
		if strings.Contains(all, private) {
			t.Errorf("the database holds %q in the clear", private)
		}
	}
}

func refusalOf(code int, enhanced ...int) error {
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode(enhanced), Message: "zoe@example.org is the trouble"}
}

func TestAnswersOfTheMailServer(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, step string
		answers    []error
		state      string
		lastError  string
		marked     []string
	}{
		{"no such mailbox is final and marks the address", "RCPT", []error{refusalOf(550, 5, 1, 1)}, "failed", "RCPT: 550 5.1.1", []string{"resident:r1 5.1.1"}},
		{"refused content is final and marks nobody", "DATA", []error{refusalOf(554, 5, 7, 1)}, "failed", "DATA: 554 5.7.1", nil},
		{"greylisting is tried again", "RCPT", []error{refusalOf(450, 4, 7, 1)}, "sent", "", nil},
		{"a sender that is refused is ours to mend", "MAIL", []error{refusalOf(550, 5, 7, 1)}, "sent", "", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newTown(t)
			c.office.answers[tt.step] = tt.answers
			if err := c.enqueue(t, receipt("k")); err != nil {
				t.Fatal(err)
			}
			c.work(t)
			if got := c.settled(t, "k", tt.state); got != tt.lastError {
				t.Errorf("last error %q, want %q", got, tt.lastError)
			}
			if !slices.Equal(c.people.marked, tt.marked) {
				t.Errorf("marked %q, want %q", c.people.marked, tt.marked)
			}
			var leaked bool
			err := c.db.QueryRow(t.Context(), "select coalesce(bool_or(errors::text like '%zoe%'), false) from river.river_job").Scan(&leaked)
			if err != nil || leaked {
				t.Errorf("the job's errors quote the server: %v, %v", leaked, err)
			}
		})
	}
}

func TestWhoHasNoAddressIsGivenUp(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]*people{
		"forgotten":      {gone: true},
		"header in it":   {email: "a@example.org\r\nBcc: b@example.org"},
		"two addresses":  {email: "a@example.org, b@example.org"},
		"quoted newline": {email: "\"a\nb\"@example.org"},
		"no domain":      {email: "zoe"},
		"empty":          {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newTown(t)
			c.people = p
			if err := c.enqueue(t, receipt("k")); err != nil {
				t.Fatal(err)
			}
			c.work(t)
			if got := c.settled(t, "k", "failed"); got != "no address" {
				t.Errorf("last error %q", got)
			}
			if len(c.office.taken) != 0 {
				t.Errorf("sent to %s", c.office.taken[0].to)
			}
		})
	}
}

func TestConnectionsAreProtectedUnlessToldOtherwise(t *testing.T) {
	t.Parallel()
	_, addr := openOffice(t) // offers no STARTTLS
	for _, security := range []string{StartTLS, "", TLS} {
		err := SMTP{Addr: addr, Security: security, From: Address{Email: "a@city.example"}}.send(t.Context(), "a@city.example", "b@example.org", []byte("x"))
		if err == nil {
			t.Errorf("security %q: sent in the clear", security)
		}
	}
}

func TestWordingFailsWhereTheDeedIs(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	for name, m := range map[string]Message{
		"unknown template": {Key: "k", To: "r", Lang: "en", Template: "nothing"},
		"unknown language": {Key: "k", To: "r", Lang: "de", Template: "receipt", Data: data},
		"missing value":    {Key: "k", To: "r", Lang: "en", Template: "receipt"},
		"too much":         {Key: "k", To: "r", Lang: "en", Template: "receipt", Data: data, Attachments: []Attachment{{Bytes: make([]byte, maxContent+1)}}},
	} {
		if err := c.enqueue(t, m); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestTemplatesAreWhole(t *testing.T) {
	good := fstest.MapFile{Data: []byte("Subject: s\n\nt\n")}
	for name, fsys := range map[string]fstest.MapFS{
		"one language":   {"a.en.txt": &good},
		"no subject":     {"a.en.txt": {Data: []byte("Hello\n\nt\n")}, "a.fr.txt": &good},
		"no empty line":  {"a.en.txt": {Data: []byte("Subject: s\nt\n")}, "a.fr.txt": &good},
		"twice":          {"a.en.txt": &good, "a.fr.txt": &good, "b/a.en.txt": &good},
		"does not parse": {"a.en.txt": {Data: []byte("Subject: s\n\n{{.a")}, "a.fr.txt": &good},
	} {
		if _, err := NewTemplates(fsys); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestNoValueAddsAHeader(t *testing.T) {
	t.Parallel()
	templates, err := NewTemplates(words)
	if err != nil {
		t.Fatal(err)
	}
	evil := "x\r\nBcc: victim@example.org\r\n\r\n<script>"
	subject, text, err := templates.word("receipt", "en", map[string]string{"Number": evil, "Name": evil, "Code": "1"})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := compose(envelope{
		messageID: "m@city.example", from: Address{"guichet@city.example", evil}, to: Address{"zoe@example.org", evil}, lang: "en",
		at: time.Date(2026, time.November, 24, 12, 0, 0, 0, time.UTC),
	}, content{Subject: subject, Text: text, Attachments: []Attachment{{Name: evil, MediaType: "application/pdf"}}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := gomail.CreateReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if r.Header.Has("Bcc") {
		t.Errorf("a header was added:\n%s", raw)
	}
	if bytes.Contains(raw, []byte("<script>")) && !bytes.Contains(raw, []byte("x  Bcc")) {
		t.Errorf("markup or lines get through:\n%s", raw)
	}
}

func TestHTMLGolden(t *testing.T) {
	templates, err := NewTemplates(words)
	if err != nil {
		t.Fatal(err)
	}
	subject, text, err := templates.word("receipt", "en", map[string]string{"Number": "<42>", "Name": "Zoë & co", "Code": "7K3M?a=1&b=2"})
	if err != nil {
		t.Fatal(err)
	}
	got := htmlOf("en", content{Subject: subject, Text: text})
	path := filepath.Join("testdata", "receipt.en.html")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
