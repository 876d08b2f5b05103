// SPDX-License-Identifier: MPL-2.0

// Command upstream is the provider that the bench measures against. It prints
// its base URL and serves until it is ended.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"

	"vault-plugin-secrets-portkey/bench/internal/upstream"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "`address` to listen on")
	flag.Parse()
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", *listen)
	if err == nil {
		fmt.Printf("http://%s\n", l.Addr())
		err = upstream.New().Serve(l)
	}
	fmt.Fprintln(os.Stderr, "upstream:", err)
	os.Exit(1)
}
