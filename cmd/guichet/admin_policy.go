package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/go-jose/go-jose/v4"

	"guichet/identity/provider"
)

// clientPolicy are the flags for what is agreed with a client beyond the usual.
type clientPolicy struct {
	Native       bool     `help:"Runs on people's own devices and keeps no secret."`
	Scope        []string `help:"What it may ask for; openid, profile and email when left out. offline_access gives refresh tokens."`
	Resource     []string `help:"Address of an API it may ask tokens for; may be given again."`
	Alg          string   `enum:",ES256,RS256" default:"" help:"Signs its ID tokens: ES256 when left out."`
	Auth         string   `enum:",client_secret_basic,client_secret_post,private_key_jwt" default:"" help:"How it authenticates: client_secret_basic when left out."`
	Keys         string   `type:"existingfile" help:"JWK set with its public keys, for private_key_jwt."`
	AssertionAlg string   `name:"assertion-alg" default:"ES256" help:"What it signs assertions with, for private_key_jwt."`
	FAPI2        bool     `name:"fapi2" help:"Has to push its requests, prove possession, and name us by issuer alone."`
	DPoP         string   `name:"dpop" enum:",required,nonce" default:"" help:"Has to prove possession of a key (required), with a nonce of ours (nonce)."`
	NonceForPKCE bool     `name:"nonce-for-pkce" help:"Its library knows no PKCE; it always sends a nonce instead."`
	Grace        *int     `help:"Seconds for which a spent refresh token still gives its successor, 0 to 60; 10 when left out."`
	LogoutURI    string   `name:"logout-uri" help:"Where it takes back-channel logout tokens."`
	PrivateHost  bool     `name:"logout-private" help:"The logout address may be plain http, inside the network or on this machine."`
	Device       bool     `help:"A kiosk, counter or screen at which people sign in by their phone."`
	PlaceEN      string   `name:"place-en" help:"Where the device stands, in English."`
	PlaceFR      string   `name:"place-fr" help:"Where the device stands, in French."`
	Serves       []string `help:"Address of an API it is the server of, and may introspect tokens for; may be given again."`
}

// apply writes the flags into the description of a client.
func (c *clientPolicy) apply(n *provider.NewClient) error {
	if c.Native {
		n.Type = provider.Native
	}
	n.AuthMethod, n.Scopes, n.Resources, n.Alg = c.Auth, c.Scope, c.Resource, c.Alg
	n.Policy = provider.Policy{
		FAPI2: c.FAPI2, DPoP: provider.DPoPPolicy(c.DPoP), NonceForPKCE: c.NonceForPKCE, GraceSeconds: c.Grace, Serves: c.Serves,
		LogoutURI: c.LogoutURI, LogoutPrivate: c.PrivateHost, Device: c.Device,
	}
	if c.PlaceEN != "" || c.PlaceFR != "" {
		n.Policy.Place = &provider.Words{EN: c.PlaceEN, FR: c.PlaceFR}
	}
	if c.Keys == "" {
		return nil
	}
	text, err := os.ReadFile(c.Keys)
	if err != nil {
		return err
	}
	n.Policy.Keys, n.Policy.AssertionAlg = new(jose.JSONWebKeySet), c.AssertionAlg
	if err := json.Unmarshal(text, n.Policy.Keys); err != nil {
		return fmt.Errorf("read %s: %w", c.Keys, err)
	}
	return nil
}
