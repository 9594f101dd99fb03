-- Notes the fingerprints of the messages in a conversation's bytes. Derived from them, so that nothing is lost if not.
--
-- KEYS       1 bytes  2 known
-- ARGV       1 how many bytes they were made from  2… fingerprints

if redis.call('STRLEN', KEYS[1]) == tonumber(ARGV[1]) and redis.call('HEXISTS', KEYS[2], '') == 0 then
  redis.call('HSET', KEYS[2], '', '')
  for i = 2, #ARGV do
    redis.call('HSET', KEYS[2], ARGV[i], '')
  end
end
return {}
