package seal

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
)

func TestABoxOpensOnlyUnchangedWithItsKeyAndContext(t *testing.T) {
	k, err := New(Generate())
	if err != nil {
		t.Fatal(err)
	}
	other, err := New(Generate())
	if err != nil {
		t.Fatal(err)
	}
	box := k.Seal([]byte("secret"), []byte("row 1"))
	if got, err := k.Open(box, []byte("row 1")); err != nil || string(got) != "secret" {
		t.Fatalf("Open = %q, %v", got, err)
	}
	if bytes.Contains(box, []byte("secret")) {
		t.Error("the box shows the text")
	}
	for name, open := range map[string]func() ([]byte, error){
		"another row":    func() ([]byte, error) { return k.Open(box, []byte("row 2")) },
		"another key":    func() ([]byte, error) { return other.Open(box, []byte("row 1")) },
		"one bit":        func() ([]byte, error) { b := bytes.Clone(box); b[len(b)-1] ^= 1; return k.Open(b, []byte("row 1")) },
		"nothing at all": func() ([]byte, error) { return k.Open(nil, []byte("row 1")) },
	} {
		if _, err := open(); !errors.Is(err, ErrOpen) {
			t.Errorf("%s: err = %v, want ErrOpen", name, err)
		}
	}
}

func TestMACsOfLabelsDiffer(t *testing.T) {
	k, err := New(bytes.Repeat([]byte{7}, Size))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(k.MAC("a", []byte("x")), k.MAC("b", []byte("x"))) || !bytes.Equal(k.MAC("a", []byte("x")), k.MAC("a", []byte("x"))) {
		t.Error("labels share a key, or one label is not stable")
	}
}

func TestAKeyIsNeverPrinted(t *testing.T) {
	k, err := New(bytes.Repeat([]byte{7}, Size))
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"%v", "%s", "%+v", "%#v"} {
		if got := fmt.Sprintf(format, k); got != "[secret]" {
			t.Errorf("%s prints %s", format, got)
		}
	}
	if _, err := New([]byte("short")); err == nil {
		t.Error("a short master key is accepted")
	}
}
