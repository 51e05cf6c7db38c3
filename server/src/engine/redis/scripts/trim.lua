#!lua flags=allow-oom
-- Removes the oldest frames of a log that exceed a bound, and entries of the state that have ended: a
-- slice of them. KEYS: meta, log, state, its index, its ends. ARGV: events, bytes, milliseconds, how long a log without events is kept (ms),
-- bytes of a slice. Gives 1 when there may be more to remove, and 2 when the log has no events and
-- no state, and is to be forgotten.
local meta = redis.call('HMGET', KEYS[1], 'h', 'c')
if not meta[1] then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ended = redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', string.format('%.0f', now), 'LIMIT', 0, 64)
for _, field in ipairs(ended) do
  local entry = redis.call('HGET', KEYS[3], field)
  if entry then
    local cost = tonumber(string.match(entry, '^%d+ %x+ %d+ (%d+) '))
    local left = tonumber(redis.call('HGET', KEYS[1], 's') or '0') - cost
    redis.call('HSET', KEYS[1], 's', string.format('%.0f', left))
    redis.call('HDEL', KEYS[3], field)
  end
  redis.call('ZREM', KEYS[4], field)
  redis.call('ZREM', KEYS[5], field)
end
local function forget()
  if redis.call('ZRANGEBYSCORE', KEYS[4], '0', '0', 'LIMIT', 0, 1)[1] then return 0 end
  if redis.call('PTTL', KEYS[1]) == -1 then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
  return 2
end
local head, cost = tonumber(meta[1]), tonumber(meta[2])
local oldest = now - tonumber(ARGV[3])
local events_max, bytes_max = tonumber(ARGV[1]), tonumber(ARGV[2])
local from, read, keep, largest, count_max = '-', 0, nil, 1, 1
local slice_max, is_end = tonumber(ARGV[5]), false
for _ = 1, 12 do
  local count = math.max(1, math.min(count_max, math.floor((slice_max - read) / largest)))
  local page = redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', count)
  for _, entry in ipairs(page) do
    local fields = entry[2]
    local first, count = tonumber(string.match(entry[1], '^%d+')), tonumber(fields[6])
    local is_outside = head - (first + count - 1) >= events_max or tonumber(fields[8]) < oldest
    if not is_outside and cost - tonumber(fields[10]) <= bytes_max then
      if keep then redis.call('XTRIM', KEYS[2], 'MINID', entry[1]) end
      return 0
    end
    largest = math.max(largest, #fields[12])
    read, keep, from = read + #fields[12], first + count, '(' .. entry[1]
  end
  count_max = math.min(8, count_max * 2)
  is_end = #page < count
  if is_end or read >= slice_max then break end
end
if not keep then return forget() end
redis.call('XTRIM', KEYS[2], 'MINID', string.format('%.0f-0', keep))
if is_end then return forget() end
return 1
