-- Keys of finance systems that upload journal entries.
-- +goose Up

-- A key with a row here is a journal key: it may book on the accounts named, each
-- with all below it, and do nothing else. The row counts once the key's approval is given:
-- the decision stands in ops.approval, where the database refuses one and the same person.
create table department.journal_grant (
	key_id   uuid primary key references department.api_key,
	accounts text[] not null check (cardinality(accounts) between 1 and 100 and array_position(accounts, null) is null)
);
create trigger append_only before update or delete or truncate on department.journal_grant
	for each statement execute function ops.refuse_change();
grant select, insert on department.journal_grant to guichet_app;
