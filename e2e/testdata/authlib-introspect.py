"""Introspects a token with authlib: ORIGIN WAY SECRET TOKEN. Prints the answer, or exits with 1."""

import sys

from authlib.integrations.requests_client import OAuth2Session

origin, way, secret, token = sys.argv[1:]
session = OAuth2Session("items-service", secret, token_endpoint_auth_method=way, revocation_endpoint_auth_method=way)
answer = session.introspect_token(f"{origin}/introspect", token=token)
answer.raise_for_status()
print(answer.text)
