--! needs log
-- See push.store_ports.LogStore.count_readable. args: {{channel, after, last} ...}, now
local spans, now = args[1], args[2]
local counts = {}
for number, span in ipairs(spans) do
  local state, count = log.state(span[1]), 0
  if state then
    log.walk(state, span[2], span[3], function(_, entry)
      if log.readable(entry, now) then
        count = count + 1
      end
    end)
  end
  counts[number] = count
end
return pack(counts)
