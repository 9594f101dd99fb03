-- Takes sums over a shard's users, if nothing has changed since they were counted. Done twice, it leaves the same.
--
-- KEYS       1 shard
-- ARGV       1 the number of changes then  2 the last number given away is at least this  3… fields and values
-- Answer     done; changed; or fenced FENCE

local now = redis.call('HMGET', KEYS[1], 'changes', 'closed', 'fence', 'last_number')
if now[2] and now[2] ~= '' then
  return {'fenced', now[3]}
end
if (now[1] or '') ~= ARGV[1] then
  return {'changed'}
end

local last_number = now[4] or ''
if last_number ~= '' and not last_number:find('^%d+$') or (tonumber(last_number) or 0) < tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[1], 'last_number', ARGV[2])
end
-- One by one: there may be more of them than Lua passes at once.
for at = 3, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
end
return {'done'}
