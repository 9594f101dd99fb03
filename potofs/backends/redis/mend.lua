-- Makes what is derived from a user's bytes and entries again: a size and a count, which archive is the newest, that
-- the user is there, what in its hash is no number.
--
-- KEYS       6 archives, or what was set aside  7 bytes  8 known
-- ARGV       5 user, newest, fields, current, archive or aside; of fields:  7 a number of the shard
--            8, 9 what the running conversation has, if there is one; of the last three:
--            6 its name  7 its entry as it was seen  8 how many bytes there are  9 messages  10 first  11 last time
-- Answer     empty; or `changed`: it is not as it was seen any more

local KIND, NAME_OF, SEEN, SIZE, COUNT = ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9]

if KIND == 'user' then
  if redis.call('SADD', USERS, NAME) == 1 then
    add(shard, 'users', 1)
    shard.users_changed = now
  end
  user.changed = now
  return done('')
end
if KIND == 'newest' then
  crown_anew()
  return done('')
end

if KIND == 'fields' then
  local is_known = user.size:find('^%d+$') and user.count:find('^%d+$')
  if not is_known and redis.call('STRLEN', KEYS[7]) ~= tonumber(SIZE) then
    return {'changed'}
  end
  mend_fields(SEEN, SIZE, COUNT)
  return done('')
end

-- What is no number is taken for none, as in look.lua.
local function whole(value, form)
  return value:find(form) and value or '0'
end

local entry
if KIND == 'current' then
  local number, size, count = whole(user.current, '^%d+$'), whole(user.size, '^%d+$'), whole(user.count, '^%d+$')
  entry = entry_of(number, whole(user.mtime, '^%-?%d+$'), whole(user.ctime, '^%-?%d+$'), size, count)
else
  entry = redis.call('HGET', ARCHIVES, NAME_OF)
end
if entry ~= SEEN or redis.call('STRLEN', KEYS[7]) ~= tonumber(SIZE) then
  return {'changed'}
end

local number, mtime, _, size, count = parts_of(entry)
if KIND == 'current' then
  user.size, user.count, user.ctime = SIZE, COUNT, now
else
  redis.call('HSET', ARCHIVES, NAME_OF, entry_of(number, mtime, now, SIZE, COUNT))
end
if KIND ~= 'aside' then
  redis.call('UNLINK', KEYS[8])
  -- The sums are those of the entries; whether they were is another question (recount.lua).
  add(shard, 'messages', COUNT - count)
  add(shard, 'bytes', SIZE - size)
  note(number, KIND, NAME_OF)
  said(ARGV[10], ARGV[11])
end
return done('')
