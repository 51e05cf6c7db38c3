#!lua flags=no-writes
-- Frames of a log after a cursor, as far as the bounds allow.
-- KEYS: meta, log. ARGV: seq, tag and epoch of the cursor, events, bytes, frames.
local meta = redis.call('HMGET', KEYS[1], 'e', 'h', 't')
if not meta[1] then return {'none'} end
local refusal = {'reset', meta[1], meta[2], meta[3]}
local after, head = tonumber(ARGV[1]), tonumber(meta[2])
if meta[1] ~= ARGV[3] or after > head then return refusal end
local answer = {'frames', meta[1], meta[2], meta[3]}
if after == head then
  if ARGV[2] ~= meta[3] then return refusal end
  return answer
end
local from, expected, previous = '-', after + 1, ARGV[2]
if after > 0 then
  local holder = redis.call('XREVRANGE', KEYS[2], ARGV[1] .. '-0', '-', 'COUNT', 1)[1]
  if holder then
    local first, count = tonumber(string.match(holder[1], '^%d+')), tonumber(holder[2][6])
    if holder[2][2] ~= ARGV[2] or first + count - 1 < after then return refusal end
    if first + count - 1 > after then
      from, expected, previous = holder[1], first, holder[2][4]
    else
      from = '(' .. holder[1]
    end
  end
end
local events, bytes, events_max, bytes_max = 0, 0, tonumber(ARGV[4]), tonumber(ARGV[5])
local frames, frames_max, largest, count_max = 0, tonumber(ARGV[6]), 1, 1
local count, page
repeat
  -- The size of the next frames is not known: few at first, and then as many as may fit.
  count = math.max(1, math.min(count_max, math.floor((bytes_max - bytes) / largest)))
  page = redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', count)
  for _, entry in ipairs(page) do
    local id, fields = string.match(entry[1], '^%d+'), entry[2]
    local first = tonumber(id)
    if first ~= expected or fields[4] ~= previous then
      if #answer == 4 then return refusal end
      return answer
    end
    local count, size = tonumber(fields[6]), #fields[12]
    answer[#answer + 1] = {id, fields[6], fields[2], fields[4], fields[12]}
    events, bytes, expected, previous = events + count, bytes + size, first + count, fields[2]
    frames, largest = frames + 1, math.max(largest, size)
    from = '(' .. entry[1]
  end
  count_max = math.min(8, count_max * 2)
until #page < count or events >= events_max or bytes >= bytes_max or frames >= frames_max
if #answer == 4 then return refusal end
return answer
