#!lua
-- Appends a frame to a log and announces it.
-- KEYS: meta, log, channel, last batch of this server, state, its index, its ends, then one key per
-- idempotency key.
-- ARGV: tag, events to store, their body, announced body ('' when it is the same), epoch of a new
-- log, server, cost in bytes, how long the batch and the idempotency keys are remembered (ms), the
-- number of the batch, entries and bytes that the state may have, changes of the state, then per
-- idempotency key its place in the frame ('' for an ephemeral event) and what follows its id, then
-- per change room and key, slot, place in the frame, expected revision ('' for any), end in ms ('0'
-- for none, '-' for a removal), cost, event.
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
for from = 8, #KEYS, 1000 do
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
  redis.call('UNLINK', KEYS[2], KEYS[5], KEYS[6], KEYS[7])
end
local changes, changes_from = tonumber(ARGV[13]), 14 + 2 * (#KEYS - 7)
local entries, state_bytes, made = 0, 0, {}
if changes > 0 then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  entries = redis.call('HLEN', KEYS[5])
  state_bytes = tonumber(redis.call('HGET', KEYS[1], 's') or '0')
  for i = 0, changes - 1 do
    local at = changes_from + 7 * i
    local field, expected, ends = ARGV[at], ARGV[at + 3], ARGV[at + 4]
    local held = made[field]
    if not held then
      local entry = redis.call('HGET', KEYS[5], field)
      held = {revision = '0', cost = 0, is_there = false}
      if entry then
        local seq, over, cost = string.match(entry, '^(%d+) %x+ (%d+) (%d+) ')
        held = {revision = seq, cost = tonumber(cost), is_there = true}
        if over ~= '0' and tonumber(over) <= now then held.revision = '0' end
      end
    end
    if expected ~= '' and expected ~= held.revision then
      return {'refused', ARGV[at + 1], 'revision', held.revision}
    end
    local new = {revision = '0', cost = 0, is_there = false}
    if ends ~= '-' then
      local seq = string.format('%.0f', head + 1 + tonumber(ARGV[at + 2]))
      new = {revision = seq, cost = tonumber(ARGV[at + 5]), is_there = true}
    end
    if new.is_there and not held.is_there then
      entries = entries + 1
      if entries > tonumber(ARGV[11]) then return {'refused', ARGV[at + 1], 'entries', '0'} end
    elseif held.is_there and not new.is_there then
      entries = entries - 1
    end
    state_bytes = state_bytes + new.cost - held.cost
    if new.cost > held.cost and state_bytes > tonumber(ARGV[12]) then
      return {'refused', ARGV[at + 1], 'bytes', '0'}
    end
    made[field] = new
  end
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
for i = 0, changes - 1 do
  local at = changes_from + 7 * i
  local field, ends = ARGV[at], ARGV[at + 4]
  if ends == '-' then
    redis.call('HDEL', KEYS[5], field)
    redis.call('ZREM', KEYS[6], field)
    redis.call('ZREM', KEYS[7], field)
  else
    local seq = string.format('%.0f', head + 1 + tonumber(ARGV[at + 2]))
    redis.call('HSET', KEYS[5], field, seq .. ' ' .. tag .. ' ' .. ends .. ' ' .. ARGV[at + 5] .. ' ' .. ARGV[at + 6])
    redis.call('ZADD', KEYS[6], 0, field)
    if ends == '0' then
      redis.call('ZREM', KEYS[7], field)
    else
      redis.call('ZADD', KEYS[7], ends, field)
    end
  end
end
if changes > 0 then redis.call('HSET', KEYS[1], 's', string.format('%.0f', state_bytes)) end
for i = 8, #KEYS do
  local place, rest = ARGV[2 * i - 2], ARGV[2 * i - 1]
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
