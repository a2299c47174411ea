package seal_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"guichet/internal/seal"
)

func newKey(t *testing.T, fill byte) *seal.Key {
	t.Helper()
	k, err := seal.New(bytes.Repeat([]byte{fill}, seal.Size))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestOpenReturnsWhatWasSealed(t *testing.T) {
	k := newKey(t, 7)
	for _, plain := range [][]byte{nil, []byte("a"), bytes.Repeat([]byte("né"), 10_000)} {
		one, two := k.Seal(plain, []byte("row:1")), k.Seal(plain, []byte("row:1"))
		if bytes.Equal(one, two) {
			t.Error("two boxes of the same text are equal")
		}
		got, err := k.Open(one, []byte("row:1"))
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("Open = %d bytes, %v; want %d", len(got), err, len(plain))
		}
	}
}

func TestAnythingElseDoesNotOpen(t *testing.T) {
	k := newKey(t, 7)
	box := k.Seal([]byte("text"), []byte("row:1"))
	if _, err := k.Open(box, []byte("row:2")); !errors.Is(err, seal.ErrBroken) {
		t.Errorf("moved to another row: %v", err)
	}
	if _, err := newKey(t, 8).Open(box, []byte("row:1")); !errors.Is(err, seal.ErrBroken) {
		t.Errorf("another key: %v", err)
	}
	for i := range box {
		bad := bytes.Clone(box)
		bad[i] ^= 1
		if _, err := k.Open(bad, []byte("row:1")); !errors.Is(err, seal.ErrBroken) {
			t.Errorf("bit flipped at %d: %v", i, err)
		}
		if _, err := k.Open(box[:i], []byte("row:1")); !errors.Is(err, seal.ErrBroken) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := seal.Create(path); err != nil {
		t.Fatal(err)
	}
	one, err := seal.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := seal.Create(path); err == nil {
		t.Error("a key file is overwritten")
	}
	two, err := seal.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := two.Open(one.Seal(nil, nil), nil); err != nil {
		t.Errorf("the same file gives another key: %v", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.Load(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a file that others may read: %v", err)
	}
	for _, text := range []string{"", "abc", strings.Repeat("g", 64), strings.Repeat("ab", 33)} {
		bad := filepath.Join(t.TempDir(), "bad")
		if err := os.WriteFile(bad, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := seal.Load(bad); err == nil || (text != "" && strings.Contains(err.Error(), text)) {
			t.Errorf("key %q: %v; want an error that does not quote it", text, err)
		}
	}
}

func TestKeyDoesNotPrint(t *testing.T) {
	k := newKey(t, 'A')
	for _, verb := range []string{"%v", "%+v", "%s", "%#v"} {
		if got := fmt.Sprintf(verb, k); got != "[secret]" {
			t.Errorf("%s prints %s", verb, got)
		}
	}
}

func FuzzOpen(f *testing.F) {
	k, err := seal.New(make([]byte, seal.Size))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{}, []byte{})
	f.Add(bytes.Repeat([]byte{1}, 40), []byte("row"))
	f.Fuzz(func(t *testing.T, box, aad []byte) {
		if _, err := k.Open(box, aad); !errors.Is(err, seal.ErrBroken) {
			t.Errorf("Open(%x) = %v", box, err)
		}
	})
}
