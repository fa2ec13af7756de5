-- Sessions that are not the newest of their devices any more. args: {{device, generation}, ...}
-- Gives {{device, newest generation}, ...}; 0: there is none that is so new.
local newer = {}
for _, asked in ipairs(args[1]) do
  local newest = tonumber(call('HGET', P .. 'sess:' .. asked[1], 'generation') or 0)
  if newest ~= asked[2] then
    newer[#newer + 1] = {asked[1], newest > asked[2] and newest or 0}
  end
end
return pack(newer)
