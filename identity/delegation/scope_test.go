package delegation

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"guichet/internal/clock"
	"guichet/internal/money"
)

func TestParseNumber(t *testing.T) {
	for typed, want := range map[string]string{
		"": "", "100000009": "100000009", "10000 0009 rt0001": "100000009RT0001", "100000009-RC0001": "100000009RC0001",
	} {
		if got, err := ParseNumber(typed); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", typed, got, err, want)
		}
	}
	for _, typed := range []string{"100000008", "10000009", "1000000090", "100000009RT1", "100000009TR0001", "100000009R00001", "１00000009", "abcdefghi"} {
		if got, err := ParseNumber(typed); err == nil {
			t.Errorf("%q is taken as %q", typed, got)
		}
	}
}

// A deed is what somebody wants to do under a right.
type deed struct {
	right      Right
	department string
	amount     money.Amount // of one payment, that is the month's first
	on         clock.Date
	passOn     bool
}

// allows says what a scope means, one rule after the other.
func (s Scope) allows(d deed) bool {
	if s.Until != (clock.Date{}) && d.on.After(s.Until) {
		return false
	}
	if !slices.Contains(s.Rights, d.right) {
		return false
	}
	if len(s.Departments) > 0 && !slices.Contains(s.Departments, d.department) {
		return false
	}
	if s.PerPayment > 0 && d.amount > s.PerPayment || s.PerMonth > 0 && d.amount > s.PerMonth {
		return false
	}
	return !d.passOn || s.MayDelegate
}

// Over random scopes: Within is true only when everything the inner one allows, the outer one
// does too; and when it is false, the inner one promises something that the outer does not.
func TestWithinIsWhatTheDeedsSay(t *testing.T) {
	seed := uint64(time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC).Unix())
	r := rand.New(rand.NewPCG(seed, 1))
	first := clock.Date{Year: 2026, Month: 11, Day: 24}
	departments := []string{"parking", "permits", "water", "new"} // nobody names the last: it stands for those to come
	amounts := []money.Amount{0, 1, 2, 3}
	pick := func() Scope {
		s := Scope{PerPayment: amounts[r.IntN(4)], PerMonth: amounts[r.IntN(4)], MayDelegate: r.IntN(2) == 0}
		for _, right := range Rights() {
			if r.IntN(2) == 0 {
				s.Rights = append(s.Rights, right)
			}
		}
		for _, d := range departments[:3] {
			if r.IntN(3) == 0 {
				s.Departments = append(s.Departments, d)
			}
		}
		if n := r.IntN(4); n < 3 {
			s.Until = first.AddDays(n)
		}
		return s.normal()
	}
	var within int
	for range 20000 {
		inner, outer := pick(), pick()
		if len(inner.Rights) == 0 {
			continue
		}
		contained := true
		for _, right := range Rights() {
			for _, d := range departments {
				for _, amount := range []money.Amount{1, 2, 3, 1000} {
					for day := range 4 {
						for _, passOn := range []bool{false, true} {
							do := deed{right, d, amount, first.AddDays(day), passOn}
							contained = contained && (!inner.allows(do) || outer.allows(do))
						}
					}
				}
			}
		}
		got := inner.Within(outer)
		if got {
			within++
		}
		if got && !contained {
			t.Fatalf("seed %d: %+v is taken to lie within %+v", seed, inner, outer)
		}
		// Within looks at each limit by itself: it may refuse what two limits together would allow,
		// never the other way round. Without limits it is exact.
		if !got && contained && inner.PerPayment == 0 && inner.PerMonth == 0 && outer.PerPayment == 0 && outer.PerMonth == 0 {
			t.Fatalf("seed %d: %+v is refused though it lies within %+v", seed, inner, outer)
		}
	}
	if within < 100 {
		t.Errorf("only %d pairs lay within each other: the test tests nothing", within)
	}
}
