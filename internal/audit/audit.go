// Package audit records every change of state: who, what, when, from where.
//
//	HTTP middleware ──With(ctx, Origin)──▶ rooms ──Record(tx)──▶ ops.audit
//
// A row is appended in the transaction of the change it tells of, so that neither
// exists without the other, and is never changed. It holds ids and codes, no
// names, secrets or whole tokens.
package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// An Origin is who acts, and from where.
type Origin struct {
	Actor     string // opaque: "resident:<id>", "staff:<id>", "department:<code>", "system:<job>"
	ActorKind string // resident, staff, department, guest, system
	Network   string // truncated address: /24 or /48
	RequestID string
	Channel   string
}

type originKey struct{}

// With returns a context whose audit rows carry the origin.
func With(ctx context.Context, o Origin) context.Context {
	return context.WithValue(ctx, originKey{}, o)
}

// From returns the origin of a context; without one it is the system itself.
func From(ctx context.Context) Origin {
	if o, ok := ctx.Value(originKey{}).(Origin); ok {
		return o
	}
	return Origin{Actor: "system", ActorKind: "system"}
}

// An Event is a change that happened to an object.
type Event struct {
	Action     string // "bill.issued"
	ObjectType string
	ObjectID   string
	Subject    string // opaque id of the resident concerned, or empty
	Details    map[string]any
	At         time.Time
}

// Record appends an event in the caller's transaction.
func Record(ctx context.Context, tx pgx.Tx, e Event) error {
	o := From(ctx)
	if e.Details == nil {
		e.Details = map[string]any{}
	}
	details, err := json.Marshal(e.Details)
	if err != nil {
		return fmt.Errorf("record %s: %w", e.Action, err)
	}
	_, err = tx.Exec(ctx, `
		insert into ops.audit (at, action, object_type, object_id, subject, actor, actor_kind, channel, network, request_id, details)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
		e.At, e.Action, e.ObjectType, e.ObjectID, e.Subject, o.Actor, o.ActorKind, o.Channel, o.Network, o.RequestID, details)
	if err != nil {
		return fmt.Errorf("record %s: %w", e.Action, err)
	}
	return nil
}
