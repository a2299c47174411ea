-- The way of an entry into the accounts, made cheaper. No rule changes.
-- +goose Up

-- Rows of unposted come from check_entries alone, one per journal entry, and leave by their place in the table:
-- nobody looks one up by entry, and posting_once refuses a second posting.
alter table ledger.unposted drop constraint unposted_pkey;

-- Day buckets of busy accounts are updated with each batch: in place when the page has room.
alter table ledger.account_day set (fillfactor = 60);

-- check_entries, as in 0009: one look at the periods per statement, and the lines unfolded without a
-- function call for each entry.
-- +goose StatementBegin
create or replace function ledger.check_entries() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
	earliest date;
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

	select min(e.effective_on), bool_or(e.reverses is not null or e.hold is not null or e.corrects is not null)
	into earliest, linked from fresh e;
	if exists (select from ledger.period p where p.month >= date_trunc('month', earliest::timestamp)::date and p.state <> 'open') then
		select e.id, p.month, p.state into bad
		from fresh e join ledger.period p on p.month >= date_trunc('month', e.effective_on::timestamp)::date and p.state <> 'open'
			and (p.state = 'closed' or p.month <= e.effective_on and e.kind <> 'adjustment')
		order by p.month limit 1;
		if found then
			raise exception 'entry %: period % is %', bad.id, to_char(bad.month, 'YYYY-MM'), bad.state
				using errcode = 'LG004', detail = json_build_object('month', bad.month, 'state', bad.state);
		end if;
	end if;

	select bool_or(a.id is null or a.currency <> l.currency or d.id is null
			or a.state <> 'open' and not (a.state = 'frozen' and l.account < 0 and l.releases)
			or (l.account < 0) <> l.held
			or l.account < 0 and not l.releases and sign(l.amount) <> case when l.account % 2 = 0 then 1 else -1 end),
		array_agg(a.id) filter (where a.lowest is not null and sign(l.amount) <> a.normal
			and (l.account > 0 or sign(l.amount) = case when l.account % 2 = 0 then 1 else -1 end))
	into wrong, limited
	from (
		select unnest(e.accounts) as account, unnest(e.amounts) as amount, unnest(e.dimensions) as dimension,
			e.currency, e.accounts[1] < 0 as held, e.hold is not null as releases
		from fresh e
	) l
	left join ledger.account a on a.id = case when l.account < 0 then -l.account / 2 else l.account end
	left join ledger.dimension d on d.id = l.dimension;
	if wrong then
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
