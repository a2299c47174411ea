package bill_test

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"guichet/internal/id"
	"guichet/payments/bill"
	"guichet/payments/fee"
	"guichet/payments/paymentstest"
)

func TestIssuePutsTheBillIntoTheBooksOnce(t *testing.T) {
	c := paymentstest.New(t)
	n := c.Bill("permits", "inspection-extra", 0)
	b := c.Issue(t, n)
	if b.Billed != 18419 || b.State != bill.Open {
		t.Errorf("billed %s, state %s; want 184.19, open", b.Billed, b.State)
	}
	again, replayed, err := c.Bills.Issue(t.Context(), n)
	if err != nil || !replayed || again.ID != b.ID || again.Lines[0] != b.Lines[0] {
		t.Errorf("same key, same content: %s %+v, replayed %v, %v; want %s %+v", again.ID, again.Lines[0], replayed, err, b.ID, b.Lines[0])
	}
	other := n
	other.Reference = "other"
	if _, _, err := c.Bills.Issue(t.Context(), other); !errors.Is(err, bill.ErrConflict) {
		t.Errorf("same key, other content: %v, want ErrConflict", err)
	}
	other = n
	other.IdempotencyKey = id.New()
	if _, _, err := c.Bills.Issue(t.Context(), other); !errors.Is(err, bill.ErrReference) {
		t.Errorf("other key, same reference: %v, want ErrReference", err)
	}
	if got := c.Balance(t, bill.Receivable("permits")); got != 18419 {
		t.Errorf("receivable %s, want 184.19", got)
	}
	if got := c.Balance(t, bill.Uncollected("permits")); got != -18419 {
		t.Errorf("billed, not collected %s, want -184.19", got)
	}
}

func TestIssueOfTheSameKeyAtTheSameMomentIsOneBill(t *testing.T) {
	c := paymentstest.New(t)
	n := c.Bill("water", "water-consumption", 8736)
	bills := make([]bill.Bill, 8)
	var wg sync.WaitGroup
	for i := range bills {
		wg.Go(func() {
			var err error
			if bills[i], _, err = c.Bills.Issue(t.Context(), n); err != nil {
				t.Errorf("issue: %v", err)
			}
		})
	}
	wg.Wait()
	for _, b := range bills {
		if b.ID != bills[0].ID {
			t.Errorf("two bills for one key: %s and %s", b.ID, bills[0].ID)
		}
	}
	if got := c.Balance(t, bill.Receivable("water")); got != 8736 {
		t.Errorf("receivable %s, want 87.36", got)
	}
}

func TestWhatCannotBeBilledIsRefused(t *testing.T) {
	c := paymentstest.New(t)
	tests := map[string]struct {
		spoil func(*bill.NewBill)
		want  error
	}{
		"a fee of another department":     {func(n *bill.NewBill) { n.Lines[0].Fee = "water-consumption" }, fee.ErrNotFound},
		"a fee that is not in force yet":  {func(n *bill.NewBill) { n.IssuedOn.Year = 2019 }, fee.ErrNotFound},
		"an amount on a flat fee":         {func(n *bill.NewBill) { n.Lines[0].Amount = 1 }, fee.ErrPrice},
		"due before issue":                {func(n *bill.NewBill) { n.DueOn = n.IssuedOn.AddDays(-1) }, bill.ErrInvalid},
		"no line":                         {func(n *bill.NewBill) { n.Lines = nil }, bill.ErrInvalid},
		"nobody who could pay":            {func(n *bill.NewBill) { n.GuestKey = "" }, bill.ErrInvalid},
		"a guest key of punctuation only": {func(n *bill.NewBill) { n.GuestKey = "--" }, bill.ErrInvalid},
		"a text in one language":          {func(n *bill.NewBill) { n.Lines[0].DescriptionEN = "Fine" }, bill.ErrInvalid},
		"more than a billion dollars": {func(n *bill.NewBill) {
			*n = c.Bill("water", "water-consumption", 10_000_000_00)
			n.Lines[0].Quantity = 101
		}, bill.ErrTooMuch},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			n := c.Bill("parking", "parking-wrong-way", 0)
			tt.spoil(&n)
			_, _, err := c.Bills.Issue(t.Context(), n)
			if !errors.Is(err, tt.want) {
				t.Errorf("err = %v, want %v", err, tt.want)
			}
			if line := new(bill.LineError); errors.As(err, &line) && line.Line != 1 {
				t.Errorf("line %d is to blame, want 1", line.Line)
			}
		})
	}
	if got := c.Balance(t, bill.Receivable("parking")); got != 0 {
		t.Errorf("receivable %s after refusals, want 0", got)
	}
}

func TestAVersionOfAFeeIsAddedOnce(t *testing.T) {
	c := paymentstest.New(t)
	v := fee.Version{
		Code: "parking-wrong-way", NameEN: "Fee parking-wrong-way", NameFR: "Frais parking-wrong-way", Kind: "flat", Amount: 8000,
		Tax: fee.None, Revenue: "revenue:parking:fines", EffectiveFrom: c.Today(),
	}
	for _, tt := range []struct {
		name  string
		spoil func(*fee.Version)
		want  error
	}{
		{"a new version", func(*fee.Version) {}, nil},
		{"the same again", func(*fee.Version) {}, nil},
		{"the same date at another price", func(v *fee.Version) { v.Amount++ }, fee.ErrExists},
		{"a later version by another name", func(v *fee.Version) { v.NameFR, v.EffectiveFrom = "Autre", c.Today().AddDays(1) }, fee.ErrExists},
	} {
		next := v
		tt.spoil(&next)
		err := pgx.BeginFunc(t.Context(), c.DB, func(tx pgx.Tx) error {
			return fee.Add(t.Context(), tx, c.Books, c.Depart["parking"].ID, next, c.Clock.Now())
		})
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestAGuestNeedsNumberAndSecondFactor(t *testing.T) {
	c := paymentstest.New(t)
	n := c.Bill("parking", "parking-wrong-way", 0)
	n.GuestKey = "ckab 123"
	b := c.Issue(t, n)
	noGuests := c.Bill("parking", "parking-wrong-way", 0)
	noGuests.GuestKey, noGuests.ResidentID = "", id.New()
	closed := c.Issue(t, noGuests)

	if got, err := c.Bills.ForGuest(t.Context(), id.Group(b.Notice), "CKAB-123"); err != nil || got.ID != b.ID {
		t.Errorf("right number and plate: %v, %v", got.ID, err)
	}
	wrong := b.Notice[:len(b.Notice)-1] + string(b.Notice[0])
	for name, in := range map[string]struct {
		notice, key string
		want        error
	}{
		"wrong plate":                      {b.Notice, "CKAB 124", bill.ErrNotFound},
		"no plate":                         {b.Notice, "", bill.ErrNotFound},
		"no such notice":                   {id.Code(9), "CKAB 123", bill.ErrNotFound},
		"a bill that no guest may open":    {closed.Notice, "CKAB 123", bill.ErrNotFound},
		"a bill without key, and no plate": {closed.Notice, "", bill.ErrNotFound},
	} {
		if _, err := c.Bills.ForGuest(t.Context(), in.notice, in.key); !errors.Is(err, in.want) {
			t.Errorf("%s: %v, want %v", name, err, in.want)
		}
	}
	if _, ok := id.Normalize(wrong); !ok {
		if _, err := c.Bills.ForGuest(t.Context(), wrong, "CKAB 123"); !errors.Is(err, bill.ErrInvalid) {
			t.Errorf("slip in the number: %v, want ErrInvalid", err)
		}
	}
}

func TestADepartmentSeesOnlyItsOwn(t *testing.T) {
	c := paymentstest.New(t)
	b := c.Issue(t, c.Bill("parking", "parking-wrong-way", 0))
	other := c.Depart["water"].ID
	if _, err := c.Bills.Get(t.Context(), other, b.ID); !errors.Is(err, bill.ErrNotFound) {
		t.Errorf("get: %v, want ErrNotFound", err)
	}
	if _, err := c.Bills.Cancel(t.Context(), other, b.ID, "mistake"); !errors.Is(err, bill.ErrNotFound) {
		t.Errorf("cancel: %v, want ErrNotFound", err)
	}
	if list, err := c.Bills.List(t.Context(), other, bill.Filter{}); err != nil || len(list) != 0 {
		t.Errorf("list: %d bills, %v; want none", len(list), err)
	}
	if got, err := c.Bills.Get(t.Context(), b.DepartmentID, b.ID); err != nil || got.Notice != b.Notice {
		t.Errorf("its own: %v, %v", got.Notice, err)
	}
}

func TestADepartmentReadsItsBillsPageByPage(t *testing.T) {
	c := paymentstest.New(t)
	owner := id.New()
	var all, owned, cancelled []string
	for i := range 7 {
		n := c.Bill("parking", "parking-wrong-way", 0)
		if i%2 == 0 {
			n.ResidentID = owner
		}
		b := c.Issue(t, n)
		all = append(all, b.ID)
		if i%2 == 0 {
			owned = append(owned, b.ID)
		}
		if i%3 == 0 {
			if _, err := c.Bills.Cancel(t.Context(), b.DepartmentID, b.ID, "issued in error"); err != nil {
				t.Fatal(err)
			}
			cancelled = append(cancelled, b.ID)
		}
		c.Issue(t, c.Bill("water", "water-consumption", 1000)) // somebody else's
	}
	both := slices.DeleteFunc(slices.Clone(owned), func(b string) bool { return !slices.Contains(cancelled, b) })
	for name, tt := range map[string]struct {
		filter bill.Filter
		want   []string
	}{
		"all":          {bill.Filter{}, all},
		"of an owner":  {bill.Filter{ResidentID: owner}, owned},
		"in a state":   {bill.Filter{State: bill.Cancelled}, cancelled},
		"of nobody":    {bill.Filter{ResidentID: id.New()}, nil},
		"both at once": {bill.Filter{ResidentID: owner, State: bill.Cancelled}, both},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for tt.filter.Limit = 2; ; tt.filter.After = got[len(got)-1] {
				page, err := c.Bills.List(t.Context(), c.Depart["parking"].ID, tt.filter)
				if err != nil {
					t.Fatal(err)
				}
				for _, b := range page {
					got = append(got, b.ID)
				}
				if len(page) < 2 {
					break
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestCancelReversesTheBooksOnce(t *testing.T) {
	c := paymentstest.New(t)
	b := c.Issue(t, c.Bill("parking", "parking-wrong-way", 0))
	for range 2 {
		got, err := c.Bills.Cancel(t.Context(), b.DepartmentID, b.ID, "issued in error")
		if err != nil || got.State != bill.Cancelled {
			t.Fatalf("cancel: %s, %v", got.State, err)
		}
	}
	if got := c.Balance(t, bill.Receivable("parking")); got != 0 {
		t.Errorf("receivable %s, want 0", got)
	}
}

func TestCancelWithAKey(t *testing.T) {
	c := paymentstest.New(t)
	b, other := c.Issue(t, c.Bill("parking", "parking-wrong-way", 0)), c.Issue(t, c.Bill("parking", "parking-wrong-way", 0))
	n := bill.Cancellation{DepartmentID: b.DepartmentID, BillID: b.ID, Reason: "issued in error", IdempotencyKey: "k"}
	var first atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			got, replayed, err := c.Bills.CancelOnce(t.Context(), n)
			if err != nil || got.State != bill.Cancelled {
				t.Errorf("cancel: %s, %v", got.State, err)
			}
			if !replayed {
				first.Add(1)
			}
		})
	}
	wg.Wait()
	if first.Load() != 1 {
		t.Errorf("%d calls were the first, want 1", first.Load())
	}
	for name, spoil := range map[string]func(*bill.Cancellation){
		"another bill":   func(n *bill.Cancellation) { n.BillID = other.ID },
		"another reason": func(n *bill.Cancellation) { n.Reason = "mercy" },
	} {
		wrong := n
		spoil(&wrong)
		if _, _, err := c.Bills.CancelOnce(t.Context(), wrong); !errors.Is(err, bill.ErrConflict) {
			t.Errorf("the key with %s: %v, want ErrConflict", name, err)
		}
	}
	if got, err := c.Bills.Get(t.Context(), other.DepartmentID, other.ID); err != nil || got.State != bill.Open {
		t.Errorf("the other bill is %s, %v; want open", got.State, err)
	}
	if got := c.Balance(t, bill.Receivable("parking")); got != other.Billed {
		t.Errorf("receivable %s, want %s", got, other.Billed)
	}
}

func TestABillTakesItsMoneyOnce(t *testing.T) {
	c := paymentstest.New(t)
	b := c.Issue(t, c.Bill("parking", "parking-wrong-way", 0))
	c.Do(t, func(tx pgx.Tx) error {
		bills, err := bill.Lock(t.Context(), tx, []string{b.ID})
		if err != nil {
			return err
		}
		due := bills[0].Quote(c.Today())
		p := bill.Payment{ID: id.New(), Reference: "TEST", On: c.Today(), Lines: due.Lines}
		ok, err := c.Bills.Apply(t.Context(), tx, &bills[0], p)
		if err != nil || !ok || bills[0].State != bill.Paid {
			t.Errorf("first payment: applied %v, state %s, %v", ok, bills[0].State, err)
		}
		ok, err = c.Bills.Apply(t.Context(), tx, &bills[0], p)
		if err != nil || ok {
			t.Errorf("second payment: applied %v, %v; want false", ok, err)
		}
		return nil
	})
}
