// SPDX-License-Identifier: MPL-2.0

//go:build ignore

// Pack makes a vocabulary of this package from tiktoken's file of the same name
// (https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken):
//
//	go run pack.go o200k_base.tiktoken o200k_base.gz
//
// A test of the package holds the result against the file's published hash.
package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"log"
	"os"
)

func main() {
	file, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		log.Fatal(err)
	}
	rank := 0
	for lines := bufio.NewScanner(bytes.NewReader(file)); lines.Scan(); rank++ {
		var text string
		var given int
		if _, err := fmt.Sscan(lines.Text(), &text, &given); err != nil || given != rank {
			log.Fatalf("line %d: rank %d, %v", rank+1, given, err)
		}
		token, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(token) == 0 || len(token) > 255 {
			log.Fatalf("line %d: %d bytes, %v", rank+1, len(token), err)
		}
		z.Write([]byte{byte(len(token))})
		z.Write(token)
	}
	if err := z.Close(); err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(os.Args[2], out.Bytes(), 0o644); err != nil {
		log.Fatal(err)
	}
	log.Printf("%d tokens in %d bytes", rank, out.Len())
}
