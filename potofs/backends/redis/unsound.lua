-- Stands behind begin.lua in what mends, where other changes have sound.lua: it goes on in spite of what is damaged,
-- and knows what can be made of it.

-- Counted on from nothing, it would be believed again, and whoever repeats a change be taken for the first (sums.py).
if not shard.changes:find('^%d+$') then
  shard.changes = clock[1] .. string.format('%03d', math.floor(clock[2] / 1000))
end

-- Whether the hash says which conversation runs, or that none does; `number`: one of the shard's.
local function runs_known(number)
  return user.current == ''
    or (user.current:find('^%d+$') ~= nil and tonumber(user.current) % 256 == tonumber(number) % 256)
end

-- Makes of what is no number in the user's hash what can be known; `size`, `count`: what the running conversation has.
-- The sums have that in them still.
local function mend_fields(number, size, count)
  if user.current == '' or not runs_known(number) then
    user.current, user.size, user.mtime, user.ctime, user.count = '', '', '', '', ''
  else
    user.size = user.size:find('^%d+$') and user.size or size
    user.count = user.count:find('^%d+$') and user.count or count
    for _, field in ipairs({'mtime', 'ctime'}) do
      user[field] = user[field]:find('^%-?%d+$') and user[field] or now
    end
  end
  user.changed = now
  crown_anew()
end
