-- What every change begins with: whether it may be done, and what it finds; and how it ends.
--
-- KEYS       1 shard  2 users  3, 4 answers  5 user  6 archives (or what was set aside)
-- ARGV       1 token  2 since  3 user's name  4 channel
-- What else a script wants is said in its file.
--
-- Answers, none of which has changed anything but the first:
--   done ANSWER COUNT    the change is done, as the shard's change COUNT; or was before, and COUNT is empty
--   late COUNT           whether this token was here cannot be told: too much was changed since
--   fenced FENCE         nothing may be changed
--   keys CURRENT NEWEST COUNT   other keys are needed: of these conversations, or of the new one COUNT
--   number COUNT         the new conversation needs another number, this one for example; it is not given away yet
--   scan CONVERSATION    the fingerprints of its messages are needed (learn.lua)
--   seal CONVERSATION SIZE      it does not end in a record's end
--   damaged KEY FIELD    something there is not as potofs writes it (sound.lua)
--   missing, exists, stale, changed, full   what a change is about is not there, is there already, was appended to
--                        meanwhile, is not as it was seen, would become too large

local SHARD, USERS, ANSWERS, USER, ARCHIVES = KEYS[1], KEYS[2], {KEYS[3], KEYS[4]}, KEYS[5], KEYS[6]
local TOKEN, SINCE, NAME, CHANNEL = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]

-- So many of the last changes of a shard are remembered, at least. A client that repeats one says how many there had
-- been before its first try, so that it is never done twice, however late it comes.
local REMEMBERED = 256
-- What a string in Redis can hold (bytes).
local LARGEST = 512 * 1024 * 1024

for _, answers in ipairs(ANSWERS) do
  local answer = redis.call('HGET', answers, TOKEN)
  if answer then
    return {'done', answer, ''}
  end
end

-- Fields of a hash as they are and as they shall be; what is not there is empty.
local function fields(key, names)
  local values = redis.call('HMGET', key, unpack(names))
  local was, is = {}, {}
  for i, name in ipairs(names) do
    was[name] = values[i] or ''
    is[name] = was[name]
  end
  return was, is
end

local shard_was, shard = fields(SHARD, {
  'changes', 'closed', 'fence', 'last_number', 'users', 'users_changed', 'conversations', 'archives', 'messages',
  'bytes', 'first', 'last',
})
if (tonumber(shard.changes) or 0) - SINCE >= REMEMBERED then
  return {'late', shard.changes}
end

-- current, size, mtime, ctime, count: the running conversation. newest…: the archive that was appended to last.
local user_was, user = fields(USER, {
  'changed', 'current', 'size', 'mtime', 'ctime', 'count', 'newest', 'newest_mtime', 'newest_name',
})

local clock = redis.call('TIME')
-- Nanoseconds, as text: a number of Lua would lose the last digits.
local now = clock[1] .. string.format('%06d', clock[2]) .. '000'

local function add(to, field, more)
  to[field] = string.format('%.0f', (tonumber(to[field]) or 0) + more)
end

-- Whether a time in decimal is before another.
local function before(a, b)
  if a == b then
    return false
  end
  local negative = a:sub(1, 1) == '-'
  if negative ~= (b:sub(1, 1) == '-') then
    return negative
  end
  if #a ~= #b then
    return (#a < #b) ~= negative
  end
  return (a < b) ~= negative
end

-- Whether a name's bytes come before another's. Not `<`, which goes by the server's locale.
local function precedes(a, b)
  for i = 1, math.min(#a, #b) do
    if a:byte(i) ~= b:byte(i) then
      return a:byte(i) < b:byte(i)
    end
  end
  return #a < #b
end

-- Messages that were said at this time, the first and the last, are among those of the shard now.
local function said(first, last)
  if first ~= '' and (shard.first == '' or before(first, shard.first)) then
    shard.first = first
  end
  if last ~= '' and (shard.last == '' or before(shard.last, last)) then
    shard.last = last
  end
end

local function entry_of(number, mtime, ctime, size, count)
  return table.concat({number, mtime, ctime, size, count}, ' ')
end

local function parts_of(entry)
  return entry:match('^(%d+) (%-?%d+) (%-?%d+) (%d+) (%d+)$')
end

-- The name, or the name with the first of -2, -3, … that is free.
local function first_free(name)
  local free, count = name, 1
  while redis.call('HEXISTS', ARCHIVES, free) == 1 do
    count = count + 1
    free = name .. '-' .. count
  end
  return free
end

-- Makes an archive the newest if it is; returns whether.
local function crown(number, mtime, name)
  if user.newest ~= '' then
    if before(mtime, user.newest_mtime) then
      return false
    end
    if mtime == user.newest_mtime and precedes(name, user.newest_name) then
      return false
    end
  end
  user.newest, user.newest_mtime, user.newest_name = number, mtime, name
  return true
end

-- Looks for the newest archive again; after an archive went or got another name or time.
local function crown_anew()
  user.newest, user.newest_mtime, user.newest_name = '', '', ''
  local all = redis.call('HGETALL', ARCHIVES)
  for i = 1, #all, 2 do
    local number, mtime = parts_of(all[i + 1])
    -- A damaged entry is for a check to find: what was begun here has to be ended.
    if number then
      crown(number, mtime, all[i])
    end
  end
end

-- Notes whose the bytes under a number are, and what they are called, a second time: if an entry is lost, a check gives
-- them back by this. In the shard's own hash, which is written by every change anyway: it costs no key and no command.
local function note(number, kind, name)
  shard['of:' .. number] = NAME .. '\n' .. kind .. '\n' .. name
end

-- Writes: there are no bytes under a number any more.
local function forget(number)
  redis.call('HDEL', SHARD, 'of:' .. number)
end

-- Writes: the running conversation is an archive now. Returns whether it is the newest.
local function file_away(name)
  redis.call('HSET', ARCHIVES, name, entry_of(user.current, user.mtime, now, user.size, user.count))
  note(user.current, 'archive', name)
  local is_newest = crown(user.current, user.mtime, name)
  user.current, user.size, user.mtime, user.ctime, user.count = '', '', '', '', ''
  user.changed = now
  add(shard, 'conversations', -1)
  add(shard, 'archives', 1)
  return is_newest
end

-- Writes: the user is there.
local function ensure_user()
  if user.changed == '' then
    redis.call('SADD', USERS, NAME)
    user.changed = now
    add(shard, 'users', 1)
    shard.users_changed = now
  end
end

-- Takes a number for a new conversation, by a change that is done from here on; else returns what to answer. That it was
-- free when somebody asked for it says nothing: a master that took over may have given it away since.
local function taken_number(count, bytes)
  local last = tonumber(shard.last_number) or 0
  count = tonumber(count)
  if count <= last or redis.call('EXISTS', bytes) == 1 then
    return {'number', string.format('%.0f', math.max(last, count) + 1)}
  end
  shard.last_number = string.format('%.0f', count)
end

local function store(key, was, is)
  local changes = {}
  for field, value in pairs(is) do
    if value ~= was[field] then
      changes[#changes + 1] = field
      changes[#changes + 1] = value
    end
  end
  if #changes > 0 then
    redis.call('HSET', key, unpack(changes))
  end
end

-- Writes what is left, and tells whoever listens, unless all that was changed is what is in a conversation: a mount asks
-- for that each time. `gone`: entries that are no more or mean another conversation, `archive NAME` or `aside NAME`.
local function done(answer, gone)
  add(shard, 'changes', 1)
  local count = tonumber(shard.changes)
  local answers = ANSWERS[math.floor(count / REMEMBERED) % 2 + 1]
  if count % REMEMBERED == 0 then
    redis.call('DEL', answers)
  end
  redis.call('HSET', answers, TOKEN, answer)
  store(SHARD, shard_was, shard)
  store(USER, user_was, user)
  if user.changed ~= user_was.changed then
    local lines = {NAME, shard.users_changed ~= shard_was.users_changed and 'new' or ''}
    for _, line in ipairs(gone or {}) do
      lines[#lines + 1] = line
    end
    -- Those who listen may be forbidden to this user of Redis; the change is done all the same.
    redis.pcall('PUBLISH', CHANNEL, table.concat(lines, '\n'))
  end
  return {'done', answer, shard.changes}
end
