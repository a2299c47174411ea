// Package staff knows who works for the city and what each may do: the directory
// says who somebody is, Guichet says what they may do.
//
//	directory (OpenID Connect) ──Begin, SignedIn──▶ member, session ◀──LoggedOut── directory
//	administrator              ──Grant, Revoke────▶ role × department × channel
//	sealed envelope            ──BreakGlass───────▶ administrator for minutes, and alarms
//
// A member is the pair of issuer and subject; an e-mail address never makes one person of
// two. Groups of the directory only suggest roles (Hint): an administrator grants or refuses.
// In development alone the demo groups bring a first role along. Staff sessions are kept
// apart from residents': whoever works here and also pays a water bill is two people to this product.
//
// It speaks no HTTP: api/oidc is the relying party, api/session holds the cookie.
package staff
