-- Makes a user without conversations.
--
-- ARGV       5 profile
-- Answer     empty

if user.changed ~= '' then
  return {'exists'}
end

redis.call('HSET', USER, 'profile', ARGV[5], 'profile_changed', now)
ensure_user()
return done('')
