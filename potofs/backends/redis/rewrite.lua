-- Puts bytes that are there already, staged, under a new number in the place of a conversation's.
--
-- KEYS       7 staged  8 bytes  9 known (of the new conversation)  10 bytes  11 known (of the old one)
-- ARGV       5 the archive's name, or empty: the running conversation  6 number  7 size that the old one had
--            8 number  9 size of the new one  10 messages  11 first  12 last time or empty
--            13 number's count  14 mtime or empty: that of the old one
-- Answer     empty; or `changed`: it is not as it was seen any more

local NAME_OF, NUMBER, SIZE, COUNT, MTIME = ARGV[5], ARGV[8], ARGV[9], ARGV[10], ARGV[14]

local number, mtime, size, count, _
if NAME_OF == '' then
  number, size, count = user.current, user.size, user.count
else
  local entry = redis.call('HGET', ARCHIVES, NAME_OF)
  if entry then
    number, mtime, _, size, count = parts_of(entry)
  end
end
-- What the old one has beyond its size was not looked at, and would be lost.
if number ~= ARGV[6] or size ~= ARGV[7] or redis.call('STRLEN', KEYS[10]) ~= tonumber(size) then
  return {'changed'}
end
if redis.call('EXISTS', KEYS[7]) == 0 or redis.call('STRLEN', KEYS[7]) ~= tonumber(SIZE) then
  return {'missing'}
end
-- Before the first write: a key of another type ends the script here.
redis.call('HEXISTS', KEYS[9], '')
local is_empty = NAME_OF == '' and SIZE == '0'
local another = not is_empty and taken_number(ARGV[13], KEYS[8])
if another then
  return another
end

redis.call(unpack(is_empty and {'UNLINK', KEYS[7]} or {'RENAME', KEYS[7], KEYS[8]}))
if is_empty then
  user.current, user.size, user.mtime, user.ctime, user.count = '', '', '', '', ''
  add(shard, 'conversations', -1)
elseif NAME_OF == '' then
  user.current, user.size, user.ctime, user.count = NUMBER, SIZE, now, COUNT
  user.mtime = MTIME ~= '' and MTIME or user.mtime
else
  redis.call('HSET', ARCHIVES, NAME_OF, entry_of(NUMBER, MTIME ~= '' and MTIME or mtime, now, SIZE, COUNT))
  if MTIME ~= '' then
    crown_anew()
  elseif user.newest == number then
    user.newest = NUMBER
  end
end
-- Fingerprints are learned from the bytes when they are wanted.
redis.call('UNLINK', KEYS[9], KEYS[10], KEYS[11])
forget(number)
if not is_empty then
  note(NUMBER, NAME_OF == '' and 'current' or 'archive', NAME_OF)
end
user.changed = now
add(shard, 'messages', COUNT - (tonumber(count) or 0))
add(shard, 'bytes', SIZE - size)
said(ARGV[11], ARGV[12])
return done('', NAME_OF ~= '' and {'archive ' .. NAME_OF} or {})
