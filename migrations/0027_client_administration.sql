-- What looking after a client needs: two secrets at once while one replaces the other,
-- changes that wait for a second person, and the requests that were refused.
-- +goose Up

-- While a secret is replaced the one before it works on, until a moment said at rotation.
alter table identity.client
	add column secret_made_at   timestamptz,
	add column old_secret_hash  bytea check (length(old_secret_hash) = 32),
	add column old_secret_until timestamptz,
	add constraint client_old_secret_whole check ((old_secret_hash is null) = (old_secret_until is null));

-- A change of a client's terms, as it was proposed. It is carried out by a second person's yes.
create table identity.client_change (
	approval_id uuid primary key references ops.approval,
	client_id   text not null references identity.client,
	change      jsonb not null check (jsonb_typeof(change) = 'object'),
	created_at  timestamptz not null
);
create index client_change_client on identity.client_change (client_id, created_at);
create trigger append_only before update or delete or truncate on identity.client_change
	for each statement execute function ops.refuse_change();

-- The last refused requests of each client: codes and our own words, nothing that was sent.
create table identity.client_error (
	id          uuid primary key,
	client_id   text not null references identity.client,
	at          timestamptz not null,
	endpoint    text not null check (endpoint <> ''),
	code        text not null check (code <> ''),
	description text not null,
	network     text not null
);
create index client_error_client on identity.client_error (client_id, at desc, id desc);

grant select, insert on identity.client_change to guichet_app;
grant select, insert, delete on identity.client_error to guichet_app;

-- A live key is proposed by one person and works once a second one agreed.
alter table department.api_key
	add column approval_id uuid references ops.approval,
	add column state text not null default 'active' check (state in ('proposed', 'active', 'refused'));

-- How a department looks where its residents sign in.
create table department.branding (
	department_id uuid primary key references department.department,
	colour        text not null check (colour ~ '^#[0-9a-f]{6}$'),
	logo          bytea check (length(logo) <= 65536),
	logo_type     text check (logo_type in ('image/png', 'image/jpeg')),
	logo_alt_en   text not null default '',
	logo_alt_fr   text not null default '',
	changed_at    timestamptz not null,
	constraint branding_logo_whole check ((logo is null) = (logo_type is null))
);
grant select, insert, update on department.branding to guichet_app;
