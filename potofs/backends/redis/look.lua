-- A conversation, or what was set aside: its entry and what there is of it, all at one moment. Reads only.
--
-- KEYS       1 user  2 archives, or what was set aside  3 bytes  4 known
-- ARGV       1 current, archive or aside  2 its name
-- Answer     entry (empty if there is none), how many bytes there are, fingerprints

local entry = ''
if ARGV[1] == 'current' then
  local values = redis.call('HMGET', KEYS[1], 'current', 'mtime', 'ctime', 'size', 'count')
  if values[1] and values[1] ~= '' then
    for at = 1, 5 do
      values[at] = values[at] and values[at]:find(at > 3 and '^%d+$' or '^%-?%d+$') and values[at] or '0'
    end
    entry = table.concat(values, ' ')
  end
else
  entry = redis.call('HGET', KEYS[2], ARGV[2]) or ''
end
return {entry, redis.call('STRLEN', KEYS[3]), redis.call('HKEYS', KEYS[4])}
