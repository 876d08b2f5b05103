// SPDX-License-Identifier: MPL-2.0

// Command plugin is the secrets engine, with one path more: noop/…, which is
// answered at once. What a call costs there is what Vault and its plugin
// protocol cost; the inline path can't be faster.
package main

import (
	"io"
	"log"
	"os"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/plugin"

	portkey "vault-plugin-secrets-portkey"
)

func main() {
	log.SetOutput(io.Discard)
	logger := hclog.New(&hclog.LoggerOptions{JSONFormat: true})
	if err := plugin.Serve(&plugin.ServeOpts{
		BackendFactoryFunc: withNoop(portkey.Factory(portkey.Options{Version: "v0.0.0-bench"})),
		Logger:             logger,
	}); err != nil {
		logger.Error("the plugin can't be served", "error", err)
		os.Exit(1)
	}
}
