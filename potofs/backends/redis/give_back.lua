-- Gives bytes that nothing refers to any more back to the user that they are noted for. What is damaged and stood for
-- them goes in the same script: so they are out of nobody's view meanwhile, and what they hold is known as given.
--
-- KEYS       6 archives, or what was set aside  7 bytes  8 known (of them)  9 known (of the newest archive)
-- ARGV       5 what they become: current, archive or aside  6 the note as it was seen  7 their number  8 their size
--            9 name, or what it begins with  10 mtime or empty: now  11 messages  12 first  13 last time or empty
--            14 newest archive or empty  15 name of the damaged entry and  16 the entry as it was seen, if there is one
-- Answer     its name; or `changed`: it is not as it was seen any more

local KIND, SEEN, NUMBER, SIZE, NAME_OF = ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local TORN = ARGV[15]
local mtime = ARGV[10] ~= '' and ARGV[10] or now

if redis.call('HGET', SHARD, 'of:' .. NUMBER) ~= SEEN or redis.call('STRLEN', KEYS[7]) ~= tonumber(SIZE) then
  return {'changed'}
end
if TORN and redis.call('HGET', ARCHIVES, TORN) ~= ARGV[16] then
  return {'changed'}
end
local is_named, named = user.current == NUMBER, NAME_OF
local all = redis.call('HGETALL', ARCHIVES)
for i = 1, #all, 2 do
  if all[i] ~= TORN and parts_of(all[i + 1]) == NUMBER then
    is_named, named = true, all[i]
  end
end
if is_named and not TORN then
  return {'changed'}
end
if KIND == 'current' then
  if user.current ~= '' and runs_known(NUMBER) then
    return {'exists'}
  end
elseif not runs_known(NUMBER) or not (user.newest .. user.newest_mtime):find('^%d*%-?%d*$') then
  -- That is mended first: what runs would be lost sight of.
  return {'changed'}
end
if KIND == 'archive' and user.newest ~= ARGV[14] then
  return {'keys', user.current, user.newest, ''}
end

if redis.call('SADD', USERS, NAME) == 1 then
  shard.users_changed = now
end
user.changed = now
if TORN then
  redis.call('HDEL', ARCHIVES, TORN)
end
if is_named then
  if KIND == 'archive' then
    crown_anew()
  end
  return done(named)
end
-- The sums are as they were: they have it in them still, or are made anew (recount.lua).
if KIND == 'current' then
  mend_fields(NUMBER, SIZE, ARGV[11])
  user.current, user.size, user.mtime, user.ctime, user.count = NUMBER, SIZE, mtime, now, ARGV[11]
  note(NUMBER, KIND, '')
else
  local name = first_free(NAME_OF)
  redis.call('HSET', ARCHIVES, name, entry_of(NUMBER, mtime, now, SIZE, KIND == 'aside' and 0 or ARGV[11]))
  note(NUMBER, KIND, name)
  named = name
end
if KIND ~= 'aside' then
  -- Made again when they are wanted.
  redis.call('UNLINK', KEYS[8])
  said(ARGV[12], ARGV[13])
end
if KIND == 'archive' then
  crown_anew()
  if ARGV[14] ~= '' and user.newest ~= ARGV[14] then
    redis.call('UNLINK', KEYS[9])
  end
  if SEEN:find('\ncurrent\n', 1, true) then
    -- Another conversation runs by now.
    add(shard, 'conversations', -1)
    add(shard, 'archives', 1)
  end
end
return done(named)
