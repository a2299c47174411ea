package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// A Filter narrows a search; what is left zero is not asked for.
type Filter struct {
	Actor      string
	Subject    string
	ObjectType string
	ObjectID   string
	Action     string // or the beginning of one, up to a dot: "client" finds "client.changed"
	Network    string // or the beginning of one: "203.0.113."
	RequestID  string
	From, To   time.Time // To itself is not part of it
	Before     int64     // rows before this one: the last row of the page before
	Limit      int
}

// A Row is one deed as it was recorded.
type Row struct {
	Seq        int64           `json:"seq"`
	At         time.Time       `json:"at"`
	Action     string          `json:"action"`
	ObjectType string          `json:"object_type"`
	ObjectID   string          `json:"object_id"`
	Subject    string          `json:"subject"`
	Actor      string          `json:"actor"`
	ActorKind  string          `json:"actor_kind"`
	Channel    string          `json:"channel"`
	Network    string          `json:"network"`
	RequestID  string          `json:"request_id"`
	Details    json.RawMessage `json:"details"`
}

// A Querier is a pool, connection or transaction.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Search lists deeds, the newest first, at most f.Limit. The next page begins with the
// sequence number of the last row as Before.
func Search(ctx context.Context, q Querier, f Filter) ([]Row, error) {
	where, args := f.conditions()
	// Only the conditions that are asked for stand in the text, so that each plan can
	// use its index; values are parameters.
	rows, err := q.Query(ctx, `
		select seq, at, action, object_type, object_id, subject, actor, actor_kind, channel, network, request_id, details
		from ops.audit`+where+fmt.Sprintf(` order by seq desc limit $%d`, len(args)+1), append(args, f.Limit)...)
	if err != nil {
		return nil, fmt.Errorf("search audit: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[Row])
	if err != nil {
		return nil, fmt.Errorf("search audit: %w", err)
	}
	return list, nil
}

// An Object is what deeds are done to.
type Object struct{ Type, ID string }

// Of returns the last limit deeds done to objects, the newest first. A resident's or a
// guest's id stays where it is: the kind of actor tells enough.
func Of(ctx context.Context, q Querier, limit int, objects ...Object) ([]Row, error) {
	types, ids := make([]string, len(objects)), make([]string, len(objects))
	for i, o := range objects {
		types[i], ids[i] = o.Type, o.ID
	}
	rows, err := q.Query(ctx, `
		select a.seq, a.at, a.action, a.object_type, a.object_id, '' as subject,
			case when a.actor_kind in ('resident', 'guest') then '' else a.actor end as actor, a.actor_kind,
			a.channel, '' as network, a.request_id, a.details
		from unnest($1::text[], $2::text[]) o(type, id) join ops.audit a on a.object_type = o.type and a.object_id = o.id
		order by a.seq desc limit $3`, types, ids, limit)
	if err != nil {
		return nil, fmt.Errorf("read audit of objects: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[Row])
	if err != nil {
		return nil, fmt.Errorf("read audit of objects: %w", err)
	}
	return list, nil
}

func (f Filter) conditions() (string, []any) {
	var terms []string
	var args []any
	add := func(asked bool, term string, value any) {
		if asked {
			args = append(args, value)
			terms = append(terms, strings.ReplaceAll(term, "?", fmt.Sprintf("$%d", len(args))))
		}
	}
	add(f.Actor != "", "actor = ?", f.Actor)
	add(f.Subject != "", "subject = ?", f.Subject)
	add(f.ObjectType != "", "object_type = ?", f.ObjectType)
	add(f.ObjectID != "", "object_id = ?", f.ObjectID)
	// From "a." up to, but without, "a/", which follows it in byte order.
	add(f.Action != "", `(action = ? or action collate "C" >= ? || '.' and action collate "C" < ? || '/')`, f.Action)
	add(f.Network != "", "starts_with(network, ?)", f.Network)
	add(f.RequestID != "", "request_id = ?", f.RequestID)
	add(!f.From.IsZero(), "at >= ?", f.From)
	add(!f.To.IsZero(), "at < ?", f.To)
	add(f.Before > 0, "seq < ?", f.Before)
	if len(terms) == 0 {
		return "", nil
	}
	return " where " + strings.Join(terms, " and "), args
}

// Asked is the filter as it is recorded of whoever searches.
func (f Filter) Asked() map[string]any {
	asked := map[string]any{}
	for name, value := range map[string]string{
		"actor": f.Actor, "subject": f.Subject, "object_type": f.ObjectType, "object_id": f.ObjectID,
		"action": f.Action, "network": f.Network, "request_id": f.RequestID,
	} {
		if value != "" {
			asked[name] = value
		}
	}
	if !f.From.IsZero() {
		asked["from"] = f.From
	}
	if !f.To.IsZero() {
		asked["to"] = f.To
	}
	return asked
}
