-- The outbox of Fanfare. A transaction inserts a row beside its own changes; `fanfare relay`
-- publishes the row as an event and deletes it. PostgreSQL 14 or later.

CREATE TABLE IF NOT EXISTS {table} (
  -- Set by the database; rows of one tenant and key are published in this order.
  position        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  -- The idempotency key: a row that is published again is the same event.
  id              uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE,
  -- Empty: the tenant of the relay's token.
  tenant          text NOT NULL DEFAULT '',
  -- Rows with the same tenant and key keep their order, e.g. 'chat:7'.
  key             text NOT NULL DEFAULT '',
  -- The event: its full name (messenger.v1.NewMessage), or its browser name where only one catalog has it.
  type            text NOT NULL,
  -- The event as browsers see it, or as protobuf bytes: one of the two.
  payload         jsonb,
  protobuf        bytea,
  -- Exactly these rooms, instead of those that the event declares.
  rooms           text[] NOT NULL DEFAULT '{}',
  -- Sessions that do not get the event.
  except_sessions text[] NOT NULL DEFAULT '{}',
  created_at      timestamptz NOT NULL DEFAULT now(),
  -- Each relay owns some of the partitions.
  partition       smallint NOT NULL GENERATED ALWAYS AS
                    ((hashtextextended(tenant || ' ' || key, 0) & {partition_mask})::smallint) STORED,
  CHECK (num_nonnulls(payload, protobuf) = 1)
);
CREATE INDEX IF NOT EXISTS {index} ON {table} (partition, position);

-- Rows come and go: vacuum often, by the number of rows and not by their share.
ALTER TABLE {table} SET (
  autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_delay = 0
);

-- Rows that Fanfare refuses for good, with the reason.
CREATE TABLE IF NOT EXISTS {refused} (
  position        bigint PRIMARY KEY,
  id              uuid NOT NULL,
  tenant          text NOT NULL,
  key             text NOT NULL,
  type            text NOT NULL,
  payload         jsonb,
  protobuf        bytea,
  rooms           text[] NOT NULL,
  except_sessions text[] NOT NULL,
  created_at      timestamptz NOT NULL,
  reason          text NOT NULL,
  refused_at      timestamptz NOT NULL DEFAULT now()
);

-- Wakes the relays when a transaction with new rows commits. Without it they look once per poll interval.
CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('{channel}', '');
  RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER {trigger} AFTER INSERT ON {table}
  FOR EACH STATEMENT EXECUTE FUNCTION {function}();
