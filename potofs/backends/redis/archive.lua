-- Turns the running conversation into an archive.
--
-- KEYS       7 known (of the running conversation)  8 known (of the newest archive)
-- ARGV       5 running conversation  6 newest archive (each empty if there is none)
--            7 the archive's name, or empty: the first free one like  8
--            9 when it may have been appended to last, or empty: whenever
-- Answer     the archive's name

if user.current == '' then
  return {'missing'}
end
if ARGV[9] ~= '' and before(ARGV[9], user.mtime) then
  return {'stale'}
end
if ARGV[7] ~= '' and redis.call('HEXISTS', ARCHIVES, ARGV[7]) == 1 then
  return {'exists'}
end
if user.current ~= ARGV[5] or user.newest ~= ARGV[6] then
  return {'keys', user.current, user.newest, ''}
end
local name = ARGV[7] ~= '' and ARGV[7] or first_free(ARGV[8])

redis.call('UNLINK', file_away(name) and KEYS[8] or KEYS[7])
return done(name)
