-- For wrk: what a browser sends, another path each time, so that no server knows a request again.
local head = {
  ["Host"] = "bench.example:8000",
  ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
  ["Accept"] = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
  ["Accept-Language"] = "en-US,en;q=0.5",
  ["Accept-Encoding"] = "gzip, deflate, br",
  ["Cookie"] = "session=0f8fad5b-d9cb-469f-a165-70867728950e; theme=dark",
  ["Sec-Fetch-Dest"] = "document",
  ["Sec-Fetch-Mode"] = "navigate",
  ["Sec-Fetch-Site"] = "none",
  ["Referer"] = "http://bench.example:8000/",
}
local template = wrk.format("GET", "/NUMBER", head)
local before, after = template:match("^(.*)NUMBER(.*)$")
local number = 0

function request()
  number = number + 1
  return before .. number .. after
end
