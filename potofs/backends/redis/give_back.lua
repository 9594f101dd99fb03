-- Gives bytes that nothing refers to any more back to the user that they are noted for.
--
-- KEYS       6 archives, or what was set aside  7 bytes  8 known (of them)  9 known (of the newest archive)
-- ARGV       5 what they become: current, archive or aside  6 the note as it was seen  7 their number  8 their size
--            9 name, or what it begins with  10 mtime or empty: now  11 messages  12 first  13 last time or empty
--            14 newest archive or empty
-- Answer     its name; or `changed`: it is not as it was seen any more

local KIND, SEEN, NUMBER, SIZE, NAME_OF = ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local mtime = ARGV[10] ~= '' and ARGV[10] or now

if redis.call('HGET', SHARD, 'of:' .. NUMBER) ~= SEEN or redis.call('STRLEN', KEYS[7]) ~= tonumber(SIZE) then
  return {'changed'}
end
if user.current == NUMBER then
  return {'changed'}
end
local all = redis.call('HGETALL', ARCHIVES)
for i = 1, #all, 2 do
  if parts_of(all[i + 1]) == NUMBER then
    return {'changed'}
  end
end
if KIND == 'current' and user.current ~= '' then
  return {'exists'}
end
if KIND == 'archive' and user.newest ~= ARGV[14] then
  return {'keys', user.current, user.newest, ''}
end

ensure_user()
user.changed = now
if KIND == 'aside' then
  local name = first_free(NAME_OF)
  redis.call('HSET', ARCHIVES, name, entry_of(NUMBER, mtime, now, SIZE, 0))
  note(NUMBER, KIND, name)
  return done(name)
end
-- Made again when they are wanted.
redis.call('DEL', KEYS[8])
add(shard, 'messages', ARGV[11])
add(shard, 'bytes', SIZE)
said(ARGV[12], ARGV[13])
if KIND == 'current' then
  user.current, user.size, user.mtime, user.ctime, user.count = NUMBER, SIZE, mtime, now, ARGV[11]
  note(NUMBER, KIND, '')
  add(shard, 'conversations', 1)
  return done('')
end
local name = first_free(NAME_OF)
redis.call('HSET', ARCHIVES, name, entry_of(NUMBER, mtime, now, SIZE, ARGV[11]))
note(NUMBER, KIND, name)
add(shard, 'archives', 1)
if crown(NUMBER, mtime, name) then
  redis.call('DEL', KEYS[9])
end
return done(name)
