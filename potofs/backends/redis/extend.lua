-- Adds bytes that are there already, staged, to the end of the running conversation, as they are.
--
-- KEYS       7 staged  8 bytes  9 known (of the running conversation)
-- ARGV       5 its number  6 the size that it had  7 how many bytes are staged  8 mtime
--            9 1 if it ended in a record's end: what follows is only about what is added then, else about all of it
--            10 messages  11 first  12 last time or empty
--            13 how many fingerprints there are  14… they, or none if they are too many
-- Answer     empty; or `changed`: it is not as it was seen any more

local STAGED, BYTES, KNOWN = KEYS[7], KEYS[8], KEYS[9]
local SIZE, MORE, COUNT = ARGV[6], ARGV[7], tonumber(ARGV[10])

-- What it has beyond its size was not looked at, and what is added would stand behind that.
if user.current ~= ARGV[5] or user.size ~= SIZE or redis.call('STRLEN', BYTES) ~= tonumber(SIZE) then
  return {'changed'}
end
if redis.call('EXISTS', STAGED) == 0 or redis.call('STRLEN', STAGED) ~= tonumber(MORE) then
  return {'missing'}
end

local is_known = redis.call('HEXISTS', KNOWN, '') == 1 and ARGV[9] == '1' and tonumber(ARGV[13]) == #ARGV - 13

-- First: where memory has run out, it is refused, and nothing has been written by then.
redis.call('APPEND', BYTES, redis.call('GET', STAGED))
redis.call('UNLINK', STAGED)
if is_known then
  know(KNOWN, 14, #ARGV)
else
  -- What stood there without an end may go on in what was added. They are learned from the bytes when they are wanted.
  redis.call('UNLINK', KNOWN)
end
if ARGV[9] == '1' then
  COUNT = COUNT + (tonumber(user.count) or 0)
end
add(shard, 'messages', COUNT - (tonumber(user.count) or 0))
add(shard, 'bytes', MORE)
said(ARGV[11], ARGV[12])
add(user, 'size', MORE)
user.mtime, user.ctime, user.count = ARGV[8], now, string.format('%.0f', COUNT)
return done('')
