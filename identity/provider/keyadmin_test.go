package provider_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"guichet/identity/provider"
)

func TestKeysRotateByHand(t *testing.T) {
	w := newWorld(t, false)
	if err := w.TendKeys(t.Context()); err != nil {
		t.Fatal(err)
	}
	state := func(want string) []string {
		t.Helper()
		keys, err := w.Keys(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var list []string
		for _, k := range keys {
			if k.Alg == provider.ES256 && k.State == want {
				list = append(list, k.Kid)
			}
		}
		return list
	}
	first, second := state("active")[0], state("next")[0]
	if err := w.RotateKey(t.Context(), provider.ES256, "admin"); !errors.Is(err, provider.ErrTooSoon) {
		t.Errorf("before clients can know the next key: %v", err)
	}
	if err := w.RotateKey(t.Context(), "none", "admin"); !errors.Is(err, provider.ErrAlg) {
		t.Errorf("no algorithm: %v", err)
	}
	w.now = w.now.Add(25 * time.Hour)
	if err := w.RotateKey(t.Context(), provider.ES256, "admin"); err != nil {
		t.Fatal(err)
	}
	if got := state("active")[0]; got != second || state("retiring")[0] != first || !slices.Contains(kids(t, w.Service), first) || len(state("next")) != 1 {
		t.Errorf("after rotation %q signs, retiring %v, next %v", got, state("retiring"), state("next"))
	}
	third := state("next")[0]
	if err := w.WithdrawKey(t.Context(), provider.ES256, "admin"); err != nil { // at once, however new the next is
		t.Fatal(err)
	}
	if got := state("active")[0]; got != third || slices.Contains(kids(t, w.Service), second) || !slices.Contains(state("gone"), second) {
		t.Errorf("after a leak %q signs; the leaked key verifies: %v", got, slices.Contains(kids(t, w.Service), second))
	}
}
