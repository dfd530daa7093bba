-- The database knows more of these keys than their ledgers may say: they are to be seeded anew before the next call.
-- KEYS  months' ledgers   Back: how many
for _, month in ipairs(KEYS) do
  redis.call('HDEL', month, 'seeded')
  redis.call('HINCRBY', month, 'doubts', 1) -- for who has just asked the database and has not written it down yet
  redis.call('EXPIRE', month, 40 * 86400)
end
return #KEYS
