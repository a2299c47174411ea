package mail

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"
)

func sample(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n"))
}

func TestParseReport(t *testing.T) {
	tests := []struct {
		file string
		want []Delivery
		err  error
	}{
		{"failed.eml", []Delivery{{"failed", "5.1.1"}}, nil},
		{"delayed.eml", []Delivery{{"delayed", "4.4.1"}}, nil},
		{"two.eml", []Delivery{{"failed", "5.2.2"}, {"relayed", "2.1.5"}}, nil},
		{"holiday.eml", nil, ErrNoReport},
	}
	for _, tt := range tests {
		got, err := ParseReport(bytes.NewReader(sample(t, tt.file)))
		if !slices.Equal(got, tt.want) || !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, %v; want %v, %v", tt.file, got, err, tt.want, tt.err)
		}
	}
}

func FuzzParseReport(f *testing.F) {
	for _, name := range []string{"failed.eml", "delayed.eml", "two.eml", "holiday.eml"} {
		f.Add(sample(f, name))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		list, err := ParseReport(bytes.NewReader(raw))
		if (err == nil) != (len(list) > 0) || (err != nil && !errors.Is(err, ErrNoReport)) {
			t.Errorf("%d deliveries with error %v", len(list), err)
		}
		for _, d := range list {
			if d.Action == "" || !statusForm.MatchString(d.Status) {
				t.Errorf("delivery %+v", d)
			}
		}
	})
}

// sendOne sends a message and returns the return path it left with.
func (c *town) sendOne(t *testing.T) string {
	t.Helper()
	if err := c.enqueue(t, receipt("k")); err != nil {
		t.Fatal(err)
	}
	c.work(t)
	l := <-c.office.got
	c.settled(t, "k", "sent")
	return l.from
}

func (c *town) bounces(t *testing.T) (list string) {
	t.Helper()
	if err := c.db.QueryRow(t.Context(), "select coalesce(string_agg(action || ' ' || status, ', ' order by action), '') from ops.mail_bounce").Scan(&list); err != nil {
		t.Fatal(err)
	}
	return list
}

func TestReportMarksTheAddressOnce(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	path := c.sendOne(t)
	for _, to := range []string{path, strings.ToUpper(path), "<" + path + ">"} {
		if err := c.outbox.Bounce(t.Context(), c.people, to, bytes.NewReader(sample(t, "failed.eml"))); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.outbox.Bounce(t.Context(), c.people, path, bytes.NewReader(sample(t, "delayed.eml"))); err != nil {
		t.Fatal(err)
	}
	if want := []string{"resident:r1 5.1.1"}; !slices.Equal(c.people.marked, want) {
		t.Errorf("marked %q, want %q", c.people.marked, want)
	}
	if got := c.bounces(t); got != "delayed 4.4.1, failed 5.1.1" {
		t.Errorf("recorded %q", got)
	}
}

func TestReportOfNobodyChangesNothing(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	path := c.sendOne(t)
	report := func(to, file string) error {
		return c.outbox.Bounce(t.Context(), c.people, to, bytes.NewReader(sample(t, file)))
	}
	if err := report("bounces+guessed@city.example", "failed.eml"); !errors.Is(err, ErrUnknownToken) {
		t.Errorf("guessed token: %v", err)
	}
	if err := report("bounces@city.example", "failed.eml"); !errors.Is(err, ErrUnknownToken) {
		t.Errorf("no token: %v", err)
	}
	if err := report(path, "holiday.eml"); !errors.Is(err, ErrNoReport) {
		t.Errorf("holiday notice: %v", err)
	}
	if len(c.people.marked) != 0 || c.bounces(t) != "" {
		t.Errorf("marked %q, recorded %q", c.people.marked, c.bounces(t))
	}
}

func TestReceiverTakesReportsOnly(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	path := c.sendOne(t)
	v := NewReceiver(c.outbox, c.people, slog.New(slog.DiscardHandler))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- v.Serve(l) }()

	send := func(to, file string) error {
		client, err := smtp.Dial(l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		return client.SendMail("", []string{to}, bytes.NewReader(sample(t, file)))
	}
	if err := send("clerk@city.example", "failed.eml"); err == nil {
		t.Error("mail for a person is taken")
	}
	for _, tt := range []struct{ to, file string }{{"bounces+guessed@city.example", "failed.eml"}, {path, "holiday.eml"}, {path, "failed.eml"}} {
		if err := send(tt.to, tt.file); err != nil {
			t.Errorf("%s to %s: %v; the other side would try for days", tt.file, tt.to, err)
		}
	}
	if want := []string{"resident:r1 5.1.1"}; !slices.Equal(c.people.marked, want) {
		t.Errorf("marked %q, want %q", c.people.marked, want)
	}
	if err := v.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve returned %v after Shutdown", err)
	}
}
