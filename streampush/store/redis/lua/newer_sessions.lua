-- Sessions that are not the newest of their devices any more. args: {{device, generation}, ...}
-- Gives {{device, newest generation}, ...}.
local newer = {}
for _, asked in ipairs(args[1]) do
  local newest = tonumber(call('HGET', P .. 'sess:' .. asked[1], 'generation') or 0)
  if newest > asked[2] then
    newer[#newer + 1] = {asked[1], newest}
  end
end
return pack(newer)
