-- Events that `fanfare subscribe --out` stores. Made only when they are missing: a role without the
-- right to create tables can use tables that another one has made.
DO $$
BEGIN
  IF to_regclass('fanfare_gaps') IS NOT NULL THEN
    RETURN;
  END IF;
  CREATE TABLE IF NOT EXISTS fanfare_events (
    tenant   text NOT NULL,
    -- The cursor just after the event.
    id       text NOT NULL,
    seq      bigint NOT NULL,
    -- The full name of the type, e.g. messenger.v1.NewMessage, and the name that browsers know.
    type     text NOT NULL,
    name     text,
    rooms    text[] NOT NULL,
    time     timestamptz NOT NULL,
    sender   text NOT NULL,
    payload  jsonb,
    -- Instead of the payload, where no loaded catalog has the type.
    protobuf bytea,
    PRIMARY KEY (tenant, id)
  );
  CREATE INDEX IF NOT EXISTS fanfare_events_time ON fanfare_events (tenant, time);
  CREATE TABLE IF NOT EXISTS fanfare_cursors (
    sink       text PRIMARY KEY,
    cursor     text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
  );
  -- Where the log did not reach back to the cursor: events between the two may be missing.
  CREATE TABLE IF NOT EXISTS fanfare_gaps (
    sink   text NOT NULL,
    after  text NOT NULL,
    cursor text NOT NULL,
    at     timestamptz NOT NULL DEFAULT now()
  );
END $$;
