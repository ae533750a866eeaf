-- The tables and functions of a Conveyor store, format {V}. It can be run again, and by several at the same time.
begin isolation level read committed read write;
set local search_path = pg_catalog, pg_temp;
set local client_min_messages = warning;
select pg_advisory_xact_lock(7164783921055617382); -- one migration at a time

do $conveyor$ begin
  if not exists (select from pg_namespace where nspname = {N}) then
    create schema {S};
  end if;
end $conveyor$;

create table if not exists {S}.version (
  version int         not null primary key,
  at      timestamptz not null default now()
);

do $conveyor$
declare newest int := (select max(version) from {S}.version);
begin
  if newest > {V} then
    raise exception using errcode = 'CV003', message = format('the tables are of format %s, newer than %s', newest, {V});
  end if;
  if newest is null and to_regclass({L}) is not null then
    raise exception using message = 'the schema has tables of something else';
  end if;
end $conveyor$;

-- The records. Keys are bytea: any bytes, in the order of their bytes whatever the collation of the database. The
-- revision has no index, so that an update can stay on its page (HOT). Values are not compressed, so that
-- octet_length reads nothing of them.
create table if not exists {S}.records (
  key   bytea  not null primary key,
  value bytea  not null,
  rev   bigint not null
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0, toast_tuple_target = 4080);

-- The records whose keys begin with ~: they come and go. Their table stays small, so that its vacuum is quick however
-- many records there are.
create table if not exists {S}.transient (
  key   bytea  not null primary key,
  value bytea  not null,
  rev   bigint not null
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0, toast_tuple_target = 4080);

-- To alter a table is to wait for everybody who reads it, and to have everybody else wait. So it is done once.
do $conveyor$ begin
  if exists (select from pg_attribute where attrelid = {L}::regclass and attname = 'value' and attstorage <> 'e') then
    alter table {S}.records alter column value set storage external;
    alter table {S}.transient alter column value set storage external;
  end if;
end $conveyor$;

-- One row for each group of commits. The last row has the newest revision. A row tells what came of its group, and what
-- watchers want to know. A row is only ever added, and removed once it is old, so that there are no dead versions of it.
-- Each row begins where the row before it ends.
create table if not exists {S}.log (
  rev    bigint      not null primary key, -- of the last commit of the group
  base   bigint      not null,             -- the newest revision before the group
  writer uuid        not null,
  grp    bigint      not null,             -- the number of the group, counted by its writer
  kind   "char"      not null,             -- c: a group of commits. v: a group that never commits. j: revisions were left out
  failed int[]       not null,             -- the commits of the group that were not carried out, counted from 1
  nums   int[]       not null,             -- the commits of keys
  keys   bytea[]     not null,             -- that were written or removed
  place  text        not null,             -- see the function place
  at     timestamptz not null,
  unique (writer, grp)                     -- a group commits once, or never after settle has asked for it
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_delay = 0,
        autovacuum_vacuum_insert_scale_factor = 0.2);

-- Says on which history of which server the store is. It changes when a standby takes over and when a backup is
-- restored. Commits that were acknowledged may be lost then, and their revisions must not be given out again.
create or replace function {S}.place() returns text
language plpgsql stable parallel safe -- plpgsql keeps the plan, and there is one call for each group
as $conveyor$
begin
  return (select s.system_identifier::text from pg_catalog.pg_control_system() s)
    || '/' || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8);
end $conveyor$;

-- Returns what the clock of the server shows, in microseconds.
create or replace function {S}.clock() returns bigint
language sql volatile parallel safe set search_path = pg_catalog, pg_temp
as $conveyor$ select (extract(epoch from clock_timestamp()) * 1000000)::bigint $conveyor$;

-- Waits for its turn, which ends with the transaction, and returns the newest revision. It fails if the turn has not come when the
-- clock shows until. It leaves out revisions if the place is another than that of the newest row of the log.
create or replace function {S}.turn(until bigint, out base bigint, out here text)
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $conveyor$
declare
  was  text;
  left_ms bigint := (until - extract(epoch from clock_timestamp()) * 1000000) / 1000;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception using errcode = 'CV002', message = 'the transaction is not at read committed';
  end if;
  if current_setting('synchronous_commit') not in ('on', 'remote_apply') then
    perform set_config('synchronous_commit', 'on', true);
  end if;
  perform set_config('lock_timeout', least(greatest(left_ms, 1), 2147483647)::text, true);
  perform pg_advisory_xact_lock({L}::regclass::oid::int, 1);
  if extract(epoch from clock_timestamp()) * 1000000 > until then
    raise exception using errcode = 'CV001', message = 'the turn has come too late';
  end if;
  here := {S}.place();
  select l.rev, l.place into base, was from {S}.log l order by l.rev desc limit 1;
  base := coalesce(base, 0);
  if was <> here then
    insert into {S}.log (rev, base, writer, grp, kind, failed, nums, keys, place, at)
      values (base + 4294967296, base, '00000000-0000-0000-0000-000000000000', base + 4294967296, 'j', '{}', '{}', '{}', here, clock_timestamp());
    base := base + 4294967296;
  end if;
end $conveyor$;

drop function if exists {S}.commit_group(uuid, bigint, int, bigint, text, int[], bytea[], bigint[], int[], bytea[], bytea[], int[], bytea[],
  int[], bytea[], bigint[], int[], bytea[], bytea[], int[], bytea[]); -- of format 1

-- Carries out a group of commits. No two commits of a group touch the same key, one of them writing, so that all are
-- judged as a set. r_ are the records and t_ the transient ones. c_ are the conditions, p_ the puts and d_ the deletes, and
-- n is the number of the commit, from 1. Returns the newest revision before the group; a commit has that revision plus its
-- number. Returns also the commits whose conditions did not hold, with a key of each and the revision found there.
create or replace function {S}.commit_group(who uuid, grp bigint, n int, until bigint,
    r_c_n int[], r_c_key bytea[], r_c_rev bigint[], r_p_n int[], r_p_key bytea[], r_p_value bytea[], r_d_n int[], r_d_key bytea[],
    t_c_n int[], t_c_key bytea[], t_c_rev bigint[], t_p_n int[], t_p_key bytea[], t_p_value bytea[], t_d_n int[], t_d_key bytea[],
    out base bigint, out failed int[], out keys bytea[], out revs bigint[], out clock bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan set jit = off
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $conveyor$
declare
  here text;
  last int := n;
begin
  select t.base, t.here into base, here from {S}.turn(until) t;
  clock := extract(epoch from clock_timestamp()) * 1000000;
  failed := '{}';
  if cardinality(r_c_n) > 0 or cardinality(t_c_n) > 0 then
    select coalesce(array_agg(b.n order by b.n), '{}'), array_agg(b.key order by b.n), array_agg(b.rev order by b.n) into failed, keys, revs
      from (
        select distinct on (c.n) c.n, c.key, c.rev from (
          select c.n, c.key, coalesce(r.rev, 0) as rev
            from unnest(r_c_n, r_c_key, r_c_rev) as c(n, key, rev) left join {S}.records r on r.key = c.key
            where coalesce(r.rev, 0) <> c.rev
          union all
          select c.n, c.key, coalesce(r.rev, 0)
            from unnest(t_c_n, t_c_key, t_c_rev) as c(n, key, rev) left join {S}.transient r on r.key = c.key
            where coalesce(r.rev, 0) <> c.rev
        ) c order by c.n
      ) b;
    if cardinality(failed) = n then
      return;
    end if;
    while last = any (failed) loop
      last := last - 1;
    end loop;
  end if;
  if cardinality(r_p_n) > 0 then
    insert into {S}.records as r (key, value, rev)
      select p.key, p.value, base + p.n from unnest(r_p_n, r_p_key, r_p_value) as p(n, key, value) where p.n <> all (failed)
      on conflict on constraint records_pkey do update set value = excluded.value, rev = excluded.rev;
  end if;
  if cardinality(r_d_n) > 0 then
    delete from {S}.records r using unnest(r_d_n, r_d_key) as d(n, key) where r.key = d.key and d.n <> all (failed);
  end if;
  if cardinality(t_p_n) > 0 then
    insert into {S}.transient as r (key, value, rev)
      select p.key, p.value, base + p.n from unnest(t_p_n, t_p_key, t_p_value) as p(n, key, value) where p.n <> all (failed)
      on conflict on constraint transient_pkey do update set value = excluded.value, rev = excluded.rev;
  end if;
  if cardinality(t_d_n) > 0 then
    delete from {S}.transient r using unnest(t_d_n, t_d_key) as d(n, key) where r.key = d.key and d.n <> all (failed);
  end if;
  insert into {S}.log (rev, base, writer, grp, kind, failed, nums, keys, place, at)
    values (base + last, base, who, commit_group.grp, 'c', failed,
      r_p_n || r_d_n || t_p_n || t_d_n, r_p_key || r_d_key || t_p_key || t_d_key, here, clock_timestamp());
end $conveyor$;

-- Says what came of a group whose answer was lost. A group that has not been carried out never is afterwards.
create or replace function {S}.settle(who uuid, grp bigint, until bigint, out happened boolean, out base bigint, out failed int[])
language plpgsql volatile
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $conveyor$
declare
  newest bigint;
  here   text;
begin
  select t.base, t.here into newest, here from {S}.turn(until) t; -- the turn of the group is over, if it has had one
  select l.kind = 'c', l.base, l.failed into happened, base, failed from {S}.log l where l.writer = who and l.grp = settle.grp;
  if found then
    return;
  end if;
  insert into {S}.log (rev, base, writer, grp, kind, failed, nums, keys, place, at)
    values (newest + 1, newest, who, settle.grp, 'v', '{}', '{}', '{}', here, clock_timestamp());
  happened := false;
end $conveyor$;

-- Removes up to batch of the oldest rows of the log that were written before the clock showed before. The newest row stays, and
-- tells that nothing is known of the revisions up to its own if it is that old too.
create or replace function {S}.prune(before bigint, batch int, out pruned int)
language plpgsql volatile
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $conveyor$
declare
  limit_at timestamptz := to_timestamp(before / 1000000.0);
  newest bigint;
begin
  pruned := 0;
  if not pg_try_advisory_xact_lock({L}::regclass::oid::int, 2) then -- somebody else is at it
    return;
  end if;
  select max(l.rev) into newest from {S}.log l;
  delete from {S}.log l
    where l.rev = any (array(select o.rev from {S}.log o where o.rev < newest order by o.rev limit batch)) and l.at < limit_at;
  get diagnostics pruned = row_count;
  if pruned < batch and not exists (select from {S}.log l where l.rev < newest) then
    update {S}.log l set base = l.rev, failed = '{}', nums = '{}', keys = '{}' where l.rev = newest and l.base < l.rev and l.at < limit_at;
  end if;
end $conveyor$;

insert into {S}.version (version) values ({V}) on conflict do nothing;
commit;
