-- Passkeys, authenticator apps with their backup codes, and what a session was proved with.
-- +goose Up

alter table identity.pending
	add column proved jsonb not null default '{}', -- factors proved in this sign-in, with when
	drop constraint pending_step_check,
	add constraint pending_step_check check (step in ('email', 'code', 'factor', 'profile', 'signed-in', 'done')),
	drop constraint pending_address,
	add constraint pending_address check (step in ('email', 'factor', 'signed-in', 'done') or email_lookup is not null),
	drop constraint pending_person,
	add constraint pending_person check (step not in ('factor', 'signed-in') or resident_id is not null);

-- factors holds when each factor was last proved.
alter table identity.session add column factors jsonb not null default '{}';

alter table identity.resident
	add column proofed_at timestamptz, -- identity proved at a counter or by a partner
	add column proofed_by text not null default '';

create table identity.passkey (
	id              uuid primary key,
	resident_id     uuid not null references identity.resident,
	handle          bytea not null check (length(handle) between 16 and 64), -- what the authenticator knows the person by
	credential_id   bytea not null unique,
	public_key      bytea not null,
	sign_count      bigint not null check (sign_count >= 0),
	backup_eligible boolean not null,
	backed_up       boolean not null,
	transports      text[] not null default '{}',
	name            bytea not null, -- sealed: people name devices after themselves
	created_at      timestamptz not null,
	used_at         timestamptz,
	warned_at       timestamptz     -- the counter went back: perhaps a copy
);
create index passkey_resident on identity.passkey (resident_id, created_at);

-- Challenges of passkey ceremonies; a used one stays as a tombstone until it would have expired.
create table identity.challenge (
	hash        bytea primary key check (length(hash) = 32),
	purpose     text not null check (purpose in ('sign-in', 'register')),
	bound       bytea not null check (length(bound) = 32), -- SHA-256 of the browser's or session's secret
	ceremony    jsonb not null,
	created_at  timestamptz not null,
	expires_at  timestamptz not null,
	used_at     timestamptz
);
create index challenge_expires on identity.challenge (expires_at);

-- One authenticator app per person. It counts once a code of it was typed.
create table identity.app (
	resident_id  uuid primary key references identity.resident,
	secret       bytea not null, -- sealed
	last_step    bigint not null default 0, -- the last time step whose code was taken
	created_at   timestamptz not null,
	confirmed_at timestamptz,
	used_at      timestamptz
);

-- Backup codes for the app: Argon2id, one salt per set, so that a try costs one hash.
create table identity.backup_code (
	resident_id uuid not null references identity.resident,
	salt        bytea not null check (length(salt) = 16),
	hash        bytea not null check (length(hash) = 32),
	created_at  timestamptz not null,
	used_at     timestamptz,
	primary key (resident_id, hash)
);

grant select, insert, update, delete on identity.passkey, identity.challenge, identity.app, identity.backup_code to guichet_app;
