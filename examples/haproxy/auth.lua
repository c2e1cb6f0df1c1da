-- http-request lua.auth URL asks the service at URL whether a request may pass.
-- It adds the headers that say who sent it, or refuses the request.
-- It needs HAProxy 2.5 or later.
local function ask(txn, url)
    local answer = core.httpclient():get({
        url = url,
        headers = { authorization = txn.http:req_get_headers()["authorization"] },
        timeout = 5000, -- ms
    })
    if answer.status == 200 then
        for _, name in ipairs({ "remote-user", "remote-name", "remote-email", "remote-scope" }) do
            txn.http:req_set_header(name, answer.headers[name][0])
        end
        return nil
    end
    local reply = txn:reply({ status = 503 })
    if answer.status == 401 or answer.status == 403 then
        reply:set_status(answer.status)
        reply:add_header("content-type", "application/json")
        for _, challenge in pairs(answer.headers["www-authenticate"] or {}) do
            reply:add_header("www-authenticate", challenge)
        end
        reply:set_body(answer.body or "")
    end
    return reply
end

core.register_action("auth", { "http-req" }, function(txn, url)
    -- HAProxy passes a request on after an error of a script.
    local asked, reply = pcall(ask, txn, url)
    if not asked then
        core.Alert("auth.lua: " .. tostring(reply))
        reply = txn:reply({ status = 503 })
    end
    if reply then
        txn:done(reply)
    end
end, 1)
