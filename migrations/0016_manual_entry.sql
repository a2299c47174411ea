-- Journal entries that people write: drafts in versions, a second person's decision, and
-- the entry that came of it.
-- +goose Up

-- Whoever asked for an approval may take the request back; nobody else may.
alter table ops.approval
	drop constraint approval_two_persons,
	drop constraint approval_decision_check,
	add constraint approval_decision_check check (decision in ('approved', 'refused', 'withdrawn')),
	add constraint approval_two_persons check ((decision = 'withdrawn') = (decided_by = requested_by));

create table ledger.manual_draft (
	id          uuid primary key,
	maker       text not null check (maker <> ''),
	state       text not null default 'draft' check (state in ('draft', 'submitted', 'posted', 'refused', 'withdrawn')),
	version     integer not null check (version > 0),      -- the newest
	approval_id uuid unique references ops.approval,       -- of the version that was submitted last
	entry_id    uuid unique references ledger.journal_entry,
	undo_id     uuid unique references ledger.journal_entry, -- reverses entry_id on a later date, recorded with it
	created_at  timestamptz not null,
	changed_at  timestamptz not null,
	constraint manual_posted_whole check ((state = 'posted') = (entry_id is not null) and (undo_id is null or entry_id is not null)),
	constraint manual_submitted_asked check (state not in ('submitted', 'posted', 'refused') or approval_id is not null)
);
create index manual_draft_state on ledger.manual_draft (state, changed_at desc);
create index manual_draft_maker on ledger.manual_draft (maker, changed_at desc);

-- What was written, as first written. hash is over content, byte for byte.
create table ledger.manual_version (
	draft_id uuid not null references ledger.manual_draft,
	version  integer not null check (version > 0),
	content  text not null,
	hash     bytea not null check (hash = sha256(convert_to(content, 'UTF8'))),
	made_by  text not null check (made_by <> ''),
	made_at  timestamptz not null,
	primary key (draft_id, version)
);

-- Steps of a draft.
create table ledger.manual_event (
	id       bigint generated always as identity primary key,
	draft_id uuid not null references ledger.manual_draft,
	version  integer not null,
	state    text not null,
	actor    text not null check (actor <> ''),
	reason   text not null default '',
	at       timestamptz not null
);
create index manual_event_draft on ledger.manual_event (draft_id, id);

-- manual_guard keeps the steps of a draft to the table of states, and an entry from being
-- posted without another person's approval of exactly its newest version.
-- +goose StatementBegin
create function ledger.manual_guard() returns trigger language plpgsql as $$
begin
	if (old.state, new.state) not in (('draft', 'draft'), ('draft', 'submitted'), ('draft', 'withdrawn'), ('submitted', 'draft'), ('submitted', 'posted'),
		('submitted', 'refused'), ('submitted', 'withdrawn'), ('refused', 'draft'), ('refused', 'withdrawn')) then
		raise exception 'draft %: % does not become %', old.id, old.state, new.state using errcode = 'restrict_violation';
	end if;
	if new.version <> old.version and (new.version <> old.version + 1 or new.state <> 'draft') then
		raise exception 'draft %: version % does not become % while %', old.id, old.version, new.version, new.state using errcode = 'restrict_violation';
	end if;
	if new.state in ('posted', 'refused') and not exists (
		select from ops.approval a join ledger.manual_version v on v.draft_id = new.id and v.version = new.version
		where a.id = new.approval_id and a.kind = 'journal.manual' and a.object_id = new.id::text || '/' || new.version and a.payload_hash = v.hash
			and a.requested_by = new.maker and a.decided_by <> new.maker
			and a.decision = case new.state when 'posted' then 'approved' else 'refused' end
	) then
		raise exception 'draft %: nobody else has decided about version %', new.id, new.version using errcode = 'restrict_violation';
	end if;
	return new;
end
$$;
-- +goose StatementEnd
create trigger guard before update on ledger.manual_draft
	for each row execute function ledger.manual_guard();
create trigger fixed before update of id, maker, created_at on ledger.manual_draft
	for each statement execute function ops.refuse_change();
create trigger append_only before delete or truncate on ledger.manual_draft
	for each statement execute function ops.refuse_change();
create trigger append_only before update or delete or truncate on ledger.manual_version
	for each statement execute function ops.refuse_change();
create trigger append_only before update or delete or truncate on ledger.manual_event
	for each statement execute function ops.refuse_change();

grant select, insert on ledger.manual_draft, ledger.manual_version, ledger.manual_event to guichet_app;
grant update (state, version, approval_id, entry_id, undo_id, changed_at) on ledger.manual_draft to guichet_app;
