// Package reconcile explains the city's money: which bank line is which payout of
// the card processor, which payments are in it, what it cost, and what SAP has
// been told of it.
//
//	processor ──pull──▶ payouts, their lines ─┐
//	bank ──inbox──▶ statements, bank lines ───┴match──▶ settle ──▶ ledger
//	                                                      │
//	      SAP ◀──deliver── file ◀──documents (mapping) ◀──┘
//	       └──answers──▶ posted, or an exception with SAP's own words
//
// The nightly run of a business date goes through these steps. Every step can be
// repeated and killed: what is done is found done. A match is never guessed: it
// has a rule and evidence, and a tie is a suggestion. What nobody can explain is
// an exception with an owner, and its money waits in suspense. What has settled is
// exported once: DOCNUM, reference, file name and bytes are frozen with the batch.
//
// Only the mapping table knows SAP's numbers. Formats of the bank and of SAP are
// the packages below; bills and their states are payments'.
package reconcile
