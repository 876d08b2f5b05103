// Command vault is HashiCorp Vault, built from the Go module proxy for
// development and tests on machines that have no vault binary of their own.
// It is never shipped.
package main

import (
	"os"

	"github.com/hashicorp/vault/command"
)

func main() {
	os.Exit(command.Run(os.Args[1:]))
}
