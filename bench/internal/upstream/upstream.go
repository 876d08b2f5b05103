// SPDX-License-Identifier: MPL-2.0

// Package upstream is the provider that the bench measures against. It speaks
// as much of HTTP/1.1 (RFC 9112) as proxies on the same machine use, and all
// its answers are ready before they are asked for: it has to be far faster than
// anything that is put before it, or the bench would measure the upstream.
package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"strconv"
	"sync"

	"vault-plugin-secrets-portkey/bench/internal/chat"
)

// maxBody is the largest request body, in bytes.
const maxBody = 8 << 20

// Server answers chat completions. It is safe for concurrent use.
type Server struct {
	mu      sync.RWMutex
	answers map[chat.Asked][][]byte
}

// New returns a server that knows no answer yet.
func New() *Server { return &Server{answers: make(map[chat.Asked][][]byte)} }

// Serve answers every connection of l until l is closed, whose error it returns.
func (s *Server) Serve(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			if err := s.serve(conn); err != nil && !errors.Is(err, io.EOF) {
				_, _ = conn.Write(refusal(err)) // the connection may be gone
			}
		}()
	}
}

// serve answers one connection's requests, one after another. It returns io.EOF
// when there is no more.
func (s *Server) serve(conn net.Conn) error {
	in := bufio.NewReaderSize(conn, 16<<10)
	var body []byte
	for {
		head, err := readHead(in)
		if err != nil {
			return err
		}
		if head.expects {
			if _, err := io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
				return io.EOF
			}
		}
		if body, err = head.readBody(in, body[:0]); err != nil {
			return err
		}
		asked, ok := chat.ReadRequest(body)
		if !ok || !head.completion {
			return errors.New("only " + chat.Path + " of the bench's models is answered here")
		}
		// Each part is a write of its own, as a provider sends each event when
		// it has it.
		for _, part := range s.answer(asked) {
			if _, err := conn.Write(part); err != nil {
				return io.EOF // the caller is gone
			}
		}
		if head.close {
			return io.EOF
		}
	}
}

// answer is what is written for a request, in parts.
func (s *Server) answer(asked chat.Asked) [][]byte {
	s.mu.RLock()
	parts := s.answers[asked]
	s.mu.RUnlock()
	if parts == nil {
		parts = render(asked)
		s.mu.Lock()
		s.answers[asked] = parts
		s.mu.Unlock()
	}
	return parts
}

func render(asked chat.Asked) [][]byte {
	const common = "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nServer: bench\r\nX-Request-Id: req_bench\r\n" +
		"Openai-Processing-Ms: 1\r\nX-Ratelimit-Remaining-Requests: 9999\r\nX-Ratelimit-Remaining-Tokens: 1999999\r\n"
	if !asked.Stream {
		answer := chat.Answer(asked.KiB)
		return [][]byte{fmt.Appendf(nil, common+"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)}
	}
	var parts [][]byte
	for _, event := range chat.Events(asked.KiB, asked.Usage) {
		parts = append(parts, fmt.Appendf(nil, "%x\r\n%s\r\n", len(event), event))
	}
	head := []byte(common + "Content-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n")
	parts[0] = append(head, parts[0]...)
	last := len(parts) - 1
	parts[last] = append(parts[last], "0\r\n\r\n"...)
	return parts
}

func refusal(err error) []byte {
	body := fmt.Sprintf(`{"error":{"message":%q,"type":"invalid_request_error"}}`, err)
	return fmt.Appendf(nil, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// head is what matters of a request before its body.
type head struct {
	completion     bool // POST of chat.Path
	length         int  // of the body in bytes, if not chunked
	chunked        bool
	expects, close bool
}

func readHead(in *bufio.Reader) (head, error) {
	var h head
	line, err := in.ReadSlice('\n')
	if err != nil {
		return h, io.EOF // it ended between two requests
	}
	h.completion = bytes.HasPrefix(line, []byte("POST "+chat.Path+" HTTP/1.1\r\n"))
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return h, fmt.Errorf("the head: %w", err)
		}
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			return h, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if h.length, err = strconv.Atoi(string(value)); err != nil || h.length < 0 || h.length > maxBody {
				return h, fmt.Errorf("content-length %q", value)
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			h.chunked = bytes.EqualFold(value, []byte("chunked"))
		case bytes.EqualFold(name, []byte("Connection")):
			h.close = bytes.EqualFold(value, []byte("close"))
		case bytes.EqualFold(name, []byte("Expect")):
			h.expects = true
		}
	}
}

// readBody appends the body to buf, which it returns.
func (h head) readBody(in *bufio.Reader, buf []byte) ([]byte, error) {
	if !h.chunked {
		buf = append(buf, make([]byte, h.length)...)
		_, err := io.ReadFull(in, buf)
		return buf, err
	}
	body := bytes.NewBuffer(buf)
	n, err := io.Copy(body, io.LimitReader(httputil.NewChunkedReader(in), maxBody+1))
	if err != nil {
		return nil, err
	}
	if n > maxBody {
		return nil, fmt.Errorf("the body has more than %d bytes", maxBody)
	}
	for { // the trailer, and the empty line after it
		line, err := in.ReadSlice('\n')
		if err != nil || len(bytes.TrimSpace(line)) == 0 {
			return body.Bytes(), err
		}
	}
}
