-- What a resident does with their own account: settings, links in mails, changes of
-- address, recovery, closing; and the alerts that the 311 centre should look at.
-- +goose Up

alter table identity.resident
	add column settings jsonb not null default '{}' check (jsonb_typeof(settings) = 'object'),
	add column limited_until timestamptz,  -- after a recovery: no payout, delegation or change of address
	add column disavowed_at timestamptz,   -- the person said that a sign-in was not theirs: a second factor is asked for
	add column close_at timestamptz,       -- the person asked to close the account: when it happens
	drop constraint resident_state_check,
	add constraint resident_state_check check (state in ('active', 'suspended', 'merged', 'closed')),
	add column merged_into uuid references identity.resident,
	add constraint resident_merged check ((state = 'merged') = (merged_into is not null));
create index resident_close on identity.resident (close_at) where close_at is not null and state <> 'closed';
create index resident_merged_into on identity.resident (merged_into) where merged_into is not null;

-- Links in mails that do one thing, once, after a confirmation.
create table identity.link (
	hash        bytea primary key check (length(hash) = 32),
	purpose     text not null check (purpose in ('recovery-cancel', 'email-revert', 'disavow', 'merge-undo')),
	resident_id uuid not null references identity.resident,
	ref         uuid not null,
	created_at  timestamptz not null,
	expires_at  timestamptz not null,
	used_at     timestamptz
);
create index link_ref on identity.link (purpose, ref);
create index link_resident on identity.link (resident_id);
create index link_expires on identity.link (expires_at);

-- A main address that was changed or an address that was taken away, while it can be put back.
create table identity.email_change (
	id           uuid primary key,
	resident_id  uuid not null references identity.resident,
	old_lookup   bytea not null check (length(old_lookup) = 32),
	old_box      bytea not null,
	new_email_id uuid not null,
	at           timestamptz not null,
	revert_until timestamptz not null,
	reverted_at  timestamptz
);
create index email_change_resident on identity.email_change (resident_id);
create index email_change_until on identity.email_change (revert_until);

create table identity.recovery (
	id           uuid primary key,
	resident_id  uuid not null references identity.resident,
	state        text not null default 'open' check (state in ('open', 'cancelled', 'completed', 'expired')),
	network      text not null,
	device       text not null,
	requested_at timestamptz not null,
	ready_at     timestamptz not null,
	finish_by    timestamptz not null,
	told_at      timestamptz,  -- that it is ready
	ended_at     timestamptz,
	ended_why    text not null default '',
	constraint recovery_ended_whole check ((state = 'open') = (ended_at is null))
);
create unique index recovery_one_open on identity.recovery (resident_id) where state = 'open';
create index recovery_ready on identity.recovery (ready_at);

-- What somebody at the 311 centre should look at.
create table identity.alert (
	id          uuid primary key,
	resident_id uuid not null references identity.resident,
	kind        text not null check (kind in ('disavowed', 'recovery')),
	ref         uuid not null,
	at          timestamptz not null
);
create index alert_at on identity.alert (at, id);

create index signin_session on identity.signin (session_id) where session_id is not null;
create index signin_at on identity.signin (at);

grant select, insert, update, delete on identity.link, identity.email_change, identity.recovery, identity.alert to guichet_app;
grant update (resident_id), delete on identity.signin to guichet_app;
grant delete on identity.contact, identity.consent to guichet_app;
