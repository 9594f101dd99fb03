-- Adds bytes that are there already, staged, to the end of the running conversation, as they are.
--
-- KEYS       7 staged  8 bytes  9 known (of the running conversation)
-- ARGV       5 its number  6 the size that it had  7 how many bytes are staged  8 mtime
--            9 messages  10 first  11 last time or empty  12… fingerprints (each of all that it holds then)
-- Answer     empty; or `changed`: it is not as it was seen any more

local STAGED, BYTES, KNOWN = KEYS[7], KEYS[8], KEYS[9]
local SIZE, MORE, COUNT = ARGV[6], ARGV[7], ARGV[9]

-- What it has beyond its size was not looked at, and what is added would stand behind that.
if user.current ~= ARGV[5] or user.size ~= SIZE or redis.call('STRLEN', BYTES) ~= tonumber(SIZE) then
  return {'changed'}
end
if redis.call('EXISTS', STAGED) == 0 or redis.call('STRLEN', STAGED) ~= tonumber(MORE) then
  return {'missing'}
end

-- First: where memory has run out, it is refused, and nothing has been written by then.
redis.call('APPEND', BYTES, redis.call('GET', STAGED))
redis.call('UNLINK', STAGED)
-- What stood there without an end may go on in what was added.
redis.call('DEL', KNOWN)
know(KNOWN, 12, #ARGV)
add(shard, 'messages', COUNT - (tonumber(user.count) or 0))
add(shard, 'bytes', MORE)
said(ARGV[10], ARGV[11])
add(user, 'size', MORE)
user.mtime, user.ctime, user.count = ARGV[8], now, COUNT
return done('')
