"""The tutorial's app as for production: bcrypt, and opaque tokens in a dict."""

import os
import secrets
import time

import bcrypt
from fastapi import Depends, FastAPI, HTTPException, status
from fastapi.security import OAuth2PasswordBearer, OAuth2PasswordRequestForm
from pydantic import BaseModel

LIFETIME = 30 * 60
app = FastAPI()
oauth2_scheme = OAuth2PasswordBearer(tokenUrl="token")
password_hash = os.environ["BENCH_HASH"].encode()
tokens: dict[str, tuple[str, float]] = {}


class User(BaseModel):
    username: str
    email: str | None = None
    full_name: str | None = None
    disabled: bool | None = None


users = {"johndoe": User(username="johndoe", email="johndoe@example.com", full_name="John Doe", disabled=False)}


async def get_current_active_user(token: str = Depends(oauth2_scheme)) -> User:
    username, expires = tokens.get(token, ("", 0.0))
    user = users.get(username)
    if user is None or expires <= time.time():
        raise HTTPException(status.HTTP_401_UNAUTHORIZED, "Not authenticated", {"WWW-Authenticate": "Bearer"})
    if user.disabled:
        raise HTTPException(400, "Inactive user")
    return user


@app.post("/token")
def login(form: OAuth2PasswordRequestForm = Depends()):  # not async: bcrypt runs in the thread pool
    if not bcrypt.checkpw(form.password.encode(), password_hash) or form.username not in users:
        raise HTTPException(400, "Incorrect username or password")
    token = secrets.token_urlsafe(32)
    tokens[token] = (form.username, time.time() + LIFETIME)
    return {"access_token": token, "token_type": "bearer"}


@app.get("/users/me")
async def read_users_me(user: User = Depends(get_current_active_user)):
    return user
