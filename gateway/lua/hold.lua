-- One call's hold of its key's limits, or why it may not be held: `Account.refusal` and `Account.hold` of
-- gateway/domain/limits.py, in one step for all gateways. Redis's own clock counts seconds.
--
-- KEYS  1 window: fields r<second>, t<second>   2 holds: id -> gateway|second|tokens|currency|nano|day|month
--        3 the day's ledger   4 the month's
--       A ledger's fields: s:<unit> spent, h:<unit> held, unpriced, seeded: the server run in which it was.
-- ARGV  1 now in seconds, '' for Redis's clock   2 hold | look | count   3 the server run that ledgers must be seeded in
--       4 hold id   5 the gateway that holds
--       6 requests   7 at once   8 tokens, all requests together   9 currency or ''   10 nano-units of it
--       11 requests a minute or ''   12 tokens a minute or ''   13 at a time or ''
--       14... of each budget in the order in which they are looked at: d | m, unit, amount, wanted
-- Back: { what came of it, which budget, its spent amount, seconds to wait,
--         requests of the minute, seconds until it is empty, tokens of the minute, seconds until it is empty, second }
local WINDOW, SLOTS = 60, 61
local MOST_HELD = 2 ^ 62
local DAY_KEPT_S, MONTH_KEPT_S, HOLDS_KEPT_S, WINDOW_KEPT_S = 3 * 86400, 40 * 86400, 2 * 86400, 120

local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1000000
end
local second, mode = math.floor(now), ARGV[2]

if mode ~= 'count' then
  for _, ledger in ipairs({ KEYS[3], KEYS[4] }) do
    if redis.call('HGET', ledger, 'seeded') ~= ARGV[3] then return { 'unseeded' } end
  end
end

local requests, tokens = {}, {}
local request_total, token_total, old = 0, 0, {}
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  local slot, amount = tonumber(string.sub(fields[i], 2)), tonumber(fields[i + 1])
  if slot < second - WINDOW then
    old[#old + 1] = fields[i]
  elseif string.sub(fields[i], 1, 1) == 'r' then
    requests[slot] = amount
    request_total = request_total + amount
  else
    tokens[slot] = amount
    token_total = token_total + amount
  end
end
if #old > 0 then redis.call('HDEL', KEYS[1], unpack(old)) end

local function sorted(slots)
  local order = {}
  for slot, amount in pairs(slots) do
    if amount ~= 0 then order[#order + 1] = slot end
  end
  table.sort(order)
  return order
end

local function wait(slots, excess)
  local freed = 0
  for _, slot in ipairs(sorted(slots)) do
    freed = freed + slots[slot]
    if freed >= excess then return slot + SLOTS - now end
  end
  return second + SLOTS - now
end

local function reset(slots)
  local order = sorted(slots)
  return #order > 0 and order[#order] + SLOTS - now or 0
end

local function answer(what, waited, budget, spent)
  return {
    what, budget or 0, spent or '0', string.format('%.6f', waited or 0),
    string.format('%.0f', request_total), string.format('%.6f', reset(requests)),
    string.format('%.0f', token_total), string.format('%.6f', reset(tokens)), second,
  }
end

local count, at_once, wanted_tokens = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local requests_per_min, tokens_per_min, concurrent = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])

if mode ~= 'count' then
  local budget = 0
  for i = 14, #ARGV, 4 do
    budget = budget + 1
    local ledger = ARGV[i] == 'd' and KEYS[3] or KEYS[4]
    local spent = redis.call('HGET', ledger, 's:' .. ARGV[i + 1]) or '0'
    local held = tonumber(redis.call('HGET', ledger, 'h:' .. ARGV[i + 1]) or 0)
    local left, wanted = tonumber(ARGV[i + 2]) - tonumber(spent), tonumber(ARGV[i + 3])
    if not (left > 0 and wanted + held <= left) then
      if left > 0 and wanted <= left then return answer('reserved', 1, budget, spent) end
      return answer('budget', 0, budget, spent)
    end
  end
  if tokens_per_min then
    local excess = token_total + wanted_tokens - tokens_per_min
    if excess > 0 then
      if wanted_tokens > tokens_per_min then return answer('too_large') end
      return answer('tokens', wait(tokens, excess))
    end
  end
end
if requests_per_min then
  local excess = request_total + count - requests_per_min
  if excess > 0 then
    if count > requests_per_min then return answer('too_many') end
    return answer('requests', wait(requests, excess))
  end
end
if mode ~= 'count' and concurrent and redis.call('HLEN', KEYS[2]) + at_once > concurrent then
  return answer(at_once > concurrent and 'too_many' or 'concurrent', 1)
end
if mode == 'look' then return answer('') end

requests[second] = (requests[second] or 0) + count
request_total = request_total + count
redis.call('HINCRBY', KEYS[1], 'r' .. second, count)
redis.call('EXPIRE', KEYS[1], WINDOW_KEPT_S)
if mode == 'count' then return answer('') end

tokens[second] = (tokens[second] or 0) + wanted_tokens
token_total = token_total + wanted_tokens
redis.call('HINCRBY', KEYS[1], 't' .. second, ARGV[8]) -- nothing too: what the call takes beyond it counts there
-- What no budget is large enough for is held as nothing: the sums must stay numbers that Redis can add to.
local function that_fits(field, amount)
  for _, ledger in ipairs({ KEYS[3], KEYS[4] }) do
    if tonumber(redis.call('HGET', ledger, field) or 0) + tonumber(amount) > MOST_HELD then return '0' end
  end
  return amount
end
local held_tokens = that_fits('h:tokens', ARGV[8])
local held_money = ARGV[9] ~= '' and that_fits('h:' .. ARGV[9], ARGV[10]) or '0'
local facts = table.concat({ ARGV[5], second, held_tokens, ARGV[9], held_money, KEYS[3], KEYS[4] }, '|')
redis.call('HSET', KEYS[2], ARGV[4], facts)
redis.call('EXPIRE', KEYS[2], HOLDS_KEPT_S)
for _, ledger in ipairs({ KEYS[3], KEYS[4] }) do
  redis.call('HINCRBY', ledger, 'h:tokens', held_tokens)
  if ARGV[9] ~= '' then redis.call('HINCRBY', ledger, 'h:' .. ARGV[9], held_money) end
end
redis.call('EXPIRE', KEYS[3], DAY_KEPT_S)
redis.call('EXPIRE', KEYS[4], MONTH_KEPT_S)
return answer('')
