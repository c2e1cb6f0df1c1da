"""Log in, say who that is, and log out: python3 login.py URL USERNAME

The password is LOGIN_PASSWORD of the environment, or is asked for.
"""

import json
import os
import sys
import time
import warnings
from getpass import GetPassWarning, getpass
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen


def ask(path, again=True, **request):
    try:
        with urlopen(Request(service + path, **request), timeout=30) as answer:  # a login may wait for 20 s
            return dict(json.load(answer))
    except HTTPError as refusal:
        wait = refusal.headers["Retry-After"] or ""
        if not again or not wait.isdigit():
            sys.exit(f"{path}: {refusal.code} {refusal.read().decode(errors='replace')}")
    except (OSError, HTTPException) as error:
        sys.exit(f"{service} cannot be reached: {error}")
    except (ValueError, TypeError):
        sys.exit(f"{path}: this is not an answer of simple-oauth2")
    time.sleep(int(wait))
    return ask(path, again=False, **request)


def password():
    warnings.simplefilter("error", GetPassWarning)  # rather than show what is typed
    try:
        return os.environ.get("LOGIN_PASSWORD") or getpass()
    except (GetPassWarning, EOFError, KeyboardInterrupt):
        sys.exit("no password: set LOGIN_PASSWORD, or run this on a terminal")


if len(sys.argv) != 3 or "://" not in sys.argv[1]:
    sys.exit(__doc__)
service, username = sys.argv[1].rstrip("/"), sys.argv[2]
form = {"username": username, "password": password()}
token = ask("/token", data=urlencode(form).encode()).get("access_token")
if not token:
    sys.exit("/token: this is not an answer of simple-oauth2")
try:
    print(ask("/users/me", headers={"Authorization": f"Bearer {token}"}))
finally:
    ask("/revoke", data=urlencode({"token": token}).encode())
