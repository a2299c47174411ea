-- Acting for somebody else: whom one may act for, who may, in what, for how much and
-- until when. Names, numbers and birth dates are sealed like those of persons.
-- +goose Up

-- A business, an estate, a property, a child, or a resident whom others act for; this
-- last one has the resident's own id and is named by the resident's own profile.
create table identity.party (
	id          uuid primary key references identity.person_key,
	type        text not null check (type in ('business', 'person', 'estate', 'property')),
	profile     bytea,                      -- sealed JSON; null: a resident
	-- How we know of it: somebody says so, it is an account, or two members of staff saw a document.
	proof       text not null check (proof in ('declared', 'account', 'document')),
	ends_on     date,                       -- last day before a child comes of age
	created_by  text not null check (created_by <> ''),
	created_at  timestamptz not null,
	constraint party_account check ((proof = 'account') = (profile is null)),
	constraint party_staff_only check (type in ('business', 'person') or proof = 'document')
);

-- One person's right to act for one party: an invitation until it is accepted, and
-- nothing but history once it has ended. What is given never changes: other rights are
-- another invitation.
create table identity.delegation (
	id                uuid primary key,
	party_id          uuid not null references identity.party,
	delegate_id       uuid references identity.resident,
	role              text not null check (role in ('owner', 'guardian', 'delegate', 'executor', 'attorney')),
	rights            text[] not null check (cardinality(rights) > 0
		and rights <@ array['bills:view', 'bills:pay', 'files:view', 'files:manage']),
	departments       text[] not null default '{}', -- codes; none: every department
	per_payment_cents bigint check (per_payment_cents > 0),
	per_month_cents   bigint check (per_month_cents > 0),
	may_delegate      boolean not null,
	until             date,                 -- last day; null: an owner, for as long as there is one
	lineage           uuid[] not null default '{}', -- whose rights it was passed on from, the first one first
	invited_by        text not null check (invited_by <> ''),
	invited_at        timestamptz not null,
	contact_id        uuid references identity.contact, -- only who proved this address may accept
	secret_hash       bytea unique check (length(secret_hash) = 32),
	open_until        timestamptz,          -- of the invitation
	approval_id       uuid references ops.approval, -- the second person's, when it rests on a document
	accepted_at       timestamptz,
	reminded_at       timestamptz,
	ended_at          timestamptz,
	ended_by          text not null default '',
	ended_why         text not null default '' check (ended_why in ('', 'revoked', 'declined', 'expired', 'lapsed', 'refused')),
	constraint delegation_accepted_by check (accepted_at is null or delegate_id is not null),
	constraint delegation_ended_whole check ((ended_at is null) = (ended_why = '') and (ended_at is null) = (ended_by = '')),
	constraint delegation_ends check (role = 'owner' or until is not null),
	-- A guardian's ends when the child comes of age. Leap days: the limit counts months.
	constraint delegation_two_years check (role in ('owner', 'guardian') or until <= ((invited_at at time zone 'America/Toronto') + interval '2 years')::date),
	constraint delegation_on_document check (role not in ('executor', 'attorney') or approval_id is not null),
	constraint delegation_passed_on_twice check (cardinality(lineage) <= 2)
);
create unique index delegation_one_live on identity.delegation (party_id, delegate_id)
	where accepted_at is not null and ended_at is null;
create index delegation_delegate on identity.delegation (delegate_id, id) where accepted_at is not null;
create index delegation_party on identity.delegation (party_id, id);
create index delegation_lineage on identity.delegation using gin (lineage);
create index delegation_until on identity.delegation (until) where ended_at is null;
create index delegation_open on identity.delegation (open_until) where accepted_at is null and ended_at is null;

-- What was given stays as it was given; what has ended stays ended.
-- +goose StatementBegin
create function identity.delegation_guard() returns trigger language plpgsql as $$
begin
	if old.ended_at is not null then
		raise exception 'delegation %: has ended', old.id using errcode = 'restrict_violation';
	end if;
	if old.accepted_at is not null and new.accepted_at is distinct from old.accepted_at then
		raise exception 'delegation %: was accepted', old.id using errcode = 'restrict_violation';
	end if;
	return new;
end
$$;
-- +goose StatementEnd
create trigger guard before update on identity.delegation
	for each row execute function identity.delegation_guard();

-- Whether a right is in force: accepted, not ended, not past its last day, and both
-- people may still sign in. Asked wherever somebody acts under it. The caller passes the date.
-- +goose StatementBegin
create function identity.delegation_live(delegation uuid, today date) returns boolean language sql stable as $$
	select exists (
		select from identity.delegation d
		where d.id = delegation and d.accepted_at is not null and d.ended_at is null and (d.until is null or d.until >= today)
			and not exists (select from identity.resident r where r.id in (d.party_id, d.delegate_id) and r.state <> 'active'))
$$;
-- +goose StatementEnd

grant select, insert on identity.party to guichet_app;
grant select, insert, update (delegate_id, accepted_at, reminded_at, ended_at, ended_by, ended_why) on identity.delegation to guichet_app;

-- In whose name the browser's person is acting just now.
alter table identity.session add column acting_id uuid references identity.delegation;

-- A department knows a represented party by a name of its own too. Residents and parties
-- have one thing in common: a key.
alter table identity.pairwise drop constraint pairwise_resident_id_fkey;
alter table identity.pairwise add constraint pairwise_person foreign key (resident_id) references identity.person_key not valid;
alter table identity.pairwise validate constraint pairwise_person;

-- The right under which a client's grant was given; null: the person's own.
alter table identity.client_grant add column acting_id uuid references identity.delegation;

-- In whose name the actor acted: the opaque id of a represented party.
alter table ops.audit add column on_behalf_of text not null default '';
create index audit_on_behalf_of on ops.audit (on_behalf_of, seq) where on_behalf_of <> '';
