async function check(r) {
    const token = /^bearer +([^ ]+)$/i.exec(r.headersIn.Authorization || '');
    r.headersOut['WWW-Authenticate'] = 'Bearer';
    if (!token) return r.return(401);
    const answer = await r.subrequest('/ask', { method: 'POST', body: 'token=' + encodeURIComponent(token[1]) });
    if (answer.status != 200) return r.return(500);
    const told = JSON.parse(answer.responseText);
    if (!told.active) return r.return(401);
    const scope = told.scope || '';
    if (!scope.split(' ').includes('items:read')) return r.return(403);
    r.headersOut['Remote-User'] = told.username;
    r.headersOut['Remote-Scope'] = scope;
    r.return(204);
}

export default { check };
