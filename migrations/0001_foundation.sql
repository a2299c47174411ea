-- +goose Up
-- What every room stands on: one schema per room, the role the service runs as,
-- and the rows that belong to no room of their own.

create schema if not exists ops; -- exists already: the list of migrations lives there
create schema department;
create schema ledger;
create schema payments;
create schema identity;
create schema reconcile;

-- The service connects as the owner and takes this role at once (startup parameter
-- "role"), so it can never alter a table. Roles belong to the whole cluster: another
-- database may have made it before, or may be making it at this moment.
-- +goose StatementBegin
do $$
begin
	if not exists (select from pg_roles where rolname = 'guichet_app') then
		begin
			create role guichet_app nologin;
		exception when duplicate_object or unique_violation then
			null;
		end;
	end if;
	-- Since PostgreSQL 16 whoever makes a role is a member that may not take it yet.
	if not pg_has_role(current_user, 'guichet_app', case when current_setting('server_version_num')::int < 160000 then 'member' else 'set' end) then
		begin
			execute format('grant guichet_app to %I', current_user);
		exception when unique_violation then
			null;
		end;
	end if;
end
$$;
-- +goose StatementEnd

grant usage on schema ops, department, ledger, payments, identity, reconcile to guichet_app;

-- refuse_change guards append-only tables after the grants: it also stops the owner.
--   create trigger append_only before update or delete or truncate on t
--       for each statement execute function ops.refuse_change();
-- +goose StatementBegin
create function ops.refuse_change() returns trigger language plpgsql as $$
begin
	raise exception '%.% is append-only: % refused', tg_table_schema, tg_table_name, lower(tg_op)
		using errcode = 'restrict_violation';
end
$$;
-- +goose StatementEnd

-- Who did what to which object, from where. subject is the resident concerned.
create table ops.audit (
	seq         bigint generated always as identity primary key,
	at          timestamptz not null,
	action      text not null check (action <> ''),
	object_type text not null check (object_type <> ''),
	object_id   text not null,
	subject     text not null default '',
	actor       text not null,
	actor_kind  text not null check (actor_kind in ('resident', 'staff', 'department', 'guest', 'system')),
	channel     text not null default '',
	network     text not null default '',
	request_id  text not null default '',
	details     jsonb not null default '{}' check (jsonb_typeof(details) = 'object')
);
create index audit_object on ops.audit (object_type, object_id, seq);
create index audit_subject on ops.audit (subject, seq) where subject <> '';
create trigger append_only before update or delete or truncate on ops.audit
	for each statement execute function ops.refuse_change();
grant select, insert on ops.audit to guichet_app;

-- A step that needs a second person. payload_hash binds the decision to what was
-- shown: whoever carries it out compares the hash again.
create table ops.approval (
	id           uuid primary key,
	kind         text not null check (kind <> ''),
	object_id    text not null check (object_id <> ''),
	payload_hash bytea not null check (length(payload_hash) = 32),
	requested_by text not null check (requested_by <> ''),
	requested_at timestamptz not null,
	decision     text check (decision in ('approved', 'refused')),
	decided_by   text check (decided_by <> ''),
	decided_at   timestamptz,
	reason       text not null default '',
	constraint approval_two_persons check (decided_by <> requested_by),
	constraint approval_decided_whole check (num_nulls(decision, decided_by, decided_at) in (0, 3)),
	constraint approval_in_order check (decided_at >= requested_at)
);
create unique index approval_one_pending on ops.approval (kind, object_id) where decision is null;
create index approval_pending on ops.approval (requested_at, id) where decision is null;
-- +goose StatementBegin
create function ops.approval_guard() returns trigger language plpgsql as $$
begin
	if tg_op = 'INSERT' then
		if new.decision is not null then
			raise exception 'approval %: a request starts undecided', new.id using errcode = 'restrict_violation';
		end if;
		return new;
	end if;
	if old.decision is not null then
		raise exception 'approval %: already %', old.id, old.decision using errcode = 'restrict_violation';
	end if;
	if (new.id, new.kind, new.object_id, new.payload_hash, new.requested_by, new.requested_at)
		is distinct from (old.id, old.kind, old.object_id, old.payload_hash, old.requested_by, old.requested_at) then
		raise exception 'approval %: the request itself cannot change', old.id using errcode = 'restrict_violation';
	end if;
	return new;
end
$$;
-- +goose StatementEnd
create trigger guard before insert or update on ops.approval
	for each row execute function ops.approval_guard();
create trigger append_only before delete or truncate on ops.approval
	for each statement execute function ops.refuse_change();
grant select, insert, update (decision, decided_by, decided_at, reason) on ops.approval to guichet_app;

-- Files that belong to an object: kept as they came. The owner may delete rows when
-- their retention ends; the service may not.
create table ops.attachment (
	id         uuid primary key,
	owner_type text not null check (owner_type <> ''),
	owner_id   text not null check (owner_id <> ''),
	name       text not null,
	media_type text not null,
	size       bigint not null,
	sha256     bytea not null check (length(sha256) = 32),
	bytes      bytea not null,
	created_at timestamptz not null,
	check (size = length(bytes))
);
create index attachment_owner on ops.attachment (owner_type, owner_id, id);
create trigger append_only before update or truncate on ops.attachment
	for each statement execute function ops.refuse_change();
grant select, insert on ops.attachment to guichet_app;

-- The mail outbox. recipient is opaque; data holds what the template needs, sealed,
-- and is erased once the message has left or been given up.
create table ops.mail (
	id           uuid primary key,
	key          text not null unique check (key <> ''),
	recipient    text not null check (recipient <> ''),
	lang         text not null check (lang in ('en', 'fr')),
	template     text not null check (template <> ''),
	data         bytea,
	state        text not null default 'queued' check (state in ('queued', 'sent', 'failed')),
	attempts     integer not null default 0 check (attempts >= 0),
	last_error   text not null default '',
	return_token text not null unique check (length(return_token) >= 26),
	created_at   timestamptz not null,
	sent_at      timestamptz,
	constraint mail_erased_when_done check ((state = 'queued') = (data is not null)),
	constraint mail_sent_at check ((state = 'sent') = (sent_at is not null))
);
create index mail_state on ops.mail (state, created_at) where state <> 'sent';
grant select, insert, update (data, state, attempts, last_error, sent_at) on ops.mail to guichet_app;

-- What came back. The report itself quotes addresses, so only its code is kept.
create table ops.mail_bounce (
	mail_id uuid not null references ops.mail,
	action  text not null check (action in ('failed', 'delayed')),
	status  text not null check (status ~ '^[245]\.[0-9]{1,3}\.[0-9]{1,3}$'), -- RFC 3463
	at      timestamptz not null,
	primary key (mail_id, action, status)
);
create trigger append_only before update or delete or truncate on ops.mail_bounce
	for each statement execute function ops.refuse_change();
grant select, insert on ops.mail_bounce to guichet_app;

-- How far development, demo and sandbox have moved the business clock forward.
-- Production has no row.
create table ops.clock (
	one       boolean primary key default true check (one),
	ahead_us  bigint not null check (ahead_us >= 0)
);
-- +goose StatementBegin
create function ops.clock_forward() returns trigger language plpgsql as $$
begin
	if new.ahead_us < old.ahead_us then
		raise exception 'the clock cannot go back' using errcode = 'restrict_violation';
	end if;
	return new;
end
$$;
-- +goose StatementEnd
create trigger forward_only before update on ops.clock
	for each row execute function ops.clock_forward();
create trigger append_only before delete or truncate on ops.clock
	for each statement execute function ops.refuse_change();
grant select, insert, update on ops.clock to guichet_app;

-- Keys of keyed hashes, one per purpose, sealed by the master key.
create table ops.secret (
	purpose text primary key check (purpose <> ''),
	sealed  bytea not null
);
grant select, insert on ops.secret to guichet_app;
