package payments_test

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/internal/testdb"
	"guichet/payments/bill"
)

// waits reports whether a session of the database waits for a lock of another.
func waits(t *testing.T, owner *pgxpool.Pool) bool {
	t.Helper()
	var n int
	if err := owner.QueryRow(t.Context(), `
		select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n > 0
}

// begin starts a transaction that the test ends by itself.
func (w *world) begin(t *testing.T) pgx.Tx {
	t.Helper()
	tx, err := w.DB.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback(t.Context()) }) // after Commit it does nothing
	return tx
}

func TestABillThatIsTakenAtThisMomentIsNotWithdrawn(t *testing.T) {
	w := newWorld(t)
	owner := testdb.Owner(t, w.DB)
	b := w.Issue(t, w.Bill("parking", "parking-wrong-way", 0))
	checkoutID := w.checkout(t, b)
	w.start(t, checkoutID)
	c, err := w.pay.Checkout(t.Context(), guest, checkoutID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.DB.Exec(t.Context(), `delete from payments.reservation`); err != nil {
		t.Fatal(err)
	}
	// Paying holds the bill's row and reserves it; the department withdraws it meanwhile.
	tx := w.begin(t)
	if _, err := bill.Lock(t.Context(), tx, []string{b.ID}); err != nil {
		t.Fatal(err)
	}
	withdrawn := make(chan error, 1)
	go func() {
		_, err := w.Bills.Cancel(t.Context(), b.DepartmentID, b.ID, "mistake")
		withdrawn <- err
	}()
	eventually(t, "the withdrawal waits for the bill", func() bool { return waits(t, owner) })
	now := w.Clock.Now()
	if err := bill.Reserve(t.Context(), tx, []string{b.ID}, c.Payment.ID, now, now.Add(1e12)); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-withdrawn; !errors.Is(err, bill.ErrBeingPaid) {
		t.Errorf("withdraw a bill that has just been reserved: %v, want ErrBeingPaid", err)
	}
}

func TestOpeningACheckoutDoesNotWaitForAPayment(t *testing.T) {
	w := newWorld(t)
	b, other := w.Issue(t, w.Bill("water", "water-consumption", 1000)), w.Issue(t, w.Bill("water", "water-consumption", 1000))
	checkoutID := w.checkout(t, other)
	paying := w.begin(t)
	if _, err := bill.Lock(t.Context(), paying, []string{b.ID}); err != nil {
		t.Fatal(err)
	}
	opening := w.begin(t)
	if _, err := opening.Exec(t.Context(), `set local lock_timeout = '5s'`); err != nil {
		t.Fatal(err)
	}
	// Waiting here, in the order of the payer's list and not of the ids, two could
	// wait for each other.
	if _, err := opening.Exec(t.Context(), `insert into payments.checkout_bill (checkout_id, position, bill_id) values ($1, 2, $2)`,
		checkoutID, b.ID); err != nil {
		t.Errorf("put a bill into a checkout while it is being paid: %v", err)
	}
}

func TestPayingAgainAndLateNewsDoNotWaitForEachOther(t *testing.T) {
	w := newWorld(t)
	owner := testdb.Owner(t, w.DB)
	b := w.Issue(t, w.Bill("water", "water-consumption", 1000))
	checkoutID := w.checkout(t, b)
	card(t, w.start(t, checkoutID), good)
	c, err := w.pay.Checkout(t.Context(), guest, checkoutID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.DB.Exec(t.Context(), `update payments.payment set state = 'expired'`); err != nil { // so we had thought
		t.Fatal(err)
	}
	// The payer tries again: the checkout is held, its bills are next.
	again := w.begin(t)
	if _, err := again.Exec(t.Context(), `select from payments.checkout where id = $1 for update`, checkoutID); err != nil {
		t.Fatal(err)
	}
	news := make(chan error, 1)
	go func() {
		_, err := w.pay.Sync(t.Context(), c.Payment.ID)
		news <- err
	}()
	eventually(t, "the news waits for the checkout", func() bool { return waits(t, owner) })
	if _, err := bill.Lock(t.Context(), again, []string{b.ID}); err != nil {
		t.Errorf("lock the bills: %v", err)
	}
	if err := again.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-news; err != nil {
		t.Errorf("the news: %v", err)
	}
}
