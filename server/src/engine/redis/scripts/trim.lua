#!lua flags=allow-oom
-- Removes the oldest frames of a log that exceed a bound: a slice of them.
-- KEYS: meta, log. ARGV: events, bytes, milliseconds. Gives whether there may be more to remove.
local meta = redis.call('HMGET', KEYS[1], 'h', 'c')
if not meta[1] then return 0 end
local head, cost = tonumber(meta[1]), tonumber(meta[2])
local time = redis.call('TIME')
local oldest = time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(ARGV[3])
local events_max, bytes_max = tonumber(ARGV[1]), tonumber(ARGV[2])
local from, read, keep = '-', 0, nil
for _ = 1, 8 do
  local page = redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', 8)
  for _, entry in ipairs(page) do
    local fields = entry[2]
    local first, count = tonumber(string.match(entry[1], '^%d+')), tonumber(fields[6])
    local is_outside = head - (first + count - 1) >= events_max or tonumber(fields[8]) < oldest
    if not is_outside and cost - tonumber(fields[10]) <= bytes_max then
      if keep then redis.call('XTRIM', KEYS[2], 'MINID', entry[1]) end
      return 0
    end
    read, keep, from = read + #fields[12], first + count, '(' .. entry[1]
  end
  if #page < 8 or read > 262144 then break end
end
if not keep then return 0 end
redis.call('XTRIM', KEYS[2], 'MINID', string.format('%.0f-0', keep))
return 1
