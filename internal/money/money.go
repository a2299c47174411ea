// Package money holds amounts of money and the few sums that must never be
// wrong by a cent: splitting, percentages, cash rounding, and how an amount is
// written in English and French. It knows no accounts, taxes or currencies'
// markets; a price rule lives in payments/fee.
//
// An Amount is an integer of minor units (cents). Nothing here is a float.
package money

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
)

// An Amount is a number of minor units of a currency: 1234 is 12.34 CAD.
// Debit is positive and credit negative wherever a sign means a side.
type Amount int64

// CAD is the only currency a city in Canada keeps books in. ISO 4217.
const CAD = "CAD"

// ErrRange reports a sum that leaves the range of an Amount.
var ErrRange = errors.New("amount out of range")

// Add returns a+b, or ErrRange if the sum does not fit.
func Add(a, b Amount) (Amount, error) {
	s := a + b
	if (b > 0 && s < a) || (b < 0 && s > a) {
		return 0, fmt.Errorf("%d + %d: %w", a, b, ErrRange)
	}
	return s, nil
}

// Sum adds amounts, or returns ErrRange.
func Sum(amounts ...Amount) (Amount, error) {
	var total Amount
	for _, a := range amounts {
		var err error
		if total, err = Add(total, a); err != nil {
			return 0, err
		}
	}
	return total, nil
}

// Percent returns a × rate, where rate is in millionths (13 % is 130000),
// rounded to the minor unit half away from zero. The product is taken exactly.
func Percent(a Amount, rateMillionths int64) (Amount, error) {
	p := new(big.Int).Mul(big.NewInt(int64(a)), big.NewInt(rateMillionths))
	half := big.NewInt(500_000)
	if p.Sign() < 0 {
		half.Neg(half)
	}
	p.Add(p, half).Quo(p, big.NewInt(1_000_000)) // Quo truncates toward zero
	if !p.IsInt64() {
		return 0, fmt.Errorf("%d × %d/1000000: %w", a, rateMillionths, ErrRange)
	}
	return Amount(p.Int64()), nil
}

// Split divides total over weights by largest remainder, so that the parts
// always sum to total. Ties go to the earlier part. Weights must not be negative
// and must not all be zero; total may be negative.
func Split(total Amount, weights []Amount) ([]Amount, error) {
	sum := new(big.Int)
	for _, w := range weights {
		if w < 0 {
			return nil, fmt.Errorf("split %d: negative weight %d", total, w)
		}
		sum.Add(sum, big.NewInt(int64(w)))
	}
	if sum.Sign() == 0 {
		return nil, fmt.Errorf("split %d: no weight above zero", total)
	}
	sign := Amount(1)
	abs := new(big.Int).Abs(big.NewInt(int64(total)))
	if total < 0 {
		sign = -1
	}
	parts := make([]Amount, len(weights))
	rest := make([]*big.Int, len(weights))
	left := new(big.Int).Set(abs)
	for i, w := range weights {
		q, r := new(big.Int).QuoRem(new(big.Int).Mul(abs, big.NewInt(int64(w))), sum, new(big.Int))
		parts[i], rest[i] = Amount(q.Int64()), r
		left.Sub(left, q)
	}
	// Fewer units are left than there are parts with a remainder: one each.
	for n := left.Int64(); n > 0; n-- {
		best := -1
		for i := range rest {
			if rest[i].Sign() > 0 && (best < 0 || rest[i].Cmp(rest[best]) > 0) {
				best = i
			}
		}
		parts[best]++
		rest[best] = new(big.Int)
	}
	for i := range parts {
		parts[i] *= sign
	}
	return parts, nil
}

// RoundCash rounds to the nearest five cents, as Canadian cash is (CRA GI-131).
// Only the amount handed over in cash is rounded, after tax.
func RoundCash(a Amount) Amount {
	r := a % 5
	switch {
	case r > 2:
		return a + 5 - r
	case r < -2:
		return a - 5 - r
	}
	return a - r
}

// String writes the amount as a plain decimal: 1234 is "12.34". This is the
// form of files and APIs; people read Format.
func (a Amount) String() string {
	sign, n := "", uint64(a)
	if a < 0 {
		sign, n = "-", -n
	}
	return fmt.Sprintf("%s%d.%02d", sign, n/100, n%100)
}

// Parse reads the form String writes: digits, optionally a point and exactly two
// digits, optionally a leading minus. No thousands separators, no spaces.
func Parse(s string) (Amount, error) {
	digits, neg := strings.CutPrefix(s, "-")
	whole, cents, point := strings.Cut(digits, ".")
	if whole == "" || (point && len(cents) != 2) || strings.Trim(whole+cents, "0123456789") != "" {
		return 0, fmt.Errorf("amount %q: want digits, a point and two digits", s)
	}
	if !point {
		cents = "00"
	}
	n, err := strconv.ParseInt(whole+cents, 10, 64)
	if err != nil || n == math.MinInt64 {
		return 0, fmt.Errorf("amount %q: %w", s, ErrRange)
	}
	if neg {
		n = -n
	}
	return Amount(n), nil
}

// Format writes the amount as a person in Canada reads it: "$1,234.50" in
// English, "1 234,50 $" in French, there with no-break spaces (U+00A0).
func (a Amount) Format(lang string) string {
	plain := a.String()
	sign := ""
	if strings.HasPrefix(plain, "-") {
		sign, plain = "-", plain[1:]
	}
	whole, cents, _ := strings.Cut(plain, ".")
	sep := ","
	if lang == "fr" {
		sep = "\u00a0"
	}
	var b strings.Builder
	for i, d := range whole {
		if i > 0 && (len(whole)-i)%3 == 0 {
			b.WriteString(sep)
		}
		b.WriteRune(d)
	}
	if lang == "fr" {
		return sign + b.String() + "," + cents + "\u00a0$"
	}
	return sign + "$" + b.String() + "." + cents
}
