// Package id makes identifiers: UUIDv7 for rows, secrets for capabilities, and
// short codes with a check digit for what people read aloud or type.
//
// A UUID names a row and is never a capability: whoever knows it has proved
// nothing. Secrets come from crypto/rand with 256 bits.
package id

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/big"
	"strings"

	"github.com/google/uuid"
)

// New returns a UUIDv7 (RFC 9562, section 5.7): its time order keeps indexes dense.
func New() string {
	return uuid.Must(uuid.NewV7()).String() // fails only when crypto/rand does
}

// Valid reports whether s is a UUID in its 36-character form. What fails it must
// not reach SQL, where it would be an error and not "not found".
func Valid(s string) bool {
	return len(s) == 36 && uuid.Validate(s) == nil
}

// Secret returns 256 random bits in base64url: a session token, an authorization
// code, a client secret.
func Secret() string {
	var b [32]byte
	rand.Read(b[:]) // never fails: crypto/rand crashes the program instead
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// Hash is how a Secret is stored: SHA-256 is enough for 256 random bits.
func Hash(secret string) []byte {
	h := sha256.Sum256([]byte(secret))
	return h[:]
}

// alphabet is Crockford's base 32 order without I, L, O and U: nothing that reads
// as another character, and no words.
const alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// Code returns n random characters and one check character, to be written in
// groups by Group. The check finds every single wrong character and
// nearly every swap of neighbours.
func Code(n int) string {
	var b strings.Builder
	for range n {
		k, err := rand.Int(rand.Reader, big.NewInt(int64(len(alphabet))))
		if err != nil {
			panic(fmt.Sprintf("crypto/rand: %v", err)) // documented never to happen
		}
		b.WriteByte(alphabet[k.Int64()])
	}
	return b.String() + string(check(b.String()))
}

// check is Luhn modulo N over the alphabet (ISO/IEC 7812-1 annex B, widened to 32).
func check(s string) byte {
	factor, sum := 2, 0
	for i := len(s) - 1; i >= 0; i-- {
		add := factor * strings.IndexByte(alphabet, s[i])
		sum += add/len(alphabet) + add%len(alphabet)
		factor = 3 - factor
	}
	return alphabet[(len(alphabet)-sum%len(alphabet))%len(alphabet)]
}

// Normalize brings a code as typed to the form it is stored in: upper case, no
// spaces or dashes, O read as 0, I and L as 1. It reports whether the check
// character is right.
func Normalize(typed string) (string, bool) {
	var b strings.Builder
	for _, r := range strings.ToUpper(typed) {
		switch r {
		case ' ', '-', '\u00a0', '\u2011', '\u2013':
			continue
		case 'O':
			r = '0'
		case 'I', 'L':
			r = '1'
		}
		if r > 127 || strings.IndexByte(alphabet, byte(r)) < 0 {
			return "", false
		}
		b.WriteRune(r)
	}
	s := b.String()
	if len(s) < 2 || check(s[:len(s)-1]) != s[len(s)-1] {
		return s, false
	}
	return s, true
}

// Group writes a code in groups of four for reading: "7K3M-92QX-D".
func Group(code string) string {
	var parts []string
	for len(code) > 4 {
		parts, code = append(parts, code[:4]), code[4:]
	}
	return strings.Join(append(parts, code), "-")
}
