-- Reads for the one reader whose fence holds: a former one that wakes up takes nothing away.
-- KEYS: stream, state. ARGV: fence, group, consumer, entries, from, era.
local s = redis.call('HMGET', KEYS[2], 'fence', 'era')
if s[1] and (s[2] ~= ARGV[6] or tonumber(s[1]) > tonumber(ARGV[1])) then
  return redis.error_reply('FENCED another reader has taken over')
end
return redis.pcall('XREADGROUP', 'GROUP', ARGV[2], ARGV[3], 'COUNT', ARGV[4], 'STREAMS', KEYS[1], ARGV[5])
