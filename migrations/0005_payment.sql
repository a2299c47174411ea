-- Paying: checkouts, payments, what they were for, receipts and credits.
-- +goose Up
create table payments.checkout (
	id            uuid primary key,
	state         text not null check (state in ('open', 'paid', 'expired', 'cancelled')),
	channel       text not null check (channel in ('web', 'mobile', 'kiosk', 'counter', 'phone', 'email', 'department', 'batch')),
	department_id uuid references department.department, -- who opened it, if a department did
	idempotency_key text,
	body_hash     bytea,
	token_hash    bytea not null unique,                 -- the link a payer is sent
	resident_id   uuid,
	contact_id    uuid,                                  -- where a guest's receipt goes: identity knows the address
	lang          text not null check (lang in ('en', 'fr')),
	return_url    text not null default '',
	created_at    timestamptz not null,
	updated_at    timestamptz not null,
	expires_at    timestamptz not null,
	unique (department_id, idempotency_key)
);
create index on payments.checkout (resident_id, id) where resident_id is not null;

create table payments.checkout_bill (
	checkout_id uuid not null references payments.checkout,
	position    integer not null,
	bill_id     uuid not null references payments.bill,
	primary key (checkout_id, position),
	unique (checkout_id, bill_id)
);

-- Browsers of guests that may see a checkout: the hash of their cookie.
create table payments.guest_access (
	guest_hash  bytea not null,
	checkout_id uuid not null references payments.checkout,
	primary key (guest_hash, checkout_id)
);

create table payments.payment (
	id           uuid primary key,
	checkout_id  uuid not null references payments.checkout,
	reference    text not null unique,              -- what people read
	state        text not null check (state in ('created', 'unknown', 'pending', 'processing', 'succeeded', 'failed', 'expired', 'cancelled')),
	tender       text not null check (tender in ('card', 'cash', 'cheque', 'interac', 'online_banking', 'pre_authorised_debit', 'credit')),
	channel      text not null,
	amount_cents bigint not null check (amount_cents > 0),
	currency     char(3) not null default 'CAD',
	quoted_on    date not null,                     -- the date its amounts were worked out for
	resident_id  uuid,
	contact_id   uuid,
	lang         text not null check (lang in ('en', 'fr')),
	session_id   text unique,
	session_url  text not null default '',
	intent_id    text unique,
	charge_id    text unique,
	card_brand   text not null default '',
	card_last4   text not null default '',
	card_funding text not null default '',
	entry_id     uuid,
	seq          bigint not null default 1,
	created_at   timestamptz not null,
	updated_at   timestamptz not null,
	expires_at   timestamptz not null,
	succeeded_at timestamptz,
	check ((state = 'succeeded') = (succeeded_at is not null)),
	check (state <> 'succeeded' or entry_id is not null)
);
-- One attempt at a time: a second click finds the first.
create unique index payment_one_live on payments.payment (checkout_id) where state in ('created', 'unknown', 'pending', 'processing');
create index on payments.payment (checkout_id, id);
create index payment_live on payments.payment (updated_at) where state in ('created', 'unknown', 'pending', 'processing');
create index on payments.payment (resident_id, id) where resident_id is not null;

create table payments.payment_event (
	payment_id uuid not null references payments.payment,
	seq        bigint not null,
	from_state text not null,
	to_state   text not null,
	cause      text not null,
	at         timestamptz not null,
	primary key (payment_id, seq)
);

-- What a payment is for, pinned when it was created; counts once it succeeded.
create table payments.allocation (
	payment_id uuid not null references payments.payment,
	bill_id    uuid not null,
	line       integer not null,
	net_cents  bigint not null check (net_cents >= 0),
	step_cents bigint not null check (step_cents >= 0),
	tax_cents  bigint not null check (tax_cents >= 0),
	primary key (payment_id, bill_id, line),
	foreign key (bill_id, line) references payments.bill_line
);
create index on payments.allocation (bill_id);

-- A bill that is being paid says so to everybody else until the moment it frees itself.
create table payments.reservation (
	bill_id    uuid primary key references payments.bill,
	payment_id uuid not null references payments.payment,
	until      timestamptz not null
);

-- Money that its bill no longer needed: owned by the resident or, for a guest, by the receipt.
create table payments.credit (
	id           uuid primary key,
	payment_id   uuid not null references payments.payment,
	bill_id      uuid not null references payments.bill,
	resident_id  uuid,
	amount_cents bigint not null check (amount_cents > 0),
	reason       text not null check (reason in ('bill_already_paid', 'bill_closed')),
	created_at   timestamptz not null,
	unique (payment_id, bill_id)
);

create table payments.processor_event (
	id          text primary key,
	type        text not null,
	object_id   text not null,
	payload     bytea not null,
	source      text not null check (source in ('webhook', 'poll')),
	created_at  timestamptz not null,
	received_at timestamptz not null,
	outcome     text not null default '' check (outcome in ('', 'applied', 'ignored')),
	handled_at  timestamptz
);
create index processor_event_open on payments.processor_event (received_at) where handled_at is null;

-- How far the poller has read the processor's own list of events.
create table payments.processor_cursor (
	name  text primary key,
	since timestamptz not null
);

create table payments.receipt_series (
	name text primary key,
	last bigint not null check (last >= 0)
);
insert into payments.receipt_series (name, last) values ('city', 0);

create table payments.receipt (
	number      bigint primary key check (number > 0),
	id          uuid not null unique,
	payment_id  uuid not null unique references payments.payment,
	entry_id    uuid not null,
	verify_code text not null unique,
	document    jsonb not null,
	issued_at   timestamptz not null
);

create trigger payment_event_append_only before update or delete or truncate on payments.payment_event
	for each statement execute function ops.refuse_change();
create trigger allocation_append_only before update or delete or truncate on payments.allocation
	for each statement execute function ops.refuse_change();
create trigger credit_append_only before update or delete or truncate on payments.credit
	for each statement execute function ops.refuse_change();
create trigger receipt_append_only before update or delete or truncate on payments.receipt
	for each statement execute function ops.refuse_change();

grant select, insert on payments.checkout, payments.checkout_bill, payments.guest_access, payments.payment, payments.payment_event,
	payments.allocation, payments.credit, payments.processor_event, payments.receipt to guichet_app;
grant update (state, resident_id, contact_id, lang, updated_at) on payments.checkout to guichet_app;
grant update (state, session_id, session_url, intent_id, charge_id, card_brand, card_last4, card_funding, entry_id, seq, updated_at, expires_at, succeeded_at)
	on payments.payment to guichet_app;
grant select, insert, update, delete on payments.reservation to guichet_app;
grant update (outcome, handled_at) on payments.processor_event to guichet_app;
grant select, update on payments.receipt_series to guichet_app;
grant select, insert, update on payments.processor_cursor to guichet_app;
