"""The tutorial's app, with a get_current_user that asks the service instead of a dict.

uvicorn main:app --port 8087
"""

import json
from http.client import HTTPException as BrokenAnswer
from urllib.error import HTTPError
from urllib.parse import unquote, urlencode
from urllib.request import Request, urlopen

from fastapi import Depends, FastAPI, HTTPException, Security
from fastapi.security import OAuth2PasswordBearer, SecurityScopes
from pydantic import BaseModel

SERVICE = "http://127.0.0.1:8000"

app = FastAPI()
oauth2_scheme = OAuth2PasswordBearer(tokenUrl=f"{SERVICE}/token", scopes={"items:read": "read items"})


class User(BaseModel):
    username: str
    email: str | None = None
    full_name: str | None = None


# Not async: FastAPI then waits for the answer in a thread.
def get_current_user(needed: SecurityScopes, token: str = Depends(oauth2_scheme)) -> User:
    query = urlencode({"scope": needed.scope_str}) if needed.scopes else ""
    question = Request(f"{SERVICE}/auth?{query}", headers={"Authorization": f"Bearer {token}"})
    try:
        with urlopen(question, timeout=5) as answer:
            said = {name.lower(): unquote(value) or None for name, value in answer.headers.items()}
            return User(username=said["remote-user"], email=said["remote-email"], full_name=said["remote-name"])
    except HTTPError as refusal:
        if refusal.code not in (401, 403):
            raise HTTPException(503, "The login service is out of order")
        try:
            detail = json.load(refusal)["detail"]
        except (ValueError, KeyError, TypeError, BrokenAnswer):
            detail = None  # it is not the service's own; the status is told all the same
        challenge = refusal.headers["WWW-Authenticate"]
        raise HTTPException(refusal.code, detail, {"WWW-Authenticate": challenge} if challenge else None)
    except (OSError, BrokenAnswer, KeyError):
        raise HTTPException(503, "The login service cannot be reached")


@app.get("/users/me", response_model=User)
def read_users_me(user: User = Depends(get_current_user)):
    return user


@app.get("/items/{item_id}")
def read_item(item_id: str, user: User = Security(get_current_user, scopes=["items:read"])):
    return {"item_id": item_id, "owner": user.username}
