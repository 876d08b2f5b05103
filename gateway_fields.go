// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"fmt"
	"net/url"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-portkey/internal/gateway"
)

func gatewayFields() map[string]*framework.FieldSchema {
	text := func(description string) *framework.FieldSchema {
		return &framework.FieldSchema{Type: framework.TypeString, Description: description}
	}
	number := func(otherwise int, description string) *framework.FieldSchema {
		return &framework.FieldSchema{Type: framework.TypeInt, Default: otherwise, Description: description + " 0 restores the default."}
	}
	duration := func(otherwise int, description string) *framework.FieldSchema {
		return &framework.FieldSchema{Type: framework.TypeDurationSecond, Default: otherwise, Description: description}
	}
	word := func(otherwise, description string) *framework.FieldSchema {
		return &framework.FieldSchema{Type: framework.TypeString, Default: otherwise, Description: description}
	}
	key := text("Private key of the certificate, as PEM. It is never shown.")
	key.DisplayAttrs = &framework.DisplayAttributes{Sensitive: true}
	return map[string]*framework.FieldSchema{
		"address": text("Where to listen, such as 127.0.0.1:8300 or :8300."),
		"public_url": text("How apps reach the gateway, such as https://llm.example.com:8300. If empty, the listener's address; " +
			"where that is all addresses or loopback, it is of use on Vault's own machine alone."),
		"tls_certificate": text("Certificate as PEM, with the intermediate ones after it. Empty for plain HTTP, on loopback."),
		"tls_key":         key,
		"plain_http":      {Type: framework.TypeBool, Description: "Allow plain HTTP on other addresses than loopback: tokens and prompts cross the network in clear."},
		"vault_address": text("URL of this Vault's API, which the gateway asks whether a caller may do what it wants. " +
			"Best a listener of Vault's own on loopback, with x_forwarded_for_authorized_addrs: over plain http to another machine, callers' tokens cross the network in clear."),
		"vault_ca":        text("Certificate authorities of vault_address, as PEM. The system's if empty."),
		"vault_namespace": text("Namespace of the mount, for Vault Enterprise."),
		"grant_ttl":       duration(defaultGrantTTL, "How long Vault's yes is kept, up to 1h: a changed policy takes effect after it at the latest. 0 asks Vault for each request. A revoked token is refused at once either way."),
		"grant_fields": word(grantFieldsAll, "What of a request Vault's policies are asked about: all is every top-level field; model is the model's value and the other fields' names, "+
			"so that Vault is asked less often, but policies on the values of other parameters don't hold."),
		"redirect": word(redirectStream, "Which requests on proxy/ Vault sends on to the gateway: stream, all, or off. None is sent to a public_url of plain http, but on loopback."),
		"caller_address": word(addressForwarded, "forwarded: Vault must know the caller's address, by X-Forwarded-For. "+
			"ignore: it need not, so that address-bound tokens, quotas and the audit log see the gateway's address for everybody."),
		"allowed_origins":  {Type: framework.TypeCommaStringSlice, Description: "Web origins that browsers may call from, such as https://app.example.com, or *. Empty allows none."},
		"max_body_bytes":   number(defaultGatewayBody, "The largest request body, in bytes."),
		"max_connections":  number(defaultConnections, "How many connections may be open."),
		"max_streams":      number(defaultConnections, "How many requests may be under way."),
		"upstream_timeout": duration(defaultGatewayUpstream, "How long a whole exchange with the provider may take. 0 restores the default."),
		"idle_timeout":     duration(defaultIdle, "How long the provider may be silent in an answer. A caller who takes nothing is cut off after up to twice that. 0 restores the default."),
	}
}

// expiryNotice is how long before its end a certificate is warned of.
const expiryNotice = 14 * 24 * time.Hour

// warnings are about settings that work, but not as one might think. place is where
// they put the gateway.
func (s *gatewaySettings) warnings(status gateway.Status, place gateway.Place) *logical.Response {
	resp := &logical.Response{}
	if left := time.Until(status.CertificateExpires); !status.CertificateExpires.IsZero() && left < expiryNotice {
		resp.AddWarning(fmt.Sprintf("tls_certificate expires at %s", status.CertificateExpires.UTC().Format(time.RFC3339)))
	}
	if s.PlainHTTP && s.Certificate == "" {
		resp.AddWarning("plain_http: tokens, prompts and answers cross the network in clear unless the address is loopback or TLS ends before the gateway")
	}
	if s.CallerAddress == addressIgnore {
		resp.AddWarning("caller_address=ignore: address-bound tokens, rate quotas and the audit log see the gateway's address for every caller")
	}
	if s.GrantFields == grantFieldsModel {
		resp.AddWarning("grant_fields=model: policies on the values of other parameters than the model don't hold at the gateway")
	}
	vault, err := url.Parse(s.VaultAddress)
	if err == nil && vault.Scheme == "http" && !isLoopback(vault.Hostname()) {
		resp.AddWarning("vault_address: every caller's token crosses the network to " + vault.Host + " in clear; name a listener of Vault's on loopback, or one of https")
	}
	if place.OnlyHere() {
		resp.AddWarning("public_url is empty, and " + place.URL + " leads to the gateway from Vault's own machine alone: callers from elsewhere aren't redirected, " +
			"and the base_url of leased keys is of no use to them; set public_url to the URL by which apps reach the gateway")
	}
	switch redirects := orDefault(s.Redirect, redirectStream) != noWay; {
	case !redirects || !place.Plain:
	case !place.Loopback:
		resp.AddWarning("redirect: no caller of Vault is sent to a gateway on http, so streams through Vault's address arrive whole at their end; " +
			"give the gateway a certificate, or a public_url of https")
	case err == nil && vault.Scheme == "https":
		resp.AddWarning("redirect: callers of Vault over https are never sent to a gateway on http, so streams through Vault's address arrive whole at their end")
	}
	if status.Draining {
		resp.AddWarning("the gateway is draining still; `vault write <mount>/config/gateway/drain cancel=true` lets it take requests again")
	}
	if len(resp.Warnings) == 0 {
		return nil
	}
	return resp
}

const gatewayHelp = `
The gateway streams answers as they come, and takes uploads and bodies byte for
byte. It is off until address and vault_address are written, and runs on the
active node only. Apps use it as they use Vault's proxy path:

    base_url = <public_url>/v1/<mount>/proxy/<virtual key>/v1

or as they use a provider, with the virtual key named by the header
x-portkey-virtual-key or by the model @<virtual key>/<model>:

    base_url = <public_url>/v1

A caller's credential is a Vault token, about which the gateway asks Vault at
vault_address, or a leased key of creds/<virtual key>. Vault must know the
caller's address, so give the gateway a listener of its own in Vault's
configuration:

    listener "tcp" {
      address                          = "127.0.0.1:8210"
      tls_disable                      = true
      x_forwarded_for_authorized_addrs = "127.0.0.1"
    }

    vault write <mount>/config/gateway address=:8300 vault_address=http://127.0.0.1:8210 \
      public_url=https://llm.example.com:8300 tls_certificate=@cert.pem tls_key=@key.pem

A policy with allowed_parameters on a proxy path must list gateway_nonce, or "*".
The path needs sudo in a policy.
`
