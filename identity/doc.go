// Package identity knows the people: residents with an account, guests who left an
// address, how each proves who they are, and for how long we believe it.
//
//	browser ──Begin──▶ pending ──AskCode──▶ mail ──TryCode──┬──▶ session
//	                      │                                 ├─(first time)─ Register ─┘
//	                      ├──TryPasskey──▶ session          └─(an app)──── TryApp ────┘
//	other rooms ──"resident:<id>", "contact:<id>"──▶ Address (mail only)
//
// Names, e-mail addresses and telephone numbers are stored sealed under a key of
// each person's own; destroying that key forgets the person, in backups too. An address is found
// by keyed hash. Everything else in the product holds the opaque id and joins on display.
//
// What proves a person is consumed once, by one conditional update, and leaves a
// tombstone. Whether an address has an account never shows before its owner has
// proved it: both ways run the same statements and send the same mail.
//
// This package knows nothing of HTTP, cookies or OpenID Connect: identity/provider
// decides what a department's application may learn, identity/staff who works here.
package identity
