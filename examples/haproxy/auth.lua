-- http-request lua.auth URL asks the service at URL whether a request may pass.
-- It adds the headers that say who sent it, or refuses the request.
-- http-request lua.login URL also takes the cookie of the service's login page for a
-- token, and does not pass it on. It sends a browser that has none to /login.
-- It needs HAProxy 2.5 or later.

-- own matches the name and the value of the service's cookie.
local own = { "^simple_oauth2=", "^__Host%-simple_oauth2=", "^__Secure%-simple_oauth2=" }

-- without_own returns the cookies of a header that are not the service's.
local function without_own(header)
    local others = {}
    for cookie in header:gmatch("[^;]+") do
        cookie = cookie:match("^%s*(.-)%s*$")
        if not (cookie:find(own[1]) or cookie:find(own[2]) or cookie:find(own[3])) then
            others[#others + 1] = cookie
        end
    end
    return table.concat(others, "; ")
end

local function ask(txn, url, page)
    local sent = txn.http:req_get_headers()
    local headers = { authorization = sent["authorization"] }
    if page then
        headers["cookie"] = sent["cookie"]
        headers["x-forwarded-proto"] = { [0] = txn.sf:ssl_fc() == 1 and "https" or "http" }
    end
    local answer = core.httpclient():get({
        url = url,
        headers = headers,
        timeout = 5000, -- ms
    })
    if answer.status == 200 then
        for _, name in ipairs({ "remote-user", "remote-name", "remote-email", "remote-scope" }) do
            txn.http:req_set_header(name, answer.headers[name][0])
        end
        if page and sent["cookie"] then
            txn.http:req_del_header("cookie")
            for i = 0, #sent["cookie"] do
                txn.http:req_add_header("cookie", without_own(sent["cookie"][i]))
            end
        end
        return nil
    end
    local reply = txn:reply({ status = 503 })
    if page and answer.status == 401 and not sent["authorization"] and txn.sf:req_fhdr("accept"):find("text/html", 1, true) then
        -- Only who shows pages can show a login.
        reply:set_status(303)
        reply:add_header("location", "/login?to=" .. txn.sf:pathq())
        reply:add_header("cache-control", "no-store")
    elseif answer.status == 401 or answer.status == 403 then
        reply:set_status(answer.status)
        reply:add_header("content-type", "application/json")
        for _, challenge in pairs(answer.headers["www-authenticate"] or {}) do
            reply:add_header("www-authenticate", challenge)
        end
        reply:set_body(answer.body or "")
    end
    return reply
end

for action, page in pairs({ auth = false, login = true }) do
    core.register_action(action, { "http-req" }, function(txn, url)
        -- HAProxy passes a request on after an error of a script.
        local asked, reply = pcall(ask, txn, url, page)
        if not asked then
            core.Alert("auth.lua: " .. tostring(reply))
            reply = txn:reply({ status = 503 })
        end
        if reply then
            txn:done(reply)
        end
    end, 1)
end
