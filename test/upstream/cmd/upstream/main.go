// SPDX-License-Identifier: MPL-2.0

// Command upstream runs the imitation of an LLM provider of package upstream,
// for trying things by hand and for benchmarks. It prints the base URL, keeps no
// requests, and ends on an interrupt.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"vault-plugin-secrets-portkey/test/upstream"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "upstream:", err)
		os.Exit(1)
	}
}

func run() error {
	o := upstream.Options{Discard: true}
	flag.StringVar(&o.Addr, "addr", "127.0.0.1:0", "address to listen on")
	flag.BoolVar(&o.TLS, "tls", false, "serve HTTPS and HTTP/2 with a CA of its own")
	flag.StringVar(&o.KeyHeader, "key-header", "", "header that carries the bare API key (default Authorization: Bearer)")
	flag.DurationVar(&o.Delay, "delay", 0, "wait this long before every answer")
	hosts := flag.String("hosts", "", "further names of the certificate, comma-separated")
	keys := flag.String("keys", "", "accepted API keys, comma-separated (default any)")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: see -help", flag.Arg(0))
	}
	o.Hosts, o.Keys = list(*hosts), list(*keys)

	s, err := upstream.New(o)
	if err != nil {
		return err
	}
	defer s.Close()
	fmt.Println(s.URL())
	if ca := s.CAFile(); ca != "" {
		fmt.Println(ca)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	<-ctx.Done()
	return nil
}

func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}
