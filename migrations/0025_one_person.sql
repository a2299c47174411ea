-- Codes from a counter, accounts that become one, payments of guests that their payers
-- claim, and partners whose sign-in counts here.
-- +goose Up

create table identity.counter_code (
	id          uuid primary key,
	resident_id uuid not null references identity.resident,
	staff_id    uuid not null,
	document    text not null check (document <> ''), -- its kind
	salt        bytea not null check (length(salt) = 16),
	hash        bytea not null check (length(hash) = 32),
	created_at  timestamptz not null,
	expires_at  timestamptz not null,
	used_at     timestamptz,
	replaced_at timestamptz
);
create index counter_code_resident on identity.counter_code (resident_id) where used_at is null and replaced_at is null;
create index counter_code_expires on identity.counter_code (expires_at);

-- A sign-in that proves a second account, to make it part of the first.
alter table identity.pending add column merge_into uuid references identity.resident;

create table identity.merge (
	id         uuid primary key,
	kept_id    uuid not null references identity.resident,
	retired_id uuid not null references identity.resident,
	moved      jsonb not null default '{}', -- what an undo takes back: ids
	merged_at  timestamptz not null,
	undo_until timestamptz not null,
	undone_at  timestamptz,
	constraint merge_two check (kept_id <> retired_id)
);
create index merge_kept on identity.merge (kept_id);
create index merge_retired on identity.merge (retired_id);

-- One receipt is claimed once. receipt is its id in the books.
create table identity.claim (
	receipt     uuid primary key,
	resident_id uuid not null references identity.resident,
	contact_id  uuid not null,
	claimed_at  timestamptz not null
);
create index claim_resident on identity.claim (resident_id);

-- Who at a partner is whom here: by issuer and subject, never by address.
create table identity.partner_link (
	issuer      text not null,
	subject     text not null,
	resident_id uuid not null references identity.resident,
	linked_at   timestamptz not null,
	used_at     timestamptz,
	primary key (issuer, subject)
);
create index partner_link_resident on identity.partner_link (resident_id);

-- A sign-in that is at a partner just now.
create table identity.partner_pending (
	state_hash  bytea primary key check (length(state_hash) = 32),
	browser     bytea not null check (length(browser) = 32),
	partner     text not null,
	pending_id  uuid,                      -- the sign-in it belongs to; null: an account page that links
	resident_id uuid references identity.resident,
	nonce       text not null,
	verifier    text not null,
	created_at  timestamptz not null,
	expires_at  timestamptz not null,
	used_at     timestamptz
);
create index partner_pending_expires on identity.partner_pending (expires_at);

grant select, insert, update, delete on identity.counter_code, identity.partner_link, identity.partner_pending to guichet_app;
grant select, insert, update on identity.merge to guichet_app;
grant select, insert, delete on identity.claim to guichet_app;
