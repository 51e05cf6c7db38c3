#!lua flags=allow-oom
-- The end of a log, which is made when there is none. It is forgotten when nothing is appended.
-- KEYS: meta, log, state, its index, its ends. ARGV: epoch of a new log, how long it is kept without events (ms).
local meta = redis.call('HMGET', KEYS[1], 'e', 'h', 't')
if meta[1] then return meta end
redis.call('UNLINK', KEYS[2], KEYS[3], KEYS[4], KEYS[5])
redis.call('HSET', KEYS[1], 'e', ARGV[1], 'h', '0', 't', '0000000000000000', 'c', '0')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {ARGV[1], '0', '0000000000000000'}
