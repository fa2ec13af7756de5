-- See push.shared_rates.RateStore.
--   rate:BUCKET  {tokens, as of when}; gone when it would be full
-- args: bucket, most tokens, those that come in a second, those that are saved up, now. Gives how many were taken, and milliseconds
-- until there is one more if those are less.
local key, wanted, rate, burst, now = P .. 'rate:' .. args[1], args[2], args[3], args[4], args[5]

-- Milliseconds by which the clocks of nodes may differ. A time that is later was written by a clock that has been set since.
local APART = 10000

local packed = call('GET', key)
local known = packed and unpack(packed) or {burst, now}
local is_wrong = known[2] - now > APART
local at = is_wrong and now or math.max(known[2], now)
local tokens = math.min(burst, known[1] + math.max(0, now - known[2]) * rate / 1000)
local taken = math.min(wanted, math.floor(tokens))
if taken > 0 or is_wrong then
  call('SET', key, pack({tokens - taken, at}), 'PX', math.ceil(burst * 1000 / rate) + APART)
end
local wait = taken < wanted and math.ceil((1 - tokens + taken) * 1000 / rate) or 0
return pack({taken, wait})
