package id

import (
	"strings"
	"testing"
)

func TestNormalizeFindsEverySlip(t *testing.T) {
	for range 200 {
		code := Code(8)
		if got, ok := Normalize(strings.ToLower(Group(code))); !ok || got != code {
			t.Fatalf("Normalize(%q) = %q, %v", Group(code), got, ok)
		}
		for i := range code {
			for _, c := range alphabet {
				if byte(c) == code[i] {
					continue
				}
				if _, ok := Normalize(code[:i] + string(c) + code[i+1:]); ok {
					t.Fatalf("%s with %c at %d passes the check", code, c, i)
				}
			}
		}
	}
}

func TestNormalizeRefusesWhatIsNoCode(t *testing.T) {
	for _, bad := range []string{"", "7", "7K3M_92QX", "é", "7K3M-92Q\x00"} {
		if _, ok := Normalize(bad); ok {
			t.Errorf("Normalize(%q) passes", bad)
		}
	}
	if !Valid(New()) || Valid("x") || Valid(strings.Repeat("g", 36)) {
		t.Error("Valid does not tell a UUID from other text")
	}
}
