package payments_test

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"guichet/internal/testdb"
	"guichet/payments"
)

func TestWhatIsWrittenOfMoneyIsRefusedToEverybody(t *testing.T) {
	w := newWorld(t)
	checkoutID := w.checkout(t, w.Issue(t, w.Bill("water", "water-consumption", 1000)))
	card(t, w.start(t, checkoutID), good)
	if p := w.sync(t, checkoutID); p.State != payments.Succeeded {
		t.Fatalf("the payment is %s", p.State)
	}
	owner := testdb.Owner(t, w.DB)
	for _, sql := range []string{
		`update payments.payment set amount_cents = 1`,
		`update payments.payment set resident_id = id`,
		`update payments.payment set state = 'failed', succeeded_at = null`,
		`update payments.payment set charge_id = 'ch_other'`,
		`delete from payments.payment`,
		`truncate payments.payment cascade`,
		`update payments.bill set department_id = (select id from department.department where code = 'parking')`,
		`update payments.bill set early_until = due_on`,
		`delete from payments.bill`,
		`update payments.checkout_bill set position = 7`,
		`delete from payments.checkout_bill`,
		`update payments.allocation set net_cents = 1`,
		`delete from payments.credit`,
		`update payments.receipt_series set last = last + 2`,
		`update payments.receipt_series set last = last`,
		`delete from payments.receipt_series`,
		`delete from payments.receipt`,
		`update payments.payment_event set cause = ''`,
	} {
		var pg *pgconn.PgError
		if _, err := w.DB.Exec(t.Context(), sql); !errors.As(err, &pg) || pg.Code != "42501" && pg.Code != "23001" {
			t.Errorf("the service, %s: %v", sql, err)
		}
		if _, err := owner.Exec(t.Context(), sql); !errors.As(err, &pg) || pg.Code != "23001" {
			t.Errorf("the owner, %s: %v", sql, err)
		}
	}
	for _, sql := range []string{
		`update department.api_key set hash = ''`,
		`update department.webhook_endpoint set url = ''`,
		`update department.webhook_endpoint set allow_private = true`,
		`update department.delivery set endpoint_id = id`,
		`update department.event set data = '{}'`,
	} {
		var pg *pgconn.PgError
		if _, err := w.DB.Exec(t.Context(), sql); !errors.As(err, &pg) || pg.Code != "42501" {
			t.Errorf("the service, %s: %v", sql, err)
		}
	}
}
