package keyed

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"

	"guichet/internal/seal"
	"guichet/internal/testdb"
)

func newKey(t *testing.T) *seal.Key {
	t.Helper()
	raw := make([]byte, seal.Size)
	rand.Read(raw)
	k, err := seal.New(raw)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestAPurposeKeepsItsKeyAndSharesItWithNoOther(t *testing.T) {
	db, k := testdb.New(t), newKey(t)
	load := func(purpose string) *Hasher {
		h, err := Load(t.Context(), db, k, purpose)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	a := load("a")
	if !bytes.Equal(a.Sum("x"), load("a").Sum("x")) {
		t.Error("the same purpose hashes differently after loading again")
	}
	if bytes.Equal(a.Sum("x"), load("b").Sum("x")) || bytes.Equal(a.Sum("x"), a.Sum("y")) {
		t.Error("two purposes, or two values, share a hash")
	}
	if _, err := Load(t.Context(), db, newKey(t), "a"); !errors.Is(err, seal.ErrBroken) {
		t.Errorf("another master key: %v, want ErrBroken", err)
	}
	if got := fmt.Sprintf("%v %#v", a, a); got != "[secret] [secret]" {
		t.Errorf("prints as %s", got)
	}
}
