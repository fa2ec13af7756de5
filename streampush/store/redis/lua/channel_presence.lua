--! needs presence
-- channel, limit, now: {how many, for each run the ids of at most `limit`}. Some µs for each run that has followers.
local channel, limit, now = args[1], args[2], args[3]
local key = P .. 'present:' .. channel
local count, listed = 0, {}
local first = call('ZRANGEBYLEX', key, '-', '+', 'LIMIT', 0, 1)[1]
while first do
  local run = presence.parts(first)
  local of_run = presence.member(run, '')
  local from, to = '[' .. of_run, '(' .. of_run .. '\255'
  if presence.lives(run, now) then
    count = count + call('ZLEXCOUNT', key, from, to)
    local names = call('ZRANGEBYLEX', key, from, to, 'LIMIT', 0, limit)
    for number, member in ipairs(names) do
      names[number] = member:sub(#of_run + 1)
    end
    listed[#listed + 1] = names
  end
  first = call('ZRANGEBYLEX', key, '[' .. of_run .. '\255', '+', 'LIMIT', 0, 1)[1]
end
return pack({count, listed})
