-- A client, or a page of ours, may want a person proved to more than they are.
-- +goose Up

-- The level that a sign-in in progress must reach; 0: any.
alter table identity.pending add column want_acr smallint not null default 0 check (want_acr between 0 and 3);
