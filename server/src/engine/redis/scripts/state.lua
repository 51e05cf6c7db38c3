#!lua flags=no-writes
-- Entries of the state of a room that have not ended, by key.
-- KEYS: meta, state, index. ARGV: the first field and the end of the room's fields as ZRANGEBYLEX has
-- them, entries, bytes. Gives the end of the log, the last field of the page when more may follow
-- (else ''), then field and entry in turn.
local meta = redis.call('HMGET', KEYS[1], 'e', 'h', 't')
if not meta[1] then return {'none'} end
local time = redis.call('TIME')
local millis = time[1] * 1000 + math.floor(time[2] / 1000)
local entries_max, bytes_max, bytes = tonumber(ARGV[3]), tonumber(ARGV[4]), 0
local answer = {'entries', meta[1], meta[2], meta[3], ''}
local fields = redis.call('ZRANGEBYLEX', KEYS[3], ARGV[1], ARGV[2], 'LIMIT', 0, entries_max)
for i, field in ipairs(fields) do
  local entry = redis.call('HGET', KEYS[2], field)
  if entry then
    local ends = tonumber(string.match(entry, '^%d+ %x+ (%d+) '))
    if ends == 0 or ends > millis then
      answer[#answer + 1] = field
      answer[#answer + 1] = entry
      bytes = bytes + #entry
    end
  end
  if bytes >= bytes_max or i == entries_max then
    answer[5] = field
    break
  end
end
return answer
