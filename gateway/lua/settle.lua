-- Lets go of holds and writes down what was spent: a batch of one gateway, at most once, whatever was sent again.
--
-- KEYS  1 the gateway's last batch
-- ARGV  1 the batch's number   2... of each entry, eleven values:
--       window key, holds key, day's ledger ('' where it is not the present one), month's ledger,
--       hold id ('' without a hold), the hold's second ('' unknown), tokens held,
--       tokens spent, unpriced calls, money as 'held currency|nano|spent currency|nano' (either pair empty),
--       what the ledgers were seeded as when it was held, or the server run alone: seeded otherwise since, they have
--       it from the database
local ENTRY, KEPT_S, DAY_KEPT_S, MONTH_KEPT_S = 11, 2 * 86400, 3 * 86400, 40 * 86400
local batch = tonumber(ARGV[1])
if tonumber(redis.call('GET', KEYS[1]) or 0) >= batch then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', KEPT_S)

local function add(key, field, amount)
  if amount ~= '' and tonumber(amount) ~= 0 then redis.pcall('HINCRBY', key, field, amount) end
end

local function negative(amount)
  return string.sub(amount, 1, 1) == '-' and string.sub(amount, 2) or '-' .. amount
end

local done = 0
for i = 2, #ARGV, ENTRY do
  local window, holds, hold, second, held = ARGV[i], ARGV[i + 1], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6]
  local spent, unpriced = ARGV[i + 7], ARGV[i + 8]
  local held_unit, held_money, spent_unit, spent_money = string.match(ARGV[i + 9], '^(.-)|(.-)|(.-)|(.*)$')
  local facts = hold ~= '' and redis.call('HGET', holds, hold)
  local was_held = facts and true or false
  if was_held then
    redis.call('HDEL', holds, hold)
    if second == '' then second = string.match(facts, '^[^|]*|(.-)|') end
  end
  local seeded, stamp = redis.call('HGET', ARGV[i + 3], 'seeded') or '', ARGV[i + 10]
  local is_known = redis.call('EXISTS', ARGV[i + 3]) == 1 -- else the database tells all of it when the key calls next
  local is_new = seeded == stamp or string.match(seeded, '^(.*):%d+$') == stamp
  for _, ledger in ipairs({ ARGV[i + 2], ARGV[i + 3] }) do
    if ledger ~= '' and is_known then
      if was_held then
        if held ~= '0' then add(ledger, 'h:tokens', negative(held)) end
        if held_unit ~= '' then add(ledger, 'h:' .. held_unit, negative(held_money)) end
      end
      if is_new then
        add(ledger, 's:tokens', spent)
        if spent_unit ~= '' then add(ledger, 's:' .. spent_unit, spent_money) end
        add(ledger, 'unpriced', unpriced)
      end
      redis.call('EXPIRE', ledger, ledger == ARGV[i + 3] and MONTH_KEPT_S or DAY_KEPT_S)
    end
  end
  if hold ~= '' and second ~= '' and redis.call('HEXISTS', window, 't' .. second) == 1 then
    add(window, 't' .. second, string.format('%.0f', tonumber(spent) - tonumber(held)))
  end
  done = done + 1
end
return done
