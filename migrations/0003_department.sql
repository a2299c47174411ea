-- Departments: the tenants, their API keys, and what they are told.
-- +goose Up
create table department.department (
	id         uuid primary key,
	code       text not null unique check (code ~ '^[a-z][a-z0-9]{1,29}$'),
	name_en    text not null check (name_en <> ''),
	name_fr    text not null check (name_fr <> ''),
	basis      text not null default 'settled' check (basis in ('settled', 'accrual')),
	hst_number text not null default '',
	created_at timestamptz not null
);

create table department.api_key (
	id            uuid primary key,
	department_id uuid not null references department.department,
	name          text not null check (name <> ''),
	prefix        text not null,
	hash          bytea not null unique,
	created_at    timestamptz not null,
	created_by    text not null,
	last_used_on  date,
	revoked_at    timestamptz
);
create index on department.api_key (department_id);

create table department.webhook_endpoint (
	id            uuid primary key,
	department_id uuid not null references department.department,
	url           text not null,
	sealed_secret bytea not null,
	-- An administrator may let an endpoint live inside the network.
	allow_private boolean not null default false,
	state         text not null default 'active' check (state in ('active', 'disabled')),
	created_at    timestamptz not null,
	unique (department_id, url)
);

-- What happened, as the department is told: immutable, numbered per object.
create table department.event (
	id            uuid primary key,
	department_id uuid not null references department.department,
	type          text not null,
	object_type   text not null,
	object_id     uuid not null,
	sequence      bigint not null,
	data          jsonb not null,
	created_at    timestamptz not null,
	unique (department_id, object_id, sequence, type)
);
create index on department.event (department_id, id);

create table department.delivery (
	id           uuid primary key,
	event_id     uuid not null references department.event,
	endpoint_id  uuid not null references department.webhook_endpoint,
	state        text not null default 'pending' check (state in ('pending', 'delivered', 'failed')),
	attempts     integer not null default 0,
	last_status  integer not null default 0,
	last_error   text not null default '',
	delivered_at timestamptz,
	updated_at   timestamptz not null,
	unique (event_id, endpoint_id)
);
create index on department.delivery (endpoint_id, id);

create trigger event_append_only before update or delete or truncate on department.event
	for each statement execute function ops.refuse_change();

grant usage on schema department to guichet_app;
grant select, insert on department.department, department.event to guichet_app;
grant update (name_en, name_fr, hst_number) on department.department to guichet_app;
grant select, insert, update on department.api_key, department.webhook_endpoint, department.delivery to guichet_app;
