package admin

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"guichet/api/web"
	"guichet/identity/provider"
)

// policyFacts are what is agreed with a client beyond the usual; the usual is not listed.
func policyFacts(p provider.Policy) []fact {
	var facts []fact
	add := func(is bool, name string, c cell) {
		if is {
			facts = append(facts, one(name, c))
		}
	}
	add(p.FAPI2, "policy.fapi2", word("yes"))
	add(p.DPoP != "", "policy.dpop", word("dpop."+string(p.DPoP)))
	add(p.NonceForPKCE, "policy.nonce_for_pkce", word("yes"))
	if p.GraceSeconds != nil {
		facts = append(facts, one("policy.grace", word("number", "Count", *p.GraceSeconds)))
	}
	if p.Keys != nil {
		for _, k := range p.Keys.Keys {
			facts = append(facts, one("policy.key", code(p.AssertionAlg+" "+k.KeyID)))
		}
	}
	add(len(p.Serves) > 0, "policy.serves", code(strings.Join(p.Serves, " ")))
	add(p.Device, "policy.device", word("yes"))
	add(p.LogoutURI != "", "policy.logout", code(p.LogoutURI))
	return facts
}

// policyInputs are the parts of a policy that departments change. What is left (FAPI 2,
// devices, resource servers) is agreed at registration.
func policyInputs(c provider.Registered) []input {
	grace := ""
	if c.GraceSeconds != nil {
		grace = strconv.Itoa(*c.GraceSeconds)
	}
	list := []input{
		{Kind: "select", Name: "dpop", Label: say("policy.dpop"), Options: options(string(c.DPoP), []string{"", string(provider.DPoPRequired), string(provider.DPoPNonce)}, func(v string) web.Message {
			if v == "" {
				return say("dpop.free")
			}
			return say("dpop." + v)
		})},
		{Kind: "text", Name: "grace", Label: say("policy.grace"), Hint: say("policy.grace_hint"), Value: grace, Optional: true, Length: "2"},
		{Kind: "text", Name: "logout_uri", Label: say("policy.logout"), Hint: say("policy.logout_hint"), Value: c.LogoutURI, Optional: true, Length: "500"},
	}
	if c.AuthMethod == provider.PrivateKey {
		list = append(list, input{Kind: "textarea", Name: "keys", Label: say("policy.keys"), Hint: say("policy.keys_hint"), Value: keySet(c.Keys), Length: "20000"})
	}
	if c.Type == provider.Web {
		list = append(list, input{Kind: "checks", Name: "nonce_for_pkce", Label: say("policy.pkce"), Options: []option{{"true", say("policy.nonce_for_pkce"), c.NonceForPKCE}}})
	}
	return list
}

func keySet(keys *jose.JSONWebKeySet) string {
	if keys == nil {
		return ""
	}
	text, err := json.MarshalIndent(keys, "", " ")
	if err != nil {
		return ""
	}
	return string(text)
}

// wantedPolicy reads the policy's part of the change form over what is in force.
func wantedPolicy(f *web.Form, old provider.Registered) provider.Policy {
	p := old.Policy
	p.DPoP, p.LogoutURI = provider.DPoPPolicy(f.Value("dpop")), f.Value("logout_uri")
	p.NonceForPKCE = f.Value("nonce_for_pkce") == "true"
	p.GraceSeconds = nil
	if typed := f.Value("grace"); typed != "" {
		n, err := strconv.Atoi(typed)
		if err != nil {
			f.Fail("grace", "admin.policy.grace_bad")
		}
		p.GraceSeconds = &n
	}
	if old.AuthMethod == provider.PrivateKey {
		p.Keys = new(jose.JSONWebKeySet)
		if err := json.Unmarshal([]byte(f.Value("keys")), p.Keys); err != nil {
			f.Fail("keys", "admin.policy.keys_bad")
		}
	}
	return p
}
