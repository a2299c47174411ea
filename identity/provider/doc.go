// Package provider decides what a department's application may learn about a resident:
// the OpenID Provider without its HTTP.
//
//	authorize ──Check──▶ Request ──Decide──▶ sign in │ ask │ Issue ──▶ code
//	token     ──Authenticate──▶ Client ──Redeem──▶ access token, ID token
//	userinfo  ──Userinfo──▶ claims          logout ──Logout──▶ what to do
//
// Only the code flow with PKCE S256 exists. A resident has another name (sub) in
// every department, and a session another name (sid) with every client, so that two departments
// cannot put their records together.
//
// Codes and tokens are stored as SHA-256. A code is consumed by one conditional
// update; presented again it is refused and what it gave dies. Signing keys are
// sealed by the master key. The protocol's own words ("invalid_grant") are the
// Code of an *Error; what HTTP makes of it is the business of api/oidc.
package provider
