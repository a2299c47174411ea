package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"guichet/internal/doctable"
	"guichet/internal/testdb"
)

// Whoever owns the database can switch the guards off. Each of these changes is
// found, and named.
func TestTamperingIsFound(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	h := furnish(t, db)
	s, v := signer(t)
	p := h.poster(PosterOptions{Signer: s})
	var ids []string
	for i := range 300 {
		e := move(key(i), 500, clearing, receivable)
		e.Lines[0].Dimensions.Fund = fmt.Sprint("f", i%2)
		ids = append(ids, h.mustPost(t, e))
	}
	h.do(t, func(ctx context.Context, tx pgx.Tx) error {
		_, err := h.Reverse(ctx, tx, ids[7], Entry{Key: "reversal"})
		return err
	})
	if err := p.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.do(t, func(ctx context.Context, tx pgx.Tx) error {
		return h.OpenAccount(ctx, tx, Account{Path: "assets:empty", NameEN: "Empty", NameFR: "Vide"})
	})
	h.mustPost(t, move("waiting", 500, clearing, receivable))
	saved, err := h.Head(t.Context(), h.db)
	if err != nil {
		t.Fatal(err)
	}
	h.wantSound(t)
	owner := testdb.Owner(t, db)

	// $entry is an entry that was reversed, $other another, $a the account both debit, $c an empty one.
	tests := []struct {
		name, sql string
		want      []string // kinds, in the order of Verify
	}{
		{
			"an amount in both lines of an entry", `update ledger.journal_entry set amounts = '{501,-501}' where id = $entry`,
			[]string{"posting", "entry", "sealed", "tile", "head"},
		},
		{
			"an amount in one line", `alter table ledger.journal_entry drop constraint journal_entry_balanced; update ledger.journal_entry set amounts = '{501,-500}' where id = $entry`,
			[]string{"guard", "unbalanced", "posting", "entry", "sealed", "tile", "head"},
		},
		{
			"the date of an entry", `update ledger.journal_entry set effective_on = effective_on - 1 where id = $entry`,
			[]string{"posting", "entry", "sealed", "tile", "head"},
		},
		{
			"the account of a line", `update ledger.journal_entry set accounts = array[accounts[1], $c] where id = $entry`,
			[]string{"posting", "reversal", "entry", "sealed", "tile", "head"},
		},
		{
			"an account that does not exist", `update ledger.journal_entry set accounts = '{1,99}' where id = $entry`,
			[]string{"account", "posting", "reversal", "entry", "sealed", "tile", "head"},
		},
		{
			"the dimension of a line", `update ledger.journal_entry set dimensions = array[dimensions[2], dimensions[2]] where id = $entry`,
			[]string{"day", "reversal", "entry", "sealed", "tile", "head"},
		},
		{"a description", `update ledger.journal_entry set description = 'another' where id = $entry`, []string{"entry", "sealed", "tile", "head"}},
		{"metadata", `update ledger.journal_entry set metadata = '{"a":"b"}' where id = $entry`, []string{"entry", "sealed", "tile", "head"}},
		{"who did it", `update ledger.journal_entry set actor = 'nobody' where id = $entry`, []string{"entry", "sealed", "tile", "head"}},
		{"when it was recorded", `update ledger.journal_entry set recorded_at = recorded_at - interval '1 microsecond' where id = $entry`, []string{"entry", "sealed", "tile", "head"}},
		{"a key", `update ledger.journal_entry set key = 'x' where id = $entry`, []string{"entry", "sealed", "tile", "head"}},
		{
			"a key used twice", `alter table ledger.journal_entry drop constraint journal_entry_key; update ledger.journal_entry set key = 'k000001' where id = $entry`,
			[]string{"guard", "key", "entry", "sealed", "tile", "head"},
		},
		{"the hash of the content", `update ledger.journal_entry set body_hash = sha256('x') where id = $entry`, []string{"entry", "sealed", "tile", "head"}},
		{"the leaf of an entry", `update ledger.journal_entry set leaf = sha256('x') where id = $entry`, []string{"entry"}},
		{"a reversal that reverses another", `update ledger.journal_entry set reverses = $other where reverses is not null`, []string{"reversal", "entry", "sealed", "tile", "head"}},
		{"an entry deleted", `delete from ledger.journal_entry where id = $other`, []string{"posting", "day", "position", "tile", "head"}},
		{
			"an entry deleted with its postings", `delete from ledger.journal_entry where id = $other; delete from ledger.posting where entry_id = $other`,
			[]string{"number", "chain", "balance", "day", "position", "tile", "head"},
		},
		{"a forged entry", forged + `; delete from ledger.unposted where entry_id = md5('forged')::uuid`, []string{"lost", "entry"}},
		{"a forged entry that waits", forged, []string{"entry"}},
		{"an entry that no longer waits", `delete from ledger.unposted`, []string{"lost"}},
		{
			"an entry that waits again", `insert into ledger.unposted select id, accounts, amounts, dimensions, effective_on, recorded_at, leaf from ledger.journal_entry where id = $entry`,
			[]string{"waiting"},
		},
		{"an entry that waits with another amount", `update ledger.unposted set amounts = '{5,-5}'`, []string{"waiting"}},
		{"the amount of a posting", `update ledger.posting set amount = 501 where entry_id = $entry and line = 1`, []string{"posting", "chain", "balance", "total", "day"}},
		{
			"the account of a posting", `update ledger.posting set account_id = $c, seq = 1, balance_after = 500 where entry_id = $entry and line = 1`,
			[]string{"posting", "number", "chain", "balance", "day"},
		},
		{"a balance", `update ledger.posting set balance_after = balance_after + 1 where entry_id = $entry and line = 1`, []string{"chain"}},
		{"all balances from one on", `update ledger.posting set balance_after = balance_after + 1 where account_id = $a and seq >= 100`, []string{"chain", "balance"}},
		{"a posting deleted", `delete from ledger.posting where entry_id = $entry and line = 2`, []string{"lines", "number", "chain", "balance", "total", "day"}},
		{"a posting twice", `alter table ledger.posting drop constraint posting_once;
			insert into ledger.posting select account_id, (select max(seq) + 1 from ledger.posting where account_id = $a), entry_id, line, amount, 1, effective_on, log_pos
			from ledger.posting where entry_id = $entry and line = 1`, []string{"guard", "lines", "chain", "balance", "total", "day", "position", "tile", "head"}},
		{"a number left out", `update ledger.posting set seq = seq + 1000 where account_id = $a and seq > 100`, []string{"number"}},
		{"two postings swapped", `update ledger.posting set seq = -seq + 21 + 1000 where account_id = $a and seq in (10, 11);
			update ledger.posting set seq = seq - 1000 where account_id = $a and seq in (1010, 1011)`, []string{"chain"}},
		{"a day bucket", `update ledger.account_day set debits = debits + 1 where account_id = $a`, []string{"day"}},
		{"a day bucket deleted", `delete from ledger.account_day where account_id = $a`, []string{"day"}},
		{"two positions swapped", `update ledger.posting set log_pos = 21 - log_pos where log_pos in (10, 11)`, []string{"sealed", "tile", "head"}},
		{"one position of two lines", `update ledger.posting set log_pos = 1000 where entry_id = $entry and line = 2`, []string{"lines"}},
		{"the path of an account", `update ledger.account set path = 'assets:elsewhere' where id = $a`, []string{"entry", "sealed", "tile", "head"}},
		{"the meaning of a dimension", `update ledger.dimension set fund = 'f9' where fund = 'f1'`, []string{"entry", "sealed", "tile", "head"}},
		{"the currency of an account", `update ledger.account set currency = 'USD' where id = $a`, []string{"account", "total"}},
		{"a limit that is broken", `update ledger.account set lowest = 1000000 where id = $a`, []string{"limit"}},
		{"a closed account with a balance", `update ledger.account set state = 'closed' where id = $a`, []string{"limit"}},
		{"a tile", `update ledger.log_tile set hashes = set_byte(hashes, 40, get_byte(hashes, 40) # 1) where level = 0 and n = 0`, []string{"sealed", "tile"}},
		{"an upper tile", `update ledger.log_tile set hashes = set_byte(hashes, 3, get_byte(hashes, 3) # 1) where level = 1`, []string{"tile"}},
		{"a tile too many", `insert into ledger.log_tile select 0, 7, hashes from ledger.log_tile where level = 1`, []string{"tile"}},
		{"a tile deleted", `delete from ledger.log_tile where level = 0 and n = 1`, []string{"tile"}},
		{"the root", `update ledger.log_head set root = sha256('x')`, []string{"head"}},
		{"the size", `update ledger.log_head set size = size - 1`, []string{"moment", "head"}},
		{"a guard switched off", `alter table ledger.posting disable trigger append_only`, []string{"guard"}},
		{"a guard dropped", `drop trigger check_entries on ledger.journal_entry`, []string{"guard"}},
		{"a key dropped", `alter table ledger.posting drop constraint posting_once`, []string{"guard"}},
		{"a right given", `grant update on ledger.posting to guichet_app`, []string{"grant"}},
	}
	var rows [][2]string
	for _, tt := range tests {
		rows = append(rows, [2]string{tt.name, strings.Join(tt.want, ", ")})
	}
	inDocs(t, rows)
	back := errors.New("roll back")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := pgx.BeginFunc(t.Context(), owner, func(tx pgx.Tx) error {
				tamper(t, tx, strings.NewReplacer("$entry", "'"+ids[7]+"'", "$other", "'"+ids[20]+"'",
					"$a", "(select id from ledger.account where path = '"+clearing+"')",
					"$c", "(select id from ledger.account where path = 'assets:empty')").Replace(tt.sql))
				findings, err := Verify(t.Context(), inside{tx})
				if err != nil {
					t.Fatal(err)
				}
				var kinds []string
				for _, f := range findings {
					kinds = append(kinds, f.Kind)
					if f.Object == "" || f.Detail == "" {
						t.Errorf("empty words in %q", f)
					}
				}
				if !slices.Equal(kinds, tt.want) {
					t.Errorf("found %v, want %v\n%v", kinds, tt.want, findings)
				}
				return back
			})
			if !errors.Is(err, back) {
				t.Fatal(err)
			}
		})
	}
	h.wantSound(t)

	// Rewritten in every table at once, with the tree made anew: only a head saved
	// outside remembers.
	err = pgx.BeginFunc(t.Context(), owner, func(tx pgx.Tx) error {
		if err := VerifyHead(t.Context(), inside{tx}, saved, v); err != nil {
			t.Errorf("before: %v", err)
		}
		tamper(t, tx, `delete from ledger.account_day; delete from ledger.log_tile;
			update ledger.log_head set size = 0, root = sha256('');
			update ledger.journal_entry set description = 'rewritten' where key = 'k000020'`)
		remake(t, tx)
		findings, err := Verify(t.Context(), inside{tx})
		if err != nil || len(findings) > 0 {
			t.Errorf("a whole rewrite shows: %v, %v", findings, err)
		}
		if err := VerifyHead(t.Context(), inside{tx}, saved, v); !errors.Is(err, ErrLog) {
			t.Errorf("saved head: got %v, want ErrLog", err)
		}
		return back
	})
	if !errors.Is(err, back) {
		t.Fatal(err)
	}
	_, other := signer(t)
	if err := VerifyHead(t.Context(), h.db, saved, other); !errors.Is(err, ErrProof) {
		t.Errorf("another key: got %v, want ErrProof", err)
	}
}

// inDocs compares a table of changes and findings with that in the documents.
func inDocs(t *testing.T, tests [][2]string) {
	t.Helper()
	rows := [][]string{{"changed", "named"}}
	for _, tt := range tests {
		rows = append(rows, []string{tt[0], "`" + strings.ReplaceAll(tt[1], ", ", "`, `") + "`"})
	}
	doctable.Check(t, "../docs/ledger-proof.md", t.Name(), rows)
}

const forged = `insert into ledger.journal_entry select md5('forged')::uuid, 'forged', kind, effective_on, recorded_at, currency, accounts, amounts, dimensions,
	source_type, source_id, actor, channel, description, metadata, null, body_hash, leaf from ledger.journal_entry where id = $entry`

// tamper runs SQL as the owner with the guards off, and on again.
func tamper(t *testing.T, tx pgx.Tx, sql string) {
	t.Helper()
	tables := []string{"journal_entry", "posting", "dimension", "account", "unposted", "account_day", "log_tile", "log_head"}
	toggle := func(how string) string {
		var b strings.Builder
		for _, name := range tables {
			fmt.Fprintf(&b, "alter table ledger.%s %s trigger append_only; ", name, how)
		}
		fmt.Fprintf(&b, "alter table ledger.account %[1]s trigger fixed; ", how)
		return b.String()
	}
	guards := strings.Contains(sql, "trigger")
	if !guards {
		sql = toggle("disable") + sql + ";" + toggle("enable")
	}
	if _, err := tx.Conn().PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// remake seals and buckets every posted entry again, as one who rewrites the books would.
func remake(t *testing.T, tx pgx.Tx) {
	t.Helper()
	var tr tree
	var leaves []struct {
		id   string
		leaf []byte
	}
	if err := eachRecord(t.Context(), tx, byPosition, func(e *record, pos int64) error {
		leaf := leafHash(e.canonical(e.body))
		leaves = append(leaves, struct {
			id   string
			leaf []byte
		}{e.ID, leaf})
		if pos >= 0 {
			tr.add([32]byte(leaf))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var sql strings.Builder
	for _, l := range leaves {
		fmt.Fprintf(&sql, "update ledger.journal_entry set leaf = '\\x%x' where id = '%s';", l.leaf, l.id)
	}
	for _, c := range tr.changed() {
		fmt.Fprintf(&sql, "insert into ledger.log_tile values (%d, %d, '\\x%x');", c.level, c.n, c.hashes)
	}
	root := tr.root()
	fmt.Fprintf(&sql, "update ledger.log_head set size = %d, root = '\\x%x';", tr.size, root[:])
	sql.WriteString(`insert into ledger.account_day select p.account_id, p.effective_on, e.dimensions[p.line],
		sum(greatest(p.amount, 0)), sum(greatest(-p.amount, 0))
		from ledger.posting p join ledger.journal_entry e on e.id = p.entry_id group by 1, 2, 3`)
	tamper(t, tx, sql.String())
}

// inside lets Verify run in a transaction that is rolled back afterwards.
type inside struct{ pgx.Tx }

func (i inside) BeginTx(ctx context.Context, _ pgx.TxOptions) (pgx.Tx, error) { return i.Begin(ctx) }

func TestVerifyRunsTheChecksOfOtherRooms(t *testing.T) {
	t.Parallel()
	h := open(t)
	want := Finding{"sub-ledger", "parking", "open bills are 5.00, the receivable is 4.00"}
	got, err := Verify(t.Context(), h.db, func(ctx context.Context, tx pgx.Tx) ([]Finding, error) { return []Finding{want}, nil })
	if err != nil || !slices.Equal(got, []Finding{want}) {
		t.Errorf("got %v, %v", got, err)
	}
	broken := errors.New("broken")
	if _, err := Verify(t.Context(), h.db, func(context.Context, pgx.Tx) ([]Finding, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Errorf("got %v, want the error of the check", err)
	}
}
