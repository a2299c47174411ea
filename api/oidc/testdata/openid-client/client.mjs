// A department's application written with openid-client: prints the address to send
// the browser to, reads the address it came back with, prints what it learnt as JSON.
import * as client from 'openid-client'
import { createInterface } from 'node:readline/promises'

const [issuer, id, secret, redirectUri, postLogout] = process.argv.slice(2)
const config = await client.discovery(new URL(issuer), id, secret, client.ClientSecretBasic(secret), {
  execute: [client.allowInsecureRequests], // http on loopback
})
const verifier = client.randomPKCECodeVerifier()
const state = client.randomState()
const nonce = client.randomNonce()
const to = client.buildAuthorizationUrl(config, {
  redirect_uri: redirectUri, scope: 'openid profile email', state, nonce, max_age: '3600',
  code_challenge: await client.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256',
})
console.log(to.href)
const lines = createInterface({ input: process.stdin })
const answer = await new Promise((resolve) => lines.once('line', resolve))
lines.close()
const tokens = await client.authorizationCodeGrant(config, new URL(answer), {
  pkceCodeVerifier: verifier, expectedState: state, expectedNonce: nonce, maxAge: 3600, idTokenExpected: true,
})
const claims = tokens.claims()
const info = await client.fetchUserInfo(config, tokens.access_token, claims.sub)
const logout = client.buildEndSessionUrl(config, { id_token_hint: tokens.id_token, post_logout_redirect_uri: postLogout, state: 'bye' })
console.log(JSON.stringify({ sub: claims.sub, info, logout: logout.href }))
