-- What the search of the journal needs: entries of a span of days without reading all
-- of them, and what corrects an entry.
-- +goose Up

-- Entries lie in the table in the order in which they were recorded, and mostly in that
-- of their dates: a few bytes for each 32 pages say which days are in there, and an
-- append pays next to nothing for it. An ordered index would grow with every append.
create index journal_entry_days on ledger.journal_entry
	using brin (recorded_at, effective_on) with (pages_per_range = 32, autosummarize = on);
create index journal_entry_corrects on ledger.journal_entry (corrects) where corrects is not null;
