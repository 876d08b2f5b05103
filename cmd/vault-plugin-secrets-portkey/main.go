// SPDX-License-Identifier: MPL-2.0

// Command vault-plugin-secrets-portkey is the secrets engine as Vault runs it:
// one process per mount.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/plugin"

	portkey "vault-plugin-secrets-portkey"
)

// version is set by the build; see the Makefile.
var version = "v0.0.0-dev"

func main() {
	// net/http logs what it can't make sense of on a connection, quoted; from a
	// provider that echoes, that may be the provider key.
	log.SetOutput(io.Discard)
	logger := hclog.New(&hclog.LoggerOptions{JSONFormat: true, Level: hclog.Trace})
	flags := flag.NewFlagSet("vault-plugin-secrets-portkey", flag.ExitOnError)
	show := flags.Bool("version", false, "print the version and exit")
	// Vault may pass arguments of its own; an error ends the process.
	_ = flags.Parse(os.Args[1:])
	if *show {
		fmt.Println("vault-plugin-secrets-portkey", version)
		return
	}

	go endWithParent()
	// Serve, not ServeMultiplex: in a shared process, reloading one mount would
	// kill the calls of the others.
	if err := plugin.Serve(&plugin.ServeOpts{
		BackendFactoryFunc: portkey.Factory(portkey.Options{Version: version}),
		Logger:             logger,
	}); err != nil {
		logger.Error("the plugin can't be served", "error", err)
		os.Exit(1)
	}
}

// endWithParent ends the process when Vault, its parent, is gone: a plugin
// outlives a Vault that was killed, and must not act then.
func endWithParent() {
	parent := os.Getppid()
	for range time.Tick(time.Second) {
		if os.Getppid() != parent {
			os.Exit(0)
		}
	}
}
