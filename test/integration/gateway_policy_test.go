// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"net/http"
	"strings"
	"testing"
)

// judged is a row of the table of policies: who sends what, and whether Vault lets
// it in.
type judged struct {
	name string
	// policy is the token's, in which CHAT is the path of chat completions, PROXY
	// that of the virtual key, ROLE its name and MOUNT the mount's path.
	policy string
	// token makes the caller's token, which has the policy; nil makes a usual one.
	token func(t *testing.T, g *gatewayRig, policy string) string
	// source is the caller's address; "" is one of its own.
	source string
	errand errand
	in     bool
}

// chatWith is an errand with further members in its body.
func chatWith(members map[string]any) errand {
	return errand{body: with(hello("up-ok"), members)}
}

const (
	updateChat = `path "CHAT" { capabilities = ["update"] }`
	allOfRole  = `path "PROXY/*" { capabilities = ["read", "update", "delete"] }`
)

// pathRows are rows on the path and the capabilities.
func pathRows() []judged {
	models := errand{method: http.MethodGet, path: "v1/models"}
	embed := errand{path: "v1/embeddings", body: map[string]any{"model": "up-ok", "input": "Hi."}}
	return []judged{
		{name: "ExactPath", policy: updateChat, in: true},
		{name: "ExactPathOtherThanAsked", policy: updateChat, errand: embed},
		{name: "ExactPathOtherCapability", policy: `path "CHAT" { capabilities = ["read", "list", "sudo"] }`},
		{name: "CreateIsNotUpdate", policy: `path "CHAT" { capabilities = ["create"] }`},
		{name: "Glob", policy: allOfRole, in: true},
		{name: "GlobOtherPath", policy: allOfRole, errand: embed, in: true},
		{name: "GlobOfAnotherVirtualKey", policy: `path "MOUNT/proxy/ROLE-2/*" { capabilities = ["update"] }`},
		{name: "GlobWithoutSlash", policy: `path "MOUNT/proxy/ROL*" { capabilities = ["update"] }`, in: true},
		{name: "SegmentWildcard", policy: `path "MOUNT/proxy/+/v1/chat/completions" { capabilities = ["update"] }`, in: true},
		{name: "SegmentWildcardTooShort", policy: `path "MOUNT/proxy/+/v1/+" { capabilities = ["update"] }`},
		{name: "MoreSpecificPathCounts", policy: allOfRole + `path "CHAT" { capabilities = ["read"] }`},
		{name: "DenyOnThePath", policy: allOfRole + `path "CHAT" { capabilities = ["deny"] }`},
		{name: "DenyOnAnotherPath", policy: allOfRole + `path "PROXY/v1/embeddings" { capabilities = ["deny"] }`, in: true},
		{name: "DenyOnTheVirtualKey", policy: updateChat + `path "PROXY/*" { capabilities = ["deny"] }`, in: true},
		{name: "ReadForGet", policy: `path "PROXY/v1/models" { capabilities = ["read"] }`, errand: models, in: true},
		{name: "ReadOfAllowedQuery", policy: `path "PROXY/v1/models" {
			capabilities = ["read"]
			allowed_parameters = { "limit" = ["3"], "gateway_nonce" = [] }
		}`, errand: errand{method: http.MethodGet, path: "v1/models?limit=3"}, in: true},
		{name: "ReadOfAnotherQuery", policy: `path "PROXY/v1/models" {
			capabilities = ["read"]
			allowed_parameters = { "limit" = ["3"], "gateway_nonce" = [] }
		}`, errand: errand{method: http.MethodGet, path: "v1/models?limit=4"}},
		{name: "UpdateIsNotRead", policy: `path "PROXY/*" { capabilities = ["update"] }`, errand: models},
		{name: "ReadIsNotDelete", policy: `path "PROXY/*" { capabilities = ["read", "update"] }`,
			errand: errand{method: http.MethodDelete, path: "v1/models/up-ok"}},
		{name: "NoPolicy", policy: `path "sys/health" { capabilities = ["read"] }`},
		{name: "MinWrappingTTL", policy: `path "CHAT" {
			capabilities = ["update"]
			min_wrapping_ttl = "1s"
			max_wrapping_ttl = "90s"
		}`},
	}
}

// parameterRows are rows on what the request holds.
func parameterRows() []judged {
	policy := func(what string) string { return `path "PROXY/*" { capabilities = ["update"]` + "\n" + what + "\n}" }
	allow := func(what string) string {
		return policy(`allowed_parameters = { ` + what + ` "messages" = [], "gateway_nonce" = [] }`)
	}
	deny := func(what string) string { return policy(`denied_parameters = { ` + what + ` }`) }
	other := errand{body: hello("up-echo")}
	tools := chatWith(map[string]any{"tools": []any{map[string]any{"type": "function", "function": map[string]any{"name": "f"}}}})
	return []judged{
		{name: "AllowedModel", policy: allow(`"model" = ["up-ok"],`), in: true},
		{name: "AllowedModelIsAnother", policy: allow(`"model" = ["up-ok"],`), errand: other},
		{name: "AllowedModelByGlob", policy: allow(`"model" = ["up-*"],`), errand: other, in: true},
		{name: "AllowedModelByGlobIsAnother", policy: allow(`"model" = ["up-o*"],`), errand: other},
		{name: "AllowedModelInAnyCaseOfTheName", policy: allow(`"MODEL" = ["up-ok"],`), in: true},
		{name: "AllowedWithStar", policy: policy(`allowed_parameters = { "model" = ["up-ok"], "*" = [] }`), in: true},
		{name: "AllowedWithStarIsAnotherModel", policy: policy(`allowed_parameters = { "model" = ["up-ok"], "*" = [] }`), errand: other},
		{name: "AllowedMisses", policy: allow(`"model" = ["up-ok"],`), errand: chatWith(map[string]any{"user": "u"})},
		// A number of JSON never equals one of a policy in Vault (seen with 1.21).
		{name: "AllowedNumber", policy: allow(`"model" = [], "n" = [1, "1"],`), errand: chatWith(map[string]any{"n": 1})},
		{name: "AllowedAnyNumber", policy: allow(`"model" = [], "n" = [],`), errand: chatWith(map[string]any{"n": 1}), in: true},
		{name: "AllowedTrue", policy: allow(`"model" = [], "store" = [true],`), errand: chatWith(map[string]any{"store": true}), in: true},
		{name: "AllowedTrueIsFalse", policy: allow(`"model" = [], "store" = [true],`), errand: chatWith(map[string]any{"store": false})},
		{name: "DeniedModel", policy: deny(`"model" = ["up-echo"]`), errand: other},
		{name: "DeniedModelIsAnother", policy: deny(`"model" = ["up-echo"]`), in: true},
		{name: "DeniedModelByGlob", policy: deny(`"model" = ["*cho"]`), errand: other},
		{name: "DeniedWhateverItIs", policy: deny(`"tools" = []`), errand: tools},
		{name: "DeniedWhateverItIsAndNotThere", policy: deny(`"tools" = []`), in: true},
		{name: "DeniedInAnotherCase", policy: deny(`"user" = []`), errand: chatWith(map[string]any{"USER": "u"})},
		{name: "DeniedAll", policy: deny(`"*" = []`)},
		{name: "DeniedBeatsAllowed", policy: policy(`allowed_parameters = { "*" = [] }` + "\n" + `denied_parameters = { "user" = ["u"] }`),
			errand: chatWith(map[string]any{"user": "u"})},
		{name: "RequiredIsThere", policy: policy(`required_parameters = ["user"]`), errand: chatWith(map[string]any{"user": "u"}), in: true},
		{name: "RequiredIsThereAsAList", policy: policy(`required_parameters = ["tools"]`), errand: tools, in: true},
		{name: "RequiredMisses", policy: policy(`required_parameters = ["user"]`)},
	}
}

// substitute puts the names of a virtual key into a policy.
func (g *gatewayRig) substitute(policy, role string) string {
	return strings.NewReplacer("CHAT", g.chatOf(role), "PROXY", g.mount+"/proxy/"+role, "ROLE", role, "ROL*", role[:len(role)-1]+"*",
		"MOUNT", g.mount).Replace(policy)
}

// TestGateway_PolicyDecidesTheSameAtEveryDoor: what is let in is known by hand, and
// is the same wherever it asks.
func TestGateway_PolicyDecidesTheSameAtEveryDoor(t *testing.T) {
	for _, mount := range []string{mount, "team/llm/portkey"} {
		t.Run(mount, func(t *testing.T) {
			g := startGateway(t, gatewayOptions{mount: mount})
			addresses := &sources{}
			table := append(append(pathRows(), parameterRows()...), tokenRows()...)
			for _, redirect := range []string{"off", "all"} {
				g.open(t, map[string]any{"redirect": redirect})
				for _, row := range table {
					g.judge(t, row, redirect, addresses)
				}
			}
		})
	}
}

// judge sends the errand of a row through every door that is open with this
// setting of redirect.
func (g *gatewayRig) judge(t *testing.T, row judged, redirect string, addresses *sources) {
	t.Helper()
	for _, d := range doors() {
		if d.redirect != redirect {
			continue
		}
		t.Run(row.name+"/"+d.name, func(t *testing.T) {
			role := strings.ToLower(row.name)
			g.role(t, role, nil)
			g.vault.Policy(t, role, g.substitute(row.policy, role))
			c := caller{gatewayRig: g, source: row.source}
			if row.source == "" {
				c.source = addresses.next()
			}
			if row.token == nil {
				c.token = g.vault.Token(t, role)
			} else {
				c.token = row.token(t, g, role)
			}
			reached, resp := d.try(t, c, role, row.errand)
			if reached != row.in {
				t.Fatalf("it got in: %t, expected %t: %.1000s", reached, row.in, resp)
			}
			if !reached && d.gateway {
				wantError(t, resp, http.StatusForbidden, "permission_denied", "permission denied")
			}
			if !reached && !d.gateway {
				wantVaults403(t, resp)
			}
		})
	}
}

// TestGateway_AllowListWithoutTheNonceIsRefusedAndTheErrorSaysWhatToList: the one
// policy that decides otherwise at the gateway.
func TestGateway_AllowListWithoutTheNonceIsRefusedAndTheErrorSaysWhatToList(t *testing.T) {
	g := startGateway(t, gatewayOptions{})
	g.role(t, "listed", nil)
	const list = `path "CHAT" {
		capabilities = ["update"]
		allowed_parameters = { "model" = ["up-ok"], "messages" = [] }
	}`
	g.vault.Policy(t, "listed", g.substitute(list, "listed"))
	token := g.vault.Token(t, "listed")
	wantCompletion(t, post(t, g.atVault(t, token), g.chatOf("listed"), hello("up-ok")))
	unasked(t, g.up, func() {
		resp := post(t, g.atGateway(t, token), g.chatOf("listed"), hello("up-ok"))
		wantError(t, resp, http.StatusForbidden, "permission_denied", "allowed_parameters", "gateway_nonce", `"*"`)
	})
	g.vault.Policy(t, "listed", strings.Replace(g.substitute(list, "listed"), `"messages" = []`, `"messages" = [], "gateway_nonce" = []`, 1))
	eventually(t, "the refusal to be forgotten", func() bool {
		return post(t, g.atGateway(t, token), g.chatOf("listed"), hello("up-ok")).Status == http.StatusOK
	})
}

// TestGateway_ModelOnlyShowsVaultNoOtherValue: what its help says that it costs.
func TestGateway_ModelOnlyShowsVaultNoOtherValue(t *testing.T) {
	g := startGateway(t, gatewayOptions{settings: map[string]any{"redirect": "off", "grant_fields": "model"}})
	addresses := &sources{}
	changed := map[string]bool{"AllowedTrue": false, "DeniedBeatsAllowed": true}
	for _, row := range parameterRows() {
		for _, d := range doors() {
			if !d.gateway {
				continue
			}
			t.Run(row.name+"/"+d.name, func(t *testing.T) {
				role := strings.ToLower(row.name)
				g.role(t, role, nil)
				g.vault.Policy(t, role, g.substitute(row.policy, role))
				in, other := changed[row.name]
				if !other {
					in = row.in
				}
				c := caller{gatewayRig: g, source: addresses.next(), token: g.vault.Token(t, role)}
				if reached, resp := d.try(t, c, role, row.errand); reached != in {
					t.Fatalf("it got in: %t, expected %t: %.1000s", reached, in, resp)
				}
			})
		}
	}
}
