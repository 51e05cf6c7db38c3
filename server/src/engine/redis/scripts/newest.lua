#!lua flags=no-writes
-- KEYS: expiries, newest revision. Gives the newest revision of a space, the time (ms), and whether
-- a record has expired that is still to be removed.
local time = redis.call('TIME')
local millis = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local expired = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', millis, 'LIMIT', 0, 1)
return {redis.call('GET', KEYS[2]) or '0', millis, tostring(#expired)}
