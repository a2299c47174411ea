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
// # In ten minutes
//
// [New] gives the Books. Everything that writes takes the caller's transaction; whatever
// reads takes a pool or a transaction.
//
//	record   Append · AppendAll, AppendEach (batches) · Queue (many callers) · Import (a file)
//	aside    Hold → Capture, Void, ExpireHolds
//	undo     Reverse, ReverseLines · Correct
//	accounts OpenAccount, LoadChart · SetAccountState, SetLimit, Rename
//	months   SetPeriod, FrozenTrial; Entry.OrNextOpen for what comes late
//	read     Balance, Available · Statement, StatementBetween · TrialBalance · Activity;
//	         BalanceAsOf and TrialBalanceAsOf by date and as known at a moment
//	prove    Proof, Consistency · Verify, VerifyExport, VerifyHead · Witness
//	carry    ExportJSONL, ExportHledger, ExportBeancount
//
// The same key with the same content is the same entry, however often it is recorded: a
// caller that does not know what became of a commit does the same again. Refusals are
// told apart with errors.Is ([ErrUnbalanced], [ErrLimit], [ErrPeriodClosed] …), and carry what
// a caller needs to know as [UnbalancedError], [UnknownAccountError], [LimitError],
// [PeriodError] and [ConflictError]. The examples run against a real database.
//
// Amounts are minor units, debit positive. Append runs in READ COMMITTED only. A service
// needs one [Poster] at work, in any number of instances.
package ledger
