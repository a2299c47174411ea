"""A department's application written with Authlib: prints the address to send the
browser to, reads the address it came back with, prints what it learnt as JSON."""
import json
import sys

import requests
from authlib.integrations.requests_client import OAuth2Session
from authlib.jose import JsonWebKey, jwt
from authlib.oidc.core import CodeIDToken

issuer, client_id, secret, redirect_uri = sys.argv[1:]
conf = requests.get(issuer + "/.well-known/openid-configuration", timeout=10).json()
assert conf["issuer"] == issuer
verifier, nonce = "v" * 50, "nonce-authlib"
client = OAuth2Session(client_id, secret, scope="openid profile email", redirect_uri=redirect_uri,
                       code_challenge_method="S256", token_endpoint_auth_method="client_secret_basic")
url, state = client.create_authorization_url(conf["authorization_endpoint"], code_verifier=verifier, nonce=nonce)
print(url, flush=True)
answer = sys.stdin.readline().strip()
token = client.fetch_token(conf["token_endpoint"], authorization_response=answer, state=state, code_verifier=verifier)
keys = JsonWebKey.import_key_set(requests.get(conf["jwks_uri"], timeout=10).json())
claims = jwt.decode(token["id_token"], keys, claims_cls=CodeIDToken, claims_options={
    "iss": {"essential": True, "value": issuer}, "aud": {"essential": True, "value": client_id}},
    claims_params={"nonce": nonce, "client_id": client_id, "access_token": token["access_token"]})
claims.validate()
info = client.get(conf["userinfo_endpoint"]).json()
print(json.dumps({"sub": claims["sub"], "info": info}), flush=True)
