-- Sets a shard's fence that is damaged, if it is still as it was seen.
--
-- KEYS       1 shard
-- ARGV       1 fence  2 closed, as they were seen (empty if not there)  3 fence  4 closed, as they shall be
-- Answer     done or changed

local now = redis.call('HMGET', KEYS[1], 'fence', 'closed')
for at = 1, 2 do
  now[at] = now[at] or ''
end
if now[1] == ARGV[3] and now[2] == ARGV[4] then
  return {'done'}
end
if now[1] ~= ARGV[1] or now[2] ~= ARGV[2] then
  return {'changed'}
end

redis.call('HSET', KEYS[1], 'fence', ARGV[3], 'closed', ARGV[4])
return {'done'}
