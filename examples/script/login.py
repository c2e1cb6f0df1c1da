"""Log in, say who that is, and log out: python3 login.py URL USERNAME

The password is LOGIN_PASSWORD of the environment, or is asked for.
"""

import json
import os
import sys
import time
from getpass import getpass
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen


def ask(path, again=True, **request):
    try:
        with urlopen(Request(service + path, **request), timeout=30) as answer:  # a login may wait for 20 s
            return json.load(answer)
    except HTTPError as refusal:
        wait = refusal.headers["Retry-After"]
        if not again or not wait:
            sys.exit(f"{path}: {refusal.code} {refusal.read().decode()}")
    except OSError as error:
        sys.exit(f"{service} cannot be reached: {error}")
    time.sleep(int(wait))
    return ask(path, again=False, **request)


if len(sys.argv) != 3:
    sys.exit(__doc__)
service, username = sys.argv[1].rstrip("/"), sys.argv[2]
form = {"username": username, "password": os.environ.get("LOGIN_PASSWORD") or getpass()}
token = ask("/token", data=urlencode(form).encode())["access_token"]
try:
    print(ask("/users/me", headers={"Authorization": f"Bearer {token}"}))
finally:
    ask("/revoke", data=urlencode({"token": token}).encode())
