#!lua
-- Appends a frame to a log and announces it.
-- KEYS: meta, log, channel, last batch of this server, then one key per idempotency key.
-- ARGV: tag, events to store, their body, announced body ('' when it is the same), epoch of a new
-- log, server, cost in bytes, how long the batch and the idempotency keys are remembered (ms), the
-- number of the batch, then per idempotency key its place in the frame ('' for an ephemeral event)
-- and what follows its id.
-- The numbers of a server's batches rise: a lower one is a late copy, which nobody waits for.
local tag, number = ARGV[1], tonumber(ARGV[10])
local last = redis.call('GET', KEYS[4])
if last then
  local last_number, last_answer = string.match(last, '^(%d+) (.*)$')
  if tonumber(last_number) == number then return {'appended', last_answer} end
  if tonumber(last_number) > number then return {'late', last_number} end
end
local first_answers, is_known = {}, false
-- unpack takes no more than 8000.
for from = 5, #KEYS, 1000 do
  local page = redis.call('MGET', unpack(KEYS, from, math.min(from + 999, #KEYS)))
  for i = 1, #page do
    first_answers[#first_answers + 1] = page[i]
    if page[i] then is_known = true end
  end
end
if is_known then return {'known', first_answers} end
local meta = redis.call('HMGET', KEYS[1], 'e', 'h', 't', 'c')
local epoch, head, previous, cost = meta[1], tonumber(meta[2] or '0'), meta[3] or '0000000000000000', meta[4] or '0'
local is_new = '0'
if not epoch then
  -- History was lost, or there was none.
  is_new, epoch, head, previous, cost = '1', ARGV[5], 0, '0000000000000000', '0'
  redis.call('UNLINK', KEYS[2])
end
local count = tonumber(ARGV[2])
local first = string.format('%.0f', head + 1)
if count > 0 then
  local time = redis.call('TIME')
  local millis = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
  redis.call('XADD', KEYS[2], first .. '-0', 't', tag, 'p', previous, 'n', ARGV[2], 'm', millis, 'c', cost, 'b', ARGV[3])
  redis.call('HSET', KEYS[1], 'e', epoch, 'h', string.format('%.0f', head + count), 't', tag,
    'c', string.format('%.0f', tonumber(cost) + tonumber(ARGV[7])))
elseif is_new == '1' then
  redis.call('HSET', KEYS[1], 'e', epoch, 'h', '0', 't', previous, 'c', '0')
end
-- It was to be forgotten, and the index may not have it.
if redis.call('PERSIST', KEYS[1]) == 1 then is_new = '1' end
for i = 5, #KEYS do
  local place, rest = ARGV[2 * i + 1], ARGV[2 * i + 2]
  if place ~= '' then
    rest = epoch .. '-' .. string.format('%.0f', head + 1 + tonumber(place)) .. '-' .. tag .. rest
  end
  redis.call('SET', KEYS[i], rest, 'PX', ARGV[9])
end
local answer = epoch .. ' ' .. first .. ' ' .. previous .. ' ' .. is_new
redis.call('SET', KEYS[4], ARGV[10] .. ' ' .. answer, 'PX', ARGV[8])
local body = ARGV[4]
if body == '' then body = ARGV[3] end
redis.call('SPUBLISH', KEYS[3], epoch .. ' ' .. first .. ' ' .. ARGV[2] .. ' ' .. tag .. ' ' .. previous .. ' ' .. ARGV[6] .. '\n' .. body)
return {'appended', answer}
