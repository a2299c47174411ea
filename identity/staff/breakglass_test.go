package staff_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/identity"
	"guichet/identity/staff"
	"guichet/internal/jobs"
	"guichet/internal/mail"
	"guichet/internal/seal"
)

func (w *world) envelope(t *testing.T) (credentialID, code string) {
	t.Helper()
	w.in(t, func(tx pgx.Tx) (err error) {
		credentialID, code, err = w.MakeBreakGlass(t.Context(), tx, "admin")
		return err
	})
	return credentialID, code
}

func (w *world) breakGlass(t *testing.T, code string) (string, error) {
	t.Helper()
	return w.BreakGlass(t.Context(), staff.Breaking{Code: code, Name: "Demo Duty", Why: "directory is down"}, here)
}

func TestBreakGlassOpensOneShortSessionAndAlarms(t *testing.T) {
	w := newWorld(t)
	_, code := w.envelope(t)
	bystander := w.at(t, "ann", "", w.now)
	if m, err := w.Session(t.Context(), bystander); err != nil || m.Alarm {
		t.Fatalf("alarm before use: %+v, %v", m, err)
	}
	token, err := w.breakGlass(t, strings.ToLower(strings.ReplaceAll(code, "-", " ")))
	if err != nil {
		t.Fatal(err)
	}
	m, err := w.Session(t.Context(), token)
	if err != nil || !m.Has(staff.Administrator, "") || !m.BreakGlass || !m.Fresh || !m.Alarm || len(m.Roles) != 1 {
		t.Errorf("session %+v, %v", m, err)
	}
	if m, err := w.Session(t.Context(), bystander); err != nil || !m.Alarm || m.BreakGlass {
		t.Errorf("nobody else sees the alarm: %+v, %v", m, err)
	}
	if len(w.mail.sent) != 2 || w.mail.sent[0].To != staff.AlarmRecipient(0) || w.mail.sent[1].To != staff.AlarmRecipient(1) || w.mail.sent[0].Data["why"] != "directory is down" {
		t.Errorf("mail %+v", w.mail.sent)
	}
	if used, open, err := w.BreakGlassUse(t.Context()); err != nil || used != 1 || open != 1 {
		t.Errorf("metrics %d %d, %v", used, open, err)
	}
	var audited int
	if err := w.db.QueryRow(t.Context(), `select count(*) from ops.audit where action = 'staff.break_glass.used' and details::text not like '%Demo%'`).Scan(&audited); err != nil || audited != 1 {
		t.Errorf("%d audit rows, %v", audited, err)
	}
	if _, err := w.breakGlass(t, code); !errors.Is(err, staff.ErrBreakGlass) {
		t.Errorf("a second use: %v", err)
	}
	w.now = w.now.Add(15 * time.Minute)
	if w.open(t, token) {
		t.Error("the session is open after 15 minutes")
	}
	if m, err := w.Session(t.Context(), bystander); err != nil || m.Alarm {
		t.Errorf("the alarm stays: %v, %v", m.Alarm, err)
	}
}

func TestBreakGlassRefuses(t *testing.T) {
	w := newWorld(t)
	revoked, revokedCode := w.envelope(t)
	_, code := w.envelope(t)
	for range 2 {
		w.in(t, func(tx pgx.Tx) error { return w.RevokeBreakGlass(t.Context(), tx, revoked, "admin") })
	}
	if _, err := w.breakGlass(t, revokedCode); !errors.Is(err, staff.ErrBreakGlass) {
		t.Errorf("revoked: %v", err)
	}
	if _, err := w.breakGlass(t, ""); !errors.Is(err, staff.ErrBreakGlass) {
		t.Errorf("no code: %v", err)
	}
	if _, err := w.BreakGlass(t.Context(), staff.Breaking{Code: code, Name: " ", Why: "x"}, here); !errors.Is(err, staff.ErrUnsaid) {
		t.Errorf("nobody: %v", err)
	}
	var limited *identity.LimitedError
	for range 10 {
		_, err := w.breakGlass(t, "guess")
		if errors.As(err, &limited) {
			break
		}
	}
	if limited == nil {
		t.Error("guesses have no limit")
	}
	w.now = w.now.Add(401 * 24 * time.Hour)
	if _, err := w.breakGlass(t, code); !errors.Is(err, staff.ErrBreakGlass) {
		t.Errorf("too old: %v", err)
	}
	if len(w.mail.sent) != 0 {
		t.Errorf("%d alarms for nothing", len(w.mail.sent))
	}
	unwatched := staff.New(w.db, staff.Config{Now: func() time.Time { return w.now }})
	err := pgx.BeginFunc(t.Context(), w.db, func(tx pgx.Tx) error {
		_, _, err := unwatched.MakeBreakGlass(t.Context(), tx, "admin")
		return err
	})
	if !errors.Is(err, staff.ErrNoAlarm) {
		t.Errorf("an account that alarms nobody: %v", err)
	}
}

func TestTheAlarmIsWordedInBothLanguages(t *testing.T) {
	w := newWorld(t)
	_, code := w.envelope(t)
	if _, err := w.breakGlass(t, code); err != nil {
		t.Fatal(err)
	}
	templates, err := mail.NewTemplates(staff.MailTemplates)
	if err != nil {
		t.Fatal(err)
	}
	queue, err := jobs.New(w.db, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	master, err := seal.New(make([]byte, seal.Size))
	if err != nil {
		t.Fatal(err)
	}
	outbox := mail.New(w.db, queue, templates, master, func() time.Time { return w.now })
	for _, lang := range []string{"en", "fr"} {
		m := w.mail.sent[0]
		m.Lang, m.Key = lang, lang
		w.in(t, func(tx pgx.Tx) error { return outbox.Enqueue(t.Context(), tx, m) })
	}
}
