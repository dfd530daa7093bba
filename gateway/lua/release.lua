-- Lets go of what a gateway that is gone holds of one key. What its calls took stands in the database, so that the
-- month's ledger is to be seeded anew.
-- KEYS  1 holds   ARGV  1 the gateway   Back: how many holds
local released = 0
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  local gateway, tokens, unit, money, day, month =
    string.match(fields[i + 1], '^(.-)|.-|(.-)|(.-)|(.-)|(.-)|(.*)$')
  if gateway == ARGV[1] then
    redis.call('HDEL', KEYS[1], fields[i])
    for _, ledger in ipairs({ day, month }) do
      if redis.call('EXISTS', ledger) == 1 then
        if tokens ~= '0' then redis.call('HINCRBY', ledger, 'h:tokens', '-' .. tokens) end
        if unit ~= '' then redis.call('HINCRBY', ledger, 'h:' .. unit, '-' .. money) end
      end
    end
    redis.call('HDEL', month, 'seeded')
    released = released + 1
  end
end
return released
