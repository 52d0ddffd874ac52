/**
 * The tables and the functions, as the text of one statement, with `{schema}` for the name of their schema.
 *
 * The verbs are functions in PL/pgSQL, because at READ COMMITTED each statement within one sees what was committed while
 * the statement before it waited for a row. They are versioned by name, because several versions of this library may
 * share the tables: a changed function gets a new number, and a new column is nullable.
 *
 * Times are microseconds of the server's clock, durations milliseconds. `clock_timestamp()` is read after every wait for
 * a row; `now()` would be the start of the transaction.
 */

/** For how long a waiter counts as alive after its last sign, in milliseconds. */
export const livenessMillis = 1800

/** For how long a key is kept for the waiter to which it was handed, until that one confirms; in milliseconds. */
const handOverMillis = 1200

/** How often a waiter looks while a transaction that fenced its writes holds the row, in milliseconds. */
const fencedMillis = 300

/**
 * How long a verb waits for a row that another transaction holds, in milliseconds. Ours hold one for as long as a
 * statement takes; a standby that does not confirm, or a foreign transaction, may hold one for ever.
 */
const rowMillis = 200

/** What `acquire` answers for one key. */
export const Code = { waiting: 0, granted: 1, stale: 2, void: 3, era: 4 } as const

/** The SQLSTATE of our functions at another isolation level than READ COMMITTED. */
export const wrongIsolation = "DL001"

/** A name, quoted. */
export const identifier = (name: string): string => `"${name.replaceAll("\"", "\"\"")}"`

/** A text, quoted. */
const literal = (text: string): string => `'${text.replaceAll("'", "''")}'`

const tables = `
create schema if not exists {schema};

-- The row of a free key stays and keeps its token. No index on a column that changes, so that updates stay in their page.
create table if not exists {schema}.lease (
  key text collate "C" primary key,
  owner text,
  channel text,
  first_token bigint not null,
  token bigint not null,
  expires_at timestamptz not null,
  line boolean not null default false,
  void_until timestamptz
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);

-- While a key has rows here, its lease says so in "line".
create table if not exists {schema}.waiter (
  key text collate "C",
  ticket bigint,
  owner text collate "C",
  ttl bigint not null,
  spare integer not null,
  channel text not null,
  alive_until timestamptz not null,
  primary key (key, ticket, owner)
) with (autovacuum_vacuum_scale_factor = 0.02);

-- What a withdrawn request leaves, so that a late copy of it gets nothing.
create table if not exists {schema}.void (
  owner text collate "C" primary key,
  until timestamptz not null
) with (autovacuum_vacuum_scale_factor = 0.02);
`

/** What others stand on. */
const helpers = `
create or replace function {schema}.micros_1(at timestamptz) returns bigint language sql stable as $f$
  select (extract(epoch from at) * 1000000)::bigint
$f$;

-- Identifies a run of a server: another one after a restart, and after a promotion.
create or replace function {schema}.era_1() returns bigint language sql stable as $f$
  select (extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint
$f$;

-- Begins a verb.
create or replace function {schema}.begin_1() returns text language plpgsql as $f$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception using errcode = '${wrongIsolation}', message = 'dlock needs transactions that are READ COMMITTED';
  end if;
  return set_config('lock_timeout', '${rowMillis}', true);
end $f$;

-- Writes a grant into a row that the caller has locked. Spare tokens lie below the clock, never ahead of it.
create or replace function {schema}.grant_1(k text, me text, ttl bigint, spare integer, chan text, base bigint)
returns void language plpgsql as $f$
declare
  moment constant timestamptz := clock_timestamp();
  micros constant bigint := {schema}.micros_1(moment);
  first constant bigint := greatest(base, micros - spare - 1) + 1;
begin
  update {schema}.lease l set
    owner = me,
    channel = chan,
    first_token = first,
    token = greatest(first, least(micros, first + spare)),
    expires_at = moment + ttl * interval '1 millisecond'
  where l.key = k;
end $f$;

-- Hands a free key, whose row the caller has locked, to the first live waiter: in the answer if that is the caller, by a
-- message otherwise. Answers the owner; '' if there is no waiter; null while a fenced transaction holds the row.
create or replace function {schema}.hand_over_1(k text, me text) returns text language plpgsql as $f$
declare
  moment timestamptz;
  base bigint;
  w record;
begin
  -- KEY SHARE, which fencing takes, conflicts with this and not with the lock that the caller has.
  select l.token into base from {schema}.lease l where l.key = k for update skip locked;
  moment := clock_timestamp();
  if not found then
    update {schema}.lease l set owner = null, expires_at = moment where l.key = k and l.owner is not null;
    return null;
  end if;
  -- A time of life further ahead than any that is ever set was written before the clock was set back.
  delete from {schema}.waiter v
    where v.key = k and not v.alive_until between moment and moment + interval '${livenessMillis + 1000} milliseconds';
  select * into w from {schema}.waiter v where v.key = k order by v.ticket, v.owner limit 1;
  if not found then
    update {schema}.lease l set owner = null, expires_at = moment, line = false where l.key = k;
    return '';
  end if;
  delete from {schema}.waiter v where v.key = k and v.ticket = w.ticket and v.owner = w.owner;
  perform {schema}.grant_1(
    k, w.owner, case when w.owner = me then w.ttl else least(w.ttl, ${handOverMillis}) end, w.spare, w.channel, base
  );
  update {schema}.lease l set line = false
    where l.key = k and not exists (select from {schema}.waiter v where v.key = k);
  if w.owner is distinct from me then
    perform pg_notify(w.channel, 'granted ' || w.owner);
  end if;
  return w.owner;
end $f$;

-- Frees a key if this owner holds it, and takes it out of the line.
create or replace function {schema}.free_1(k text, me text) returns boolean language plpgsql as $f$
declare
  l record;
begin
  select * into l from {schema}.lease r where r.key = k for no key update;
  if not found then
    return false;
  end if;
  if l.line then
    delete from {schema}.waiter w where w.key = k and w.owner = me;
    update {schema}.lease r set line = false
      where r.key = k and not exists (select from {schema}.waiter w where w.key = k);
  end if;
  if l.owner is distinct from me then
    return false;
  end if;
  perform {schema}.hand_over_1(k, null);
  return l.expires_at > clock_timestamp();
end $f$;
`

/** Requests that could not have their key at once. */
const requests = `
-- A request that does not stand in line: it waits for no row, and writes nothing when it is refused.
create or replace function {schema}.try_2(k text, me text, ttl bigint, spare integer, chan text)
returns integer language plpgsql as $f$
declare
  l record;
  moment timestamptz := clock_timestamp();
begin
  select * into l from {schema}.lease r where r.key = k;
  if l.owner = me then
    update {schema}.lease r set expires_at = clock_timestamp() + ttl * interval '1 millisecond', channel = chan
      where r.key = k and r.owner = me and r.expires_at > clock_timestamp();
    if found then
      return ${Code.granted};
    end if;
  end if;
  if exists (
    select from {schema}.waiter w
    where w.key = k and w.alive_until between moment and moment + interval '${livenessMillis + 1000} milliseconds'
  ) then
    return ${Code.waiting};
  end if;
  select * into l from {schema}.lease r
    where r.key = k and (r.owner is null or r.expires_at <= moment) for update skip locked;
  if not found then
    return ${Code.waiting};
  end if;
  -- Not before: the request may be withdrawn until its row is locked.
  if l.void_until > moment and exists (select from {schema}.void v where v.owner = me and v.until > moment) then
    return ${Code.void};
  end if;
  if {schema}.hand_over_1(k, null) <> '' then
    return ${Code.waiting};
  end if;
  perform {schema}.grant_1(k, me, ttl, spare, chan, l.token);
  return ${Code.granted};
end $f$;

-- A request that stands in line, or shows that it still does.
create or replace function {schema}.stand_1(
  k text, me text, ttl bigint, spare integer, valid bigint, place bigint, chan text,
  out code integer, out ticket bigint, out rank bigint, out remaining double precision
) language plpgsql as $f$
declare
  l record;
  moment timestamptz;
  served text;
begin
  loop
    select * into l from {schema}.lease r where r.key = k for no key update;
    exit when found;
    insert into {schema}.lease (key, first_token, token, expires_at)
      values (k, 0, {schema}.micros_1(clock_timestamp()) - spare - 1, clock_timestamp()) on conflict do nothing;
  end loop;
  moment := clock_timestamp();
  if valid < {schema}.micros_1(moment) then
    code := ${Code.stale};
    return;
  end if;
  if l.void_until > moment and exists (select from {schema}.void v where v.owner = me and v.until > moment) then
    code := ${Code.void};
    return;
  end if;
  if l.owner = me and l.expires_at > moment then
    delete from {schema}.waiter w where w.key = k and w.owner = me;
    update {schema}.lease r set
      expires_at = moment + ttl * interval '1 millisecond',
      channel = chan,
      line = exists (select from {schema}.waiter w where w.key = k)
    where r.key = k;
    code := ${Code.granted};
    return;
  end if;
  select w.ticket into ticket from {schema}.waiter w where w.key = k and w.owner = me;
  if ticket is null then
    ticket := place;
    if place = 0 then
      select greatest({schema}.micros_1(moment), max(w.ticket) + 1) into ticket from {schema}.waiter w where w.key = k;
    end if;
    if l.line then
      delete from {schema}.waiter w
        where w.key = k and not w.alive_until between moment and moment + interval '${
  livenessMillis + 1000
} milliseconds';
    else
      update {schema}.lease r set line = true where r.key = k;
    end if;
    if l.owner is not null and l.expires_at > moment and not exists (select from {schema}.waiter w where w.key = k) then
      perform pg_notify(l.channel, 'wanted ' || l.owner);
    end if;
  end if;
  insert into {schema}.waiter (key, ticket, owner, ttl, spare, channel, alive_until)
    values (k, ticket, me, ttl, spare, chan, moment + interval '${livenessMillis} milliseconds')
    on conflict on constraint waiter_pkey do update
    set ttl = excluded.ttl, spare = excluded.spare, channel = excluded.channel, alive_until = excluded.alive_until;
  code := ${Code.waiting};
  remaining := extract(epoch from l.expires_at - moment) * 1000;
  if l.owner is null or l.expires_at <= moment then
    served := {schema}.hand_over_1(k, me);
    if served = me then
      code := ${Code.granted};
      return;
    end if;
    remaining := case when served is null then ${fencedMillis} else ${handOverMillis} end;
  end if;
  select count(*) into rank from {schema}.waiter w where w.key = k and (w.ticket, w.owner) < (stand_1.ticket, me);
end $f$;
`

/** The verbs. Each takes many keys, in their order, so that two calls cannot wait for each other in a circle. */
const verbs = `
-- A free key with an empty line, the usual case, is taken at once: by an update, or by the insert of its row.
create or replace function {schema}.acquire_2(
  since bigint, chan text, keys text[], owners text[], ttls bigint[], spares integer[], valids bigint[], places bigint[]
) returns table (
  n integer, code integer, era bigint, at bigint, first bigint, last bigint, wanted boolean,
  ticket bigint, rank bigint, remaining double precision
) language plpgsql as $f$
declare
  moment timestamptz;
  granted integer := 0;
begin
  perform {schema}.begin_1();
  era := {schema}.era_1();
  if since not in (0, era) then
    n := 0;
    code := ${Code.era};
    return next;
    return;
  end if;
  for i in 1 .. cardinality(keys) loop
    n := i;
    first := null;
    last := null;
    wanted := null;
    ticket := null;
    rank := null;
    remaining := null;
    moment := clock_timestamp();
    at := {schema}.micros_1(moment);
    code := null;
    if valids[i] < at then
      code := ${Code.stale};
    else
      -- What "grant_1" does, in one statement.
      update {schema}.lease r set
        owner = owners[i],
        channel = chan,
        first_token = greatest(r.token, at - spares[i] - 1) + 1,
        token = greatest(greatest(r.token, at - spares[i] - 1) + 1, least(at, greatest(r.token, at - spares[i] - 1) + 1 + spares[i])),
        expires_at = moment + ttls[i] * interval '1 millisecond'
      from (
        select f.key from {schema}.lease f
        where f.key = keys[i] and (f.owner is null or f.expires_at <= moment) and not f.line
          and (f.void_until is null or f.void_until <= moment)
        for update skip locked
      ) free
      where r.key = free.key
      returning r.first_token, r.token, false into first, last, wanted;
      if found then
        code := ${Code.granted};
      else
        insert into {schema}.lease (key, owner, channel, first_token, token, expires_at)
          values (keys[i], owners[i], chan, at - spares[i], at, moment + ttls[i] * interval '1 millisecond')
          on conflict do nothing;
        if found and valids[i] >= {schema}.micros_1(clock_timestamp()) then
          code := ${Code.granted};
          first := at - spares[i];
          last := at;
          wanted := false;
        elsif found then
          -- It waited for another transaction of the same key, and is no longer valid.
          update {schema}.lease r set owner = null where r.key = keys[i];
          code := ${Code.stale};
        elsif places[i] < 0 then
          code := {schema}.try_2(keys[i], owners[i], ttls[i], spares[i], chan);
        else
          select s.code, s.ticket, s.rank, s.remaining into code, ticket, rank, remaining
            from {schema}.stand_1(keys[i], owners[i], ttls[i], spares[i], valids[i], places[i], chan) s;
        end if;
        if code = ${Code.granted} and first is null then
          select r.first_token, r.token, r.line into first, last, wanted from {schema}.lease r where r.key = keys[i];
        end if;
      end if;
    end if;
    if code = ${Code.granted} then
      granted := granted + 1;
    end if;
    return next;
  end loop;
  -- A grant is as durable as the server is set; a place in line that is lost is taken anew.
  if granted = 0 then
    perform set_config('synchronous_commit', 'off', true);
  end if;
end $f$;

-- Prolongs, and reserves new tokens, one and as many more as "spares" says; -1: those of the grant stay.
create or replace function {schema}.renew_1(keys text[], owners text[], ttls bigint[], spares integer[])
returns table (n integer, era bigint, first bigint, last bigint, wanted boolean) language plpgsql as $f$
declare
  micros bigint;
begin
  perform {schema}.begin_1();
  era := {schema}.era_1();
  for i in 1 .. cardinality(keys) loop
    n := i;
    update {schema}.lease r set expires_at = clock_timestamp() + ttls[i] * interval '1 millisecond'
      where r.key = keys[i] and r.owner = owners[i] and r.expires_at > clock_timestamp()
      returning r.first_token, r.token, r.line into first, last, wanted;
    continue when not found;
    if spares[i] >= 0 then
      micros := {schema}.micros_1(clock_timestamp());
      first := greatest(last, micros - spares[i] - 1) + 1;
      last := greatest(first, least(micros, first + spares[i]));
      update {schema}.lease r set token = last where r.key = keys[i];
    end if;
    return next;
  end loop;
end $f$;

-- Releases a key, to the next in line, and leaves the line. "voids": until when a copy of the request may still come and
-- be valid, or 0; the row is written first then, so that this waits for an acquire that has not committed.
create or replace function {schema}.release_1(keys text[], owners text[], voids bigint[])
returns table (n integer, was_ours boolean) language plpgsql as $f$
declare
  l record;
  until timestamptz;
begin
  perform {schema}.begin_1();
  for i in 1 .. cardinality(keys) loop
    n := i;
    until := to_timestamp(voids[i] / 1e6);
    if voids[i] = 0 then
      update {schema}.lease r set owner = null, expires_at = clock_timestamp()
        where r.key = keys[i] and r.owner = owners[i] and not r.line
        returning true into was_ours;
    else
      insert into {schema}.lease as r (key, first_token, token, expires_at, void_until)
        values (keys[i], 0, {schema}.micros_1(clock_timestamp()) - 1000, clock_timestamp(), until)
        on conflict on constraint lease_pkey do update set void_until = greatest(r.void_until, until);
      insert into {schema}.void as v (owner, until) values (owners[i], until)
        on conflict on constraint void_pkey do update set until = greatest(v.until, excluded.until);
    end if;
    if voids[i] > 0 or not found then
      was_ours := {schema}.free_1(keys[i], owners[i]);
    end if;
    return next;
  end loop;
  if 0 = all (voids) then
    perform set_config('synchronous_commit', 'off', true);
  end if;
end $f$;

-- Ends the hold of exactly this owner, and tells its process.
create or replace function {schema}.revoke_1(k text, whose text) returns boolean language plpgsql as $f$
declare
  told text;
begin
  perform {schema}.begin_1();
  select r.channel into told from {schema}.lease r
    where r.key = k and r.owner = whose and r.expires_at > clock_timestamp() for no key update;
  if not found then
    return false;
  end if;
  perform {schema}.free_1(k, whose), pg_notify(told, 'lost ' || whose);
  return true;
end $f$;

create or replace function {schema}.inspect_1(k text)
returns table (owner text, token bigint, remaining double precision, waiting text[]) language plpgsql as $f$
declare
  moment timestamptz := clock_timestamp();
begin
  if pg_is_in_recovery() then
    raise exception using errcode = '25006', message = 'a standby may be behind';
  end if;
  select r.owner, r.token, extract(epoch from r.expires_at - moment) * 1000 into owner, token, remaining
    from {schema}.lease r where r.key = k and r.owner is not null and r.expires_at > moment;
  select coalesce(array_agg(w.owner order by w.ticket, w.owner), '{}') into waiting
    from {schema}.waiter w where w.key = k and w.alive_until > moment;
  return next;
end $f$;

-- Fails where locks cannot be taken now.
create or replace function {schema}.ping_1() returns void language plpgsql as $f$
begin
  perform {schema}.begin_1();
  perform from {schema}.lease where false for update;
end $f$;

-- Deletes what was idle for a day among "most" keys after this one; answers the last of them, or null at the end.
create or replace function {schema}.sweep_1(after text, most integer) returns text language plpgsql as $f$
declare
  last text;
  old constant timestamptz := clock_timestamp() - interval '1 day';
begin
  perform {schema}.begin_1(), set_config('synchronous_commit', 'off', true);
  if not pg_try_advisory_xact_lock(hashtextextended('dlock sweep ' || {name}, 0)) then
    return after;
  end if;
  select max(page.key) into last
    from (select r.key from {schema}.lease r where r.key > after order by r.key limit most) page;
  delete from {schema}.waiter w using {schema}.lease r
    where r.key > after and r.key <= last and r.expires_at < old and w.key = r.key and w.alive_until < old;
  with idle as (
    select r.key from {schema}.lease r
    where r.key > after and r.key <= last and r.expires_at < old and (r.void_until is null or r.void_until < old)
      and not exists (select from {schema}.waiter w where w.key = r.key)
    for update skip locked
  )
  delete from {schema}.lease r using idle where r.key = idle.key;
  delete from {schema}.void v where v.until < clock_timestamp() - interval '1 minute';
  return last;
end $f$;
`

const text = `do $dlock$ begin
perform pg_advisory_xact_lock(hashtextextended('dlock schema ' || {name}, 0));
${tables}${helpers}${requests}${verbs}
end $dlock$`

/** The names of all functions, by which a schema of an older version is known. */
export const functions: ReadonlyArray<string> = [...text.matchAll(/function \{schema\}\.(\w+)/g)].map(([, name = ""]) =>
  name
)

/** Creates what is missing. One statement, so one transaction; layers that start at once take turns. */
export const create = (name: string): string =>
  text.replaceAll(/\{(schema|name)\}/g, (_, kind) => kind === "schema" ? identifier(name) : literal(name))
