-- Makes bytes that are there already, staged, a conversation or what was set aside, under a new number.
--
-- KEYS       7 staged  8 bytes  9 known (of the new conversation)  10 known (of the newest archive)
-- ARGV       5 current, archive, aside or named aside  6 its number  7 its size
--            8 its name, or for one aside what it begins with
--            9 mtime or empty: now  10 messages  11 first  12 last time or empty  13 newest archive or empty
--            14 its number's count
-- Answer     its name and its number

local KIND, NUMBER, SIZE, NAME_OF = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local mtime = ARGV[9] ~= '' and ARGV[9] or now

if KIND == 'current' and user.current ~= '' then
  return {'exists'}
end
if (KIND == 'archive' or KIND == 'named aside') and redis.call('HEXISTS', ARCHIVES, NAME_OF) == 1 then
  return {'exists'}
end
if KIND == 'archive' and user.newest ~= ARGV[13] then
  return {'keys', user.current, user.newest, ''}
end
if redis.call('EXISTS', KEYS[7]) == 0 or redis.call('STRLEN', KEYS[7]) ~= tonumber(SIZE) then
  return {'missing'}
end
-- Before the first write: a key of another type ends the script here.
redis.call('HEXISTS', KEYS[9], '')
local another = taken_number(ARGV[14], KEYS[8])
if another then
  return another
end

redis.call('RENAME', KEYS[7], KEYS[8])
-- Learned from the bytes when they are wanted, in pieces: all at once, nobody else would be served meanwhile.
redis.call('UNLINK', KEYS[9])
ensure_user()
user.changed = now
if KIND == 'aside' or KIND == 'named aside' then
  local name = first_free(NAME_OF)
  redis.call('HSET', ARCHIVES, name, entry_of(NUMBER, mtime, now, SIZE, 0))
  note(NUMBER, 'aside', name)
  return done(name .. '\n' .. NUMBER)
end
note(NUMBER, KIND, NAME_OF)
add(shard, 'messages', ARGV[10])
add(shard, 'bytes', SIZE)
said(ARGV[11], ARGV[12])
if KIND == 'current' then
  user.current, user.size, user.mtime, user.ctime, user.count = NUMBER, SIZE, mtime, now, ARGV[10]
  add(shard, 'conversations', 1)
else
  redis.call('HSET', ARCHIVES, NAME_OF, entry_of(NUMBER, mtime, now, SIZE, ARGV[10]))
  add(shard, 'archives', 1)
  if crown(NUMBER, mtime, NAME_OF) then
    redis.call('UNLINK', KEYS[10])
  end
end
return done(NAME_OF .. '\n' .. NUMBER)
