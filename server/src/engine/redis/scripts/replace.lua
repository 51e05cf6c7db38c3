#!lua
-- Replaces a record if it is as expected, and announces it.
-- KEYS: records, expiries, newest revision, channel.
-- ARGV: key, expected revision, '1' with a value or '0' without, value, ttl in ms or '0'.
local time = redis.call('TIME')
local micros = time[1] * 1000000 + time[2]
local millis = math.floor(micros / 1000)
local held = redis.call('HGET', KEYS[1], ARGV[1])
local current, old_expiry = '0', '0'
if held then
  local revision, expiry = string.match(held, '^(%d+) (%d+) ')
  old_expiry = expiry
  if expiry == '0' or tonumber(expiry) > millis then current = revision end
end
if current ~= ARGV[2] then return false end
local last = redis.call('GET', KEYS[3]) or '0'
-- A revision is a time, so that none is given twice when writes were lost.
local revision = string.format('%.0f', math.max(tonumber(last) + 1, micros))
redis.call('SET', KEYS[3], revision)
local expiry = '0'
if ARGV[3] == '1' then
  if ARGV[5] ~= '0' then expiry = string.format('%.0f', millis + tonumber(ARGV[5])) end
  redis.call('HSET', KEYS[1], ARGV[1], revision .. ' ' .. expiry .. ' ' .. ARGV[4])
else
  redis.call('HDEL', KEYS[1], ARGV[1])
end
if expiry ~= '0' then
  redis.call('ZADD', KEYS[2], expiry, ARGV[1])
elseif old_expiry ~= '0' then
  redis.call('ZREM', KEYS[2], ARGV[1])
end
redis.call('SPUBLISH', KEYS[4], last .. ' ' .. revision .. ' ' .. expiry .. ' ' .. ARGV[3] .. ' ' .. #ARGV[1] .. '\n' .. ARGV[1] .. ARGV[4])
return revision
