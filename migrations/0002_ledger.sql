-- +goose Up
-- The city's books. Writers append to the journal and touch no balance; one poster
-- carries committed entries into the accounts and seals them into a Merkle log.
-- Amounts are minor units, debit positive.

-- Accounts. An account never changes but for its state; lowest is the least balance
-- allowed, counted on the normal side (null: no limit).
create table ledger.account (
	id         bigint generated always as identity primary key,
	path       text not null unique
	           check (path ~ '^(assets|liabilities|equity|revenue|expenses)(:[a-z0-9][a-z0-9-]*)+$' and length(path) <= 200),
	type       text not null check (type in ('asset', 'liability', 'equity', 'revenue', 'expense')),
	normal     smallint not null check (normal in (1, -1)), -- 1: debit
	currency   text not null check (currency ~ '^[A-Z]{3}$'),
	name_en    text not null check (name_en <> ''),
	name_fr    text not null check (name_fr <> ''),
	department text not null default '',
	lowest     bigint,
	state      text not null default 'open' check (state in ('open', 'frozen', 'closed')),
	opened_at  timestamptz not null,
	constraint account_type_is_root check (split_part(path, ':', 1) = case type
		when 'asset' then 'assets' when 'liability' then 'liabilities' when 'expense' then 'expenses' else type end)
);

-- What a line is about, as one id per combination in use.
create table ledger.dimension (
	id          bigint generated always as identity primary key,
	department  text not null,
	fund        text not null,
	cost_centre text not null,
	order_code  text not null,
	wbs         text not null,
	channel     text not null,
	tender      text not null,
	unique (department, fund, cost_centre, order_code, wbs, channel, tender)
);

-- Accounting months. A month without a row is open. Closing takes adjustments only;
-- closed takes nothing, in this month or any before it, and is final.
create table ledger.period (
	month      date primary key check (extract(day from month) = 1),
	last_day   date not null generated always as ((month + interval '1 month')::date - 1) stored,
	state      text not null check (state in ('open', 'closing', 'closed')),
	changed_at timestamptz not null
);

-- balanced: one-dimensional arrays of one length, two lines or more, no zero, sum
-- zero. A loop in plpgsql: a function in language sql would be planned on each call. An
-- amount is at most a trillion dollars, so that no sum of lines leaves bigint.
-- +goose StatementBegin
create function ledger.balanced(accounts bigint[], amounts bigint[], dimensions bigint[])
returns boolean language plpgsql immutable parallel safe as $$
declare
	total bigint := 0;
	amount bigint;
begin
	if array_ndims(amounts) is distinct from 1 or cardinality(amounts) < 2 or cardinality(amounts) > 10000
		or array_ndims(accounts) is distinct from 1 or cardinality(accounts) <> cardinality(amounts)
		or array_ndims(dimensions) is distinct from 1 or cardinality(dimensions) <> cardinality(amounts)
		or array_lower(amounts, 1) <> 1 or array_lower(accounts, 1) <> 1 or array_lower(dimensions, 1) <> 1 then
		return false;
	end if;
	foreach amount in array amounts loop
		if amount is null or amount = 0 or amount > 100000000000000 or amount < -100000000000000 then
			return false;
		end if;
		total := total + amount;
	end loop;
	return total = 0;
end
$$;
-- +goose StatementEnd

-- The journal: what happened, as first written. leaf is the hash that the poster
-- seals into the log; body_hash tells a replay from another entry under the same key.
create table ledger.journal_entry (
	id           uuid primary key,
	key          text not null constraint journal_entry_key unique check (key <> '' and length(key) <= 200),
	kind         text not null check (kind <> ''),
	effective_on date not null check (effective_on between date '1900-01-01' and date '2199-12-31'),
	recorded_at  timestamptz not null,
	currency     text not null,
	accounts     bigint[] not null,
	amounts      bigint[] not null,
	dimensions   bigint[] not null,
	source_type  text not null,
	source_id    text not null,
	actor        text not null,
	channel      text not null,
	description  text not null,
	metadata     jsonb not null check (jsonb_typeof(metadata) = 'object'),
	reverses     uuid references ledger.journal_entry,
	body_hash    bytea not null check (length(body_hash) = 32),
	leaf         bytea not null check (length(leaf) = 32),
	constraint journal_entry_balanced check (ledger.balanced(accounts, amounts, dimensions))
);
create unique index journal_entry_reversed_once on ledger.journal_entry (reverses) where reverses is not null;
create index journal_entry_source on ledger.journal_entry (source_type, source_id);

-- Entries that committed and are not yet in the accounts. Rows come from the trigger
-- on the journal and leave with the poster; the table lives on dead rows, so it is
-- vacuumed early.
create table ledger.unposted (
	entry_id     uuid primary key,
	accounts     bigint[] not null,
	amounts      bigint[] not null,
	dimensions   bigint[] not null,
	effective_on date not null,
	recorded_at  timestamptz not null,
	leaf         bytea not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
	autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000,
	autovacuum_vacuum_cost_delay = 0, vacuum_index_cleanup = on);

-- A line in its account: numbered without gap, with the balance after it. log_pos is
-- the entry's position in the log.
create table ledger.posting (
	account_id    bigint not null,
	seq           bigint not null check (seq > 0),
	entry_id      uuid not null,
	line          integer not null check (line > 0),
	amount        bigint not null,
	balance_after bigint not null,
	effective_on  date not null,
	log_pos       bigint not null check (log_pos >= 0),
	primary key (account_id, seq),
	constraint posting_once unique (entry_id, line)
);

-- Totals per account, day and dimension, not cumulative: a back-dated entry touches one row.
create table ledger.account_day (
	account_id   bigint not null,
	effective_on date not null,
	dimension_id bigint not null,
	debits       bigint not null check (debits >= 0),
	credits      bigint not null check (credits >= 0),
	primary key (account_id, effective_on, dimension_id)
);

-- The Merkle log (RFC 6962 hashes) in tiles of up to 256 hashes; the last tile of each
-- level grows in place. The head is what the poster's memory is checked against.
create table ledger.log_tile (
	level  smallint not null check (level between 0 and 7),
	n      bigint not null check (n >= 0),
	hashes bytea not null check (length(hashes) between 32 and 8192 and length(hashes) % 32 = 0),
	primary key (level, n)
);
create table ledger.log_head (
	one  boolean primary key default true check (one),
	size bigint not null check (size >= 0),
	root bytea not null check (length(root) = 32),
	note text not null default '' -- the signed head, once there is a signer
);
insert into ledger.log_head (size, root) values (0, sha256(''::bytea));

-- The key that signs heads: public part readable, private part sealed.
create table ledger.log_key (
	one      boolean primary key default true check (one),
	verifier text not null,
	sealed   bytea not null,
	made_at  timestamptz not null
);

-- check_entries guards the journal beyond one row, and hands what passed to the
-- poster. Each statement in it reads what has committed by then, which is why only READ
-- COMMITTED may append: it waits for a closing in flight and then sees it.
-- Closing an account or a period takes the same advisory lock exclusively.
-- The plan is pinned to index lookups: the first session on an empty database would
-- otherwise keep sequential scans for ever. What has no index then counts as
-- immensely dear, which would start the JIT compiler: that is off as well.
-- It runs as the owner: the service may not write to unposted itself.
-- +goose StatementBegin
create function ledger.check_entries() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
	wrong boolean;
	limited bigint[];
	bad record;
begin
	if current_setting('transaction_isolation') <> 'read committed' then
		raise exception 'append in a % transaction, want read committed', current_setting('transaction_isolation')
			using errcode = 'LG006';
	end if;
	perform pg_advisory_xact_lock_shared(7482061);

	select e.id, p.month, p.state into bad
	from fresh e join ledger.period p
		on p.state = 'closed' and e.effective_on <= p.last_day
		or p.state = 'closing' and e.effective_on between p.month and p.last_day and e.kind <> 'adjustment'
	limit 1;
	if found then
		raise exception 'entry %: period % is %', bad.id, to_char(bad.month, 'YYYY-MM'), bad.state using errcode = 'LG004';
	end if;

	select bool_or(a.id is null or a.state <> 'open' or a.currency <> e.currency or d.id is null),
		array_agg(distinct a.id) filter (where a.lowest is not null and sign(l.amount) <> a.normal)
	into wrong, limited
	from fresh e
	cross join lateral unnest(e.accounts, e.amounts, e.dimensions) as l(account, amount, dimension)
	left join ledger.account a on a.id = l.account
	left join ledger.dimension d on d.id = l.dimension;
	if wrong then
		select e.id, l.account, l.dimension, a.path, a.state, a.currency, d.id as known into bad
		from fresh e
		cross join lateral unnest(e.accounts, e.dimensions) as l(account, dimension)
		left join ledger.account a on a.id = l.account
		left join ledger.dimension d on d.id = l.dimension
		where a.id is null or a.state <> 'open' or a.currency <> e.currency or d.id is null
		limit 1;
		if bad.path is null then
			raise exception 'entry %: no account %', bad.id, bad.account using errcode = 'LG001';
		elsif bad.state <> 'open' then
			raise exception 'entry %: account % is %', bad.id, bad.path, bad.state using errcode = 'LG002';
		elsif bad.known is null then
			raise exception 'entry %: no dimension %', bad.id, bad.dimension using errcode = 'LG001';
		end if;
		raise exception 'entry %: account % holds %', bad.id, bad.path, bad.currency using errcode = 'LG003';
	end if;

	insert into ledger.unposted (entry_id, accounts, amounts, dimensions, effective_on, recorded_at, leaf)
	select id, accounts, amounts, dimensions, effective_on, recorded_at, leaf from fresh;

	-- Accounts with a limit: lock in id order, then read in a later statement, which
	-- sees what the one before us in the queue has committed.
	if limited is not null then
		perform from ledger.account where id = any(limited) order by id for no key update;
		select a.path, a.lowest, a.normal * ledger.balance_now(a.id) as balance into bad
		from ledger.account a
		where a.id = any(limited) and a.normal * ledger.balance_now(a.id) < a.lowest
		limit 1;
		if found then
			raise exception 'account % would hold %, at least % required', bad.path, bad.balance, bad.lowest using errcode = 'LG005';
		end if;
	end if;
	return null;
end
$$;
-- +goose StatementEnd

-- balance_now is exact at any moment: the last posting's balance and the lines not
-- posted yet, in the snapshot of the calling statement (it is stable for that reason).
-- +goose StatementBegin
create function ledger.balance_now(account bigint) returns bigint language sql stable as $$
	select coalesce((select p.balance_after from ledger.posting p where p.account_id = account order by p.seq desc limit 1), 0)
		+ coalesce((select sum(l.amount)::bigint
			from ledger.unposted u cross join lateral unnest(u.accounts, u.amounts) as l(id, amount)
			where u.accounts @> array[account] and l.id = account), 0)
$$;
-- +goose StatementEnd

-- +goose StatementBegin
create function ledger.closed_is_final() returns trigger language plpgsql as $$
begin
	if old.state = 'closed' then
		raise exception '%.% is closed for good', tg_table_schema, tg_table_name using errcode = 'restrict_violation';
	end if;
	return new;
end
$$;
-- +goose StatementEnd

create trigger check_entries after insert on ledger.journal_entry
	referencing new table as fresh for each statement execute function ledger.check_entries();
create trigger append_only before update or delete or truncate on ledger.journal_entry
	for each statement execute function ops.refuse_change();
create trigger append_only before update or delete or truncate on ledger.posting
	for each statement execute function ops.refuse_change();
create trigger append_only before update or delete or truncate on ledger.dimension
	for each statement execute function ops.refuse_change();
create trigger append_only before update or delete or truncate on ledger.log_key
	for each statement execute function ops.refuse_change();
create trigger append_only before delete or truncate on ledger.account
	for each statement execute function ops.refuse_change();
create trigger fixed before update of id, path, type, normal, currency, name_en, name_fr, department, lowest, opened_at on ledger.account
	for each statement execute function ops.refuse_change();
create trigger final before update on ledger.account
	for each row execute function ledger.closed_is_final();
create trigger append_only before delete or truncate on ledger.period
	for each statement execute function ops.refuse_change();
create trigger final before update on ledger.period
	for each row execute function ledger.closed_is_final();
create trigger append_only before update or truncate on ledger.unposted
	for each statement execute function ops.refuse_change();
create trigger append_only before delete or truncate on ledger.account_day
	for each statement execute function ops.refuse_change();
create trigger append_only before delete or truncate on ledger.log_tile
	for each statement execute function ops.refuse_change();
create trigger append_only before delete or truncate on ledger.log_head
	for each statement execute function ops.refuse_change();

grant select, insert on ledger.account, ledger.dimension, ledger.journal_entry, ledger.posting, ledger.log_key to guichet_app;
grant update (state) on ledger.account to guichet_app;
grant select, insert, update (state, changed_at) on ledger.period to guichet_app;
grant select, delete on ledger.unposted to guichet_app;
grant select, insert, update on ledger.account_day, ledger.log_tile to guichet_app;
grant select, update (size, root, note) on ledger.log_head to guichet_app;
