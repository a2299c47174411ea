-- When the poller asks the processor about a payment that has not ended, and when
-- it last read the processor's list of events.
-- +goose Up
alter table payments.payment add column ask_at timestamptz not null default 'epoch';
create index payment_ask on payments.payment (ask_at) where state in ('created', 'unknown', 'pending', 'processing');
drop index payments.payment_live;
grant update (ask_at) on payments.payment to guichet_app;

alter table payments.processor_cursor add column read_at timestamptz not null default 'epoch';

-- Every payment that ends frees what it reserved.
create index reservation_payment on payments.reservation (payment_id);
