-- The books' second layer (holds), corrections, late postings, partial reversals, limits
-- that change, frozen trial balances, imports, and the log's size over time.
-- +goose Up

-- Account ids below zero are the held layer of an account, a side each: -2n holds
-- debits of account n and -(2n+1) its credits. Postings, chains, buckets and the log
-- treat them as accounts of their own; they have no row in ledger.account, so whatever
-- joins accounts sees booked amounts only. An entry is wholly held or wholly booked.
alter table ledger.journal_entry
	add column hold uuid,     -- the hold that this entry releases (held) or captures (booked)
	add column corrects uuid, -- the entry that this one replaces
	add column asked_on date; -- late: the date asked for, whose period was closed

-- An entry may be reversed in parts. check_entries sees that no line is taken back
-- beyond what it was.
create index journal_entry_reverses on ledger.journal_entry (reverses) where reverses is not null;
create index journal_entry_hold on ledger.journal_entry (hold) where hold is not null;
drop index ledger.journal_entry_reversed_once;

-- How far a hold has come. What remains of it follows from the entries that name it.
create table ledger.hold (
	entry_id   uuid primary key references ledger.journal_entry,
	expires_at timestamptz,
	state      text not null default 'open' check (state in ('open', 'captured', 'voided', 'expired')),
	changed_at timestamptz not null
);
create index hold_expiry on ledger.hold (expires_at, entry_id) where state = 'open' and expires_at is not null;

-- The trial balance of a closed month, cumulative to its last day, and the hash over
-- it. It also spares later questions the days before.
alter table ledger.period add column trial_hash bytea check (length(trial_hash) = 32);
create table ledger.period_balance (
	month      date not null references ledger.period,
	account_id bigint not null references ledger.account,
	debits     bigint not null check (debits >= 0),
	credits    bigint not null check (credits >= 0),
	primary key (month, account_id)
);

-- Opening balances and history that came from another system by file.
create table ledger.import (
	name        text primary key check (name <> '' and length(name) <= 100),
	kind        text not null check (kind in ('opening', 'history')),
	file_hash   bytea not null check (length(file_hash) = 32),
	entries     bigint not null check (entries > 0),
	lines       bigint not null check (lines >= 2 * entries),
	debits      bigint not null check (debits > 0),
	first_on    date not null,
	last_on     date not null check (last_on >= first_on),
	actor       text not null,
	imported_at timestamptz not null
);

-- What was known when: the log's size at the end of each second in which it grew.
create table ledger.log_moment (
	at   timestamptz primary key,
	size bigint not null check (size > 0)
);
-- What the log held before this migration is known from now on.
insert into ledger.log_moment (at, size)
select coalesce((select max(recorded_at) from ledger.journal_entry), 'epoch'), size from ledger.log_head where size > 0;

-- Statements by accounting date.
create index posting_day on ledger.posting (account_id, effective_on, seq);

-- seq_at is the number of the last posting of an account among the first entries
-- of the log: a binary search, since numbers grow with positions.
-- +goose StatementBegin
create function ledger.seq_at(account bigint, size bigint) returns bigint language plpgsql stable
set search_path = pg_catalog, pg_temp as $$
declare
	low bigint := 0; -- known to be inside, or zero
	high bigint;     -- known to be the last
	middle bigint;
	pos bigint;
begin
	select p.seq, p.log_pos into high, pos from ledger.posting p where p.account_id = account order by p.seq desc limit 1;
	if not found or pos < size then
		return coalesce(high, 0);
	end if;
	while high - low > 1 loop
		middle := low + (high - low) / 2;
		select p.log_pos into pos from ledger.posting p where p.account_id = account and p.seq = middle;
		if pos < size then
			low := middle;
		else
			high := middle;
		end if;
	end loop;
	return low;
end
$$;
-- +goose StatementEnd

-- available_now is the balance on the normal side less what is held against it.
-- +goose StatementBegin
create function ledger.available_now(account bigint, normal smallint) returns bigint language sql stable as $$
	select normal * (ledger.balance_now(account) + ledger.balance_now(case when normal = 1 then -(2 * account + 1) else -(2 * account) end))
$$;
-- +goose StatementEnd

-- check_entries, as in 0002 (but a frozen account gives free what is held), with one statement for what is nearly always true,
-- and the rules of the held layer, of parts taken back and of links between entries.
-- What the caller needs to know travels in the detail, as JSON.
-- +goose StatementBegin
create or replace function ledger.check_entries() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
	wrong boolean;
	linked boolean;
	limited bigint[];
	bad record;
begin
	if current_setting('transaction_isolation') <> 'read committed' then
		raise exception 'append in a % transaction, want read committed', current_setting('transaction_isolation')
			using errcode = 'LG006';
	end if;
	perform pg_advisory_xact_lock_shared(7482061);

	select bool_or(a.id is null or a.currency <> e.currency or d.id is null
			or a.state <> 'open' and not (a.state = 'frozen' and l.account < 0 and e.hold is not null)
			or (l.account < 0) <> (e.accounts[1] < 0)
			or l.account < 0 and e.hold is null and sign(l.amount) <> case when l.account % 2 = 0 then 1 else -1 end
			or exists (select from ledger.period p
				where p.month >= date_trunc('month', e.effective_on::timestamp)::date and p.state <> 'open'
					and (p.state = 'closed' or p.month <= e.effective_on and e.kind <> 'adjustment'))),
		bool_or(e.reverses is not null or e.hold is not null or e.corrects is not null),
		array_agg(distinct a.id) filter (where a.lowest is not null and sign(l.amount) <> a.normal
			and (l.account > 0 or sign(l.amount) = case when l.account % 2 = 0 then 1 else -1 end))
	into wrong, linked, limited
	from fresh e
	cross join lateral unnest(e.accounts, e.amounts, e.dimensions) as l(account, amount, dimension)
	left join ledger.account a on a.id = case when l.account < 0 then -l.account / 2 else l.account end
	left join ledger.dimension d on d.id = l.dimension;
	if wrong then
		select e.id, p.month, p.state into bad
		from fresh e join ledger.period p on p.month >= date_trunc('month', e.effective_on::timestamp)::date and p.state <> 'open'
			and (p.state = 'closed' or p.month <= e.effective_on and e.kind <> 'adjustment')
		order by p.month limit 1;
		if found then
			raise exception 'entry %: period % is %', bad.id, to_char(bad.month, 'YYYY-MM'), bad.state
				using errcode = 'LG004', detail = json_build_object('month', bad.month, 'state', bad.state);
		end if;
		select e.id, l.account, l.dimension, a.path, a.currency, e.currency as wanted, d.id as known,
			case when a.state = 'frozen' and l.account < 0 and e.hold is not null then 'open' else a.state end as state into bad
		from fresh e
		cross join lateral unnest(e.accounts, e.amounts, e.dimensions) as l(account, amount, dimension)
		left join ledger.account a on a.id = case when l.account < 0 then -l.account / 2 else l.account end
		left join ledger.dimension d on d.id = l.dimension
		where a.id is null or a.currency <> e.currency or d.id is null
			or a.state <> 'open' and not (a.state = 'frozen' and l.account < 0 and e.hold is not null)
			or (l.account < 0) <> (e.accounts[1] < 0)
			or l.account < 0 and e.hold is null and sign(l.amount) <> case when l.account % 2 = 0 then 1 else -1 end
		limit 1;
		if bad.path is null then
			raise exception 'entry %: no account %', bad.id, bad.account using errcode = 'LG001';
		elsif bad.state <> 'open' then
			raise exception 'entry %: account % is %', bad.id, bad.path, bad.state using errcode = 'LG002';
		elsif bad.known is null then
			raise exception 'entry %: no dimension %', bad.id, bad.dimension using errcode = 'LG001';
		elsif bad.currency = bad.wanted then
			raise exception 'entry %: a hold holds debits as debits and credits as credits, and books nothing', bad.id using errcode = 'LG006';
		end if;
		raise exception 'entry %: account % holds %', bad.id, bad.path, bad.currency using errcode = 'LG003';
	end if;

	insert into ledger.unposted (entry_id, accounts, amounts, dimensions, effective_on, recorded_at, leaf)
	select id, accounts, amounts, dimensions, effective_on, recorded_at, leaf from fresh;

	if linked then
		perform ledger.check_links(array(select e.id from fresh e
			where e.reverses is not null or e.hold is not null or e.corrects is not null order by e.id));
	end if;

	-- Accounts with a limit: lock in id order, then read in a later statement, which
	-- sees what the one before us in the queue has committed.
	if limited is not null then
		perform from ledger.account where id = any(limited) order by id for no key update;
		select a.path, a.lowest, ledger.available_now(a.id, a.normal) as available into bad
		from ledger.account a
		where a.id = any(limited) and ledger.available_now(a.id, a.normal) < a.lowest
		limit 1;
		if found then
			raise exception 'account % would have % available, at least % required', bad.path, bad.available, bad.lowest
				using errcode = 'LG005', detail = json_build_object('account', bad.path, 'available', bad.available, 'lowest', bad.lowest);
		end if;
	end if;
	return null;
end
$$;
-- +goose StatementEnd

-- check_links refuses an entry that takes back more of another than there is, line by
-- line: reversals of an entry, releases of a hold. Those who take from the same entry
-- wait for each other, and the later statement sees what the first has written.
-- +goose StatementBegin
create function ledger.check_links(entries uuid[]) returns void language plpgsql
set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
	link record;
begin
	for link in
		select distinct coalesce(e.reverses, e.hold, e.corrects) as target from ledger.journal_entry e where e.id = any(entries) order by 1
	loop
		perform pg_advisory_xact_lock(7482063, hashtext(link.target::text));
	end loop;
	for link in
		select e.id, e.reverses, e.hold, e.corrects, e.accounts[1] < 0 as held, e.currency,
			coalesce(e.reverses, e.hold, e.corrects) as target, t.id is not null as there, t.accounts[1] < 0 as of_hold, t.currency as of_currency,
			t.hold as of_release
		from ledger.journal_entry e left join ledger.journal_entry t on t.id = coalesce(e.reverses, e.hold, e.corrects)
		where e.id = any(entries) order by e.id
	loop
		if num_nonnulls(link.reverses, link.hold, link.corrects) <> 1 or not link.there or link.currency <> link.of_currency
			or link.of_hold <> (link.hold is not null) or link.held and link.hold is null or link.hold is not null and link.of_release is not null then
			raise exception 'entry %: names entry %, which is not what it can name', link.id, link.target using errcode = 'LG006';
		end if;
		if link.corrects is null and (link.hold is null or link.held) and exists (
			select from (
				select l.account, l.dimension, -sign(l.amount) as side, sum(abs(l.amount)) as amount
				from ledger.journal_entry e cross join lateral unnest(e.accounts, e.amounts, e.dimensions) as l(account, amount, dimension)
				where e.reverses = link.reverses or e.hold = link.hold and e.accounts[1] < 0 group by 1, 2, 3
			) taken left join (
				select l.account, l.dimension, sign(l.amount) as side, sum(abs(l.amount)) as amount
				from ledger.journal_entry e cross join lateral unnest(e.accounts, e.amounts, e.dimensions) as l(account, amount, dimension)
				where e.id = link.target group by 1, 2, 3
			) had using (account, dimension, side)
			where taken.amount > coalesce(had.amount, 0)
		) then
			raise exception 'entry %: takes back more of entry % than there is', link.id, link.target
				using errcode = case when link.reverses is null then 'LG008' else 'LG007' end;
		end if;
	end loop;
end
$$;
-- +goose StatementEnd

-- +goose StatementBegin
create function ledger.hold_ends_once() returns trigger language plpgsql as $$
begin
	if old.state <> 'open' then
		raise exception 'hold % is % already', old.entry_id, old.state using errcode = 'restrict_violation';
	end if;
	return new;
end
$$;
-- +goose StatementEnd

-- +goose StatementBegin
create function ledger.moment_grows() returns trigger language plpgsql as $$
begin
	if new.size < old.size then
		raise exception 'the log does not shrink' using errcode = 'restrict_violation';
	end if;
	return new;
end
$$;
-- +goose StatementEnd

create trigger append_only before delete or truncate on ledger.hold
	for each statement execute function ops.refuse_change();
create trigger fixed before update of entry_id, expires_at on ledger.hold
	for each statement execute function ops.refuse_change();
create trigger final before update on ledger.hold
	for each row execute function ledger.hold_ends_once();
create trigger append_only before update or delete or truncate on ledger.period_balance
	for each statement execute function ops.refuse_change();
create trigger append_only before update or delete or truncate on ledger.import
	for each statement execute function ops.refuse_change();
create trigger append_only before delete or truncate on ledger.log_moment
	for each statement execute function ops.refuse_change();
create trigger grows before update on ledger.log_moment
	for each row execute function ledger.moment_grows();

-- A limit and the names may change (each change leaves an audit row); what entries are
-- made of may not.
drop trigger fixed on ledger.account;
create trigger fixed before update of id, path, type, normal, currency, department, opened_at on ledger.account
	for each statement execute function ops.refuse_change();

grant select, insert on ledger.hold, ledger.period_balance, ledger.import to guichet_app;
grant update (state, changed_at) on ledger.hold to guichet_app;
grant update (lowest, name_en, name_fr) on ledger.account to guichet_app;
grant update (trial_hash) on ledger.period to guichet_app;
grant select, insert, update (size) on ledger.log_moment to guichet_app;
