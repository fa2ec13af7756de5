-- See push.shared_rates.RateStore.look_at_tokens, and take_tokens.lua for what lies there.
-- args: bucket, tokens that come in a second, those that are saved up, now. Gives the tokens that are there, as text: they are no
-- whole number.
local rate, burst, now = args[2], args[3], args[4]
local packed = call('GET', P .. 'rate:' .. args[1])
local known = packed and unpack(packed) or {burst, now}
return pack(string.format('%.6f', math.min(burst, known[1] + math.max(0, now - known[2]) * rate / 1000)))
