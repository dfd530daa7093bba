-- Sets a key's ledgers to what was spent: what the database said at one moment, and what calls took whose records were
-- not in it then. What is held stays. Where another gateway was quicker nothing is changed.
-- KEYS  1 the day's ledger   2 the month's   3 unwritten: call -> tokens|unpriced|currency|nano|day|month, or '' where
--       ledgers have been seeded with it and its gateway has yet to tell that it is written
-- ARGV  1 the server run   2 how often the month's ledger had been doubted before the database was asked
--       3 '1': calls that came since count as not written, whatever they are
--       4 how many calls were kept before the database was asked, then each with what was kept of it
--       then how many of them the database has, and these
--       then how many values are of the day, and field and value by turns, the day's first
-- Back: 1, or 0 where the database is to be asked again, as more came meanwhile
local DAY_KEPT_S, MONTH_KEPT_S, EXACT = 3 * 86400, 40 * 86400, 2 ^ 52
local day, month, unwritten = KEYS[1], KEYS[2], KEYS[3]
if (redis.call('HGET', month, 'doubts') or '0') ~= ARGV[2] then return 0 end
if redis.call('HGET', day, 'seeded') == ARGV[1] and redis.call('HGET', month, 'seeded') == ARGV[1] then return 1 end

local at = 3
local function next_value()
  at = at + 1
  return ARGV[at]
end

-- What was kept then, and not what is kept now: of a record that was written after the database answered, Redis may have
-- been told already.
local asked, known, calls = {}, {}, {}
for _ = 1, tonumber(next_value()) do
  local call = next_value()
  asked[call] = next_value()
end
for _ = 1, tonumber(next_value()) do known[next_value()] = true end
for _, call in ipairs(redis.call('HKEYS', unwritten)) do
  if not asked[call] then
    if ARGV[3] ~= '1' then return 0 end
    calls[#calls + 1] = redis.call('HGET', unwritten, call)
  end
end

for _, ledger in ipairs({ day, month }) do
  for _, field in ipairs(redis.call('HKEYS', ledger)) do
    if string.sub(field, 1, 2) == 's:' or field == 'unpriced' then redis.call('HDEL', ledger, field) end
  end
end
local of_day = tonumber(next_value())
local first = at
while at < #ARGV do
  local ledger = at - first < of_day and day or month
  local field = next_value()
  redis.call('HSET', ledger, field, next_value())
end

for call, facts in pairs(asked) do
  if not known[call] then
    calls[#calls + 1] = facts
  elseif redis.call('HEXISTS', unwritten, call) == 1 then
    if facts == '' then redis.call('HDEL', unwritten, call) else redis.call('HSET', unwritten, call, '') end
  end
end

-- Added up here: a step for each call would keep everybody waiting. Beyond what numbers here hold exactly, Redis adds.
local sums = { [day] = {}, [month] = {} }
local function add(ledger, field, amount)
  local number = tonumber(amount)
  local sum = (sums[ledger][field] or 0) + number
  if math.abs(number) > EXACT or math.abs(sum) > EXACT then
    redis.pcall('HINCRBY', ledger, field, amount)
  else
    sums[ledger][field] = sum
  end
end
for _, facts in ipairs(calls) do
  local tokens, unpriced, unit, money, its_day, its_month = string.match(facts, '^(.-)|(.-)|(.-)|(.-)|(.-)|(.*)$')
  if tokens then
    for ledger, is_its in pairs({ [day] = its_day == day, [month] = its_month == month }) do
      if is_its then
        add(ledger, 's:tokens', tokens)
        add(ledger, 'unpriced', unpriced)
        if unit ~= '' then add(ledger, 's:' .. unit, money) end
      end
    end
  end
end
for ledger, fields in pairs(sums) do
  for field, sum in pairs(fields) do
    if sum ~= 0 then redis.pcall('HINCRBY', ledger, field, string.format('%.0f', sum)) end
  end
end

redis.call('HSET', day, 'seeded', ARGV[1])
redis.call('HSET', month, 'seeded', ARGV[1])
redis.call('EXPIRE', day, DAY_KEPT_S)
redis.call('EXPIRE', month, MONTH_KEPT_S)
return 1
