-- once.lua: remember what a request was answered, in the step that spends; after the function `check`.
-- denied   remembers nothing: the same request may be allowed later
local answer = check()
if answer[1] > 0 and asked > 0 then
  told = struct.pack(
    '>I8I4I4I8I8I8I8',
    answer[1], answer[2], asked, answer[4], answer[5] or 0, answer[6] or 0, answer[7] or 0
  )
  redis.call('SET', KEYS[2], told, 'PX', string.format('%.0f', math.ceil(horizon / 1000)))
end
return answer
