-- Makes wrk send random requests from a file. Each line is a path, a tab and, for a conditional request, an ETag.

local requests = {}

function init(arguments)
   math.randomseed(tonumber(arguments[2]))
   for line in io.lines(arguments[1]) do
      local path, tag = line:match("^([^\t]*)\t?(.*)$")
      local headers = tag ~= "" and { ["If-None-Match"] = tag } or nil
      requests[#requests + 1] = wrk.format("GET", path, headers)
   end
end

function request()
   return requests[math.random(#requests)]
end

function done(summary, latency)
   local errors = summary.errors
   local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
   io.write(string.format('{"requests": %d, "seconds": %f, "failed": %d, "p50": %f, "p99": %f}\n', summary.requests,
      summary.duration / 1e6, failed, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
