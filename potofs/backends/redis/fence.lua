-- Stands behind begin.lua in every change that a fence keeps from being done.

if shard.closed ~= '' then
  return {'fenced', shard.fence}
end
