-- Gives an archive another name.
--
-- ARGV       5 the archive's name  6 the new one
-- Answer     empty

local entry = redis.call('HGET', ARCHIVES, ARGV[5])
if not entry then
  return {'missing'}
end
if not parts_of(entry) then
  return {'damaged', ARCHIVES, ARGV[5]}
end
if redis.call('HEXISTS', ARCHIVES, ARGV[6]) == 1 then
  return {'exists'}
end

local number, mtime, _, size, count = parts_of(entry)
redis.call('HSET', ARCHIVES, ARGV[6], entry_of(number, mtime, now, size, count))
redis.call('HDEL', ARCHIVES, ARGV[5])
user.changed = now
note(number, 'archive', ARGV[6])
crown_anew()
return done('', {'archive ' .. ARGV[5]})
