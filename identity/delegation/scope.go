package delegation

import (
	"errors"
	"fmt"
	"slices"

	"guichet/internal/clock"
	"guichet/internal/money"
)

// A Right is one kind of thing that may be done for a party.
type Right string

// The rights there are. Departments' applications read them in acting_for: never change one.
const (
	ViewBills   Right = "bills:view"   // see bills and receipts
	PayBills    Right = "bills:pay"    // and pay bills
	ViewFiles   Right = "files:view"   // see applications, permits and requests with departments
	ManageFiles Right = "files:manage" // and make or change them
)

// Rights lists the rights, what includes another after it.
func Rights() []Right { return []Right{ViewBills, PayBills, ViewFiles, ManageFiles} }

// includes says what comes with a right: nobody pays what they cannot see.
var includes = map[Right]Right{PayBills: ViewBills, ManageFiles: ViewFiles}

// A Scope is how far a right to act goes.
type Scope struct {
	Rights      []Right
	Departments []string     // codes; none: every department
	PerPayment  money.Amount // 0: no limit
	PerMonth    money.Amount // of the calendar month; 0: no limit
	Until       clock.Date   // last day; zero: an owner's, without end
	MayDelegate bool         // may pass it on, once
}

// MaxTerm is how long a right may be given for, in years.
const MaxTerm = 2

// ErrScope says that a scope is no scope: no right, an unknown one, an end in the past or too far away.
var ErrScope = errors.New("not a scope that can be given")

// everything is what an owner has.
func everything() Scope { return Scope{Rights: Rights(), MayDelegate: true} }

// normal returns the scope with what its rights include, each once and in order.
func (s Scope) normal() Scope {
	has := func(r Right) bool { return slices.Contains(s.Rights, r) }
	var rights []Right
	for _, r := range Rights() {
		if has(r) || slices.ContainsFunc(s.Rights, func(given Right) bool { return includes[given] == r }) {
			rights = append(rights, r)
		}
	}
	s.Rights = rights
	s.Departments = slices.Compact(slices.Sorted(slices.Values(s.Departments)))
	return s
}

// check refuses what cannot be given today, whoever gives it.
func (s Scope) check(today clock.Date) error {
	switch {
	case len(s.Rights) == 0 || slices.ContainsFunc(s.Rights, func(r Right) bool { return !slices.Contains(Rights(), r) }):
		return fmt.Errorf("rights %q: %w", s.Rights, ErrScope)
	case s.PerPayment < 0 || s.PerMonth < 0:
		return fmt.Errorf("limit below zero: %w", ErrScope)
	case s.Until.Before(today), s.Until.After(LastDay(today)):
		return fmt.Errorf("until %s: %w", s.Until, ErrScope)
	}
	return nil
}

// LastDay is the last day of a right given today.
func LastDay(today clock.Date) clock.Date {
	return clock.FromTime(today.Time().AddDate(MaxTerm, 0, 0))
}

// May reports whether the scope holds a right in a department, by code.
func (s Scope) May(r Right, department string) bool {
	return slices.Contains(s.Rights, r) && s.Covers(department)
}

// Covers reports whether the scope extends to a department, by code.
func (s Scope) Covers(department string) bool {
	return len(s.Departments) == 0 || slices.Contains(s.Departments, department)
}

// Within reports whether everything the scope allows, the outer one allows too.
func (s Scope) Within(outer Scope) bool {
	return !slices.ContainsFunc(s.Rights, func(r Right) bool { return !slices.Contains(outer.Rights, r) }) &&
		withinDepartments(s.Departments, outer.Departments) &&
		withinLimit(s.PerPayment, outer.PerPayment) && withinLimit(s.PerMonth, outer.PerMonth) &&
		(outer.Until == clock.Date{} || s.Until != clock.Date{} && !s.Until.After(outer.Until)) &&
		(outer.MayDelegate || !s.MayDelegate)
}

func withinDepartments(inner, outer []string) bool {
	if len(outer) == 0 {
		return true
	}
	return len(inner) > 0 && !slices.ContainsFunc(inner, func(d string) bool { return !slices.Contains(outer, d) })
}

func withinLimit(inner, outer money.Amount) bool {
	return outer == 0 || inner != 0 && inner <= outer
}
