-- Stores what is known of a user in the place of what was.
--
-- ARGV       5 profile  6 the time that it is of  7 what it has to be in the place of, if it may not be of another
-- Answer     empty; or `changed`: it is not as it was seen any more

if user.changed == '' then
  return {'missing'}
end
if ARGV[7] and (redis.call('HGET', USER, 'profile') or '') ~= ARGV[7] then
  return {'changed'}
end

redis.call('HSET', USER, 'profile', ARGV[5], 'profile_changed', ARGV[6])
return done('')
