-- Makes a user without conversations.
--
-- ARGV       5 profile, or empty: none
-- Answer     empty

if user.changed ~= '' then
  return {'exists'}
end

if ARGV[5] ~= '' then
  redis.call('HSET', USER, 'profile', ARGV[5], 'profile_changed', now)
end
ensure_user()
return done('')
