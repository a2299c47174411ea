package ledger

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"guichet/internal/money"
)

// PosterOptions may be left empty.
type PosterOptions struct {
	Signer  note.Signer   // signs each head; nil: heads are not signed and nothing can be proved
	HeadDir string        // signed heads are also written here, outside the database; empty: not
	Log     *slog.Logger  // nil: silent
	Linger  time.Duration // pause between batches, so that they fill; 0: 100 ms
	Standby time.Duration // pause while another instance posts; 0: 1 s
	Batch   int           // entries in a batch, at most; 0: 10,000
}

// A Poster carries committed entries into the accounts: numbers the postings of each
// account, writes the balance after each, the day buckets and the log, in one
// transaction per batch. Every instance may run one; they take turns, and the keys
// of the tables refuse a second posting whatever happens.
//
// What it remembers between batches is valid only while the stored head is the one
// it wrote. After any error it forgets everything and reads it again: that is
// what survives a killed process, a lost answer to COMMIT and a second instance.
type Poster struct {
	db   *pgxpool.Pool
	now  func() time.Time
	opts PosterOptions

	turn chan struct{} // holds one token: Run and Drain do not post at once

	log      *tree     // nil: remembers nothing
	at       tlog.Tree // the stored head that log and accounts belong to
	accounts map[int64]head
	from     uint32 // block of unposted where the last batch began: before it is little but dead rows
	narrow   int    // batches since the whole of unposted was last looked at

	signed string    // newest head that is not in HeadDir yet
	wrote  time.Time // when a head was last written there
}

// A head is the last posting of an account.
type head struct{ seq, balance int64 }

// wholeEvery is how many batches may pass over entries that lie before the last one.
const wholeEvery = 4

// headEvery is how often a head goes to HeadDir while entries are posted.
const headEvery = time.Minute

// NewPoster returns a poster; Run starts it.
func NewPoster(db *pgxpool.Pool, now func() time.Time, opts PosterOptions) *Poster {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	opts.Linger = cmp.Or(opts.Linger, 100*time.Millisecond)
	opts.Standby = cmp.Or(opts.Standby, time.Second)
	opts.Batch = cmp.Or(opts.Batch, 10_000)
	p := &Poster{db: db, now: now, opts: opts, turn: make(chan struct{}, 1)}
	p.turn <- struct{}{}
	return p
}

// Run posts until ctx ends, then returns nil. Trouble with the database is logged
// and tried again: entries wait in the journal and nothing is lost.
func (p *Poster) Run(ctx context.Context) error {
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wait.C:
		}
		n, err := p.take(ctx, true)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errStandby):
			wait.Reset(p.opts.Standby)
		case err != nil:
			p.opts.Log.ErrorContext(ctx, "post entries", "error", err)
			wait.Reset(p.opts.Standby)
		case n == p.opts.Batch:
			wait.Reset(0) // more are waiting
		default:
			wait.Reset(p.opts.Linger)
		}
	}
}

// Drain posts everything that had committed when it was called: for the nightly run,
// exports and tests. It works beside Run, here or in another instance.
func (p *Poster) Drain(ctx context.Context) error {
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("drain: %w", ctx.Err())
		case <-wait.C:
		}
		n, err := p.take(ctx, false)
		switch {
		case errors.Is(err, errStandby):
			wait.Reset(p.opts.Linger)
		case err != nil:
			return fmt.Errorf("drain: %w", err)
		case n < p.opts.Batch:
			return nil // it took all that it saw
		default:
			wait.Reset(0)
		}
	}
}

// errStandby says that another poster is at work.
var errStandby = errors.New("another poster is at work")

// take posts one batch and returns its size. With polite set it stands back when
// somebody else has posted since it last looked: two posters in turn would both
// read again what they remembered.
func (p *Poster) take(ctx context.Context, polite bool) (n int, err error) {
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-p.turn:
	}
	defer func() { p.turn <- struct{}{} }()
	err = pgx.BeginFunc(ctx, p.db, func(tx pgx.Tx) error {
		n, err = p.post(ctx, tx, polite)
		return err
	})
	if err != nil {
		if !errors.Is(err, errStandby) {
			p.log, p.accounts, p.signed, p.from = nil, nil, "", 0
		}
		return 0, err
	}
	p.publish(ctx)
	return n, nil
}

// post takes a batch and writes it. Lock order: advisory lock, head, unposted.
func (p *Poster) post(ctx context.Context, tx pgx.Tx, polite bool) (int, error) {
	// The plans of a new database would be those for empty tables, and stay.
	var alone bool
	err := tx.QueryRow(ctx, `select pg_try_advisory_xact_lock(7482062) from set_config('plan_cache_mode', 'force_custom_plan', true)`).Scan(&alone)
	if err != nil {
		return 0, fmt.Errorf("lock: %w", err)
	}
	if !alone {
		return 0, errStandby
	}
	// A later statement: what the poster before us committed is visible.
	stored, _, err := readHead(ctx, tx)
	if err != nil {
		return 0, err
	}
	if p.log == nil || p.at != stored {
		moved := p.log != nil
		if p.log, err = loadTree(ctx, tx, stored); err != nil {
			return 0, err
		}
		p.at, p.accounts = stored, map[int64]head{}
		if moved && polite {
			return 0, errStandby
		}
	}
	batch, err := p.next(ctx, tx, polite)
	if err != nil || len(batch) == 0 {
		return 0, err
	}
	if err := p.heads(ctx, tx, batch); err != nil {
		return 0, err
	}
	postings, days, err := p.explode(batch)
	if err != nil {
		return 0, err
	}
	if err := copyPostings(ctx, tx, postings); err != nil {
		return 0, err
	}
	return len(batch), p.write(ctx, tx, days)
}

func copyPostings(ctx context.Context, tx pgx.Tx, postings []posting) error {
	c := newCopy()
	for i := range postings {
		p := &postings[i]
		c.row(8)
		c.int8(p.account)
		c.int8(p.seq)
		c.bytes(p.entry.id[:])
		c.int4(p.line)
		c.int8(p.amount)
		c.int8(p.balance)
		c.date(p.entry.effective)
		c.int8(p.pos)
	}
	return c.send(ctx, tx.Conn(), "posting", "account_id, seq, entry_id, line, amount, balance_after, effective_on, log_pos")
}

// An unposted entry is what the poster needs to know of it.
type unposted struct {
	id         [16]byte
	accounts   []int64
	amounts    []int64
	dimensions []int64
	effective  time.Time
	leaf       tlog.Hash
	block      uint32
}

// next takes a batch and returns it in order of id. New rows mostly lie behind the last
// ones, so it looks there first. What is left of the batch is filled from the whole table
// when there was nothing, now and then, and always unless hasty.
func (p *Poster) next(ctx context.Context, tx pgx.Tx, hasty bool) ([]unposted, error) {
	batch, err := takeUnposted(ctx, tx, p.from, p.opts.Batch)
	if err != nil {
		return nil, err
	}
	p.narrow++
	if left := p.opts.Batch - len(batch); p.from > 0 && left > 0 && (len(batch) == 0 || p.narrow >= wholeEvery || !hasty) {
		rest, err := takeUnposted(ctx, tx, 0, left)
		if err != nil {
			return nil, err
		}
		batch, p.narrow = append(batch, rest...), 0
	}
	p.from = 0
	if len(batch) > 0 {
		p.from = slices.MinFunc(batch, func(a, b unposted) int { return cmp.Compare(a.block, b.block) }).block
	}
	slices.SortFunc(batch, func(a, b unposted) int { return bytes.Compare(a.id[:], b.id[:]) })
	return batch, nil
}

// takeUnposted removes up to limit committed entries that lie in the table from a block on,
// roughly the oldest: to ask for the oldest was measured to halve the rate, over
// the dead rows the table lives on.
func takeUnposted(ctx context.Context, tx pgx.Tx, block uint32, limit int) ([]unposted, error) {
	rows, err := tx.Query(ctx, `
		delete from ledger.unposted where ctid = any (array(select ctid from ledger.unposted where ctid >= $1 limit $2))
		returning ctid, entry_id, accounts, amounts, dimensions, effective_on, leaf`, pgtype.TID{BlockNumber: block, Valid: true}, limit)
	if err != nil {
		return nil, fmt.Errorf("take unposted: %w", err)
	}
	var (
		batch []unposted
		place pgtype.TID
		leaf  []byte
	)
	for rows.Next() {
		var u unposted
		if err := rows.Scan(&place, &u.id, &u.accounts, &u.amounts, &u.dimensions, &u.effective, &leaf); err != nil {
			rows.Close()
			return nil, fmt.Errorf("take unposted: %w", err)
		}
		u.leaf, u.block = tlog.Hash(leaf), place.BlockNumber
		batch = append(batch, u)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("take unposted: %w", err)
	}
	return batch, nil
}

// heads reads the last posting of the accounts that are not in memory.
func (p *Poster) heads(ctx context.Context, tx pgx.Tx, batch []unposted) error {
	if len(p.accounts) > cacheLimit {
		clear(p.accounts)
	}
	missing := map[int64]bool{}
	for _, u := range batch {
		for _, a := range u.accounts {
			if _, ok := p.accounts[a]; !ok {
				missing[a] = true
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, `
		select a.id, coalesce(p.seq, 0), coalesce(p.balance_after, 0)
		from unnest($1::bigint[]) as a(id)
		left join lateral (select seq, balance_after from ledger.posting
			where account_id = a.id order by seq desc limit 1) p on true`, slices.Collect(maps.Keys(missing)))
	if err != nil {
		return fmt.Errorf("read accounts: %w", err)
	}
	var (
		account int64
		h       head
	)
	if _, err := pgx.ForEachRow(rows, []any{&account, &h.seq, &h.balance}, func() error {
		p.accounts[account] = h
		return nil
	}); err != nil {
		return fmt.Errorf("read accounts: %w", err)
	}
	return nil
}

// A posting is one row of ledger.posting.
type posting struct {
	entry                              *unposted
	account, seq, amount, balance, pos int64
	line                               int32
}

type day struct {
	account, dimension int64
	effective          time.Time
}

func (d day) compare(e day) int {
	return cmp.Or(cmp.Compare(d.account, e.account), d.effective.Compare(e.effective), cmp.Compare(d.dimension, e.dimension))
}

type turnover struct{ debits, credits int64 }

// explode numbers the lines of a batch, moves the accounts' heads and the log
// forward, and sums the day buckets.
func (p *Poster) explode(batch []unposted) ([]posting, map[day]turnover, error) {
	lines := 0
	for _, u := range batch {
		lines += len(u.accounts)
	}
	postings := make([]posting, 0, lines)
	days := map[day]turnover{}
	for i := range batch {
		u := &batch[i]
		pos := p.log.size
		p.log.add(u.leaf)
		for line, account := range u.accounts {
			h, amount := p.accounts[account], u.amounts[line]
			balance, err := money.Add(money.Amount(h.balance), money.Amount(amount))
			if err != nil {
				return nil, nil, fmt.Errorf("balance of account %d: %w", account, err)
			}
			h = head{h.seq + 1, int64(balance)}
			p.accounts[account] = h
			postings = append(postings, posting{u, account, h.seq, amount, h.balance, pos, int32(line + 1)})

			k := day{account, u.dimensions[line], u.effective}
			t := days[k]
			if amount > 0 {
				t.debits += amount
			} else {
				t.credits -= amount
			}
			days[k] = t
		}
	}
	return postings, days, nil
}

// write stores the buckets, the tiles and the head in one round trip.
func (p *Poster) write(ctx context.Context, tx pgx.Tx, days map[day]turnover) error {
	var (
		accounts, dimensions, debits, credits []int64
		effective                             []time.Time
		levels, numbers                       []int64
		hashes                                [][]byte
	)
	for _, k := range slices.SortedFunc(maps.Keys(days), day.compare) {
		t := days[k]
		accounts, dimensions, effective = append(accounts, k.account), append(dimensions, k.dimension), append(effective, k.effective)
		debits, credits = append(debits, t.debits), append(credits, t.credits)
	}
	for _, t := range p.log.changed() {
		levels, numbers, hashes = append(levels, int64(t.level)), append(numbers, t.n), append(hashes, t.hashes)
	}
	was, now := p.at, tlog.Tree{N: p.log.size, Hash: p.log.root()}
	signed := ""
	if p.opts.Signer != nil {
		var err error
		if signed, err = signHead(now, p.opts.Signer); err != nil {
			return err
		}
	}
	var b pgx.Batch
	b.Queue(addDays, accounts, effective, dimensions, debits, credits)
	b.Queue(putTiles, levels, numbers, hashes)
	b.Queue(noteMoment, p.now().UTC().Truncate(time.Second).Add(time.Second), now.N)
	b.Queue(`update ledger.log_head set size = $1, root = $2, note = $3 where size = $4`, now.N, now.Hash[:], signed, was.N)
	res := tx.SendBatch(ctx, &b)
	for i := range b.Len() {
		tag, err := res.Exec()
		if err == nil && i == b.Len()-1 && tag.RowsAffected() != 1 {
			err = fmt.Errorf("the head is not at %d any more", was.N)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("write days, tiles and head: %w", err), res.Close())
		}
	}
	if err := res.Close(); err != nil {
		return fmt.Errorf("write days, tiles and head: %w", err)
	}
	p.at, p.signed = now, signed
	return nil
}

const addDays = `
insert into ledger.account_day as d (account_id, effective_on, dimension_id, debits, credits)
select * from unnest($1::bigint[], $2::date[], $3::bigint[], $4::bigint[], $5::bigint[])
on conflict (account_id, effective_on, dimension_id)
do update set debits = d.debits + excluded.debits, credits = d.credits + excluded.credits`

// noteMoment says what is known at the end of this second. A second instance whose
// clock is behind does not write into a second that is over.
const noteMoment = `
insert into ledger.log_moment as m (at, size)
select greatest($1, (select max(at) from ledger.log_moment)), $2
on conflict (at) do update set size = excluded.size`

const putTiles = `
insert into ledger.log_tile (level, n, hashes)
select * from unnest($1::smallint[], $2::bigint[], $3::bytea[])
on conflict (level, n) do update set hashes = excluded.hashes`

// publish writes the newest signed head to a file, once a minute. Such files, kept
// elsewhere, are what a rewritten database cannot agree with. A full disk must
// not stop the books, so trouble is only logged.
func (p *Poster) publish(ctx context.Context) {
	if p.opts.HeadDir == "" || p.signed == "" || p.now().Sub(p.wrote) < headEvery {
		return
	}
	p.wrote = p.now()
	if err := writeHead(p.opts.HeadDir, p.at.N, p.signed); err != nil {
		p.opts.Log.ErrorContext(ctx, "write the head of the log", "error", err)
		return
	}
	p.signed = ""
}

func writeHead(dir string, size int64, signed string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("directory of heads: %w", err)
	}
	f, err := os.CreateTemp(dir, ".head-*")
	if err != nil {
		return fmt.Errorf("directory of heads: %w", err)
	}
	_, err = f.WriteString(signed)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, fmt.Sprintf("%012d.head", size)))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write head %d: %w", size, err), os.Remove(f.Name()))
	}
	return nil
}

// Stats are figures for gauges.
type Stats struct {
	Backlog int64         // entries not posted yet
	Lag     time.Duration // age of the oldest of them
	Sealed  int64         // entries in the log
}

// Stats reads the figures. It is cheap while the poster keeps up.
func (p *Poster) Stats(ctx context.Context) (Stats, error) {
	var (
		s      Stats
		oldest *time.Time
	)
	err := p.db.QueryRow(ctx, `select count(*), min(u.recorded_at), (select size from ledger.log_head) from ledger.unposted u`).
		Scan(&s.Backlog, &oldest, &s.Sealed)
	if err != nil {
		return s, fmt.Errorf("read figures of the poster: %w", err)
	}
	if oldest != nil {
		s.Lag = max(0, p.now().Sub(*oldest))
	}
	return s, nil
}
