-- Sets a key's ledgers to what was spent: what the database said at one moment, and what calls took whose records were
-- not in it yet. What is held stays. Where another gateway was quicker nothing is changed.
-- KEYS  1 the day's ledger   2 the month's   3 unwritten: call -> tokens|unpriced|currency|nano|day|month
-- ARGV  1 the server run   2 how often the month's ledger had been doubted before the database was asked
--       3 '1': calls that came since count as not written, whatever they are
--       4 how many calls were not written before the database was asked, then these
--       then how many of them it has nevertheless, and these
--       then how many values are of the day, and field and value by turns, the day's first
-- Back: 1, or 0 where the database is to be asked again, as more came meanwhile
local DAY_KEPT_S, MONTH_KEPT_S = 3 * 86400, 40 * 86400
if (redis.call('HGET', KEYS[2], 'doubts') or '0') ~= ARGV[2] then return 0 end
if redis.call('HGET', KEYS[1], 'seeded') == ARGV[1] and redis.call('HGET', KEYS[2], 'seeded') == ARGV[1] then
  return 1
end

local at = 4
local function listed()
  local found, count = {}, tonumber(ARGV[at])
  for i = at + 1, at + count do found[ARGV[i]] = true end
  at = at + count + 1
  return found
end
local asked, known = listed(), listed()

local unwritten, of_call = {}, redis.call('HGETALL', KEYS[3])
for i = 1, #of_call, 2 do
  if known[of_call[i]] then
    unwritten[i] = false
  elseif asked[of_call[i]] or ARGV[3] == '1' then
    unwritten[i] = true
  else
    return 0
  end
end

for _, ledger in ipairs({ KEYS[1], KEYS[2] }) do
  local fields = redis.call('HKEYS', ledger)
  for _, field in ipairs(fields) do
    if string.sub(field, 1, 2) == 's:' or field == 'unpriced' then redis.call('HDEL', ledger, field) end
  end
end
local day_values = tonumber(ARGV[at])
for i = at + 1, #ARGV, 2 do
  redis.call('HSET', i - at - 1 < day_values and KEYS[1] or KEYS[2], ARGV[i], ARGV[i + 1])
end
for i = 1, #of_call, 2 do
  if unwritten[i] then
    local tokens, unpriced, unit, money, day, month = string.match(of_call[i + 1], '^(.-)|(.-)|(.-)|(.-)|(.-)|(.*)$')
    for ledger, is_its in pairs({ [KEYS[1]] = day == KEYS[1], [KEYS[2]] = month == KEYS[2] }) do
      if is_its then
        redis.pcall('HINCRBY', ledger, 's:tokens', tokens)
        redis.pcall('HINCRBY', ledger, 'unpriced', unpriced)
        if unit ~= '' then redis.pcall('HINCRBY', ledger, 's:' .. unit, money) end
      end
    end
  else
    redis.call('HDEL', KEYS[3], of_call[i])
  end
end
redis.call('HSET', KEYS[1], 'seeded', ARGV[1])
redis.call('HSET', KEYS[2], 'seeded', ARGV[1])
redis.call('EXPIRE', KEYS[1], DAY_KEPT_S)
redis.call('EXPIRE', KEYS[2], MONTH_KEPT_S)
return 1
