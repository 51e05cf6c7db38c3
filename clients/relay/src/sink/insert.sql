INSERT INTO fanfare_events (tenant, id, seq, type, name, rooms, time, sender, payload, protobuf)
SELECT tenant, id, seq, type, name, ARRAY(SELECT jsonb_array_elements_text(rooms)), time, sender, payload,
  decode(protobuf, 'base64')
FROM jsonb_to_recordset($1::text::jsonb) AS event (
  tenant text, id text, seq bigint, type text, name text, rooms jsonb, time timestamptz, sender text,
  payload jsonb, protobuf text
)
-- Two sinks of one database may overlap.
ON CONFLICT (tenant, id) DO NOTHING
