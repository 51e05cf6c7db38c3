#!lua flags=no-writes
-- A record that has not expired: its revision and value. KEYS: records. ARGV: key.
local held = redis.call('HGET', KEYS[1], ARGV[1])
if not held then return false end
local revision, expiry, value = string.match(held, '^(%d+) (%d+) (.*)$')
local time = redis.call('TIME')
if expiry ~= '0' and tonumber(expiry) <= time[1] * 1000 + math.floor(time[2] / 1000) then return false end
return {revision, value}
