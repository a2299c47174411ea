package desk

import (
	"maps"
	"slices"
	"time"

	"guichet/api/web"
	"guichet/reconcile"
)

// A step is one line of an object's history.
type step struct {
	State tag
	Cause string // in the words of the service, which keeps them in English
	Who   web.Message
	Facts []fact
	At    time.Time
}

// A fact is a named value of evidence.
type fact struct {
	Name  web.Message
	Value string
}

// stepsOf turns the events of an object into steps. Actors' names must be loaded.
func stepsOf(v view, group string, events []reconcile.StateEvent) []step {
	list := make([]step, len(events))
	for i, e := range events {
		list[i] = step{State: v.Tag(group, e.To), Cause: e.Cause, Facts: v.Facts(e.Evidence), At: e.At}
		if e.Actor != "" {
			list[i].Who = v.Who(e.Actor)
		}
	}
	return list
}

// Facts are evidence in order of name.
func (v view) Facts(evidence map[string]string) []fact {
	var list []fact
	for _, name := range slices.Sorted(maps.Keys(evidence)) {
		list = append(list, fact{v.Label("evidence", name), evidence[name]})
	}
	return list
}

// actorsOf lists who took the steps.
func actorsOf(events []reconcile.StateEvent) []string {
	var list []string
	for _, e := range events {
		list = append(list, e.Actor)
	}
	return list
}
