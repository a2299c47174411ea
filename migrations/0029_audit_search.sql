-- The audit is searched by who, what, when and which request. What nobody searches by
-- alone (network, object type) is filtered from these.
-- +goose Up
create index audit_actor on ops.audit (actor, seq);
create index audit_action on ops.audit (action, seq);
create index audit_request on ops.audit (request_id, seq) where request_id <> '';
-- Rows come nearly in order of time: a block range index costs a writer nothing.
create index audit_at on ops.audit using brin (at) with (pages_per_range = 32);
