package identity

import (
	"net/mail"
	"strings"
	"testing"
)

func TestParseEmail(t *testing.T) {
	good := map[string]string{
		" Ann@Example.COM\n":        "Ann@example.com",
		"a.b+c_d-e@x-y.example.com": "a.b+c_d-e@x-y.example.com",
		"o'brien@example.com":       "o'brien@example.com",
	}
	for in, want := range good {
		if got, err := ParseEmail(in); err != nil || got != want {
			t.Errorf("ParseEmail(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "@", "ann", "ann@", "@example.com", "ann@example", "ann@@example.com", "a b@example.com", ".a@example.com", "a.@example.com", "a..b@example.com",
		"ann@-x.com", "ann@x-.com", "ann@x..com", "ann@[127.0.0.1]", `"ann"@example.com`, "Ann <ann@example.com>", "ann@example.com\r\nBcc: x@example.com",
		"ann@example.com,x@example.com", "ann\x00@example.com", "é@example.com", "ann@exämple.com", strings.Repeat("a", 65) + "@example.com", "a@" + strings.Repeat("b.", 130) + "com",
	} {
		if got, err := ParseEmail(in); err == nil {
			t.Errorf("ParseEmail(%q) = %q, want an error", in, got)
		}
	}
}

// What passes must be one plain address for everybody who reads it after us.
func FuzzParseEmail(f *testing.F) {
	f.Add("ann@example.com")
	f.Add("a.b+c@x-y.example\r\n")
	f.Fuzz(func(t *testing.T, in string) {
		got, err := ParseEmail(in)
		if err != nil {
			return
		}
		a, err := mail.ParseAddress(got)
		if err != nil || a.Address != got || a.Name != "" {
			t.Errorf("ParseEmail(%q) = %q, which net/mail reads as %+v, %v", in, got, a, err)
		}
		if again, err := ParseEmail(got); err != nil || again != got {
			t.Errorf("ParseEmail(%q) = %q, %v", got, again, err)
		}
	})
}

func TestParseName(t *testing.T) {
	for in, want := range map[string]string{" Zoé  O’Neil-Tremblay ": "Zoé O’Neil-Tremblay", "李小龍": "李小龍", "X": "X"} {
		if got, err := ParseName(in); err != nil || got != want {
			t.Errorf("ParseName(%q) = %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "  ", "a\x00b", "a\x1bb", "evil\u202eexe", "\xff", strings.Repeat("é", 101)} {
		if got, err := ParseName(in); err == nil {
			t.Errorf("ParseName(%q) = %q, want an error", in, got)
		}
	}
}
