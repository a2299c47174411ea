// Package audit appends who did what to which object, from where, in the same
// transaction as the deed. It knows no room: actions and objects are the caller's words.
//
//	request ──With(Origin)──▶ context ──▶ service method ──Record(tx)──▶ ops.audit
//
// Rows are never changed or deleted; the database refuses it. They hold opaque ids
// and facts, never a name, an address or a secret.
package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Kinds of actors.
const (
	Resident   = "resident"
	Staff      = "staff"
	Department = "department"
	Guest      = "guest"
	System     = "system"
)

// An Origin is where a request comes from and on whose behalf.
type Origin struct {
	Actor     string // opaque id: resident, member of staff, API key
	ActorKind string // one of the kinds above
	Network   string // address of the client as the trusted proxy saw it
	RequestID string
	Channel   string // web, counter, phone, api, …
	// OnBehalfOf is the opaque id of the party in whose name the actor acts, or "".
	OnBehalfOf string
}

type key struct{}

// With returns a context that carries o to Record.
func With(ctx context.Context, o Origin) context.Context { return context.WithValue(ctx, key{}, o) }

// From returns the origin carried by ctx. Work without one is the system's own.
func From(ctx context.Context) Origin {
	if o, ok := ctx.Value(key{}).(Origin); ok {
		return o
	}
	return Origin{Actor: System, ActorKind: System}
}

// An Event is one deed.
type Event struct {
	Action     string // what was done, as object.verb in the past: "bill.issued"
	ObjectType string
	ObjectID   string
	Subject    string // opaque id of the resident concerned, or ""
	Details    map[string]any
	At         time.Time
}

// Record appends e in the caller's transaction, with the origin of ctx. It refuses
// an event without action, object type or time.
func Record(ctx context.Context, tx pgx.Tx, e Event) error {
	if e.Action == "" || e.ObjectType == "" || e.At.IsZero() {
		return fmt.Errorf("audit %q of %q: %w", e.Action, e.ObjectType, errors.New("action, object type and time are needed"))
	}
	details := []byte("{}")
	if len(e.Details) > 0 {
		var err error
		if details, err = json.Marshal(e.Details); err != nil {
			return fmt.Errorf("audit %s: %w", e.Action, err)
		}
	}
	o := From(ctx)
	_, err := tx.Exec(ctx, `
insert into ops.audit (at, action, object_type, object_id, subject, actor, actor_kind, channel, network, request_id, on_behalf_of, details)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
		e.At, e.Action, e.ObjectType, e.ObjectID, e.Subject, o.Actor, o.ActorKind, o.Channel, o.Network, o.RequestID, o.OnBehalfOf, details)
	if err != nil {
		return fmt.Errorf("audit %s: %w", e.Action, err)
	}
	return nil
}
