-- Gives a key that is not of its type another name, so that its own is free. Done twice, it leaves the same.
--
-- KEYS       1 shard  2 the key  3 its new name
-- ARGV       1 the type that it was seen to have
-- Answer     done; changed; or fenced FENCE

if redis.call('TYPE', KEYS[3]).ok == ARGV[1] then
  return {'done'}
end
if redis.call('TYPE', KEYS[1]).ok == 'hash' then
  local now = redis.call('HMGET', KEYS[1], 'closed', 'fence')
  if now[1] and now[1] ~= '' then
    return {'fenced', now[2]}
  end
end
if redis.call('TYPE', KEYS[2]).ok ~= ARGV[1] or redis.call('EXISTS', KEYS[3]) == 1 then
  return {'changed'}
end

redis.call('RENAME', KEYS[2], KEYS[3])
return {'done'}
