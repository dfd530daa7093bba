-- Writes down what became of calls: a batch of one gateway, at most once, whatever was sent again.
--
-- KEYS  1 the gateway's last batch
-- ARGV  1 the batch's number   2... of each entry, fourteen values:
--       'spent' | 'written' | 'corrected', window key, holds key, unwritten key,
--       day's ledger ('' where it is not the present one), month's ledger,
--       hold id ('' without one), the hold's second ('' unknown), tokens held, call id,
--       tokens spent, unpriced calls, currency spent or '', nano-units of it
-- Back: how many entries
--
-- spent      A hold ends. What the call took counts at once, and is kept until its record is in the database, from which
--            ledgers are seeded. Without a call id it does not count: the database has it, or nothing became of it.
-- written    A call's record is in the database. Where nothing is kept of it here, ledgers may lack it: because it was
--            counted elsewhere, or Redis lost it. They are to be seeded anew. Where they were seeded with it already an
--            empty value is kept, so that this is known and it counts no second time.
-- corrected  The database has other sums of calls that it had before.
local ENTRY, KEPT_S, DAY_KEPT_S, MONTH_KEPT_S = 14, 2 * 86400, 3 * 86400, 40 * 86400
local batch = tonumber(ARGV[1])
if tonumber(redis.call('GET', KEYS[1]) or 0) >= batch then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', KEPT_S)

local function add(key, field, amount)
  if tonumber(amount) ~= 0 then redis.pcall('HINCRBY', key, field, amount) end
end

local done = 0
for i = 2, #ARGV, ENTRY do
  local what, window, holds, unwritten, day, month = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5]
  local hold, second, held, call = ARGV[i + 6], ARGV[i + 7], ARGV[i + 8], ARGV[i + 9]
  local spent, unpriced, unit, money = ARGV[i + 10], ARGV[i + 11], ARGV[i + 12], ARGV[i + 13]

  local ledgers = {}
  for _, ledger in ipairs({ day, month }) do
    if ledger ~= '' and redis.call('EXISTS', ledger) == 1 then ledgers[#ledgers + 1] = ledger end
  end
  local function count()
    for _, ledger in ipairs(ledgers) do
      add(ledger, 's:tokens', spent)
      add(ledger, 'unpriced', unpriced)
      if unit ~= '' then add(ledger, 's:' .. unit, money) end
      redis.call('EXPIRE', ledger, ledger == month and MONTH_KEPT_S or DAY_KEPT_S)
    end
  end

  if what == 'spent' then
    local facts = hold ~= '' and redis.call('HGET', holds, hold)
    if facts then
      redis.call('HDEL', holds, hold)
      local its_second, tokens, currency, amount = string.match(facts, '^.-|(.-)|(.-)|(.-)|(.-)|')
      if second == '' then second = its_second end
      for _, ledger in ipairs(ledgers) do
        add(ledger, 'h:tokens', '-' .. tokens)
        if currency ~= '' then add(ledger, 'h:' .. currency, '-' .. amount) end
      end
    end
    if call ~= '' then
      local kept = table.concat({ spent, unpriced, unit, money, day, month }, '|')
      if redis.call('HSETNX', unwritten, call, kept) == 1 then count() end
      redis.call('EXPIRE', unwritten, DAY_KEPT_S)
    end
    if hold ~= '' and second ~= '' and redis.call('HEXISTS', window, 't' .. second) == 1 then
      add(window, 't' .. second, string.format('%.0f', tonumber(spent) - tonumber(held)))
    end
  elseif what == 'corrected' then
    if redis.call('HGET', month, 'seeded') then count() end -- else the database tells it
    redis.call('HINCRBY', month, 'doubts', 1) -- not to who has asked it before
    redis.call('EXPIRE', month, MONTH_KEPT_S)
  elseif redis.call('HDEL', unwritten, call) == 0 then
    redis.call('HDEL', month, 'seeded')
    redis.call('HINCRBY', month, 'doubts', 1) -- for who has just asked the database and has not written it down yet
    redis.call('EXPIRE', month, MONTH_KEPT_S)
  end
  done = done + 1
end
return done
