-- What the provider keeps for refresh tokens, pushed requests, proofs of possession,
-- client assertions and devices.
-- +goose Up

-- What is agreed with a client beyond the usual; {} is the usual. keys are the public
-- keys of a client that authenticates by signed assertions.
alter table identity.client
	drop constraint client_auth_method_check,
	add constraint client_auth_method_known check (auth_method in ('client_secret_basic', 'client_secret_post', 'private_key_jwt', 'none')),
	drop constraint client_secret_when_used,
	add constraint client_secret_when_used check ((auth_method in ('client_secret_basic', 'client_secret_post')) = (secret_hash is not null)),
	add column policy jsonb not null default '{}' check (jsonb_typeof(policy) = 'object'),
	add constraint client_keys_when_used check ((auth_method = 'private_key_jwt') = (policy ? 'keys'));

-- A grant lives until its code is forgotten or, with refresh tokens, until they may
-- no longer be renewed. jkt is the key (RFC 7638 thumbprint) that the code is bound to.
alter table identity.client_grant
	alter column challenge drop not null,
	add column jkt text check (length(jkt) = 43),
	add column id_claims text[] not null default '{}',
	add column info_claims text[] not null default '{}',
	add column ends_at timestamptz;
create index client_grant_ends on identity.client_grant (coalesce(ends_at, code_expires_at));
create index client_grant_session on identity.client_grant (session_id);
drop index identity.client_grant_code_expires;

alter table identity.access_token
	add column jkt text check (length(jkt) = 43);

-- The refresh tokens of a grant are one line of descent: the unique constraint is what
-- keeps two at once from founding two lines. Spent ones stay until they would have expired.
create table identity.refresh_token (
	hash       bytea primary key check (length(hash) = 32),
	grant_id   uuid not null references identity.client_grant on delete cascade,
	generation integer not null check (generation > 0),
	jkt        text check (length(jkt) = 43),
	network    text not null,               -- where it was asked for
	created_at timestamptz not null,
	expires_at timestamptz not null check (expires_at > created_at),
	spent_at   timestamptz,
	unique (grant_id, generation)
);
create index refresh_token_expires on identity.refresh_token (expires_at);

-- Authorize requests that clients pushed (RFC 9126). Opened once, then bound to the sign-in.
create table identity.pushed_request (
	hash       bytea primary key check (length(hash) = 32),
	client_id  text not null references identity.client,
	request    bytea not null,
	created_at timestamptz not null,
	expires_at timestamptz not null,
	opened_at  timestamptz,
	pending_id uuid
);
create index pushed_request_expires on identity.pushed_request (expires_at);

-- Tokens that work once and are made by others: the jti of assertions and of proofs.
create table identity.seen (
	hash       bytea primary key check (length(hash) = 32),
	expires_at timestamptz not null
);
create index seen_expires on identity.seen (expires_at);

-- Devices that ask for a sign-in on another screen (RFC 8628). user_code is a keyed
-- hash: eight letters are too few for a plain one.
create table identity.device_code (
	hash             bytea primary key check (length(hash) = 32),
	user_code        bytea not null unique check (length(user_code) = 32),
	client_id        text not null references identity.client,
	scopes           text[] not null,
	state            text not null check (state in ('waiting', 'approved', 'denied', 'used')),
	interval_seconds integer not null,
	polled_at        timestamptz,
	resident_id      uuid references identity.resident,
	session_id       uuid,
	sid              text,
	sub              text references identity.pairwise,
	acr              smallint,
	amr              text[],
	signed_in_at     timestamptz,
	created_at       timestamptz not null,
	expires_at       timestamptz not null,
	constraint device_code_person check ((state in ('approved', 'used')) = (resident_id is not null))
);
create index device_code_expires on identity.device_code (expires_at);

grant select, insert, update, delete on identity.refresh_token, identity.pushed_request, identity.seen, identity.device_code to guichet_app;
