package department

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/id"
	"guichet/internal/jobs"
	"guichet/internal/seal"
	"guichet/internal/testdb"
)

// newTown is the service over a database with one department.
func newTown(t *testing.T) (*Service, Department) {
	t.Helper()
	db := testdb.New(t)
	key, err := seal.New(bytes.Repeat([]byte{1}, seal.Size))
	if err != nil {
		t.Fatal(err)
	}
	queue, err := jobs.New(db, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s := New(db, key, queue, time.Now)
	var d Department
	s.do(t, func(tx pgx.Tx) error {
		d, err = s.Create(t.Context(), tx, Department{Code: "parking", NameEN: "Parking", NameFR: "Stationnement"})
		return err
	})
	return s, d
}

func (s *Service) do(t *testing.T, f func(pgx.Tx) error) {
	t.Helper()
	if err := pgx.BeginFunc(t.Context(), s.db, f); err != nil {
		t.Fatal(err)
	}
}

func TestEndpointsArePublicUnlessAllowedOtherwise(t *testing.T) {
	s, d := newTown(t)
	for address, want := range map[string]struct{ public, private bool }{
		"https://hooks.example.ca/guichet": {true, true},
		"https://hooks.example.ca:443/":    {true, true},
		"https://hooks.example.ca:8443/":   {true, true},
		"https://hooks.example.ca:22/":     {false, true},
		"https://10.1.2.3/":                {false, true},
		"https://[::1]:8443/":              {false, true},
		"https://[64:ff9b::a00:1]/":        {false, true},
		"http://hooks.example.ca/":         {false, true},
		"ftp://hooks.example.ca/":          {false, false},
		"https://me@hooks.example.ca/":     {false, false},
		"https:///nowhere":                 {false, false},
		"https://:443/":                    {false, false},
	} {
		for _, private := range []bool{false, true} {
			tx, err := s.db.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.AddEndpoint(t.Context(), tx, d.ID, address, private)
			if ok := private && want.private || !private && want.public; (err == nil) != ok {
				t.Errorf("%s, private %v: %v, want accepted %v", address, private, err, ok)
			}
			if err := tx.Rollback(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestADisabledEndpointHearsNothingMore(t *testing.T) {
	s, d := newTown(t)
	heard := 0
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { heard++ }))
	defer server.Close()
	s.do(t, func(tx pgx.Tx) error {
		if _, err := s.AddEndpoint(t.Context(), tx, d.ID, server.URL, true); err != nil {
			return err
		}
		return s.Emit(t.Context(), tx, Event{DepartmentID: d.ID, Type: "bill.paid", ObjectType: "bill", ObjectID: id.New(), Sequence: 1, Data: struct{}{}})
	})
	if _, err := s.db.Exec(t.Context(), `update department.webhook_endpoint set state = 'disabled'`); err != nil {
		t.Fatal(err)
	}
	var delivery, state string
	if err := s.db.QueryRow(t.Context(), `select id from department.delivery`).Scan(&delivery); err != nil {
		t.Fatal(err)
	}
	if err := s.deliver(t.Context(), delivery); err != nil {
		t.Errorf("deliver: %v", err)
	}
	if err := s.db.QueryRow(t.Context(), `select state from department.delivery`).Scan(&state); err != nil || state != "failed" || heard != 0 {
		t.Errorf("the delivery is %s, %v, and the endpoint heard %d events; want failed and none", state, err, heard)
	}
}

func TestADisabledEndpointComesBackWithAnotherSecret(t *testing.T) {
	s, d := newTown(t)
	add := func() (secret string, err error) {
		err = pgx.BeginFunc(t.Context(), s.db, func(tx pgx.Tx) error {
			secret, err = s.AddEndpoint(t.Context(), tx, d.ID, "https://hooks.example.ca/guichet", false)
			return err
		})
		return secret, err
	}
	first, err := add()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := add(); !errors.Is(err, ErrExists) {
		t.Errorf("the same address again: %v", err)
	}
	list, err := s.Endpoints(t.Context(), s.db, d.ID)
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	for range 2 {
		s.do(t, func(tx pgx.Tx) error { return s.DisableEndpoint(t.Context(), tx, d.ID, list[0].ID) })
	}
	err = pgx.BeginFunc(t.Context(), s.db, func(tx pgx.Tx) error { return s.DisableEndpoint(t.Context(), tx, id.New(), list[0].ID) })
	if !errors.Is(err, ErrNoHook) {
		t.Errorf("another department's endpoint: %v", err)
	}
	second, err := add()
	if err != nil || second == first {
		t.Fatalf("again after disabling: %v", err)
	}
	if list, err = s.Endpoints(t.Context(), s.db, d.ID); err != nil || len(list) != 2 || list[0].State != "disabled" || list[1].State != "active" {
		t.Errorf("%+v, %v", list, err)
	}
}
