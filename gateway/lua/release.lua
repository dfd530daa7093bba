-- Lets go of what a gateway holds of one key and no longer needs, or of all of it where the gateway is gone. What the
-- calls of one that is gone took stands in the database, so that the ledgers are then to be seeded anew.
-- KEYS  1 holds
-- ARGV  1 the gateway   2 the greatest number of a hold to let go of, '' where the gateway is gone
--       3... numbers of holds that it needs (a hold's id is <gateway>.<number>)
-- Back: how many holds
local MONTH_KEPT_S = 40 * 86400
local is_gone, needed = ARGV[2] == '', {}
for i = 3, #ARGV do needed[ARGV[i]] = true end

local function let_go(ledger, field, amount)
  if tonumber(amount) ~= 0 then redis.call('HINCRBY', ledger, field, '-' .. amount) end
end

local released = 0
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  local gateway, tokens, unit, money, day, month =
    string.match(fields[i + 1], '^(.-)|.-|(.-)|(.-)|(.-)|(.-)|(.*)$')
  local number = string.match(fields[i], '%.(%d+)$')
  if gateway == ARGV[1] and (is_gone or not needed[number] and tonumber(number) <= tonumber(ARGV[2])) then
    redis.call('HDEL', KEYS[1], fields[i])
    for _, ledger in ipairs({ day, month }) do
      if redis.call('EXISTS', ledger) == 1 then
        let_go(ledger, 'h:tokens', tokens)
        if unit ~= '' then let_go(ledger, 'h:' .. unit, money) end
      end
    end
    if is_gone then
      redis.call('HDEL', month, 'seeded')
      redis.call('HINCRBY', month, 'doubts', 1)
      redis.call('EXPIRE', month, MONTH_KEPT_S)
    end
    released = released + 1
  end
end
return released
