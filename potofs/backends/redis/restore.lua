-- Turns an archive into the running conversation; a running one becomes an archive first.
--
-- ARGV       5 the archive's name  6 a name for the running one, or empty: there may be none
-- Answer     the name that the running one got, or empty

local entry = redis.call('HGET', ARCHIVES, ARGV[5])
if not entry then
  return {'missing'}
end
if not parts_of(entry) then
  return {'damaged', ARCHIVES, ARGV[5]}
end
if user.current ~= '' and ARGV[6] == '' then
  return {'exists'}
end
local name = user.current ~= '' and first_free(ARGV[6]) or ''

if name ~= '' then
  file_away(name)
end
redis.call('HDEL', ARCHIVES, ARGV[5])
local number, mtime, _, size, count = parts_of(entry)
user.current, user.mtime, user.ctime, user.size, user.count = number, mtime, now, size, count
user.changed = now
note(number, 'current', '')
add(shard, 'archives', -1)
add(shard, 'conversations', 1)
crown_anew()
return done(name, {'archive ' .. ARGV[5]})
