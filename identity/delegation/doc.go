// Package delegation lets people act for somebody else: a business, a child, another
// resident, an estate, a property.
//
//	CreateBusiness, AddChild ──▶ party, its owner or guardian
//	Invite ──mail or code──▶ Accept ──▶ right in force ──Switch──▶ session acts under it
//	staff: Register (document) ──Approve (second person)──▶ right in force
//	Revoke (either side), Expire ──▶ ended: sessions, tokens and payments with it stop at once
//
// A right says in which services, for how much and until when (Scope). It never changes
// and never grows: what is passed on lies within what the giver has, and ends with it. Whether one
// is in force is asked of the database each time (identity.delegation_live), so there is
// nothing to invalidate.
//
// A party has an opaque id like a person's and is sealed like one; a resident whom others act
// for is a party by their own id. Whose bills are shown and what is paid under a right, api and payments
// decide by that id. This package knows no bills, no HTTP and no tokens.
package delegation
