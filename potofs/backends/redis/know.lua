-- Writes: fingerprints of messages, from an argument to another. Many in a command: one by one they take several times
-- as long, and nobody else is served meanwhile. Not all in one, for Lua passes no more than some thousands.
local function know(known, from, to)
  local fields = {}
  for i = from, to do
    fields[#fields + 1] = ARGV[i]
    fields[#fields + 1] = ''
    if #fields == 2000 or i == to then
      redis.call('HSET', known, unpack(fields))
      fields = {}
    end
  end
end
