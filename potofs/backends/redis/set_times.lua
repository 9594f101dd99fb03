-- Sets the time of a conversation's last append, or of what was set aside.
--
-- ARGV       5 the archive's name, or empty: the running conversation  6 the time  7 aside, or empty
-- Answer     empty

if ARGV[5] == '' then
  if user.current == '' then
    return {'missing'}
  end
  user.mtime, user.ctime = ARGV[6], now
  return done('')
end
local entry = redis.call('HGET', ARCHIVES, ARGV[5])
if not entry then
  return {'missing'}
end
if not parts_of(entry) then
  return {'damaged', ARCHIVES, ARGV[5]}
end

local number, _, _, size, count = parts_of(entry)
redis.call('HSET', ARCHIVES, ARGV[5], entry_of(number, ARGV[6], now, size, count))
if ARGV[7] ~= 'aside' then
  crown_anew()
end
return done('')
