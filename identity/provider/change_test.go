package provider_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/identity"
	"guichet/identity/provider"
	"guichet/internal/approval"
)

// client registers parking's client, approved, and returns its secret.
func (w *world) client(t *testing.T) string {
	t.Helper()
	var created provider.Created
	err := w.in(t, func(tx pgx.Tx) (err error) {
		created, err = w.CreateClient(t.Context(), tx, w.parking())
		return err
	})
	if err == nil {
		err = w.decide(t, created.Approval, "admin-2", true)
	}
	if err != nil {
		t.Fatal(err)
	}
	return created.Secret
}

func (w *world) decide(t *testing.T, approvalID, by string, yes bool) error {
	t.Helper()
	return w.in(t, func(tx pgx.Tx) error {
		d := approval.Decision{ID: approvalID, By: by, At: w.now}
		if yes {
			return w.Approve(t.Context(), tx, d)
		}
		return w.Refuse(t.Context(), tx, d)
	})
}

func (w *world) rotate(t *testing.T, r provider.Rotation) (secret string, err error) {
	t.Helper()
	r.Client, r.By = "parking-portal", "admin-1"
	err = w.in(t, func(tx pgx.Tx) error {
		secret, err = w.RotateSecret(t.Context(), tx, r)
		return err
	})
	return secret, err
}

// proves reports whether a secret opens the token endpoint.
func (w *world) proves(t *testing.T, secret string) bool {
	t.Helper()
	_, err := w.Authenticate(t.Context(), provider.Credentials{ClientID: "parking-portal", Secret: secret, Method: provider.SecretBasic}, identity.Visitor{})
	return err == nil
}

func TestTwoSecretsWorkWhileOneReplacesTheOther(t *testing.T) {
	w := newWorld(t, false)
	first := w.client(t)
	second, err := w.rotate(t, provider.Rotation{Overlap: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if first == second || !w.proves(t, first) || !w.proves(t, second) || w.proves(t, "") || w.proves(t, "neither") {
		t.Error("during the overlap not exactly both work")
	}
	w.now = w.now.Add(time.Hour)
	if w.proves(t, first) || !w.proves(t, second) {
		t.Error("after the overlap the old secret works, or the new one does not")
	}
	w.now = w.now.Add(-time.Minute)
	for range 2 { // again changes nothing
		if err := w.in(t, func(tx pgx.Tx) error { return w.RevokeOldSecret(t.Context(), tx, "parking-portal", "admin-1") }); err != nil {
			t.Fatal(err)
		}
	}
	if w.proves(t, first) || !w.proves(t, second) {
		t.Error("a revoked secret works, or the current one does not")
	}
	third, err := w.rotate(t, provider.Rotation{})
	if err != nil || w.proves(t, second) || !w.proves(t, third) {
		t.Errorf("without overlap the old secret works on, or the new one does not: %v", err)
	}
	var rotated int
	if err := w.db.QueryRow(t.Context(), `select count(*) from ops.audit where action = 'client.secret_rotated'`).Scan(&rotated); err != nil || rotated != 2 {
		t.Errorf("%d rotations in the audit, want 2 (%v)", rotated, err)
	}
}

func TestRotationRefuses(t *testing.T) {
	w := newWorld(t, false)
	first := w.client(t)
	was, err := w.Registered(t.Context(), "parking-portal")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.rotate(t, provider.Rotation{Overlap: provider.MaxOverlap + 1}); !errors.Is(err, provider.ErrOverlap) {
		t.Errorf("an overlap without end: %v", err)
	}
	w.now = w.now.Add(time.Minute)
	if _, err := w.rotate(t, provider.Rotation{Overlap: time.Hour, Seen: &was.SecretMadeAt}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.rotate(t, provider.Rotation{Overlap: time.Hour, Seen: &was.SecretMadeAt}); !errors.Is(err, provider.ErrRotated) {
		t.Errorf("the same form a second time: %v", err)
	}
	if !w.proves(t, first) {
		t.Error("the second click threw out the secret in use")
	}
	err = w.in(t, func(tx pgx.Tx) error {
		_, err := w.RotateSecret(t.Context(), tx, provider.Rotation{Client: "nobody"})
		return err
	})
	if !errors.Is(err, provider.ErrNotFound) {
		t.Errorf("an unknown client: %v", err)
	}
}

func TestASecondClientOfAnIDIsRefused(t *testing.T) {
	for _, development := range []bool{true, false} {
		w := newWorld(t, development)
		create := func() error {
			return w.in(t, func(tx pgx.Tx) error {
				_, err := w.CreateClient(t.Context(), tx, w.parking())
				return err
			})
		}
		if err := create(); err != nil {
			t.Fatal(err)
		}
		if err := create(); !errors.Is(err, provider.ErrTaken) {
			t.Errorf("development %v: %v, want ErrTaken", development, err)
		}
	}
}

func TestAChangeWaitsForASecondPerson(t *testing.T) {
	w := newWorld(t, false)
	w.client(t)
	scopes, alg := []string{"openid"}, provider.RS256
	propose := func(c provider.Change) (approvalID string, err error) {
		err = w.in(t, func(tx pgx.Tx) error {
			approvalID, err = w.ProposeChange(t.Context(), tx, "parking-portal", c, "admin-1")
			return err
		})
		return approvalID, err
	}
	if _, err := propose(provider.Change{Name: &provider.Words{EN: "Parking", FR: "Stationnement"}}); !errors.Is(err, provider.ErrNothing) {
		t.Errorf("a change to what is: %v", err)
	}
	bad := "HS256"
	if _, err := propose(provider.Change{Alg: &bad}); err == nil {
		t.Error("an algorithm that is not offered was proposed")
	}
	first, err := propose(provider.Change{Scopes: &scopes, Alg: &alg})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := propose(provider.Change{Alg: &alg}); !errors.Is(err, approval.ErrPending) {
		t.Errorf("a second change beside the first: %v", err)
	}
	c, err := w.Client(t.Context(), "parking-portal")
	if err != nil || c.Alg != provider.ES256 || len(c.Scopes) == 1 {
		t.Errorf("a proposed change is in force: %+v, %v", c, err)
	}
	if err := w.decide(t, first, "admin-1", true); !errors.Is(err, approval.ErrSamePerson) {
		t.Errorf("the requester approves: %v", err)
	}
	if err := w.decide(t, first, "admin-2", true); err != nil {
		t.Fatal(err)
	}
	c, err = w.Client(t.Context(), "parking-portal")
	if err != nil || c.Alg != provider.RS256 || !slices.Equal(c.Scopes, scopes) || c.Name.FR != "Stationnement" {
		t.Errorf("after approval: %+v, %v", c, err)
	}
	post := provider.SecretPost
	second, err := propose(provider.Change{AuthMethod: &post})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.decide(t, second, "admin-2", false); err != nil {
		t.Fatal(err)
	}
	if c, err = w.Client(t.Context(), "parking-portal"); err != nil || c.AuthMethod != provider.SecretBasic {
		t.Errorf("a refused change: %+v, %v", c, err)
	}
}

func TestADisabledClientComesBackByTwoPersons(t *testing.T) {
	w := newWorld(t, false)
	secret := w.client(t)
	for range 2 {
		if err := w.in(t, func(tx pgx.Tx) error { return w.Disable(t.Context(), tx, "parking-portal", "admin-1", "leaked") }); err != nil {
			t.Fatal(err)
		}
	}
	if w.proves(t, secret) {
		t.Error("a disabled client proves itself")
	}
	var approvalID string
	err := w.in(t, func(tx pgx.Tx) (err error) {
		approvalID, err = w.ProposeChange(t.Context(), tx, "parking-portal", provider.Change{Enable: true}, "admin-1")
		return err
	})
	if err != nil || w.proves(t, secret) {
		t.Fatalf("proposing enables, or: %v", err)
	}
	if err := w.decide(t, approvalID, "admin-2", true); err != nil || !w.proves(t, secret) {
		t.Errorf("after approval it does not work: %v", err)
	}
	if err := w.in(t, func(tx pgx.Tx) error { return w.Disable(t.Context(), tx, "nobody", "admin-1", "") }); !errors.Is(err, provider.ErrNotFound) {
		t.Errorf("an unknown client: %v", err)
	}
}

func TestTheLastFiftyRefusalsAreKept(t *testing.T) {
	w := newWorld(t, false)
	w.client(t)
	refuse := func(name string, n int) {
		t.Helper()
		if err := w.Refused(t.Context(), name, provider.Refusal{Endpoint: "token", Code: "invalid_grant", Description: fmt.Sprint(n)}); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 30 {
		refuse("parking-portal", n)
	}
	refuse("nobody", 0)
	refuse("no name at all", 0)
	list, err := w.Refusals(t.Context(), "parking-portal")
	if err != nil || len(list) != 20 || list[0].Description != "19" {
		t.Fatalf("%d in one minute, want the first 20: %v, %v", len(list), list, err)
	}
	for n := 100; n < 160; n++ {
		w.now = w.now.Add(10 * time.Second)
		refuse("parking-portal", n)
	}
	list, err = w.Refusals(t.Context(), "parking-portal")
	if err != nil || len(list) != 50 || list[0].Description != "159" || list[49].Description != "110" || !list[0].At.Equal(w.now) {
		t.Errorf("%d kept, from %v, %v", len(list), list[0], err)
	}
	var rows int
	if err := w.db.QueryRow(t.Context(), `select count(*) from identity.client_error`).Scan(&rows); err != nil || rows != 50 {
		t.Errorf("%d rows, want 50 (%v)", rows, err)
	}
}
