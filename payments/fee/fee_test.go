package fee

import (
	"errors"
	"testing"

	"guichet/internal/money"
)

func TestPrice(t *testing.T) {
	fine := Version{Code: "fine", Kind: "flat", Amount: 7500, Early: 5500, EarlyDays: 15, Tax: None, Revenue: "revenue:parking:fines"}
	inspection := Version{Code: "inspection", Kind: "flat", Amount: 16300, Tax: HST, Revenue: "revenue:permits:permits"}
	water := Version{Code: "water", Kind: "variable", Tax: Exempt, Revenue: "revenue:water:water"}
	tests := []struct {
		name     string
		v        Version
		quantity int
		given    money.Amount
		want     Price
		err      error
	}{
		{"early amount and the step to the set fine", fine, 1, 0, Price{Net: 5500, Step: 2000}, nil},
		{"each fine has its step", fine, 3, 0, Price{Net: 16500, Step: 6000}, nil},
		{"163.00 and HST is 184.19", inspection, 1, 0, Price{Net: 16300, Tax: 2119}, nil},
		{"tax is rounded once per line, not per piece", inspection, 3, 0, Price{Net: 48900, Tax: 6357}, nil},
		{"a variable fee takes the amount given", water, 1, 8736, Price{Net: 8736}, nil},
		{"a variable fee needs an amount", water, 1, 0, Price{}, ErrPrice},
		{"a negative amount is refused", water, 1, -5, Price{}, ErrPrice},
		{"ten million dollars is the most", water, 1, 10_000_000_01, Price{}, ErrPrice},
		{"a flat fee takes no amount", fine, 1, 5500, Price{}, ErrPrice},
		{"quantity zero is refused", fine, 0, 0, Price{}, ErrPrice},
		{"quantity beyond the bound is refused", fine, 10_001, 0, Price{}, ErrPrice},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.v.Price(tt.quantity, tt.given)
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("Price(%d, %s) = %+v, %v; want %+v, %v", tt.quantity, tt.given, got, err, tt.want, tt.err)
			}
		})
	}
}

func TestAFeeThatCannotBeBilledIsRefused(t *testing.T) {
	good := Version{Code: "fine", NameEN: "Fine", NameFR: "Amende", Kind: "flat", Amount: 7500, Tax: None, Revenue: "revenue:parking:fines"}
	if err := good.check(); err != nil {
		t.Fatal(err)
	}
	bad := map[string]func(*Version){
		"no French name":              func(v *Version) { v.NameFR = "" },
		"no revenue account":          func(v *Version) { v.Revenue = "" },
		"upper case code":             func(v *Version) { v.Code = "Fine" },
		"early above the amount":      func(v *Version) { v.Early, v.EarlyDays = 7500, 15 },
		"early amount without days":   func(v *Version) { v.Early = 5500 },
		"early amount on a taxed fee": func(v *Version) { v.Early, v.EarlyDays, v.Tax = 5500, 15, HST },
		"unknown tax":                 func(v *Version) { v.Tax = "gst" },
		"unknown kind":                func(v *Version) { v.Kind = "banded" },
		"variable with an amount":     func(v *Version) { v.Kind = "variable" },
		"flat without an amount":      func(v *Version) { v.Amount = 0 },
	}
	for name, spoil := range bad {
		v := good
		spoil(&v)
		if v.check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
