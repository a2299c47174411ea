package mail

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	nettextproto "net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	netsmtp "net/smtp"

	"guichet/simulators/control"
)

// world is a catcher on its real listeners, under a clock that the test moves.
type world struct {
	*Catcher
	smtp string // host:port
	http string // base URL
	now  atomic.Pointer[time.Time]
}

func start(t *testing.T, o Options) *world {
	t.Helper()
	w := &world{}
	w.setNow(time.Date(2026, 11, 24, 14, 0, 0, 0, time.UTC))
	o.Now = func() time.Time { return *w.now.Load() }
	o.Log = slog.New(slog.DiscardHandler)
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	w.Catcher = c
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- c.ServeSMTP(l) }()
	srv := httptest.NewServer(c.Handler())
	t.Cleanup(func() {
		srv.Close()
		c.Close()
		if err := <-served; err != nil {
			t.Errorf("ServeSMTP after Close: %v", err)
		}
	})
	w.smtp, w.http = l.Addr().String(), srv.URL
	return w
}

func (w *world) setNow(t time.Time) { w.now.Store(&t) }

func (w *world) send(from string, to []string, message string) error {
	return netsmtp.SendMail(w.smtp, nil, from, to, []byte(strings.ReplaceAll(message, "\n", "\r\n")))
}

func (w *world) plant(t *testing.T, f control.Fault) {
	t.Helper()
	if _, err := w.faults.Plant(f); err != nil {
		t.Fatal(err)
	}
}

func (w *world) get(t *testing.T, path string) (*http.Response, []byte) {
	t.Helper()
	resp, err := http.Get(w.http + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, body
}

func (w *world) inboxOf(t *testing.T, query url.Values) []messageJSON {
	t.Helper()
	resp, body := w.get(t, "/_control/messages?"+query.Encode())
	var list struct{ Data []messageJSON }
	if err := json.Unmarshal(body, &list); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET messages: %s %v: %s", resp.Status, err, body)
	}
	return list.Data
}

const receipt = `From: =?utf-8?q?Ville_d=27Ottawa?= <no-reply@city.example>
To: Zoé <zoe@home.example>
Subject: =?utf-8?b?UmXDp3UgZGUgcGFpZW1lbnQ=?=
Message-ID: <r1@city.example>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=outer

--outer
Content-Type: multipart/alternative; boundary=inner

--inner
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: quoted-printable

Votre re=C3=A7u.
Merci.
--inner
Content-Type: text/html; charset=utf-8

<p>Votre reçu</p><script>alert(1)</script>
--inner--

--outer
Content-Type: application/pdf
Content-Disposition: attachment; filename="=?utf-8?q?re=C3=A7u.pdf?="
Content-Transfer-Encoding: base64

JVBERi0xLjQ=
--outer--
`

func TestMessageIsShownAsReceived(t *testing.T) {
	w := start(t, Options{})
	if err := w.send("bounce+7@city.example", []string{"zoe@home.example", "copy@city.example"}, receipt); err != nil {
		t.Fatal(err)
	}
	list := w.inboxOf(t, url.Values{"to": {"ZOE@home.example"}})
	if len(list) != 1 {
		t.Fatalf("messages: %d, want 1", len(list))
	}
	m := list[0]
	for _, x := range []struct{ what, got, want string }{
		{"return path", m.From, "bounce+7@city.example"},
		{"subject", m.Subject, "Reçu de paiement"},
		{"header from", m.HeaderFrom, "Ville d'Ottawa <no-reply@city.example>"},
		{"text", m.Text, "Votre reçu.\nMerci."},
		{"html", m.HTML, "<p>Votre reçu</p><script>alert(1)</script>"},
		{"trouble", m.Trouble, ""},
	} {
		if x.got != x.want {
			t.Errorf("%s = %q, want %q", x.what, x.got, x.want)
		}
	}
	if len(m.Attachments) != 1 || m.Attachments[0].Name != "reçu.pdf" || m.Attachments[0].Type != "application/pdf" {
		t.Fatalf("attachments = %+v", m.Attachments)
	}

	t.Run("attachment is only ever saved", func(t *testing.T) {
		resp, body := w.get(t, m.Attachments[0].URL)
		if string(body) != "%PDF-1.4" || !strings.HasPrefix(resp.Header.Get("Content-Disposition"), "attachment") ||
			resp.Header.Get("Content-Type") != "application/octet-stream" {
			t.Errorf("%q, %v", body, resp.Header)
		}
	})
	t.Run("HTML opens in a sandbox", func(t *testing.T) {
		resp, body := w.get(t, "/messages/"+m.ID+"/html")
		if csp := resp.Header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "sandbox; default-src 'none'") {
			t.Errorf("policy %q", csp)
		}
		if string(body) != m.HTML {
			t.Errorf("body %q", body)
		}
	})
	t.Run("page shows HTML as text", func(t *testing.T) {
		_, body := w.get(t, "/messages/"+m.ID)
		if bytes.Contains(body, []byte("<script>")) || !bytes.Contains(body, []byte("&lt;script&gt;")) {
			t.Errorf("page:\n%s", body)
		}
		if _, body := w.get(t, "/"); !bytes.Contains(body, []byte("Reçu de paiement")) {
			t.Errorf("inbox:\n%s", body)
		}
	})
	t.Run("unknown message is 404", func(t *testing.T) {
		for _, path := range []string{"/messages/none", "/messages/" + m.ID + "/attachments/1", "/messages/" + m.ID + "/attachments/-1"} {
			if resp, _ := w.get(t, path); resp.StatusCode != http.StatusNotFound {
				t.Errorf("%s: %s", path, resp.Status)
			}
		}
	})
}

func TestListIsNewestFirstAndFiltered(t *testing.T) {
	w := start(t, Options{})
	begin := *w.now.Load()
	for i, to := range []string{"a@x.example", "b@x.example", "a@x.example"} {
		w.setNow(begin.Add(time.Duration(i) * time.Minute))
		if err := w.send("s@x.example", []string{to}, fmt.Sprintf("Subject: %d\n\nx\n", i)); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name  string
		query url.Values
		want  []string
	}{
		{"all", url.Values{}, []string{"2", "1", "0"}},
		{"of one recipient", url.Values{"to": {"a@x.example"}}, []string{"2", "0"}},
		{"since a moment, inclusive", url.Values{"since": {begin.Add(time.Minute).Format(time.RFC3339)}}, []string{"2", "1"}},
		{"only so many", url.Values{"limit": {"1"}}, []string{"2"}},
		{"nobody", url.Values{"to": {"c@x.example"}}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, m := range w.inboxOf(t, tt.query) {
				got = append(got, m.Subject)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	for _, query := range []string{"since=yesterday", "limit=0", "limit=1000"} {
		if resp, body := w.get(t, "/_control/messages?"+query); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %s %s", query, resp.Status, body)
		}
	}
}

func TestFaultsAtTheDoor(t *testing.T) {
	for kind, code := range map[string]int{"refuse": 550, "temporary": 451} {
		t.Run(kind, func(t *testing.T) {
			w := start(t, Options{})
			w.plant(t, control.Fault{Kind: kind, Target: "gone@x.example"})
			err := w.send("s@x.example", []string{"gone@x.example"}, "Subject: x\n\nx\n")
			var reply *nettextproto.Error
			if !errors.As(err, &reply) || reply.Code != code {
				t.Fatalf("err = %v, want %d", err, code)
			}
			if err := w.send("s@x.example", []string{"gone@x.example"}, "Subject: x\n\nx\n"); err != nil {
				t.Fatalf("second try: %v", err)
			}
			if got := w.inboxOf(t, url.Values{}); len(got) != 1 {
				t.Errorf("messages: %d, want 1", len(got))
			}
		})
	}
}

func TestSlowMessageIsAnsweredWhenTheCatcherCloses(t *testing.T) {
	w := start(t, Options{})
	w.plant(t, control.Fault{Kind: "slow", Delay: control.Duration(time.Hour)})
	done := make(chan error, 1)
	go func() { done <- w.send("s@x.example", []string{"a@x.example"}, "Subject: x\n\nx\n") }()
	for len(w.faults.Planted()) > 0 { // until it strikes
		select {
		case err := <-done:
			t.Fatalf("answered at once: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	w.stop() // what Close does first
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestInboxSurvivesAKill(t *testing.T) {
	dir := t.TempDir()
	first := start(t, Options{Dir: dir})
	if err := first.send("s@x.example", []string{"a@x.example"}, "Subject: kept\n\nx\n"); err != nil {
		t.Fatal(err)
	}
	// Nothing is closed: the second one opens what a killed process leaves.
	second := start(t, Options{Dir: dir})
	if err := second.send("s@x.example", []string{"a@x.example"}, "Subject: next\n\nx\n"); err != nil {
		t.Fatal(err)
	}
	got := second.inboxOf(t, url.Values{})
	if len(got) != 2 || got[0].Subject != "next" || got[1].Subject != "kept" || got[0].Number != got[1].Number+1 {
		t.Errorf("after a kill: %+v", got)
	}
	req, _ := http.NewRequest(http.MethodDelete, second.http+"/_control/messages", nil)
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode != http.StatusNoContent {
		t.Fatalf("DELETE messages: %v %v", resp, err)
	}
	if got := start(t, Options{Dir: dir}).inboxOf(t, url.Values{}); len(got) != 0 {
		t.Errorf("emptied inbox holds %+v", got)
	}
}

func TestInboxIsBounded(t *testing.T) {
	w := start(t, Options{})
	for range maxMessages + 1 {
		if err := w.keep("s@x.example", []string{"a@x.example"}, []byte("Subject: x\r\n\r\nx\r\n")); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(w.list("", time.Time{}, maxMessages+10)); n != maxMessages {
		t.Errorf("inbox holds %d, want %d", n, maxMessages)
	}
}

func TestBounceReachesTheReturnPath(t *testing.T) {
	back := start(t, Options{}) // the server that receives mail for the return path
	w := start(t, Options{BounceSMTP: back.smtp})
	w.plant(t, control.Fault{Kind: "bounce", Target: "gone@x.example", Delay: control.Duration(time.Hour)})
	err := w.send("bounce+7@city.example", []string{"gone@x.example", "here@x.example"}, "Subject: Notice\nMessage-ID: <n7@city.example>\n\nx\n")
	if err != nil {
		t.Fatalf("a message that bounces later is accepted first: %v", err)
	}
	if n, err := w.SendBounces(t.Context()); n != 0 || err != nil {
		t.Fatalf("before it is due: %d, %v", n, err)
	}
	w.setNow(w.now.Load().Add(time.Hour))
	if n, err := w.SendBounces(t.Context()); n != 1 || err != nil {
		t.Fatalf("when it is due: %d, %v", n, err)
	}
	if n, err := w.SendBounces(t.Context()); n != 0 || err != nil {
		t.Fatalf("sent twice: %d, %v", n, err)
	}
	got := back.inboxOf(t, url.Values{"to": {"bounce+7@city.example"}})
	if len(got) != 1 || got[0].From != "" {
		t.Fatalf("reports: %+v", got)
	}
	_, raw := back.get(t, got[0].RawURL)
	for _, want := range []string{
		"Content-Type: multipart/report; report-type=delivery-status;",
		"\r\nContent-Type: message/delivery-status\r\n",
		"\r\nReporting-MTA: dns; mail.localhost\r\n",
		"\r\n\r\nFinal-Recipient: rfc822; gone@x.example\r\nAction: failed\r\nStatus: 5.1.1\r\n",
		"Message-ID: <n7@city.example>",
	} {
		if !bytes.Contains(raw, []byte(want)) {
			t.Errorf("report lacks %q:\n%s", want, raw)
		}
	}
	if got[0].Trouble != "" || len(got[0].Attachments) != 2 {
		t.Errorf("report cannot be taken apart: %+v", got[0])
	}
	if m := w.inboxOf(t, url.Values{})[0]; !slices.Equal(m.Bounced, []string{"gone@x.example"}) {
		t.Errorf("bounced = %v", m.Bounced)
	}
}

func TestBounceByHTTPIsTriedUntilTaken(t *testing.T) {
	var calls atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Content-Type") != "message/rfc822" {
			t.Errorf("Content-Type %q", r.Header.Get("Content-Type"))
		}
		if calls.Add(1) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer srv.Close()
	dir := t.TempDir()
	w := start(t, Options{Dir: dir, BounceURL: srv.URL})
	w.plant(t, control.Fault{Kind: "bounce"})
	if err := w.send("s@city.example", []string{"gone@x.example"}, "Subject: x\n\nx\n"); err != nil {
		t.Fatal(err)
	}
	if n, err := w.SendBounces(t.Context()); n != 0 || err == nil {
		t.Fatalf("first try: %d, %v", n, err)
	}
	again := start(t, Options{Dir: dir, BounceURL: srv.URL}) // after a kill
	if n, err := again.SendBounces(t.Context()); n != 1 || err != nil {
		t.Fatalf("second try: %d, %v", n, err)
	}
	if b := again.newestBounces()[0]; b.State != sent || b.Tries != 2 {
		t.Errorf("bounce = %+v", b)
	}
}

func TestBounceGivesUp(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	w := start(t, Options{BounceURL: srv.URL})
	w.plant(t, control.Fault{Kind: "bounce"})
	if err := w.send("s@city.example", []string{"gone@x.example"}, "Subject: x\n\nx\n"); err != nil {
		t.Fatal(err)
	}
	for range maxTries {
		w.SendBounces(t.Context())
	}
	if b := w.newestBounces()[0]; b.State != failed || b.Tries != maxTries {
		t.Errorf("bounce = %+v", b)
	}
}

func TestNothingBouncesToTheEmptyReturnPath(t *testing.T) {
	w := start(t, Options{BounceURL: "http://127.0.0.1:1/"})
	w.plant(t, control.Fault{Kind: "bounce", Times: -1})
	if err := w.send("", []string{"gone@x.example"}, "Subject: report\n\nx\n"); err != nil {
		t.Fatal(err)
	}
	if got := w.newestBounces(); len(got) != 0 {
		t.Errorf("bounces = %+v", got)
	}
}

func TestUnreadableMailIsKept(t *testing.T) {
	w := start(t, Options{})
	for _, m := range []string{
		"no header at all",
		"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain\n\nhalf",
		"Content-Type: text/plain; charset=x-unknown\n\n\xff\xfe\n",
		"Subject: =?utf-8?q?=FF?=\nContent-Transfer-Encoding: base64\n\n%%%\n",
	} {
		if err := w.send("s@x.example", []string{"a@x.example"}, m); err != nil {
			t.Errorf("%q: %v", m, err)
			continue
		}
		got := w.inboxOf(t, url.Values{"limit": {"1"}})[0]
		if got.Trouble == "" {
			t.Errorf("%q: no trouble told: %+v", m, got)
		}
		if resp, _ := w.get(t, "/messages/"+got.ID); resp.StatusCode != http.StatusOK {
			t.Errorf("%q: page %s", m, resp.Status)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(strings.ReplaceAll(receipt, "\n", "\r\n")))
	f.Add([]byte("Content-Type: multipart/mixed; boundary=\"\"\r\n\r\n--\r\n"))
	f.Add([]byte("Content-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=\r\n=ZZ"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if c := parse(raw); len(c.Attachments) > maxParts {
			t.Errorf("%d attachments", len(c.Attachments))
		}
	})
}
