-- Appends one batch to a partition, once, unless the partition is full.
-- KEYS: stream, state, last batch of this producer. ARGV: payload, records, bytes, most records, most bytes, epoch for a new
-- stream, number of the batch, version of the payload. Returns 1 if the batch is there, 0 if there is no room.
local last = redis.call('GET', KEYS[3])
if last and tonumber(last) >= tonumber(ARGV[7]) then
  return 1 -- sent again because its answer was lost
end
local s = redis.call('HMGET', KEYS[2], 'epoch', 'records', 'bytes', 'done_records', 'done_bytes')
local epoch, records, bytes = s[1] or ARGV[6], tonumber(s[2] or 0), tonumber(s[3] or 0)
local done_records, done_bytes = tonumber(s[4] or 0), tonumber(s[5] or 0)
if done_records > records then -- from before the stream was emptied
  done_records, done_bytes = 0, 0
end
local waits, count, size = records - done_records, tonumber(ARGV[2]), tonumber(ARGV[3])
if waits > 0 and (waits + count > tonumber(ARGV[4]) or bytes - done_bytes + size > tonumber(ARGV[5])) then
  return 0
end
-- First what fails when memory is short, so that nothing is half done.
redis.call('XADD', KEYS[1], '*', 'v', ARGV[8], 'e', epoch, 'n', ARGV[2], 'r', records + count, 'b', bytes + size, 'd', ARGV[1])
redis.call('HSET', KEYS[2], 'epoch', epoch, 'records', records + count, 'bytes', bytes + size)
redis.call('SET', KEYS[3], ARGV[7], 'EX', 3600)
return 1
