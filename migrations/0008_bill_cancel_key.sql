-- Idempotency keys that departments cancelled bills with.
-- +goose Up
create table payments.bill_cancel_key (
	department_id   uuid not null references department.department,
	idempotency_key text not null,
	bill_id         uuid not null references payments.bill,
	reason          text not null,
	used_at         timestamptz not null,
	primary key (department_id, idempotency_key)
);
create trigger bill_cancel_key_append_only before update or delete or truncate on payments.bill_cancel_key
	for each statement execute function ops.refuse_change();
grant select, insert on payments.bill_cancel_key to guichet_app;
