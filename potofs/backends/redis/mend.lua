-- Makes what is derived from a user's bytes and entries again: a size and a count, which archive is the newest, that
-- the user is there, what in its hash is no number; takes a damaged entry out of an index.
--
-- KEYS       6 archives, or what was set aside  7 bytes  8 known
-- ARGV       5 user, newest, fields, entry, current, archive or aside; entry and those behind it:
--            6 its name  7 its entry as it was seen  8 how many bytes there are  9 messages  10 first  11 last time
-- Answer     empty; or `changed`: it is not as it was seen any more

-- Counted on from nothing, it would be believed again, and whoever repeats a change be taken for the first (sums.py).
if not shard.changes:find('^%d+$') then
  shard.changes = clock[1] .. string.format('%03d', math.floor(clock[2] / 1000))
end

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

-- What is no number is taken for none, as in look.lua.
local function whole(value)
  return value:find('^%-?%d+$') and value or '0'
end

if KIND == 'fields' then
  -- Without its number it is not known which conversation runs; its bytes are given back (give_back.lua).
  if not user.current:find('^%d+$') or tonumber(user.current) % 256 ~= tonumber(SEEN) then
    user.current, user.size, user.mtime, user.ctime, user.count = '', '', '', '', ''
  else
    user.size, user.count = whole(user.size), whole(user.count)
    for _, field in ipairs({'mtime', 'ctime'}) do
      user[field] = user[field]:find('^%-?%d+$') and user[field] or now
    end
  end
  user.changed = now
  crown_anew()
  return done('')
end
if KIND == 'entry' then
  if redis.call('HGET', ARCHIVES, NAME_OF) ~= SEEN then
    return {'changed'}
  end
  redis.call('HDEL', ARCHIVES, NAME_OF)
  user.changed = now
  return done('')
end

local entry
if KIND == 'current' then
  entry = entry_of(whole(user.current), whole(user.mtime), whole(user.ctime), whole(user.size), whole(user.count))
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
  redis.call('DEL', KEYS[8])
  -- The sums are those of the entries; whether they were is another question (recount.lua).
  add(shard, 'messages', COUNT - count)
  add(shard, 'bytes', SIZE - size)
  note(number, KIND, NAME_OF)
  said(ARGV[10], ARGV[11])
end
return done('')
