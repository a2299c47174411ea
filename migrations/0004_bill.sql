-- What is owed: the fee catalogue and the bills.
-- +goose Up
create table payments.fee (
	id            uuid primary key,
	department_id uuid not null references department.department,
	code          text not null check (code ~ '^[a-z][a-z0-9-]{1,59}$'),
	name_en       text not null check (name_en <> ''),
	name_fr       text not null check (name_fr <> ''),
	unique (department_id, code)
);

-- A version is valid from its date until the next one begins: they cannot overlap.
create table payments.fee_version (
	fee_id          uuid not null references payments.fee,
	effective_from  date not null,
	kind            text not null check (kind in ('flat', 'variable')),
	amount_cents    bigint not null check (amount_cents >= 0),
	-- Paid within early_days of issue it costs early_cents; later, amount_cents.
	early_cents     bigint check (early_cents > 0 and early_cents < amount_cents),
	early_days      integer check (early_days between 1 and 365),
	tax_code        text not null check (tax_code in ('hst', 'exempt', 'none')),
	revenue_account text not null,
	fund            text not null default '',
	cost_centre     text not null default '',
	order_no        text not null default '',
	wbs             text not null default '',
	by_law          text not null default '',
	created_at      timestamptz not null,
	created_by      text not null,
	primary key (fee_id, effective_from),
	check ((early_cents is null) = (early_days is null)),
	check (early_cents is null or tax_code <> 'hst'),
	check (kind = 'flat' or amount_cents = 0)
);

create table payments.bill (
	id             uuid primary key,
	department_id  uuid not null references department.department,
	notice_number  text not null unique,
	type           text not null check (type <> ''),
	state          text not null check (state in ('draft', 'open', 'part_paid', 'paid', 'cancelled', 'replaced', 'transferred', 'written_off')),
	stage          text not null default '',    -- the department's legal stage
	held           boolean not null default false,
	resident_id    uuid,                        -- opaque: identity knows who
	guest_key_hash bytea,                       -- second factor of a guest, keyed hash
	reference      text not null,               -- the department's own id
	idempotency_key text not null,
	body_hash      bytea not null,
	issued_on      date not null,
	due_on         date not null check (due_on >= issued_on),
	early_until    date check (early_until >= issued_on),
	currency       char(3) not null default 'CAD',
	billed_cents   bigint not null check (billed_cents > 0), -- in the books: issued and adjusted
	paid_cents     bigint not null default 0 check (paid_cents >= 0 and paid_cents <= billed_cents),
	entry_id       uuid not null,               -- the journal entry of its issue
	version        bigint not null default 1,
	created_at     timestamptz not null,
	updated_at     timestamptz not null,
	unique (department_id, reference),
	unique (department_id, idempotency_key)
);
create index on payments.bill (resident_id, id) where resident_id is not null;
create index on payments.bill (department_id, id);

create table payments.bill_line (
	bill_id         uuid not null references payments.bill,
	line            integer not null check (line > 0),
	fee_id          uuid not null,
	fee_from        date not null,
	description_en  text not null,
	description_fr  text not null,
	quantity        integer not null check (quantity > 0),
	net_cents       bigint not null check (net_cents > 0),    -- as issued, in the books
	tax_code        text not null,
	tax_cents       bigint not null default 0 check (tax_cents >= 0),
	step_cents      bigint not null default 0 check (step_cents >= 0), -- added after early_until, once crystallised
	revenue_account text not null,
	fund            text not null,
	cost_centre     text not null,
	order_no        text not null,
	wbs             text not null,
	primary key (bill_id, line),
	foreign key (fee_id, fee_from) references payments.fee_version,
	check (step_cents = 0 or tax_cents = 0)
);

-- What was added to a line after issue, each kind once.
create table payments.bill_adjustment (
	bill_id      uuid not null,
	line         integer not null,
	kind         text not null check (kind in ('early_lapsed')),
	amount_cents bigint not null check (amount_cents > 0),
	entry_id     uuid not null,
	created_at   timestamptz not null,
	primary key (bill_id, line, kind),
	foreign key (bill_id, line) references payments.bill_line
);

create table payments.bill_event (
	bill_id    uuid not null references payments.bill,
	version    bigint not null,
	from_state text not null,
	to_state   text not null,
	cause      text not null,
	at         timestamptz not null,
	primary key (bill_id, version)
);

create trigger fee_version_append_only before update or delete or truncate on payments.fee_version
	for each statement execute function ops.refuse_change();
create trigger bill_line_append_only before update or delete or truncate on payments.bill_line
	for each statement execute function ops.refuse_change();
create trigger bill_adjustment_append_only before update or delete or truncate on payments.bill_adjustment
	for each statement execute function ops.refuse_change();
create trigger bill_event_append_only before update or delete or truncate on payments.bill_event
	for each statement execute function ops.refuse_change();

grant usage on schema payments to guichet_app;
grant select, insert on payments.fee, payments.fee_version, payments.bill, payments.bill_line, payments.bill_adjustment, payments.bill_event to guichet_app;
grant update (state, stage, held, resident_id, billed_cents, paid_cents, version, updated_at) on payments.bill to guichet_app;
