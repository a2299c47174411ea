package desk

import (
	"maps"
	"slices"
	"strings"
	"time"

	"guichet/api/web"
	"guichet/internal/id"
	"guichet/reconcile"
)

// A step is one line of an object's history.
type step struct {
	State tag
	Cause web.Message
	Raw   bool // the cause has no words of ours: it is English, or SAP's
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
		list[i] = v.step(group, e.To, e.Cause, e.At)
		list[i].Facts = v.Facts(e.Evidence)
		if e.Actor != "" {
			list[i].Who = v.Who(e.Actor)
		}
	}
	return list
}

// step is a step whose actor and evidence are not told.
func (v view) step(group string, to any, cause string, at time.Time) step {
	s := step{State: v.Tag(group, to), At: at}
	s.Cause, s.Raw = v.cause(cause)
	return s
}

// cause puts what the rooms write down as the cause of a step, which is English, into
// the reader's words. What it does not know stays as it is.
func (v view) cause(text string) (m web.Message, raw bool) {
	if m := v.Label("cause", strings.ReplaceAll(text, " ", "_")); m.Key != "desk.as_is" {
		return m, false
	}
	if m := v.Label("rule_short", text); m.Key != "desk.as_is" {
		return m, false
	}
	for prefix, say := range map[string]func(rest string) web.Message{
		"payment ":          func(rest string) web.Message { return web.Say("desk.cause.payment", "Reference", id.Group(rest)) },
		"file ":             func(rest string) web.Message { return web.Say("desk.cause.file", "Name", rest) },
		"processor: ":       func(rest string) web.Message { return web.Say("desk.cause.processor", "State", rest) },
		"session refused: ": func(rest string) web.Message { return web.Say("desk.cause.refused", "Code", rest) },
		"attested: ":        func(rest string) web.Message { return web.Say("desk.cause.attested", "Text", rest) },
	} {
		if rest, ok := strings.CutPrefix(text, prefix); ok {
			return say(rest), false
		}
	}
	return web.Say("desk.as_is", "Text", text), true
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
