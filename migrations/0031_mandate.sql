-- Who paid for somebody else, and under which rights: own first, then those they were
-- passed on from. Payments of all of them count towards a limit.
-- +goose Up
alter table payments.payment add column actor_id uuid;
alter table payments.payment add column mandate uuid[];
alter table payments.payment add constraint payment_mandate_whole check ((actor_id is null) = (mandate is null)) not valid;
alter table payments.payment validate constraint payment_mandate_whole;
create index payment_mandate on payments.payment using gin (mandate) where mandate is not null;
