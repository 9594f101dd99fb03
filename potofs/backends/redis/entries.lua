-- What is stored of users of one shard, all at one moment. Reads only.
--
-- KEYS       1 users  then for each user: user, archives, what was set aside
-- ARGV       for each user: its name
-- Answer     for each user: 1 if it is in the list, 1 if its hash is made,
--            the running conversation's entry or empty, newest, its mtime, its name, archives, what was set aside

local found = {}
for i = 1, #ARGV do
  local key = KEYS[3 * i - 1]
  local values = redis.call(
    'HMGET', key, 'changed', 'newest', 'newest_mtime', 'newest_name', 'current', 'mtime', 'ctime', 'size', 'count'
  )
  for at = 1, 9 do
    values[at] = values[at] or ''
  end
  local current = ''
  if values[5] ~= '' then
    local parts = {}
    for at = 5, 9 do
      parts[at - 4] = values[at] ~= '' and values[at] or '0'
    end
    current = table.concat(parts, ' ')
  end
  found[i] = {
    redis.call('SISMEMBER', KEYS[1], ARGV[i]),
    values[1] ~= '' and 1 or 0,
    current,
    values[2],
    values[3],
    values[4],
    redis.call('HGETALL', KEYS[3 * i]),
    redis.call('HGETALL', KEYS[3 * i + 1]),
  }
end
return found
