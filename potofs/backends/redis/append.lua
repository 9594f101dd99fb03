-- Adds records to the running conversation, those left out that were given before; archives it at the threshold.
--
-- KEYS       7 bytes  8 known (of the running conversation or, if there is none, of the new one)
--            9 known (of the newest archive)
-- ARGV       5 running conversation  6 new one  7 newest archive (each empty if there is none)
--            8 threshold (0: never)  9 name for an archive
--            10 size of the conversation that was looked at to be sealed (or empty)  11 what seals it
--            12 messages  13 first  14 last time
--            15… for each record: fingerprint, 1 if it may be a second try, time or empty, bytes
-- Answer     records stored, running conversation, newest archive, a new conversation's count or empty, archive's name

local BYTES, KNOWN, KNOWN_NEWEST = KEYS[7], KEYS[8], KEYS[9]

if user.current ~= ARGV[5] or user.newest ~= ARGV[7]
  or (user.current == '' and (ARGV[6] == '' or redis.call('EXISTS', BYTES) == 1)) then
  local count = user.current == '' and redis.call('HINCRBY', SHARD, 'last_number', 1) or ''
  return {'keys', user.current, user.newest, tostring(count)}
end
if redis.call('HEXISTS', KNOWN, '') == 0 and user.current ~= '' then
  return {'scan', user.current}
end

local newest_is_known = user.newest == ''
local fresh, batch, size = {}, {}, 0
for i = 15, #ARGV, 4 do
  local fingerprint, may_be_second = ARGV[i], ARGV[i + 1] == '1'
  if may_be_second and not newest_is_known then
    if redis.call('HEXISTS', KNOWN_NEWEST, '') == 0 then
      return {'scan', user.newest}
    end
    newest_is_known = true
  end
  local was_given = may_be_second and (
    batch[fingerprint]
    or (user.current ~= '' and redis.call('HEXISTS', KNOWN, fingerprint) == 1)
    or (user.newest ~= '' and redis.call('HEXISTS', KNOWN_NEWEST, fingerprint) == 1)
  )
  if not was_given then
    batch[fingerprint] = true
    fresh[#fresh + 1] = i
    size = size + #ARGV[i + 3]
  end
end

local sealing = false
if #fresh > 0 and user.current ~= '' then
  local tail = redis.call('GETRANGE', BYTES, -5, -1)
  if tail ~= '\n---\n' and tail ~= '---\n' then
    if ARGV[10] ~= user.size then
      return {'seal', user.current, user.size}
    end
    sealing = true
    size = size + #ARGV[11]
  end
end
if (tonumber(user.size) or 0) + size > LARGEST then
  return {'full'}
end

-- All is looked at; what follows writes.

if #fresh > 0 then
  local pieces = {}
  if sealing then
    pieces[1] = ARGV[11]
  end
  for _, i in ipairs(fresh) do
    pieces[#pieces + 1] = ARGV[i + 3]
  end
  redis.call('APPEND', BYTES, table.concat(pieces))
  ensure_user()
  if sealing then
    -- What stood there without an end has one now, and only the bytes could say what that makes of it.
    redis.call('UNLINK', KNOWN)
    add(shard, 'messages', ARGV[12] - user.count)
    user.count = ARGV[12]
    said(ARGV[13], ARGV[14])
  elseif user.current == '' then
    redis.call('HSET', KNOWN, '', '')
    user.current, user.size, user.count = ARGV[6], '0', '0'
    user.changed = now
    note(user.current, 'current', '')
    add(shard, 'conversations', 1)
  end
  for _, i in ipairs(fresh) do
    if not sealing then
      redis.call('HSET', KNOWN, ARGV[i], '')
    end
    said(ARGV[i + 2], ARGV[i + 2])
  end
  user.mtime, user.ctime = now, now
  add(user, 'size', size)
  add(user, 'count', #fresh)
  add(shard, 'messages', #fresh)
  add(shard, 'bytes', size)
else
  ensure_user()
end

local name, new = '', ''
local threshold = tonumber(ARGV[8])
if user.current ~= '' and threshold > 0 and tonumber(user.count) >= threshold then
  name = first_free(ARGV[9])
  redis.call('UNLINK', file_away(name) and KNOWN_NEWEST or KNOWN)
  -- So that the next append need not ask for it.
  add(shard, 'last_number', 1)
  new = shard.last_number
end
return done(table.concat({#fresh, user.current, user.newest, new, name}, '\n'))
