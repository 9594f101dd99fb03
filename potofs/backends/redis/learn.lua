-- Notes fingerprints of the messages in a conversation's bytes, some at a time, so that nobody waits long. Derived from
-- them, so that nothing is lost if not. What is noted is believed once all is there, which the empty one says.
--
-- KEYS       1 bytes  2 known
-- ARGV       1 how many bytes they were made from  2 behind the last ones: how many there are in all; else empty
--            3… fingerprints
-- Answer     more; or over: they are all there, or have to be made from other bytes, or to be brought again

local BYTES, KNOWN, SIZE, ALL = KEYS[1], KEYS[2], ARGV[1], ARGV[2]

if redis.call('STRLEN', BYTES) ~= tonumber(SIZE) or redis.call('HEXISTS', KNOWN, '') == 1 then
  return {'over'}
end
know(KNOWN, 3, #ARGV)
if ALL == '' then
  return {'more'}
end
-- Others may bring the same at once. Fewer: it was removed meanwhile. More: something else is in there.
local there = redis.call('HLEN', KNOWN)
if there == tonumber(ALL) then
  redis.call('HSET', KNOWN, '', '')
elseif there > tonumber(ALL) then
  redis.call('UNLINK', KNOWN)
end
return {'over'}
