--! needs appending epoch log recording
-- marks, undeliverable, moves, what earlier runs for the same call told: {dead: {device, channel, offset} of topics, whether the
-- first move goes on}, now, max_cursors, max_dead_letters, history.
-- Gives {how many marks, undeliverable and moves are done}, where the next mark goes on, 0: at its beginning, what to tell the next
-- run, epoch, and notices of the recalls that it led to, as appending.take_back gives them.
local marks, undeliverable, moves, told, now, max_cursors, max_letters, history = log.spread(args)
local dead = told[1]
epoch.now()  -- raises, if there is none, before anything is written

local done = {0, 0, 0}

local function do_marks()
  for number, mark in ipairs(marks) do
    local goes_on = recording.mark(mark)
    if goes_on > 0 then
      return goes_on
    end
    done[1] = number
    if recording.left <= 0 then
      break
    end
  end
  return 0
end

local function do_undeliverable()
  for number, one in ipairs(undeliverable) do
    if recording.left <= 0 then
      return
    end
    if recording.bury(one, now, max_letters) then
      table.insert(dead, {one[1], one[2], one[4]})
    end
    done[2] = number
  end
end

-- Gives whether a move is left on its way.
local function do_moves()
  local is_dead = {}
  for _, one in ipairs(dead) do
    is_dead[table.concat(one, '\0')] = true
  end
  for number, move in ipairs(moves) do
    if recording.left <= 0 then
      return number == 1 and told[2]
    end
    local goes_on = number == 1 and told[2]
    local is_done = recording.move(move, goes_on, now, max_cursors, function(device, channel, offset)
      return is_dead[table.concat({device, channel, offset}, '\0')]
    end)
    if not is_done then
      return true
    end
    done[3] = number
  end
  return false
end

local mark_goes_on = do_marks()
do_undeliverable()
local move_goes_on = do_moves()
local notices = #recording.places > 0 and appending.take_back(recording.places, history) or {}
return pack({done, mark_goes_on, {dead, move_goes_on}, epoch.now(), notices})
