#!lua flags=allow-oom
-- Removes the oldest frames of a log that exceed a bound: a slice of them.
-- KEYS: meta, log. ARGV: events, bytes, milliseconds, how long a log without events is kept (ms),
-- bytes of a slice. Gives 1 when there may be more to remove, and 2 when the log has no events and
-- is to be forgotten.
local meta = redis.call('HMGET', KEYS[1], 'h', 'c')
if not meta[1] then return 0 end
local function forget()
  if redis.call('PTTL', KEYS[1]) == -1 then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
  return 2
end
local head, cost = tonumber(meta[1]), tonumber(meta[2])
local time = redis.call('TIME')
local oldest = time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(ARGV[3])
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
