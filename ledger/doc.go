// Package ledger keeps the city's books: accounts, journal entries and postings in
// double entry. It knows amounts, accounts and dimensions, nothing of bills, people
// or HTTP.
//
//	payments ──Append──▶ journal ──Poster──▶ postings, day buckets, Merkle log
//	reconcile ─Append──▶    └── not yet posted ──┐        │
//	                        readers: Balance, Statement ◀─┘  exact in one snapshot
//
// An entry is one immutable row, written in the transaction of the business that
// causes it. Writers touch no balance and so never wait for each other; one Poster
// carries committed entries into the accounts moments later. Readers add what is not
// posted yet, so they are exact at any moment.
//
// Every entry sums to zero in its one currency; the database refuses anything else,
// and refuses unknown, frozen and closed accounts, foreign currency, closed periods,
// and entries that break an account's limit. A mistake is corrected with Reverse.
// No entry or posting is ever updated or deleted: grants and triggers refuse, and
// Verify with the signed heads of the log finds what was forced.
//
// Amounts are minor units, debit positive. Append runs in READ COMMITTED only.
package ledger
