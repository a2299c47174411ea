package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"guichet/internal/clock"
)

// A Finding is one thing in the books that is wrong.
type Finding struct {
	Kind   string // which rule is broken: "chain", "posting", "entry" …
	Object string // what breaks it: an entry id, an account, a tile
	Detail string
}

// String is the finding in one line.
func (f Finding) String() string { return fmt.Sprintf("%s: %s: %s", f.Kind, f.Object, f.Detail) }

// A Check is a rule of another room, such as "the open bills are the receivable".
// It runs in the snapshot in which Verify reads.
type Check func(ctx context.Context, tx pgx.Tx) ([]Finding, error)

// A Beginner is a pool or a connection.
type Beginner interface {
	BeginTx(ctx context.Context, o pgx.TxOptions) (pgx.Tx, error)
}

// snapshot is how the books are read as a whole: one moment, changing nothing. An old
// snapshot keeps the database from cleaning up, so use a standby for large books.
var snapshot = pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}

// Verify reads the whole of the books in one snapshot and returns the first wrong
// thing of each kind; none means that the books are sound. It trusts no constraint
// and no trigger: a person with every right may have got past them. What such a
// person rewrote in every place at once is found by VerifyHead with a head saved
// before.
func Verify(ctx context.Context, db Beginner, checks ...Check) ([]Finding, error) {
	var findings []Finding
	err := pgx.BeginTxFunc(ctx, db, snapshot, func(tx pgx.Tx) error {
		for _, r := range rules {
			f := Finding{Kind: r.kind}
			err := tx.QueryRow(ctx, r.sql).Scan(&f.Object, &f.Detail)
			if errors.Is(err, pgx.ErrNoRows) {
				continue
			}
			if err != nil {
				return fmt.Errorf("%s: %w", r.kind, err)
			}
			findings = append(findings, f)
		}
		for _, check := range append([]Check{verifyPeriods, verifyLog}, checks...) {
			found, err := check(ctx, tx)
			if err != nil {
				return err
			}
			findings = append(findings, found...)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	return findings, nil
}

// rules that one statement can check. Each returns the first object that breaks it.
var rules = []struct{ kind, sql string }{
	{"guard", `
		select what, 'is missing, switched off or not valid' from (
			select t.name || ' on ' || t.on_table as what, exists (select from pg_trigger g
				where g.tgname = t.name and g.tgrelid = to_regclass('ledger.' || t.on_table) and g.tgenabled in ('O', 'A')) as there
			from (values ('check_entries', 'journal_entry'), ('append_only', 'journal_entry'), ('append_only', 'posting'),
				('append_only', 'dimension'), ('append_only', 'account'), ('fixed', 'account'), ('final', 'account'),
				('append_only', 'period'), ('final', 'period'), ('append_only', 'unposted'), ('append_only', 'account_day'),
				('append_only', 'log_tile'), ('append_only', 'log_head'), ('append_only', 'log_key'), ('append_only', 'hold'),
				('fixed', 'hold'), ('final', 'hold'), ('append_only', 'period_balance'), ('append_only', 'import'),
				('append_only', 'log_moment'), ('grows', 'log_moment')) as t(name, on_table)
			union all
			select c.name, exists (select from pg_constraint k
				where k.conname = c.name and k.connamespace = 'ledger'::regnamespace and k.convalidated)
			from (values ('journal_entry_pkey'), ('journal_entry_key'), ('journal_entry_balanced'), ('posting_pkey'),
				('posting_once'), ('account_day_pkey'), ('log_tile_pkey'), ('account_path_key'),
				('hold_pkey'), ('period_pkey'), ('period_balance_pkey'), ('import_pkey'), ('log_moment_pkey')) as c(name)
		) as guard where not there order by what limit 1`},
	{"grant", `
		select privilege || ' on ' || name, 'guichet_app may do it' from (values
			('update', 'journal_entry'), ('delete', 'journal_entry'), ('truncate', 'journal_entry'),
			('update', 'posting'), ('delete', 'posting'), ('truncate', 'posting'),
			('insert', 'unposted'), ('update', 'unposted'), ('delete', 'account'), ('delete', 'account_day'),
			('delete', 'log_tile'), ('delete', 'log_head'), ('insert', 'log_head'), ('delete', 'hold'), ('delete', 'period'),
			('update', 'period_balance'), ('delete', 'period_balance'), ('update', 'import'), ('delete', 'import'),
			('delete', 'log_moment')) as g(privilege, name)
		where has_table_privilege('guichet_app', 'ledger.' || name, privilege) order by 1 limit 1`},
	{"unbalanced", `
		select e.id::text, format('%s amounts sum to %s', cardinality(e.amounts), s.total)
		from ledger.journal_entry e
		cross join lateral (select sum(a) as total, bool_or(a is null or a = 0) as odd from unnest(e.amounts) a) s
		where s.total is distinct from 0 or s.odd or cardinality(e.amounts) < 2
			or cardinality(e.accounts) <> cardinality(e.amounts) or cardinality(e.dimensions) <> cardinality(e.amounts)
		order by e.id limit 1`},
	{"account", `
		select e.id::text, case
			when a.id is null then format('line %s is on account %s, which does not exist', l.line, l.account)
			when d.id is null then format('line %s has dimension %s, which does not exist', l.line, l.dimension)
			else format('line %s in %s is on account %s, which holds %s', l.line, e.currency, a.path, a.currency) end
		from ledger.journal_entry e
		cross join lateral unnest(e.accounts, e.dimensions) with ordinality as l(account, dimension, line)
		left join ledger.account a on a.id = case when l.account < 0 then -l.account / 2 else l.account end
		left join ledger.dimension d on d.id = l.dimension
		where a.id is null or d.id is null or a.currency <> e.currency
		order by e.id, l.line limit 1`},
	{"key", `
		select min(id::text), format('key %s is used %s times', key, count(*))
		from ledger.journal_entry group by key having count(*) > 1 order by 1 limit 1`},
	{"lost", `
		select e.id::text, 'is neither posted nor waiting to be'
		from ledger.journal_entry e
		where not exists (select from ledger.posting p where p.entry_id = e.id)
			and not exists (select from ledger.unposted u where u.entry_id = e.id)
		order by e.id limit 1`},
	{"waiting", `
		select u.entry_id::text, case
			when e.id is null then 'waits to be posted and is not in the journal'
			when p.entry_id is not null then 'is posted and waits to be posted again'
			else 'waits to be posted with other content than in the journal' end
		from ledger.unposted u
		left join ledger.journal_entry e on e.id = u.entry_id
		left join ledger.posting p on p.entry_id = u.entry_id and p.line = 1
		where e.id is null or p.entry_id is not null
			or (u.accounts, u.amounts, u.dimensions, u.effective_on, u.leaf) is distinct from (e.accounts, e.amounts, e.dimensions, e.effective_on, e.leaf)
		order by u.entry_id limit 1`},
	{"posting", `
		select format('%s number %s', coalesce(a.path, 'account ' || p.account_id), p.seq), case
			when e.id is null then format('belongs to entry %s, which does not exist', p.entry_id)
			else format('says %s on %s; line %s of entry %s says %s on %s for account %s', p.amount, p.effective_on, p.line, e.id,
				e.amounts[p.line], e.effective_on, e.accounts[p.line]) end
		from ledger.posting p
		left join ledger.journal_entry e on e.id = p.entry_id
		left join ledger.account a on a.id = p.account_id
		where e.id is null or e.amounts[p.line] is distinct from p.amount
			or e.accounts[p.line] is distinct from p.account_id or e.effective_on <> p.effective_on
		order by p.account_id, p.seq limit 1`},
	{"lines", `
		select e.id::text, format('has %s lines and %s postings at %s positions of the log', cardinality(e.amounts), p.postings, p.positions)
		from (select entry_id, count(*) as postings, count(distinct line) as lines, count(distinct log_pos) as positions
			from ledger.posting group by entry_id) p
		join ledger.journal_entry e on e.id = p.entry_id
		where p.postings <> cardinality(e.amounts) or p.lines <> cardinality(e.amounts) or p.positions <> 1
		order by e.id limit 1`},
	{"number", `
		select coalesce(a.path, 'account ' || p.account_id), format('posting number %s is in place %s', p.seq, p.place)
		from (select account_id, seq, row_number() over (partition by account_id order by seq) as place from ledger.posting) p
		left join ledger.account a on a.id = p.account_id
		where p.seq <> p.place order by p.account_id, p.place limit 1`},
	{"chain", `
		select format('%s number %s', coalesce(a.path, 'account ' || p.account_id), p.seq),
			format('%s after %s and %s', p.balance_after, p.before, p.amount)
		from (select account_id, seq, amount, balance_after,
				lag(balance_after, 1, 0::bigint) over (partition by account_id order by seq) as before from ledger.posting) p
		left join ledger.account a on a.id = p.account_id
		where p.balance_after <> p.before + p.amount order by p.account_id, p.seq limit 1`},
	{"balance", `
		select coalesce(a.path, 'account ' || p.account_id), format('the last balance is %s, the postings sum to %s', p.last, p.total)
		from (select account_id, (array_agg(balance_after order by seq desc))[1] as last, sum(amount) as total
			from ledger.posting group by account_id) p
		left join ledger.account a on a.id = p.account_id
		where p.last <> p.total order by p.account_id limit 1`},
	{"total", `
		select a.currency, format('all postings sum to %s', sum(p.amount))
		from ledger.posting p join ledger.account a on a.id = p.account_id
		group by a.currency having sum(p.amount) <> 0 order by 1 limit 1`},
	{"day", `
		select format('%s on %s', coalesce(a.path, 'account ' || account_id), effective_on),
			format('the bucket of dimension %s says %s and %s, the postings say %s and %s', dimension_id, d.debits, d.credits, p.debits, p.credits)
		from ledger.account_day d
		full join (select p.account_id, p.effective_on, e.dimensions[p.line] as dimension_id,
				sum(greatest(p.amount, 0)) as debits, sum(greatest(-p.amount, 0)) as credits
			from ledger.posting p join ledger.journal_entry e on e.id = p.entry_id group by 1, 2, 3) p
			using (account_id, effective_on, dimension_id)
		left join ledger.account a on a.id = account_id
		where d.debits is distinct from p.debits or d.credits is distinct from p.credits
		order by account_id, effective_on, dimension_id limit 1`},
	{"reversal", taken("e.reverses", "entry %s is taken back for more than it was, or something else is")},
	{"link", `
		select e.id::text, format('names entry %s, which is not what it can name', coalesce(e.reverses, e.hold, e.corrects))
		from ledger.journal_entry e
		left join ledger.journal_entry t on t.id = coalesce(e.reverses, e.hold, e.corrects)
		where num_nonnulls(e.reverses, e.hold, e.corrects) > 1
			or num_nonnulls(e.reverses, e.hold, e.corrects) = 1 and (t.id is null or t.currency <> e.currency or (t.accounts[1] < 0) <> (e.hold is not null))
			or e.accounts[1] < 0 and (e.reverses is not null or e.corrects is not null)
			or exists (select from unnest(e.accounts) l where (l < 0) <> (e.accounts[1] < 0))
		order by e.id limit 1`},
	{"hold", `
		select id, detail from (
			select e.id, case when h.entry_id is null then 'is held and nobody knows the hold'
				else format('is %s and still holds %s', h.state, r.left) end as detail
			from ledger.journal_entry e
			left join ledger.hold h on h.entry_id = e.id
			cross join lateral (select coalesce(sum(abs(amount)), 0) as left from (
				select sum(l.amount) as amount from ledger.journal_entry x
				cross join lateral unnest(x.accounts, x.amounts, x.dimensions) as l(account, amount, dimension)
				where x.id = e.id or x.hold = e.id and x.accounts[1] < 0 group by l.account, l.dimension) s) r
			where e.accounts[1] < 0 and e.hold is null and (h.entry_id is null or (h.state = 'open') <> (r.left <> 0))
			union all
			select h.entry_id, 'is no hold in the journal' from ledger.hold h
			left join ledger.journal_entry e on e.id = h.entry_id and e.accounts[1] < 0 and e.hold is null where e.id is null
			union all
			select e.id, format('holds account %s on the wrong side', l.account) from ledger.journal_entry e
			cross join lateral unnest(e.accounts, e.amounts) as l(account, amount)
			where l.account < 0 and e.hold is null and sign(l.amount) <> case when l.account % 2 = 0 then 1 else -1 end
		) h order by id limit 1`},
	{"released", taken("case when e.accounts[1] < 0 then e.hold end", "hold %s is released for more than it held")},
	{"period", `
		select month, detail from (
			select to_char(x.month, 'YYYY-MM') as month, format('%s: the frozen trial balance says %s and %s, the days say %s and %s',
				coalesce(a.path, x.account_id::text), max(x.debits) filter (where x.frozen), max(x.credits) filter (where x.frozen),
				sum(x.debits) filter (where not x.frozen), sum(x.credits) filter (where not x.frozen)) as detail
			from (
				select month, account_id, debits, credits, true as frozen from ledger.period_balance
				union all
				select p.month, d.account_id, d.debits, d.credits, false from ledger.period p
				join ledger.account_day d on d.effective_on <= p.last_day and d.account_id > 0 where p.state = 'closed'
				union all
				select p.month, l.id, greatest(l.amount, 0), greatest(-l.amount, 0), false from ledger.period p
				join ledger.unposted u on u.effective_on <= p.last_day cross join lateral unnest(u.accounts, u.amounts) as l(id, amount)
				where p.state = 'closed' and l.id > 0
			) x left join ledger.account a on a.id = x.account_id
			group by x.month, x.account_id, a.path
			having (sum(x.debits) filter (where x.frozen), sum(x.credits) filter (where x.frozen))
				is distinct from (sum(x.debits) filter (where not x.frozen), sum(x.credits) filter (where not x.frozen))
			union all
			select to_char(month, 'YYYY-MM'), 'is closed without a hash, or open with one' from ledger.period where (state = 'closed') <> (trial_hash is not null)
		) p order by month, detail limit 1`},
	{"import", `
		select coalesce(i.name, e.name), case when i.name is null then format('nobody knows this import; %s entries name it', e.entries)
			else format('%s entries with %s lines and debits of %s were imported, there are %s with %s and %s',
				i.entries, i.lines, i.debits, coalesce(e.entries, 0), coalesce(e.lines, 0), coalesce(e.debits, 0)) end
		from ledger.import i full join (
			select e.source_id as name, count(*) as entries, sum(cardinality(e.amounts)) as lines,
				sum((select sum(a) from unnest(e.amounts) a where a > 0)) as debits
			from ledger.journal_entry e where e.source_type = 'import' and e.reverses is null group by 1) e on e.name = i.name
		where (i.entries, i.lines, i.debits) is distinct from (e.entries, e.lines, e.debits) order by 1 limit 1`},
	{"moment", `
		select at::text, detail from (
			select at, format('the log had %s entries, and before that %s; it has %s', size, before, (select size from ledger.log_head)) as detail
			from (select at, size, lag(size, 1, 0::bigint) over (order by at) as before, lead(size) over (order by at) as after from ledger.log_moment) m
			where size < before or after is null and size <> (select size from ledger.log_head)
			union all
			select m.at, format('knows entry %s, recorded at %s', e.id, e.recorded_at) from ledger.log_moment m
			join ledger.posting p on p.log_pos = m.size - 1 and p.line = 1 join ledger.journal_entry e on e.id = p.entry_id
			where e.recorded_at > m.at + interval '30 seconds' -- as far as two clocks may differ
		) m order by at limit 1`},
	{"limit", `
		select path, format('holds %s, at least %s required', balance, coalesce(lowest, 0)) from (
			select path, state, lowest, ledger.available_now(id, normal) as balance
			from ledger.account where lowest is not null or state = 'closed') a
		where balance < lowest or state = 'closed' and balance <> 0 order by path limit 1`},
}

// taken finds who takes back more of an entry than there is, line by line. by is the
// column that names the entry.
func taken(by, detail string) string {
	return `
		select target::text, format('` + detail + `', target) from (
			select ` + by + ` as target, l.account, l.dimension, -sign(l.amount) as side, sum(abs(l.amount)) as amount
			from ledger.journal_entry e cross join lateral unnest(e.accounts, e.amounts, e.dimensions) as l(account, amount, dimension)
			where ` + by + ` is not null group by 1, 2, 3, 4
		) taken left join lateral (
			select sum(abs(l.amount)) as amount from ledger.journal_entry o
			cross join lateral unnest(o.accounts, o.amounts, o.dimensions) as l(account, amount, dimension)
			where o.id = taken.target and l.account = taken.account and l.dimension = taken.dimension and sign(l.amount) = taken.side
		) had on true
		where taken.amount > coalesce(had.amount, 0) order by 1 limit 1`
}

// verifyPeriods computes the hashes of the frozen trial balances again.
func verifyPeriods(ctx context.Context, tx pgx.Tx) ([]Finding, error) {
	rows, err := tx.Query(ctx, `select month from ledger.period where state = 'closed' and trial_hash is not null order by month`)
	if err != nil {
		return nil, fmt.Errorf("list closed periods: %w", err)
	}
	months, err := pgx.CollectRows(rows, pgx.RowTo[time.Time])
	if err != nil {
		return nil, fmt.Errorf("list closed periods: %w", err)
	}
	var books Books
	for _, m := range months {
		first := clock.FromTime(m)
		trial, hash, err := books.FrozenTrial(ctx, tx, first)
		if err != nil {
			return nil, err
		}
		if got := trialHash(first, trial); !bytes.Equal(hash, got[:]) {
			return []Finding{{"period hash", month(first), fmt.Sprintf("is %x, the frozen trial balance gives %x", hash, got)}}, nil
		}
	}
	return nil, nil
}

// verifyLog computes every leaf again from what the journal says now, the tree over
// the leaves, and compares with the stored tiles and the head.
func verifyLog(ctx context.Context, tx pgx.Tx) ([]Finding, error) {
	var findings []Finding
	first := map[string]bool{}
	find := func(kind, object, detail string, args ...any) {
		if !first[kind] {
			first[kind] = true
			findings = append(findings, Finding{kind, object, fmt.Sprintf(detail, args...)})
		}
	}
	head, _, err := readHead(ctx, tx)
	if err != nil {
		return nil, err
	}
	stored, err := readTiles(ctx, tx)
	if err != nil {
		return nil, err
	}
	var t tree
	compare := func(tiles []tile) {
		for _, c := range tiles {
			at := [2]int64{int64(c.level), c.n}
			if !bytes.Equal(stored[at], c.hashes) {
				find("tile", fmt.Sprintf("level %d number %d", c.level, c.n), "the stored hashes are not those of the entries")
			}
			delete(stored, at)
		}
	}
	err = eachRecord(ctx, tx, byPosition, func(e *record, pos int64) error {
		leaf := leafHash(e.canonical(e.body))
		if !bytes.Equal(leaf, e.leaf) {
			find("entry", e.ID, "is not what was recorded")
		}
		if pos < 0 { // not posted yet
			return nil
		}
		if pos != t.size {
			find("position", e.ID, "is at position %d of the log where %d is expected", pos, t.size)
		}
		if tile := stored[[2]int64{0, pos >> tileHeight}]; tile != nil {
			at := int(pos&(1<<tileHeight-1)) * tlog.HashSize
			if len(tile) < at+tlog.HashSize || !bytes.Equal(tile[at:at+tlog.HashSize], leaf) {
				find("sealed", e.ID, "is not what was sealed at position %d", pos)
			}
		}
		t.add(tlog.Hash(leaf))
		compare(t.full) // and forget: memory holds no more than the stored tiles
		t.full = nil
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	compare(t.changed())
	for at := range stored {
		find("tile", fmt.Sprintf("level %d number %d", at[0], at[1]), "there are no entries for it")
	}
	if t.size != head.N {
		find("head", "log", "the head says %d entries, %d are posted", head.N, t.size)
	} else if got := t.root(); got != head.Hash {
		find("head", "log", "the head says root %s, the entries give %s", head.Hash, got)
	}
	return findings, nil
}

func readTiles(ctx context.Context, q Querier) (map[[2]int64][]byte, error) {
	rows, err := q.Query(ctx, `select level, n, hashes from ledger.log_tile`)
	if err != nil {
		return nil, fmt.Errorf("read tiles: %w", err)
	}
	stored := map[[2]int64][]byte{}
	var (
		at     [2]int64
		hashes []byte
	)
	if _, err := pgx.ForEachRow(rows, []any{&at[0], &at[1], &hashes}, func() error {
		stored[at] = bytes.Clone(hashes)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read tiles: %w", err)
	}
	return stored, nil
}

// byPosition puts posted entries in the order of the log and the others after them.
const byPosition = `order by p.log_pos nulls last, e.id`

// eachRecord streams every entry with its position in the log, -1 while it has none.
func eachRecord(ctx context.Context, q Querier, order string, f func(e *record, pos int64) error) error {
	rows, err := q.Query(ctx, `select `+entryColumns+`, coalesce(p.log_pos, -1)
		from ledger.journal_entry e left join ledger.posting p on p.entry_id = e.id and p.line = 1 `+order)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var pos int64
		e, err := scanRecord(rows, &pos)
		if err != nil {
			return err
		}
		if err := f(&e, pos); err != nil {
			return err
		}
	}
	return rows.Err()
}

// VerifyHead checks a signed head that was saved outside the database: the log must
// still begin with exactly the entries it covers. Together with Verify this finds a
// history that was rewritten in every table. It returns ErrLog for such a
// history and ErrProof when the head is not signed by the verifier's key.
func VerifyHead(ctx context.Context, db Beginner, signed string, verifier note.Verifier) error {
	head, err := openHead(signed, verifier)
	if err != nil {
		return err
	}
	var t tree
	err = pgx.BeginTxFunc(ctx, db, snapshot, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `select hashes from ledger.log_tile where level = 0 order by n`)
		if err != nil {
			return err
		}
		var hashes []byte
		_, err = pgx.ForEachRow(rows, []any{&hashes}, func() error {
			for ; len(hashes) >= tlog.HashSize && t.size < head.N; hashes = hashes[tlog.HashSize:] {
				t.add(tlog.Hash(hashes[:tlog.HashSize]))
			}
			t.changed()
			return nil
		})
		return err
	})
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	if got := t.root(); t.size != head.N || got != head.Hash {
		return fmt.Errorf("a head was signed over %d entries with root %s; the log has %d of them with root %s: %w", head.N, head.Hash, t.size, got, ErrLog)
	}
	return nil
}
