-- Has wrk ask for random lines of a file: a path, and behind a tab the tag of the answer that the client has, if any.

local asked = {}

function init(arguments)
   math.randomseed(tonumber(arguments[2]))
   for line in io.lines(arguments[1]) do
      local path, tag = line:match("^([^\t]*)\t?(.*)$")
      local headers = tag ~= "" and { ["If-None-Match"] = tag } or nil
      asked[#asked + 1] = wrk.format("GET", path, headers)
   end
end

function request()
   return asked[math.random(#asked)]
end

function done(summary, latency)
   local errors = summary.errors
   local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
   io.write(string.format('{"requests": %d, "seconds": %f, "failed": %d, "p50": %f, "p99": %f}\n', summary.requests,
      summary.duration / 1e6, failed, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
