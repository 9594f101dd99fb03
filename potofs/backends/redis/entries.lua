-- What is stored of users of one shard, all at one moment. Reads only. A key of another type is as if it were not there.
--
-- KEYS       1 users  then for each user: user, archives, what was set aside
-- ARGV       for each user: its name
-- Answer     for each user: 1 if it is in the list, changed, newest, its mtime, its name, of the running conversation
--            the number, mtime, ctime, size and count (each empty if it is not there), archives, what was set aside

local function is(key, kind)
  return redis.call('TYPE', key).ok == kind
end

local function all(key)
  return is(key, 'hash') and redis.call('HGETALL', key) or {}
end

local listed = is(KEYS[1], 'set')
local found = {}
for i = 1, #ARGV do
  local key = KEYS[3 * i - 1]
  local values = is(key, 'hash') and redis.call(
    'HMGET', key, 'changed', 'newest', 'newest_mtime', 'newest_name', 'current', 'mtime', 'ctime', 'size', 'count'
  ) or {}
  local user = {listed and redis.call('SISMEMBER', KEYS[1], ARGV[i]) or 0}
  for at = 1, 9 do
    user[at + 1] = values[at] or ''
  end
  user[11] = all(KEYS[3 * i])
  user[12] = all(KEYS[3 * i + 1])
  found[i] = user
end
return found
