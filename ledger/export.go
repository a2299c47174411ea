package ledger

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/tlog"

	"guichet/internal/clock"
	"guichet/internal/money"
)

// The exports write the whole of the books, posted or not, out of one snapshot, entry
// by entry as the database sends them. hledger and beancount, programs that know
// nothing of us, check them: balance assertions at each month's end and at the
// end are taken from the day buckets and not from the lines they stand under.

// ExportHledger writes a journal for hledger, by accounting date.
func ExportHledger(ctx context.Context, db Beginner, w io.Writer) error {
	return exportByDate(ctx, db, w, hledger{})
}

// ExportBeancount writes a ledger for beancount, by accounting date. Its account
// names start with capitals: Assets:Receivable:Parking.
func ExportBeancount(ctx context.Context, db Beginner, w io.Writer) error {
	return exportByDate(ctx, db, w, beancount{})
}

// A format writes one of the two languages.
type format interface {
	open(w *bufio.Writer, accounts []Account)
	entry(w *bufio.Writer, e *Entry)
	// balances asserts what accounts hold at the end of a day.
	balances(w *bufio.Writer, at clock.Date, held []held)
}

// held is what an account holds by itself, and with the accounts below its path.
type held struct {
	path, currency string
	own, whole     money.Amount
}

func exportByDate(ctx context.Context, db Beginner, out io.Writer, f format) error {
	w := bufio.NewWriter(out)
	err := pgx.BeginTxFunc(ctx, db, snapshot, func(tx pgx.Tx) error {
		accounts, err := allAccounts(ctx, tx)
		if err != nil {
			return err
		}
		months, err := monthEnds(ctx, tx)
		if err != nil {
			return err
		}
		f.open(w, accounts)
		sums := map[string]money.Amount{}
		assert := func(m monthEnd) {
			for path, moved := range m.moved {
				sums[path] += moved
			}
			f.balances(w, m.last, holdings(accounts, sums))
		}
		err = eachRecord(ctx, tx, `order by e.effective_on, e.id`, func(e *record, _ int64) error {
			for len(months) > 0 && months[0].last.Before(e.EffectiveOn) {
				assert(months[0])
				months = months[1:]
			}
			if !e.Held { // set aside, not booked: no business of another program
				f.entry(w, &e.Entry)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, m := range months {
			assert(m)
		}
		return w.Flush()
	})
	if err != nil {
		return fmt.Errorf("export the books: %w", err)
	}
	return nil
}

func allAccounts(ctx context.Context, q Querier) ([]Account, error) {
	rows, err := q.Query(ctx, `select `+accountColumns+` from ledger.account order by path`)
	if err != nil {
		return nil, fmt.Errorf("list accounts: %w", err)
	}
	return pgx.CollectRows(rows, scanAccount)
}

// A monthEnd is what moved in a month, by account.
type monthEnd struct {
	last  clock.Date
	moved map[string]money.Amount
}

func monthEnds(ctx context.Context, q Querier) ([]monthEnd, error) {
	rows, err := q.Query(ctx, `
		select (date_trunc('month', m.day::timestamp) + interval '1 month' - interval '1 day')::date as last, a.path, sum(m.amount)::bigint
		from (select account_id, effective_on as day, debits - credits as amount from ledger.account_day
			union all
			select l.id, u.effective_on, l.amount from ledger.unposted u cross join lateral unnest(u.accounts, u.amounts) as l(id, amount)) m
		join ledger.account a on a.id = m.account_id
		group by 1, 2 order by 1, 2`)
	if err != nil {
		return nil, fmt.Errorf("read month ends: %w", err)
	}
	var (
		list   []monthEnd
		last   time.Time
		path   string
		amount money.Amount
	)
	_, err = pgx.ForEachRow(rows, []any{&last, &path, &amount}, func() error {
		day := clock.FromTime(last)
		if n := len(list); n == 0 || list[n-1].last != day {
			list = append(list, monthEnd{day, map[string]money.Amount{}})
		}
		list[len(list)-1].moved[path] = amount
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read month ends: %w", err)
	}
	return list, nil
}

// holdings adds up the tree of accounts; accounts are in order of path.
func holdings(accounts []Account, sums map[string]money.Amount) []held {
	whole := map[string]money.Amount{} // path and currency
	for _, a := range accounts {
		for path := a.Path; ; {
			whole[path+" "+a.Currency] += sums[a.Path]
			i := strings.LastIndexByte(path, ':')
			if i < 0 {
				break
			}
			path = path[:i]
		}
	}
	list := make([]held, 0, len(accounts))
	for _, a := range accounts {
		list = append(list, held{a.Path, a.Currency, sums[a.Path], whole[a.Path+" "+a.Currency]})
	}
	return list
}

// oneLine makes text safe inside a line of either language.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 }), " ")
}

// tags are the facts of an entry that both languages carry as tags.
func (e *Entry) tags() [][2]string {
	all := [][2]string{
		{"entry", e.ID},
		{"key", e.Key},
		{"kind", e.Kind},
		{"recorded", e.RecordedAt.Format(time.RFC3339Nano)},
		{"source", strings.Trim(e.SourceType+"/"+e.SourceID, "/")},
		{"actor", e.Actor},
		{"channel", e.Channel},
		{"reverses", e.Reverses},
		{"corrects", e.Corrects},
		{"hold", e.Hold},
	}
	return slices.DeleteFunc(all, func(t [2]string) bool { return t[1] == "" })
}

func (d Dimensions) tags() [][2]string {
	all := [][2]string{
		{"department", d.Department},
		{"fund", d.Fund},
		{"cost-centre", d.CostCentre},
		{"order", d.Order},
		{"wbs", d.WBS},
		{"channel", d.Channel},
		{"tender", d.Tender},
	}
	return slices.DeleteFunc(all, func(t [2]string) bool { return t[1] == "" })
}

func currencies(accounts []Account) []string {
	var list []string
	for _, a := range accounts {
		list = append(list, a.Currency)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

type hledger struct{}

func (hledger) open(w *bufio.Writer, accounts []Account) {
	for _, c := range currencies(accounts) {
		fmt.Fprintf(w, "commodity 1000.00 %s\n", c)
	}
	for _, a := range accounts {
		fmt.Fprintf(w, "account %s  ; name-en: %s, name-fr: %s\n", a.Path, value(a.NameEN), value(a.NameFR))
	}
}

// hledger ends a tag's value at a comma and a description at a semicolon, and knows no
// way to quote them: they are written as in addresses (%2C, %3B), and so is the percent sign.
var (
	hledgerTag  = strings.NewReplacer("%", "%25", ",", "%2C")
	hledgerText = strings.NewReplacer("%", "%25", ";", "%3B")
)

func value(s string) string { return hledgerTag.Replace(oneLine(s)) }

func (hledger) entry(w *bufio.Writer, e *Entry) {
	// The code in front keeps any first character of the description from meaning something.
	fmt.Fprintf(w, "\n%s * (%s) %s\n", e.EffectiveOn, e.ID, hledgerText.Replace(oneLine(e.Description)))
	for _, t := range e.tags() {
		fmt.Fprintf(w, "    ; %s: %s\n", t[0], value(t[1]))
	}
	for _, l := range e.Lines {
		fmt.Fprintf(w, "    %s  %s %s", l.Account, l.Amount, e.Currency)
		for i, t := range l.Dimensions.tags() {
			fmt.Fprintf(w, "%s%s: %s", [2]string{"  ; ", ", "}[min(i, 1)], t[0], value(t[1]))
		}
		w.WriteByte('\n')
	}
}

func (hledger) balances(w *bufio.Writer, at clock.Date, list []held) {
	fmt.Fprintf(w, "\n%s * balances at the end of the day\n", at)
	for _, h := range list {
		fmt.Fprintf(w, "    %s  0.00 %s = %s %s\n", h.path, h.currency, h.own, h.currency)
	}
}

type beancount struct{}

func (beancount) open(w *bufio.Writer, accounts []Account) {
	w.WriteString("option \"name_income\" \"Revenue\"\n")
	for _, c := range currencies(accounts) {
		fmt.Fprintf(w, "option \"operating_currency\" %s\n", quote(c))
	}
	for _, a := range accounts {
		fmt.Fprintf(w, "1900-01-01 open %s %s\n  name-en: %s\n  name-fr: %s\n", capitals(a.Path), a.Currency, quote(a.NameEN), quote(a.NameFR))
	}
}

func capitals(path string) string {
	parts := strings.Split(path, ":")
	for i, p := range parts {
		parts[i] = strings.ToUpper(p[:1]) + p[1:]
	}
	return strings.Join(parts, ":")
}

var beancountText = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

func quote(s string) string { return `"` + beancountText.Replace(oneLine(s)) + `"` }

func (beancount) entry(w *bufio.Writer, e *Entry) {
	fmt.Fprintf(w, "\n%s * %s\n", e.EffectiveOn, quote(e.Description))
	for _, t := range e.tags() {
		fmt.Fprintf(w, "  %s: %s\n", t[0], quote(t[1]))
	}
	for _, l := range e.Lines {
		fmt.Fprintf(w, "  %s  %s %s\n", capitals(l.Account), l.Amount, e.Currency)
		for _, t := range l.Dimensions.tags() {
			fmt.Fprintf(w, "    %s: %s\n", t[0], quote(t[1]))
		}
	}
}

// balances: a balance in beancount is that of the morning, includes the accounts
// below, and tolerates a cent unless told otherwise.
func (beancount) balances(w *bufio.Writer, at clock.Date, list []held) {
	w.WriteByte('\n')
	for _, h := range list {
		fmt.Fprintf(w, "%s balance %s  %s ~ 0 %s\n", at.AddDays(1), capitals(h.path), h.whole, h.currency)
	}
}

// ExportJSONL writes one JSON object per line: accounts, entries in the order of the
// log with position and leaf hash (those not posted yet come last, without), what each
// account holds, states of holds, frozen trial balances, imports, the documents of each series
// and the head. It holds all that the log seals, so VerifyExport can prove it without a database.
func ExportJSONL(ctx context.Context, db Beginner, out io.Writer, series ...Series) error {
	w := bufio.NewWriter(out)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	err := pgx.BeginTxFunc(ctx, db, snapshot, func(tx pgx.Tx) error {
		accounts, err := allAccounts(ctx, tx)
		if err != nil {
			return err
		}
		for _, a := range accounts {
			if err := enc.Encode(jsonAccount{
				"account", a.Path, a.Type, a.Normal == Debit, a.Currency, a.NameEN, a.NameFR,
				a.Department, a.Lowest, a.State, a.OpenedAt,
			}); err != nil {
				return err
			}
		}
		if err := eachRecord(ctx, tx, byPosition, func(e *record, pos int64) error { return enc.Encode(jsonOf(e, pos)) }); err != nil {
			return err
		}
		if err := exportTotals(ctx, tx, enc); err != nil {
			return err
		}
		for _, s := range series {
			if err := exportSeries(ctx, tx, enc, s); err != nil {
				return err
			}
		}
		head, signed, err := readHead(ctx, tx)
		if err != nil {
			return err
		}
		if err := enc.Encode(jsonHead{"head", head.N, head.Hash, signed}); err != nil {
			return err
		}
		return w.Flush()
	})
	if err != nil {
		return fmt.Errorf("export the books: %w", err)
	}
	return nil
}

// exportTotals writes what can be computed from the entries, for whoever does.
func exportTotals(ctx context.Context, tx pgx.Tx, enc *json.Encoder) error {
	var books Books
	trial, err := books.TrialBalance(ctx, tx, forever)
	if err != nil {
		return err
	}
	for _, l := range trial {
		if err := enc.Encode(jsonBalance{"balance", l.Account.Path, l.Debits, l.Credits}); err != nil {
			return err
		}
	}
	periods, err := books.Periods(ctx, tx, maxLines)
	if err != nil {
		return err
	}
	for _, p := range slices.Backward(periods) {
		if p.State != PeriodClosed {
			continue
		}
		trial, hash, err := books.FrozenTrial(ctx, tx, p.Month)
		if err != nil {
			return err
		}
		j := jsonPeriod{Type: "period", Month: month(p.Month), Hash: hash}
		for _, l := range trial {
			j.Balances = append(j.Balances, jsonBalance{"", l.Account.Path, l.Debits, l.Credits})
		}
		if err := enc.Encode(j); err != nil {
			return err
		}
	}
	rows, err := tx.Query(ctx, `select entry_id::text, state, expires_at from ledger.hold order by entry_id`)
	if err != nil {
		return fmt.Errorf("list holds: %w", err)
	}
	h := jsonHold{Type: "hold"}
	if _, err := pgx.ForEachRow(rows, []any{&h.Entry, &h.State, &h.ExpiresAt}, func() error { return enc.Encode(h) }); err != nil {
		return fmt.Errorf("list holds: %w", err)
	}
	rows, err = tx.Query(ctx, `select name, file_hash, entries, lines, debits from ledger.import order by name`)
	if err != nil {
		return fmt.Errorf("list imports: %w", err)
	}
	j := jsonImport{Type: "import"}
	_, err = pgx.ForEachRow(rows, []any{&j.Name, &j.FileHash, &j.Entries, &j.Lines, &j.Debits}, func() error { return enc.Encode(j) })
	return err
}

// The shapes of the JSON export are a contract of their own. Amounts are cents.
type jsonAccount struct {
	Type        string        `json:"type"`
	Path        string        `json:"path"`
	AccountType Type          `json:"account_type"`
	Debit       bool          `json:"normal_debit"`
	Currency    string        `json:"currency"`
	NameEN      string        `json:"name_en"`
	NameFR      string        `json:"name_fr"`
	Department  string        `json:"department,omitempty"`
	Lowest      *money.Amount `json:"lowest,omitempty"`
	State       State         `json:"state"`
	OpenedAt    time.Time     `json:"opened_at"`
}

type jsonEntry struct {
	Type        string            `json:"type"`
	Position    *int64            `json:"position,omitempty"`
	ID          string            `json:"id"`
	Key         string            `json:"key"`
	Kind        string            `json:"kind"`
	EffectiveOn string            `json:"effective_on"`
	RecordedAt  time.Time         `json:"recorded_at"`
	Currency    string            `json:"currency"`
	Lines       []jsonLine        `json:"lines"`
	SourceType  string            `json:"source_type"`
	SourceID    string            `json:"source_id"`
	Actor       string            `json:"actor"`
	Channel     string            `json:"channel"`
	Description string            `json:"description"`
	Metadata    map[string]string `json:"metadata"`
	Reverses    string            `json:"reverses,omitempty"`
	Corrects    string            `json:"corrects,omitempty"`
	Held        bool              `json:"held,omitempty"`
	Hold        string            `json:"hold,omitempty"`
	AskedOn     string            `json:"asked_on,omitempty"`
	Body        []byte            `json:"body_hash"`
	Leaf        tlog.Hash         `json:"leaf_hash"`
}

func jsonOf(e *record, pos int64) jsonEntry {
	j := jsonEntry{
		Type: "entry", ID: e.ID, Key: e.Key, Kind: e.Kind, EffectiveOn: e.EffectiveOn.String(), RecordedAt: e.RecordedAt,
		Currency: e.Currency, SourceType: e.SourceType, SourceID: e.SourceID, Actor: e.Actor, Channel: e.Channel,
		Description: e.Description, Metadata: e.Metadata, Reverses: e.Reverses, Corrects: e.Corrects, Held: e.Held, Hold: e.Hold,
		Body: e.body, Leaf: tlog.Hash(e.leaf),
	}
	if e.AskedOn != (clock.Date{}) {
		j.AskedOn = e.AskedOn.String()
	}
	if pos >= 0 {
		j.Position = &pos
	}
	for _, l := range e.Lines {
		j.Lines = append(j.Lines, jsonLine(l))
	}
	return j
}

// entry is the way back.
func (j *jsonEntry) entry() (Entry, error) {
	e := Entry{
		ID: j.ID, Key: j.Key, Kind: j.Kind, RecordedAt: j.RecordedAt, Currency: j.Currency, SourceType: j.SourceType, SourceID: j.SourceID,
		Actor: j.Actor, Channel: j.Channel, Description: j.Description, Metadata: j.Metadata,
		Reverses: j.Reverses, Corrects: j.Corrects, Held: j.Held, Hold: j.Hold,
	}
	var err error
	if e.EffectiveOn, err = clock.ParseDate(j.EffectiveOn); err != nil {
		return e, err
	}
	if j.AskedOn != "" {
		if e.AskedOn, err = clock.ParseDate(j.AskedOn); err != nil {
			return e, err
		}
	}
	for _, l := range j.Lines {
		e.Lines = append(e.Lines, Line(l))
	}
	return e, nil
}

type jsonLine struct {
	Account    string       `json:"account"`
	Amount     money.Amount `json:"amount"`
	Dimensions Dimensions   `json:"dimensions"`
}

type jsonBalance struct {
	Type    string       `json:"type,omitempty"`
	Account string       `json:"account"`
	Debits  money.Amount `json:"debits"`
	Credits money.Amount `json:"credits"`
}

type jsonPeriod struct {
	Type     string        `json:"type"`
	Month    string        `json:"month"`
	Hash     []byte        `json:"trial_hash"`
	Balances []jsonBalance `json:"trial_balance"`
}

type jsonHold struct {
	Type      string     `json:"type"`
	Entry     string     `json:"entry"`
	State     HoldState  `json:"state"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
}

type jsonImport struct {
	Type     string       `json:"type"`
	Name     string       `json:"name"`
	FileHash []byte       `json:"file_hash"`
	Entries  int64        `json:"entries"`
	Lines    int64        `json:"lines"`
	Debits   money.Amount `json:"debits"`
}

type jsonHead struct {
	Type   string    `json:"type"`
	Size   int64     `json:"size"`
	Root   tlog.Hash `json:"root"`
	Signed string    `json:"signed,omitempty"`
}
