-- Removes what was set aside.
--
-- KEYS       6 what was set aside  7 bytes
-- ARGV       5 its name  6 its number
-- Answer     empty

local entry = redis.call('HGET', ARCHIVES, ARGV[5])
if not entry or parts_of(entry) ~= ARGV[6] then
  return {'missing'}
end

redis.call('HDEL', ARCHIVES, ARGV[5])
redis.call('UNLINK', KEYS[7])
forget(ARGV[6])
user.changed = now
return done('', {'aside ' .. ARGV[5]})
