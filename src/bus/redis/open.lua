-- Lets one reader in and all with a lower fence out, and makes the group if it is not there.
-- KEYS: stream, state. ARGV: fence, owner, group, era. Returns {1 if the group was made, epoch of the stream or '', the entry
-- on trial or ''}.
local s = redis.call('HMGET', KEYS[2], 'fence', 'era', 'owner')
if s[1] and s[2] == ARGV[4] and tonumber(s[1]) > tonumber(ARGV[1]) then
  return redis.error_reply('FENCED another reader has taken over')
end
if s[1] ~= ARGV[1] or s[2] ~= ARGV[4] or s[3] ~= ARGV[2] then
  -- Short of memory, Redis refuses this; reading must go on then, or nothing would ever be freed.
  local set = redis.pcall('HSET', KEYS[2], 'fence', ARGV[1], 'era', ARGV[4], 'owner', ARGV[2])
  if type(set) == 'table' and set.err and not string.find(set.err, 'OOM') then
    return set
  end
end
local new = 1
if redis.call('EXISTS', KEYS[1]) == 1 then
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    if group[2] == ARGV[3] then
      new = 0
    end
  end
end
if new == 1 then
  redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[3], '0', 'MKSTREAM')
end
return {new, redis.call('HGET', KEYS[2], 'epoch') or '', redis.call('HGET', KEYS[2], 'trying') or ''}
