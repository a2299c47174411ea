-- What the service may not change of bills, payments, keys and endpoints, even
-- where it may change their state.
-- +goose Up
create trigger fixed before update of id, department_id, notice_number, type, reference, idempotency_key, body_hash, issued_on, early_until,
	currency, entry_id, created_at on payments.bill for each statement execute function ops.refuse_change();
create trigger append_only before delete or truncate on payments.bill
	for each statement execute function ops.refuse_change();
create trigger fixed before update of id, checkout_id, reference, tender, channel, amount_cents, currency, quoted_on, resident_id, contact_id,
	created_at on payments.payment for each statement execute function ops.refuse_change();
create trigger append_only before delete or truncate on payments.payment
	for each statement execute function ops.refuse_change();
create trigger append_only before update or delete or truncate on payments.checkout_bill
	for each statement execute function ops.refuse_change();

-- Money that was taken stays taken: what goes back later has rows of its own.
-- +goose StatementBegin
create function payments.succeeded_is_final() returns trigger language plpgsql as $$
begin
	raise exception 'payment % has succeeded: it cannot become %', old.id, new.state using errcode = 'restrict_violation';
end
$$;
-- +goose StatementEnd
create trigger final before update on payments.payment for each row
	when (old.state = 'succeeded' and (new.state, new.entry_id, new.charge_id, new.succeeded_at)
		is distinct from (old.state, old.entry_id, old.charge_id, old.succeeded_at))
	execute function payments.succeeded_is_final();

-- The receipts' numbers rise one by one.
-- +goose StatementBegin
create function payments.one_by_one() returns trigger language plpgsql as $$
begin
	raise exception 'series % cannot go from % to %', old.name, old.last, new.last using errcode = 'restrict_violation';
end
$$;
-- +goose StatementEnd
create trigger one_by_one before update on payments.receipt_series for each row
	when (new.name <> old.name or new.last <> old.last + 1) execute function payments.one_by_one();
create trigger append_only before delete or truncate on payments.receipt_series
	for each statement execute function ops.refuse_change();

-- Whose a key or an endpoint is, and its secret, are decided once.
revoke update on department.api_key, department.webhook_endpoint, department.delivery from guichet_app;
grant update (last_used_on, revoked_at) on department.api_key to guichet_app;
grant update (state) on department.webhook_endpoint to guichet_app;
grant update (state, attempts, last_status, last_error, delivered_at, updated_at) on department.delivery to guichet_app;
