-- Sets when a user of a shard was last added. Done twice, it leaves the same.
--
-- KEYS       1 shard
-- ARGV       1 the time
-- Answer     done; or fenced FENCE

local now = redis.call('HMGET', KEYS[1], 'closed', 'fence')
if now[1] and now[1] ~= '' then
  return {'fenced', now[2]}
end

redis.call('HSET', KEYS[1], 'users_changed', ARGV[1])
return {'done'}
