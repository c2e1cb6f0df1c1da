-- http-request lua.auth URL asks the service at URL whether a request may pass.
-- It adds the headers that say whose it is, or refuses the request.
-- HAProxy 2.5 or later.
core.register_action("auth", { "http-req" }, function(txn, url)
    local answer = core.httpclient():get({
        url = url,
        headers = { authorization = txn.http:req_get_headers()["authorization"] },
        timeout = 5000, -- ms
    })
    if answer.status == 200 then
        for _, name in ipairs({ "remote-user", "remote-name", "remote-email", "remote-scope" }) do
            txn.http:req_set_header(name, answer.headers[name][0])
        end
        return
    end
    local reply = txn:reply({ status = 503 })
    if answer.status == 401 or answer.status == 403 then
        reply:set_status(answer.status)
        reply:add_header("content-type", "application/json")
        for _, challenge in pairs(answer.headers["www-authenticate"] or {}) do
            reply:add_header("www-authenticate", challenge)
        end
        reply:set_body(answer.body)
    end
    txn:done(reply)
end, 1)
