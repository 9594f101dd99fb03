-- Stores what is known of a user in the place of what was.
--
-- ARGV       5 profile  6 the time that it is of
-- Answer     empty

if user.changed == '' then
  return {'missing'}
end

redis.call('HSET', USER, 'profile', ARGV[5], 'profile_changed', ARGV[6])
return done('')
