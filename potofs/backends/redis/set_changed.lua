-- Sets when something of a user came, went or was renamed.
--
-- ARGV       5 the time
-- Answer     empty

if user.changed == '' then
  return {'missing'}
end

user.changed = ARGV[5]
return done('')
