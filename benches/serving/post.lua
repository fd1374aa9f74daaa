-- Posts the bodies of a file, one a line, in turns; tells what came of it as one line of JSON.

local requests, at = {}, 0

function init(args)
  local headers = {["Content-Type"] = "application/json"}
  for body in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("POST", nil, headers, body)
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"n_requests": %d, "us": %d, "n_broken": %d, "n_refused": %d, "p50_us": %d, "p99_us": %d}\n',
    summary.requests, summary.duration, errors.connect + errors.read + errors.write
    + errors.timeout, errors.status, latency:percentile(50), latency:percentile(99)))
end
