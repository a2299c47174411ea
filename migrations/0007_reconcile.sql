-- Reconciliation: what the processor and the bank say, why they are the same money,
-- what nobody could explain, and what SAP was told and answered.
-- +goose Up

-- The nightly run of a business date and its steps. A step that is done is not done again.
create table reconcile.run (
	business_date date primary key,
	state         text not null check (state in ('running', 'done')),
	started_at    timestamptz not null,
	finished_at   timestamptz,
	report        jsonb,
	constraint run_done_whole check ((state = 'done') = (finished_at is not null) and (state = 'done') = (report is not null))
);
create table reconcile.step (
	business_date date not null references reconcile.run,
	name          text not null,
	state         text not null check (state in ('running', 'done', 'failed')),
	attempts      integer not null check (attempts > 0),
	started_at    timestamptz not null,
	finished_at   timestamptz,
	error         text not null default '',
	result        jsonb not null default '{}',
	primary key (business_date, name)
);

-- The processor's own records, copied.
create table reconcile.cursor (
	name  text primary key,
	since timestamptz not null
);
create table reconcile.balance_transaction (
	id           text primary key check (id <> ''),
	category     text not null,
	source_id    text not null,
	intent_id    text not null,
	amount_cents bigint not null,
	fee_cents    bigint not null,
	net_cents    bigint not null,
	currency     text not null,
	created_at   timestamptz not null,
	available_at timestamptz not null,
	pulled_at    timestamptz not null,
	constraint balance_transaction_net check (net_cents = amount_cents - fee_cents)
);
create table reconcile.payout (
	id              text primary key check (id <> ''),
	amount_cents    bigint not null,
	currency        text not null,
	automatic       boolean not null,
	arrival_on      date not null,
	trace_id        text not null default '',
	processor_state text not null,
	failure         text not null default '',
	itemised        boolean not null, -- the processor's list of its lines is whole
	state           text not null check (state in ('announced', 'itemised', 'matched', 'settled', 'failed', 'returned')),
	seq             bigint not null default 1,
	created_at      timestamptz not null,
	updated_at      timestamptz not null
);
create index payout_open on reconcile.payout (created_at, id) where state in ('announced', 'itemised', 'matched');
create table reconcile.payout_event (
	payout_id  text not null references reconcile.payout,
	seq        bigint not null,
	from_state text not null,
	to_state   text not null,
	cause      text not null,
	at         timestamptz not null,
	primary key (payout_id, seq)
);
create table reconcile.payout_line (
	transaction_id text primary key references reconcile.balance_transaction,
	payout_id      text not null references reconcile.payout
);
create index payout_line_payout on reconcile.payout_line (payout_id);

-- Bank statements: the files as they came, the statements in them, their lines.
create table reconcile.statement_file (
	id          uuid primary key,
	name        text not null,
	sha256      bytea not null unique check (length(sha256) = 32),
	bytes       bytea not null,
	state       text not null check (state in ('accepted', 'refused')),
	reason      text not null default '',
	received_at timestamptz not null,
	constraint statement_file_reason check ((state = 'refused') = (reason <> ''))
);
create table reconcile.statement (
	id            uuid primary key,
	file_id       uuid not null references reconcile.statement_file,
	format        text not null,
	account       text not null,
	number        text not null, -- the bank's name for it
	sequence      text not null,
	opening_on    date not null,
	closing_on    date not null,
	opening_cents bigint not null,
	closing_cents bigint not null,
	currency      text not null,
	content_hash  bytea not null check (length(content_hash) = 32),
	constraint statement_once unique (account, number, sequence, closing_on)
);
create table reconcile.bank_line (
	id           uuid primary key,
	statement_id uuid not null references reconcile.statement,
	number       integer not null check (number > 0),
	amount_cents bigint not null, -- credit positive
	reversal     boolean not null,
	booked_on    date not null,
	value_on     date not null,
	refs         text[] not null,
	code         text not null,
	text         text not null,
	batch_count  integer not null,
	unique (statement_id, number)
);
create index bank_line_booked on reconcile.bank_line (booked_on, id);

-- Why two records are the same money: the rule that said so, and what it rested on.
create table reconcile.payout_match (
	payout_id    text primary key references reconcile.payout,
	bank_line_id uuid not null unique references reconcile.bank_line,
	rule         text not null check (rule <> ''),
	evidence     jsonb not null,
	matched_by   text not null,
	matched_at   timestamptz not null
);
create table reconcile.payment_match (
	transaction_id text primary key references reconcile.balance_transaction,
	payment_id     uuid not null unique,
	rule           text not null check (rule <> ''),
	evidence       jsonb not null,
	matched_at     timestamptz not null
);
create table reconcile.suggestion (
	payout_id    text not null references reconcile.payout,
	bank_line_id uuid not null references reconcile.bank_line,
	rule         text not null,
	evidence     jsonb not null,
	made_at      timestamptz not null,
	primary key (payout_id, bank_line_id)
);

-- What nobody could explain yet. suspense_entry: its amount waits in suspense.
create table reconcile.exception (
	id             uuid primary key,
	type           text not null check (type <> ''),
	object_type    text not null check (object_type <> ''),
	object_id      text not null check (object_id <> ''),
	owner          text not null check (owner <> ''),
	amount_cents   bigint not null,
	currency       text not null,
	suspense_entry uuid,
	opened_on      date not null,
	opened_at      timestamptz not null,
	closed_at      timestamptz,
	resolution     text not null default '',
	constraint exception_once unique (type, object_type, object_id),
	constraint exception_closed_whole check ((closed_at is not null) = (resolution <> ''))
);
create index exception_open on reconcile.exception (opened_at, id) where closed_at is null;
create table reconcile.exception_note (
	exception_id uuid not null references reconcile.exception,
	seq          integer not null,
	kind         text not null check (kind in ('opened', 'note', 'assigned', 'resolved', 'reopened')),
	text         text not null,
	actor        text not null,
	at           timestamptz not null,
	primary key (exception_id, seq)
);

-- Journal entries that carry money out of clearing, to be exported to SAP. Per line of
-- the entry: its tax code, and the base of a tax line.
create table reconcile.settlement (
	entry_id     uuid primary key,
	kind         text not null check (kind in ('department', 'fees', 'unexplained', 'explained', 'transfer')),
	payout_id    text references reconcile.payout,
	department   text not null check (department <> ''),
	effective_on date not null,
	currency     text not null,
	tax_codes    text[] not null,
	bases_cents  bigint[] not null,
	recorded_at  timestamptz not null,
	check (cardinality(tax_codes) = cardinality(bases_cents))
);
create index settlement_day on reconcile.settlement (effective_on, department, entry_id);
create index settlement_payout on reconcile.settlement (payout_id);

-- From our accounts to SAP's. The most specific row that fits a line holds; of rows for
-- the same lines the latest valid_from up to the posting date, then the one loaded last.
create table reconcile.sap_mapping (
	id            bigint generated always as identity primary key,
	account       text not null, -- path; or a path ending in :* for all below it
	department    text not null,
	fund          text not null,
	cost_centre   text not null,
	order_no      text not null,
	wbs           text not null,
	tax           text not null, -- our tax code: hst, exempt, none; empty: any
	valid_from    date not null,
	internal      boolean not null, -- not exported
	gl_account    text not null,
	object_kind   text not null check (object_kind in ('', 'cost-centre', 'order', 'wbs')),
	object_number text not null,
	tax_code      text not null, -- SAP's
	text          text not null,
	loaded_by     text not null,
	loaded_at     timestamptz not null,
	constraint sap_mapping_target check (internal = (gl_account = ''))
);

-- Numbers that are given once and for ever.
create table reconcile.sap_series (
	name text primary key,
	last bigint not null check (last >= 0)
);
insert into reconcile.sap_series (name, last) values ('docnum', 0), ('batch', 0);

-- One file for SAP. Everything about it but its state is frozen when it is made; a row
-- in state ready is the outbox.
create table reconcile.sap_batch (
	id            uuid primary key,
	number        bigint not null unique,
	business_date date not null,
	currency      text not null,
	file_name     text not null unique,
	data          bytea not null,
	manifest      bytea not null,
	sha256        bytea not null check (sha256 = sha256(data)),
	documents     integer not null check (documents > 0),
	debits_cents  bigint not null check (debits_cents > 0),
	state         text not null check (state in ('ready', 'sending', 'unknown', 'delivered')),
	seq           bigint not null default 1,
	created_at    timestamptz not null,
	updated_at    timestamptz not null
);
create index sap_batch_waiting on reconcile.sap_batch (number) where state <> 'delivered';
create table reconcile.sap_batch_event (
	batch_id   uuid not null references reconcile.sap_batch,
	seq        bigint not null,
	from_state text not null,
	to_state   text not null,
	cause      text not null,
	evidence   jsonb not null default '{}',
	actor      text not null,
	at         timestamptz not null,
	primary key (batch_id, seq)
);

create table reconcile.sap_document (
	id           uuid primary key,
	batch_id     uuid not null references reconcile.sap_batch,
	docnum       text not null unique check (docnum ~ '^[0-9]{16}$'),
	reference    text not null unique check (length(reference) <= 16),
	company_code text not null,
	currency     text not null,
	department   text not null,
	posting_on   date not null,
	debits_cents bigint not null check (debits_cents > 0),
	state        text not null check (state in ('created', 'sent', 'processing', 'posted', 'rejected', 'closed', 'replaced')),
	seq          bigint not null default 1,
	answer_id    bigint,
	sap_number   text not null default '', -- SAP's accounting document, once posted
	sap_year     integer not null default 0,
	created_at   timestamptz not null,
	updated_at   timestamptz not null
);
create index sap_document_batch on reconcile.sap_document (batch_id, docnum);
create table reconcile.sap_document_event (
	document_id uuid not null references reconcile.sap_document,
	seq         bigint not null,
	from_state  text not null,
	to_state    text not null,
	cause       text not null,
	actor       text not null,
	at          timestamptz not null,
	primary key (document_id, seq)
);
create table reconcile.sap_item (
	document_id   uuid not null references reconcile.sap_document,
	item          integer not null check (item > 0),
	kind          text not null check (kind in ('gl', 'tax')),
	gl_account    text not null,
	object_kind   text not null,
	object_number text not null,
	tax_code      text not null,
	amount_cents  bigint not null check (amount_cents <> 0),
	base_cents    bigint not null,
	text          text not null,
	primary key (document_id, item)
);
-- Which line of which journal entry is in which item. Lines without an item are internal,
-- or cancel each other out.
create table reconcile.sap_source (
	document_id uuid not null references reconcile.sap_document,
	entry_id    uuid not null references reconcile.settlement,
	line        integer not null check (line > 0),
	item        integer,
	primary key (document_id, entry_id, line),
	foreign key (document_id, item) references reconcile.sap_item
);
-- An entry is exported by one document at a time; live falls when that document is
-- replaced.
create table reconcile.sap_export (
	entry_id    uuid not null references reconcile.settlement,
	document_id uuid not null references reconcile.sap_document,
	live        boolean not null default true,
	primary key (entry_id, document_id)
);
create unique index sap_export_once on reconcile.sap_export (entry_id) where live;

-- What SAP answered, whole: the files as they came and every state in them.
create table reconcile.sap_answer_file (
	sha256      bytea primary key check (length(sha256) = 32),
	name        text not null,
	bytes       bytea not null,
	state       text not null check (state in ('accepted', 'refused')),
	reason      text not null default '',
	received_at timestamptz not null,
	constraint sap_answer_file_reason check ((state = 'refused') = (reason <> ''))
);
create index sap_answer_file_name on reconcile.sap_answer_file (name);
create table reconcile.sap_answer (
	id          bigint generated always as identity primary key,
	file_sha256 bytea not null references reconcile.sap_answer_file,
	docnum      text not null,
	document_id uuid references reconcile.sap_document, -- null: not a document of ours
	at          timestamptz not null,
	status      text not null check (status ~ '^[0-9]{2}$'),
	severity    text not null,
	class       text not null,
	number      text not null,
	text        text not null,
	system      text not null,
	sap_docnum  text not null,
	object_key  text not null,
	sap_number  text not null,
	sap_company text not null,
	sap_year    integer not null,
	received_at timestamptz not null,
	constraint sap_answer_once unique (docnum, at, status, class, number, text, object_key)
);
create index sap_answer_document on reconcile.sap_answer (document_id, id);
alter table reconcile.sap_document add foreign key (answer_id) references reconcile.sap_answer;

-- What may only be added to, and what may only change its state.
-- +goose StatementBegin
do $$
declare
	t text;
begin
	foreach t in array array['balance_transaction', 'payout_event', 'payout_line', 'statement_file', 'statement', 'bank_line',
		'payout_match', 'payment_match', 'suggestion', 'exception_note', 'settlement', 'sap_mapping', 'sap_batch_event',
		'sap_document_event', 'sap_item', 'sap_source', 'sap_answer_file', 'sap_answer'] loop
		execute format('create trigger append_only before update or delete or truncate on reconcile.%I
			for each statement execute function ops.refuse_change()', t);
		execute format('grant select, insert on reconcile.%I to guichet_app', t);
	end loop;
	foreach t in array array['run', 'payout', 'exception', 'sap_batch', 'sap_document', 'sap_export', 'sap_series'] loop
		execute format('create trigger append_only before delete or truncate on reconcile.%I
			for each statement execute function ops.refuse_change()', t);
	end loop;
end
$$;
-- +goose StatementEnd
create trigger fixed before update of id, amount_cents, currency, automatic, created_at on reconcile.payout
	for each statement execute function ops.refuse_change();
create trigger fixed before update of id, type, object_type, object_id, amount_cents, currency, suspense_entry, opened_on, opened_at on reconcile.exception
	for each statement execute function ops.refuse_change();
create trigger fixed before update of id, number, business_date, currency, file_name, data, manifest, sha256, documents, debits_cents, created_at on reconcile.sap_batch
	for each statement execute function ops.refuse_change();
create trigger fixed before update of id, batch_id, docnum, reference, company_code, currency, department, posting_on, debits_cents, created_at on reconcile.sap_document
	for each statement execute function ops.refuse_change();
create trigger fixed before update of entry_id, document_id on reconcile.sap_export
	for each statement execute function ops.refuse_change();
-- A number that was given is never given again.
-- +goose StatementBegin
create function reconcile.series_rises() returns trigger language plpgsql as $$
begin
	if new.last <= old.last then
		raise exception 'series % cannot go from % to %', old.name, old.last, new.last using errcode = 'restrict_violation';
	end if;
	return new;
end
$$;
-- +goose StatementEnd
create trigger rises before update on reconcile.sap_series
	for each row execute function reconcile.series_rises();

grant select, insert on reconcile.run, reconcile.step, reconcile.cursor, reconcile.payout, reconcile.exception,
	reconcile.sap_batch, reconcile.sap_document, reconcile.sap_export to guichet_app;
grant update (state, finished_at, report) on reconcile.run to guichet_app;
grant update (state, attempts, started_at, finished_at, error, result) on reconcile.step to guichet_app;
grant update (since) on reconcile.cursor to guichet_app;
grant update (arrival_on, trace_id, processor_state, failure, itemised, state, seq, updated_at) on reconcile.payout to guichet_app;
grant update (owner, closed_at, resolution) on reconcile.exception to guichet_app;
grant update (state, seq, updated_at) on reconcile.sap_batch to guichet_app;
grant update (state, seq, answer_id, sap_number, sap_year, updated_at) on reconcile.sap_document to guichet_app;
grant update (live) on reconcile.sap_export to guichet_app;
grant select, update (last) on reconcile.sap_series to guichet_app;
