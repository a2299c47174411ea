-- Who people are, how they prove it, and which departments may know. Names,
-- addresses and telephone numbers live in this schema alone, each person's under a
-- key of their own; every other schema holds opaque ids.
-- +goose Up

-- The key of one person, sealed by the master key. Emptying the box makes everything
-- sealed with it unreadable, in every backup too: that is how a person is forgotten.
create table identity.person_key (
	id           uuid primary key,
	box          bytea,
	created_at   timestamptz not null,
	destroyed_at timestamptz,
	constraint person_key_gone check ((box is null) = (destroyed_at is not null))
);

create table identity.resident (
	id         uuid primary key references identity.person_key,
	state      text not null default 'active' check (state in ('active', 'suspended', 'closed')),
	lang       text not null check (lang in ('en', 'fr')),
	profile    bytea not null, -- sealed JSON: the name, later telephone and postal address
	created_at timestamptz not null,
	updated_at timestamptz not null
);

-- Addresses a resident has proved. lookup is a keyed hash: an address can be found
-- only by whoever already knows it and holds the key.
create table identity.email (
	id          uuid primary key,
	resident_id uuid not null references identity.resident,
	lookup      bytea not null unique check (length(lookup) = 32),
	box         bytea not null,
	main        boolean not null,
	verified_at timestamptz not null,
	bounced     text not null default ''    -- RFC 3463 status when it takes no mail
);
create index email_resident on identity.email (resident_id);
create unique index email_one_main on identity.email (resident_id) where main;

-- Addresses that guests gave for a receipt. Nobody has proved them.
create table identity.contact (
	id         uuid primary key references identity.person_key,
	lookup     bytea not null unique check (length(lookup) = 32),
	box        bytea not null,
	created_at timestamptz not null,
	bounced    text not null default ''
);

-- A sign-in in progress. browser is the SHA-256 of a cookie: the id alone gives nothing.
create table identity.pending (
	id           uuid primary key,
	browser      bytea not null check (length(browser) = 32),
	step         text not null check (step in ('email', 'code', 'profile', 'signed-in', 'done')),
	request      bytea,                     -- the checked authorize request; null: sign-in to Guichet itself
	service      text not null default '',  -- the client that asked
	return_path  text not null default '',
	email        bytea,                     -- sealed by the master key: it belongs to nobody yet
	email_lookup bytea check (length(email_lookup) = 32),
	code_id      uuid,
	resident_id  uuid references identity.resident,
	created_at   timestamptz not null,
	expires_at   timestamptz not null,
	constraint pending_address check (step in ('email', 'signed-in', 'done') or email_lookup is not null),
	constraint pending_person check (step <> 'signed-in' or resident_id is not null)
);
create index pending_browser on identity.pending (browser);
create index pending_expires on identity.pending (expires_at);

-- Codes sent by e-mail. A used, replaced or spent row stays until it would have expired.
create table identity.email_code (
	id          uuid primary key,
	purpose     text not null check (purpose <> ''),
	browser     bytea not null check (length(browser) = 32),
	lookup      bytea not null check (length(lookup) = 32),
	email       bytea not null,             -- sealed by the master key
	salt        bytea not null check (length(salt) = 16),
	hash        bytea not null check (length(hash) = 32), -- Argon2id
	tries       integer not null default 0 check (tries between 0 and 5),
	created_at  timestamptz not null,
	expires_at  timestamptz not null,
	used_at     timestamptz,
	replaced_at timestamptz
);
create unique index email_code_one_live on identity.email_code (browser, purpose)
	where used_at is null and replaced_at is null;
create index email_code_expires on identity.email_code (expires_at);

-- Token buckets. key is a keyed hash of an address, a network or a client.
create table identity.bucket (
	kind  text not null,
	key   bytea not null,
	level double precision not null,
	at    timestamptz not null,
	primary key (kind, key)
);
create index bucket_at on identity.bucket (at);

create table identity.session (
	id           uuid primary key,
	token_hash   bytea not null unique check (length(token_hash) = 32),
	resident_id  uuid not null references identity.resident,
	acr          smallint not null check (acr between 1 and 3),
	amr          text[] not null,
	signed_in_at timestamptz not null,      -- auth_time: the last time the person proved who they are
	created_at   timestamptz not null,
	seen_at      timestamptz not null,
	expires_at   timestamptz not null,
	network      text not null default '',
	device       text not null default '',
	ended_at     timestamptz,
	ended_why    text not null default '',
	constraint session_ended_whole check ((ended_at is null) = (ended_why = ''))
);
create index session_resident on identity.session (resident_id, id) where ended_at is null;
create index session_expires on identity.session (expires_at);

-- Sign-in history, kept 13 months and shown to the resident.
create table identity.signin (
	id          uuid primary key,
	resident_id uuid not null references identity.resident,
	at          timestamptz not null,
	way         text not null check (way <> ''),
	outcome     text not null check (outcome in ('ok', 'failed', 'refused')),
	service     text not null default '',   -- the client that asked, empty for Guichet itself
	session_id  uuid,
	network     text not null default '',
	device      text not null default ''
);
create index signin_resident on identity.signin (resident_id, at desc, id);

-- What the provider keeps -------------------------------------------------------

create table identity.client (
	id            text primary key check (id ~ '^[a-z0-9][a-z0-9._-]{1,63}$'),
	department_id uuid not null references department.department,
	name_en       text not null check (name_en <> ''),
	name_fr       text not null check (name_fr <> ''),
	type          text not null check (type in ('web', 'native')),
	auth_method   text not null check (auth_method in ('client_secret_basic', 'client_secret_post', 'none')),
	secret_hash   bytea check (length(secret_hash) = 32),
	first_party   boolean not null,
	scopes        text[] not null check ('openid' = any (scopes)),
	resources     text[] not null default '{}',
	id_token_alg  text not null default 'ES256' check (id_token_alg in ('ES256', 'RS256')),
	state         text not null check (state in ('proposed', 'active', 'disabled')),
	created_at    timestamptz not null,
	constraint client_secret_when_used check ((auth_method = 'none') = (secret_hash is null)),
	constraint client_native_is_public check ((type = 'native') = (auth_method = 'none'))
);
create index client_department on identity.client (department_id, id);

-- Where answers may go. A proposed address is not followed until a second person agreed.
create table identity.client_uri (
	client_id   text not null references identity.client,
	kind        text not null check (kind in ('redirect', 'post-logout')),
	uri         text not null check (uri <> ''),
	state       text not null check (state in ('proposed', 'active')),
	approval_id uuid references ops.approval,
	created_at  timestamptz not null,
	primary key (client_id, kind, uri)
);

-- The name by which one department knows one resident. Computed once and stored, so
-- that it outlives the key, a merge of accounts and a client's move.
create table identity.pairwise (
	sub           text primary key,
	department_id uuid not null references department.department,
	resident_id   uuid not null references identity.resident,
	created_at    timestamptz not null,
	unique (department_id, resident_id)
);

-- Which clients a session has been used with; sid is what each is told, so that two
-- departments share no common name of a session.
create table identity.session_client (
	session_id uuid not null references identity.session on delete cascade,
	client_id  text not null references identity.client,
	sid        text not null unique,
	first_at   timestamptz not null,
	primary key (session_id, client_id)
);

-- What a resident was told (notice) or agreed to (consent) about a client.
create table identity.consent (
	resident_id  uuid not null references identity.resident,
	client_id    text not null references identity.client,
	kind         text not null check (kind in ('notice', 'consent')),
	scopes       text[] not null,
	given_at     timestamptz not null,
	withdrawn_at timestamptz,
	primary key (resident_id, client_id)
);

-- One authorization of a client by a resident, and the code that carried it. The code
-- is consumed by one conditional update; the row stays as its tombstone.
create table identity.client_grant (
	id              uuid primary key,
	client_id       text not null references identity.client,
	resident_id     uuid not null references identity.resident,
	session_id      uuid not null, -- no reference: a grant may outlive its session
	sid             text not null,
	sub             text not null references identity.pairwise,
	scopes          text[] not null,
	resources       text[] not null,
	nonce           text,
	acr             smallint not null,
	amr             text[] not null,
	signed_in_at    timestamptz not null,
	redirect_uri    text not null,
	challenge       text not null check (length(challenge) = 43),
	code_hash       bytea not null unique check (length(code_hash) = 32),
	code_expires_at timestamptz not null,
	code_used_at    timestamptz,
	created_at      timestamptz not null,
	revoked_at      timestamptz,
	revoked_why     text not null default '',
	constraint client_grant_revoked_whole check ((revoked_at is null) = (revoked_why = ''))
);
create index client_grant_resident on identity.client_grant (resident_id, client_id);
create index client_grant_code_expires on identity.client_grant (code_expires_at);

create table identity.access_token (
	hash       bytea primary key check (length(hash) = 32),
	grant_id   uuid not null references identity.client_grant on delete cascade,
	scopes     text[] not null,
	audience   text[] not null check (cardinality(audience) > 0),
	created_at timestamptz not null,
	expires_at timestamptz not null,
	constraint access_token_short check (expires_at <= created_at + interval '10 minutes')
);
create index access_token_grant on identity.access_token (grant_id);
create index access_token_expires on identity.access_token (expires_at);

-- Signing keys. next is published before it signs; retiring still verifies.
create table identity.signing_key (
	kid          text primary key,
	alg          text not null check (alg in ('ES256', 'RS256')),
	state        text not null check (state in ('next', 'active', 'retiring', 'gone')),
	public       jsonb not null,
	private      bytea,                     -- sealed by the master key; emptied when it stops signing
	created_at   timestamptz not null,
	activated_at timestamptz,
	retired_at   timestamptz,
	constraint signing_key_private check ((state in ('next', 'active')) = (private is not null))
);
create unique index signing_key_one_next on identity.signing_key (alg) where state = 'next';
create unique index signing_key_one_active on identity.signing_key (alg) where state = 'active';

-- Staff -------------------------------------------------------------------------

-- Who the city's directory has vouched for, by its issuer and subject together.
create table identity.staff_member (
	id         uuid primary key,
	issuer     text not null,
	subject    text not null,
	name       text not null,
	email      text not null,
	groups     text[] not null,
	state      text not null default 'active' check (state in ('active', 'suspended')),
	created_at timestamptz not null,
	seen_at    timestamptz not null,
	unique (issuer, subject)
);

-- What a member may do, where (null: every department) and through which channel.
create table identity.staff_role (
	id            uuid primary key,
	member_id     uuid not null references identity.staff_member,
	role          text not null check (role <> ''),
	department_id uuid references department.department,
	channel       text check (channel <> ''),
	granted_by    text not null check (granted_by <> ''),
	granted_at    timestamptz not null,
	ended_by      text,
	ended_at      timestamptz,
	constraint staff_role_ended_whole check ((ended_at is null) = (ended_by is null))
);
create unique index staff_role_once on identity.staff_role (member_id, role, department_id, channel)
	nulls not distinct where ended_at is null;

create table identity.staff_session (
	id           uuid primary key,
	token_hash   bytea not null unique check (length(token_hash) = 32),
	member_id    uuid not null references identity.staff_member,
	signed_in_at timestamptz not null,
	created_at   timestamptz not null,
	seen_at      timestamptz not null,
	expires_at   timestamptz not null,
	network      text not null default '',
	device       text not null default '',
	ended_at     timestamptz,
	ended_why    text not null default '',
	constraint staff_session_ended_whole check ((ended_at is null) = (ended_why = ''))
);
create index staff_session_member on identity.staff_session (member_id) where ended_at is null;
create index staff_session_expires on identity.staff_session (expires_at);

-- A staff sign-in that is at the directory just now; state_hash is the SHA-256 of the state.
create table identity.staff_pending (
	state_hash  bytea primary key check (length(state_hash) = 32),
	browser     bytea not null check (length(browser) = 32),
	nonce       text not null,
	verifier    text not null,
	return_path text not null,
	created_at  timestamptz not null,
	expires_at  timestamptz not null,
	used_at     timestamptz
);
create index staff_pending_expires on identity.staff_pending (expires_at);

grant select, insert on identity.signin, identity.pairwise, identity.session_client to guichet_app;
grant select, insert, update on identity.person_key, identity.resident, identity.contact,
	identity.client, identity.consent, identity.signing_key, identity.staff_member, identity.staff_role to guichet_app;
grant select, insert, update, delete on identity.email, identity.pending, identity.email_code, identity.bucket,
	identity.session, identity.client_uri, identity.client_grant, identity.access_token,
	identity.staff_session, identity.staff_pending to guichet_app;
