package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/money"
	"guichet/ledger"
	"guichet/payments/bill"
)

// restock makes sure that a group has n payments left. The rows are as the service
// leaves them while the payer is on the processor's page; their bills are in the books
// with one entry for all.
func (b *paymentLab) restock(ctx context.Context, g *group, n int) error {
	n -= len(g.stock) - int(min(g.next.Load(), int64(len(g.stock))))
	if n <= 0 {
		return nil
	}
	fresh := make([]*due, n)
	for i := range fresh {
		fresh[i] = &due{of: &g.departments[i%len(g.departments)], payment: id.New(), checkout: id.New(), bill: id.New()}
	}
	now := b.clock.Now()
	for part := range slices.Chunk(fresh, 2000) {
		err := pgx.BeginFunc(ctx, b.db, func(tx pgx.Tx) error { return b.store(ctx, tx, part, now) })
		if err != nil {
			return fmt.Errorf("make payments: %w", err)
		}
	}
	g.stock = append(g.stock, fresh...)
	// Statements prepared on tables that nobody has counted keep bad plans.
	owner, err := pgx.Connect(ctx, b.url)
	if err != nil {
		return err
	}
	defer owner.Close(ctx)
	_, err = owner.Exec(ctx, `analyze`)
	return err
}

func (b *paymentLab) store(ctx context.Context, tx pgx.Tx, list []*due, now time.Time) error {
	var departments, fees, bills, checkouts, payments, codes []string
	owed := map[string]money.Amount{}
	for _, d := range list {
		departments, fees, bills = append(departments, d.of.ID), append(fees, d.of.feeID), append(bills, d.bill)
		checkouts, payments, codes = append(checkouts, d.checkout), append(payments, d.payment), append(codes, id.Code(9))
		owed[d.of.Code] += dueCents
	}
	e := ledger.Entry{Key: "bench/" + bills[0], Kind: "bill.issued", SourceType: "bench", SourceID: bills[0], Actor: "bench"}
	for code, amount := range owed {
		dims := ledger.Dimensions{Department: code}
		e.Lines = append(e.Lines, ledger.Line{Account: bill.Receivable(code), Amount: amount, Dimensions: dims},
			ledger.Line{Account: bill.Uncollected(code), Amount: -amount, Dimensions: dims})
	}
	entryID, err := b.books.Append(ctx, tx, e)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, storeDue, departments, fees, bills, checkouts, payments, codes, int64(dueCents), now, clock.DateOf(now).Time(), entryID)
	return err
}

// storeDue writes, for each payment, a bill of one line, a checkout with it, and a
// pending payment that holds it.
const storeDue = `
with due as materialized (
	select * from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::text[]) as t(department, fee, bill, checkout, payment, code)
), bill as (
	insert into payments.bill (id, department_id, notice_number, type, state, reference, idempotency_key, body_hash, issued_on, due_on, billed_cents, entry_id, created_at, updated_at)
	select bill, department, code, 'fine', 'open', bill::text, bill::text, ''::bytea, $9, $9, $7, $10::uuid, $8, $8 from due
), line as (
	insert into payments.bill_line (bill_id, line, fee_id, fee_from, description_en, description_fr, quantity, net_cents, tax_code, revenue_account, fund, cost_centre, order_no, wbs)
	select bill, 1, fee, '2020-01-01', 'Fine', 'Amende', 1, $7, 'none', 'revenue', '', '', '', '' from due
), issued as (
	insert into payments.bill_event (bill_id, version, from_state, to_state, cause, at) select bill, 1, '', 'open', 'issued', $8 from due
), checkout as (
	insert into payments.checkout (id, state, channel, token_hash, lang, created_at, updated_at, expires_at)
	select checkout, 'open', 'web', sha256(checkout::text::bytea), 'en', $8, $8, $8 + interval '1 day' from due
), of as (
	insert into payments.checkout_bill (checkout_id, position, bill_id) select checkout, 1, bill from due
), payment as (
	insert into payments.payment (id, checkout_id, reference, state, tender, channel, amount_cents, quoted_on, lang, session_id, session_url, seq, created_at, updated_at, expires_at)
	select payment, checkout, code, 'pending', 'card', 'web', $7, $9, 'en', 'cs_' || payment, 'https://processor.invalid/pay', 2, $8, $8, $8 + interval '30 minutes' from due
), moved as (
	insert into payments.payment_event (payment_id, seq, from_state, to_state, cause, at)
	select payment, 1, '', 'created', 'created', $8 from due union all select payment, 2, 'created', 'pending', 'session opened', $8 from due
), allocation as (
	insert into payments.allocation (payment_id, bill_id, line, net_cents, step_cents, tax_cents) select payment, bill, 1, $7, 0, 0 from due
)
insert into payments.reservation (bill_id, payment_id, until) select bill, payment, $8 + interval '35 minutes' from due`

// plain writes what payment writes, with the values that payment would have found:
// one pipeline of statements is one transaction.
func (b *paymentLab) plain(ctx context.Context, db *pgxpool.Pool, d *due) error {
	now, event, entryID := b.clock.Now(), "evt_"+d.session(), id.New()
	batch := new(pgx.Batch)
	batch.Queue(`
		insert into payments.processor_event (id, type, object_id, payload, source, created_at, received_at)
		values ($1, 'checkout.session.completed', $2, $3, 'webhook', $4, $4)`, event, d.session(), []byte(d.session()), now)
	job := func(kind, queue string, attempts int, name, value string) {
		batch.Queue(`
			insert into river.river_job (args, kind, queue, max_attempts, created_at, scheduled_at) values ($1, $2, $3, $4, $5, $5)`,
			map[string]string{name: value}, kind, queue, attempts, now)
	}
	job("payments.event", "default", 12, "event_id", event)
	batch.Queue(`update payments.checkout set state = 'paid', updated_at = $2 where id = $1`, d.checkout, now)
	batch.Queue(`update payments.bill set state = 'paid', billed_cents = $2, paid_cents = $2, version = 2, updated_at = $3 where id = $1`, d.bill, dueCents, now)
	batch.Queue(`
		insert into payments.bill_event (bill_id, version, from_state, to_state, cause, at) values ($1, 2, 'open', 'paid', 'payment', $2)`, d.bill, now)
	told := func(kind, object, objectID string, data map[string]any) {
		eventID, deliveryID := id.New(), id.New()
		batch.Queue(`
			insert into department.event (id, department_id, type, object_type, object_id, sequence, data, created_at)
			values ($1, $2, $3, $4, $5, 2, $6, $7)`, eventID, d.of.ID, kind, object, objectID, data, now)
		batch.Queue(`
			insert into department.delivery (id, event_id, endpoint_id, updated_at) values ($1, $2, $3, $4)`, deliveryID, eventID, d.of.endpointID, now)
		job("department.deliver", "webhooks", 20, "delivery_id", deliveryID)
	}
	told("bill.paid", "bill", d.bill, map[string]any{
		"id": d.bill, "reference": d.bill, "notice_number": "7K3M-92QX-DA", "type": "fine", "state": "paid",
		"billed_cents": dueCents, "paid_cents": dueCents, "currency": "CAD",
	})
	batch.Queue(`
		insert into ledger.journal_entry (id, key, kind, effective_on, recorded_at, currency,
			accounts, amounts, dimensions, source_type, source_id, actor, channel, description, metadata, body_hash, leaf)
		values ($1, $2, 'payment.succeeded', $3, $4, 'CAD', $5, $6, $7, 'payment', $8, 'system', 'web', 'Payment 7K3M-92QX-DA', '{}', $9, $9)`,
		entryID, "payment/"+d.payment+"/succeeded", clock.DateOf(now).Time(), now,
		b.entry.accounts, []int64{dueCents, -dueCents}, b.entry.dimensions, d.payment, id.Hash(entryID))
	batch.Queue(`
		update payments.payment set state = 'succeeded', session_url = '', intent_id = $2, charge_id = $3, card_brand = 'visa', card_last4 = '4242',
			card_funding = 'credit', entry_id = $4, seq = 3, updated_at = $5, succeeded_at = $5
		where id = $1`, d.payment, "pi_"+d.payment, "ch_"+d.payment, entryID, now)
	batch.Queue(`
		insert into payments.payment_event (payment_id, seq, from_state, to_state, cause, at)
		values ($1, 3, 'pending', 'succeeded', 'processor took the money', $2)`, d.payment, now)
	batch.Queue(`delete from payments.reservation where bill_id = $1`, d.bill)
	told("payment.succeeded", "payment", d.payment, map[string]any{
		"id": d.payment, "reference": "7K3M92QXDA", "amount_cents": dueCents, "currency": "CAD", "tender": "card",
		"bills": []map[string]any{{"id": d.bill, "reference": d.bill, "amount_cents": dueCents}},
	})
	job("payments.receipt", "default", 12, "payment_id", d.payment)
	batch.Queue(`
		insert into ops.audit (at, action, object_type, object_id, actor, actor_kind, details)
		values ($1, 'payment.succeeded', 'payment', $2, 'system', 'system', $3)`, now, d.payment, map[string]any{"amount_cents": dueCents, "entry": entryID})
	batch.Queue(`update payments.processor_event set outcome = 'applied', handled_at = $2 where id = $1`, event, now)
	return db.SendBatch(ctx, batch).Close()
}

// watch takes some payments each way over one connection and counts the round
// trips. It fails unless both ways insert, update and delete equally many rows in every table.
func (b *paymentLab) watch(ctx context.Context) (notes [2]string, err error) {
	var trips atomic.Int64
	cfg := b.db.Config()
	cfg.MaxConns, cfg.MinConns = 1, 0
	dial := cfg.ConnConfig.DialFunc
	cfg.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		return &tripConn{Conn: conn, trips: &trips}, err
	}
	db, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return notes, err
	}
	defer db.Close()
	service, err := b.open(db)
	if err != nil {
		return notes, err
	}
	const warm, counted = 10, 50
	if err := b.restock(ctx, b.hot, 2*(warm+counted)); err != nil {
		return notes, err
	}
	take := func(n int, one func(*due) error) error {
		for range n {
			d, err := b.hot.take()
			if err != nil {
				return err
			}
			if err := one(d); err != nil {
				return err
			}
			if b.entry.accounts == nil { // the first: what its entry looks like
				err = db.QueryRow(ctx, `select accounts, dimensions from ledger.journal_entry where source_type = 'payment' and source_id = $1`, d.payment).
					Scan(&b.entry.accounts, &b.entry.dimensions)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	var rows [2]map[string][3]int64
	for i, one := range []func(*due) error{
		func(d *due) error { return settle(ctx, service, d) },
		func(d *due) error { return b.plain(ctx, db, d) },
	} {
		if err := take(warm, one); err != nil { // statements are prepared
			return notes, err
		}
		before, err := changes(ctx, db)
		if err != nil {
			return notes, err
		}
		trips.Store(0)
		if err := take(counted, one); err != nil {
			return notes, err
		}
		notes[i] = fmt.Sprintf("%.1f round trips", float64(trips.Load())/counted)
		if rows[i], err = changes(ctx, db); err != nil {
			return notes, err
		}
		for table, n := range before {
			now := rows[i][table]
			rows[i][table] = [3]int64{now[0] - n[0], now[1] - n[1], now[2] - n[2]}
		}
	}
	for table, n := range rows[0] {
		if rows[1][table] != n {
			return notes, fmt.Errorf("%d payments insert, update and delete %d rows of %s, %d plain ones %d", counted, n, table, counted, rows[1][table])
		}
	}
	if n := rows[0]["payments.payment"]; n != [3]int64{0, counted, 0} {
		return notes, fmt.Errorf("%d payments changed %d rows of payments.payment: the counts are not to be trusted", counted, n)
	}
	return notes, nil
}

// changes counts the rows inserted, updated and deleted so far, by table.
func changes(ctx context.Context, db *pgxpool.Pool) (map[string][3]int64, error) {
	if _, err := db.Exec(ctx, `select pg_stat_force_next_flush()`); err != nil {
		return nil, err
	}
	rows, err := db.Query(ctx, `select schemaname || '.' || relname, n_tup_ins, n_tup_upd, n_tup_del from pg_stat_user_tables`)
	if err != nil {
		return nil, err
	}
	counts := map[string][3]int64{}
	var table string
	var n [3]int64
	_, err = pgx.ForEachRow(rows, []any{&table, &n[0], &n[1], &n[2]}, func() error { counts[table] = n; return nil })
	return counts, err
}

// A tripConn counts how often something is sent after something was received.
type tripConn struct {
	net.Conn
	trips   *atomic.Int64
	sending atomic.Bool
}

func (c *tripConn) Write(p []byte) (int, error) {
	if !c.sending.Swap(true) {
		c.trips.Add(1)
	}
	return c.Conn.Write(p)
}

func (c *tripConn) Read(p []byte) (int, error) {
	c.sending.Store(false)
	return c.Conn.Read(p)
}
