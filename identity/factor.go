package identity

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Factor is one thing by which a person proves to be who they are. The names are stored.
type Factor string

const (
	FactorEmail   Factor = "email"        // a code sent to a verified address
	FactorPasskey Factor = "passkey"      // a passkey that its owner's devices share
	FactorKey     Factor = "security-key" // a passkey that never leaves one device
	FactorApp     Factor = "app"          // a code of an authenticator app
	FactorBackup  Factor = "backup-code"  // one of the app's backup codes
	FactorCounter Factor = "counter"      // a code handed out at a counter
	FactorPartner Factor = "partner"      // another organisation's sign-in, at level 1
	FactorVouched Factor = "partner-2"    // the same, at the level of two factors
)

// strong are the factors that reach level 2, alone or beside a code.
var strong = []Factor{FactorPasskey, FactorKey, FactorApp, FactorBackup, FactorVouched}

// proofs are the factors of a session, with when each was last proved.
type proofs map[Factor]time.Time

// level is the assurance that the factors reach: 1 by one of them, 2 by two or by
// a passkey, which is a device and its owner's gesture together. Level 3 is level 2 of a
// person whose identity was proved: that stands with the person.
func (p proofs) level() int {
	if p.has(FactorPasskey, FactorKey, FactorVouched) || p.has(FactorEmail, FactorCounter) && p.has(FactorApp, FactorBackup) {
		return 2
	}
	return 1
}

func (p proofs) has(any ...Factor) bool {
	return slices.ContainsFunc(any, func(f Factor) bool { return !p[f].IsZero() })
}

// Levels lists the levels that the ways of signing in can reach, lowest first.
func Levels() []int { return []int{1, 2, 3} }

// strongAt is when level 2 was last proved, zero below it.
func (p proofs) strongAt() time.Time {
	var at time.Time
	if p.level() < 2 {
		return at
	}
	for _, f := range strong {
		if p[f].After(at) {
			at = p[f]
		}
	}
	return at
}

// amr names the factors in the words of RFC 8176. A department learns no more than that.
func (p proofs) amr() []string {
	words := map[Factor][]string{
		FactorEmail: {"otp"}, FactorCounter: {"otp"}, FactorApp: {"otp"}, FactorBackup: {"otp"},
		FactorPasskey: {"swk", "user"}, FactorKey: {"hwk", "user"}, FactorPartner: {"fed"}, FactorVouched: {"fed"},
	}
	var amr []string
	for _, f := range []Factor{FactorPasskey, FactorKey, FactorEmail, FactorCounter, FactorApp, FactorBackup, FactorPartner, FactorVouched} {
		if p[f].IsZero() {
			continue
		}
		for _, word := range words[f] {
			if !slices.Contains(amr, word) {
				amr = append(amr, word)
			}
		}
	}
	if p.level() == 2 {
		amr = append(amr, "mfa")
	}
	return amr
}

// way tells the factors in the words of the history: "email", "email+app", "passkey".
func (p proofs) way() string {
	var words []string
	for f := range p {
		words = append(words, string(f))
	}
	slices.SortFunc(words, func(a, b string) int { // in the order in which they were proved
		return cmp.Or(p[Factor(a)].Compare(p[Factor(b)]), strings.Compare(b, a))
	})
	return strings.Join(words, "+")
}

// freshFor is how long a proof of level 2 counts for what needs it to be recent.
const freshFor = 5 * time.Minute

// Top is the level that the person can reach without a visit to a counter.
func (p Person) Top() int {
	if p.Proofed {
		return 3
	}
	return 2
}

// Fresh reports whether the person has proved level 2 in the last five minutes.
func (p Person) Fresh(now time.Time) bool { return p.ACR >= 2 && now.Sub(p.StrongAt) <= freshFor }

// ProvedRecently reports whether the person has proved anything in the last ten minutes:
// enough to set up a first second factor.
func (p Person) ProvedRecently(now time.Time) bool { return now.Sub(p.SignedInAt) <= 10*time.Minute }

// Factors says how a person can prove more than an address.
type Factors struct {
	Passkeys int
	App      bool
	Backup   int // backup codes left
}

// Strong reports whether there is a way to level 2.
func (f Factors) Strong() bool { return f.Passkeys > 0 || f.App }

// Factors reads how a resident can reach level 2.
func (s *Service) Factors(ctx context.Context, residentID string) (Factors, error) {
	return s.factors(ctx, s.db, residentID)
}

func (s *Service) factors(ctx context.Context, q Querier, residentID string) (Factors, error) {
	var f Factors
	err := q.QueryRow(ctx, `
		select (select count(*) from identity.passkey where resident_id = $1),
			exists (select from identity.app where resident_id = $1 and confirmed_at is not null),
			(select count(*) from identity.backup_code where resident_id = $1 and used_at is null)`, residentID).
		Scan(&f.Passkeys, &f.App, &f.Backup)
	if err != nil {
		return Factors{}, fmt.Errorf("read factors of %s: %w", residentID, err)
	}
	return f, nil
}

func orEmpty(p proofs) proofs {
	if p == nil {
		return proofs{}
	}
	return p
}
