#!lua flags=allow-oom
-- Removes records that have expired, a slice of them, and announces it.
-- KEYS: records, expiries, newest revision, channel. Gives the newest revision.
local time = redis.call('TIME')
local micros = time[1] * 1000000 + time[2]
local last = redis.call('GET', KEYS[3]) or '0'
local keys = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', math.floor(micros / 1000), 'LIMIT', 0, 64)
for _, key in ipairs(keys) do
  local revision = string.format('%.0f', math.max(tonumber(last) + 1, micros))
  redis.call('HDEL', KEYS[1], key)
  redis.call('ZREM', KEYS[2], key)
  redis.call('SET', KEYS[3], revision)
  redis.call('SPUBLISH', KEYS[4], last .. ' ' .. revision .. ' 0 0 ' .. #key .. '\n' .. key)
  last = revision
end
return last
