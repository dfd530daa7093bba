-- Brings a key's ledgers up to what the database knows. What they say already is never lowered: it may be newer.
-- KEYS  1 the day's ledger   2 the month's
-- ARGV  1 the server run   2 how many values are of the day   3... field and value by turns, the day's first
local function raise(key, field, value)
  local known = redis.call('HGET', key, field)
  if not known or tonumber(known) < tonumber(value) then redis.call('HSET', key, field, value) end
end
local of_day = tonumber(ARGV[2])
for i = 3, #ARGV, 2 do
  raise(i - 3 < of_day and KEYS[1] or KEYS[2], ARGV[i], ARGV[i + 1])
end
redis.call('HSET', KEYS[2], 'seeded', ARGV[1] .. ':' .. redis.call('HINCRBY', KEYS[2], 'generation', 1))
redis.call('EXPIRE', KEYS[1], 3 * 86400)
redis.call('EXPIRE', KEYS[2], 40 * 86400)
return 1
