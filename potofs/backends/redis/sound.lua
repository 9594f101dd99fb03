-- Stands behind begin.lua in every change but a mending: what is damaged ends it before anything is written.

local function damaged(key, values, form, names)
  for _, name in ipairs(names) do
    if values[name] ~= '' and not values[name]:find(form) then
      return {'damaged', key, name}
    end
  end
end

local fault = damaged(SHARD, shard, '^%d+$', {'changes', 'last_number'})
  or damaged(USER, user, '^%d+$', {'current', 'size', 'count', 'newest'})
  or damaged(USER, user, '^%-?%d+$', {'mtime', 'ctime', 'newest_mtime'})
if fault then
  return fault
end
-- A key of another type ends the script here.
redis.call('HEXISTS', ARCHIVES, '')
if user.changed == '' then
  redis.call('SISMEMBER', USERS, NAME)
end
