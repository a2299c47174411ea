-- Staff: fresh proof before what matters, the directory's own sign-out, roles that its
-- groups suggest, and the account for the day on which the directory is down. Departments:
-- proposed keys come into force, and a disabled webhook address can be registered again.
-- +goose Up

-- One credential of the break-glass account: used once, by whoever opens its envelope.
create table identity.break_glass (
	id           uuid primary key,
	hash         bytea not null unique check (length(hash) = 32),
	made_by      text not null check (made_by <> ''),
	made_at      timestamptz not null,
	expires_at   timestamptz not null,
	used_at      timestamptz,
	used_by      text not null default '', -- as they wrote it: the directory cannot be asked
	used_why     text not null default '',
	used_network text not null default '',
	revoked_at   timestamptz,
	revoked_by   text,
	constraint break_glass_used_whole check ((used_at is null) = (used_by = '') and (used_at is null) = (used_why = '')),
	constraint break_glass_revoked_whole check ((revoked_at is null) = (revoked_by is null)),
	constraint break_glass_one_end check (used_at is null or revoked_at is null)
);
grant select, insert, update (used_at, used_by, used_why, used_network, revoked_at, revoked_by) on identity.break_glass to guichet_app;

alter table identity.staff_session
	add column proved_at      timestamptz,                 -- when the directory says it last saw the person prove who they are
	add column directory_sid  text not null default '',
	add column break_glass_id uuid references identity.break_glass;
create index staff_session_directory on identity.staff_session (directory_sid) where ended_at is null and directory_sid <> '';
create index staff_session_break_glass on identity.staff_session (expires_at) where ended_at is null and break_glass_id is not null;

alter table identity.staff_pending add column fresh boolean not null default false;

-- What a group of the directory suggests. An administrator grants or refuses.
create table identity.staff_hint (
	id            uuid primary key,
	group_name    text not null check (group_name <> ''),
	role          text not null check (role <> ''),
	department_id uuid references department.department,
	made_by       text not null check (made_by <> ''),
	made_at       timestamptz not null,
	unique nulls not distinct (group_name, role, department_id)
);
create table identity.staff_hint_refused (
	member_id  uuid not null references identity.staff_member,
	hint_id    uuid not null references identity.staff_hint on delete cascade,
	refused_by text not null check (refused_by <> ''),
	refused_at timestamptz not null,
	primary key (member_id, hint_id)
);
grant select, insert, delete on identity.staff_hint to guichet_app;
grant select, insert on identity.staff_hint_refused to guichet_app;

grant update (state) on department.api_key to guichet_app;
create index api_key_approval on department.api_key (approval_id) where approval_id is not null;

alter table department.webhook_endpoint drop constraint webhook_endpoint_department_id_url_key;
create unique index webhook_endpoint_department_id_url_key on department.webhook_endpoint (department_id, url) where state = 'active';
