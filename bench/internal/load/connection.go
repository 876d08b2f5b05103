// SPDX-License-Identifier: MPL-2.0

package load

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"strconv"
	"time"
)

// connection is a client's side of HTTP/1.1 (RFC 9112) on one connection: what
// net/http does for a request costs as much as some of the programs that are
// measured.
type connection struct {
	conn net.Conn
	in   *bufio.Reader
	buf  []byte // what bodies are read through
}

func newConnection(conn net.Conn) *connection {
	return &connection{conn: conn, in: bufio.NewReaderSize(conn, 32<<10), buf: make([]byte, 32<<10)}
}

func (c *connection) close() { c.conn.Close() }

// answer is one response with status 200.
type answer struct {
	start        time.Time
	whole, first time.Duration // until the last and the first byte of the body
	length       int           // of the body, in bytes
	tail         [8]byte       // its last bytes
	body         []byte        // all of it, if asked for
	close        bool          // the connection ends with it
}

// statusError is an answer with another status than 200.
type statusError struct {
	status int
	body   []byte
}

func (e *statusError) Error() string {
	return fmt.Sprintf("it answered with status %d: %s", e.status, bytes.TrimSpace(e.body[:min(len(e.body), 500)]))
}

// ask sends a request and reads its answer. keep says whether the body is kept.
func (c *connection) ask(request []byte, keep bool) (*answer, error) {
	a := &answer{start: time.Now()}
	if _, err := c.conn.Write(request); err != nil {
		return nil, fmt.Errorf("sending: %w", err)
	}
	h, err := c.readHead()
	if err != nil {
		return nil, err
	}
	a.close = h.close
	if err := c.readBody(h, a, keep || h.status != 200); err != nil {
		return nil, fmt.Errorf("the answer broke off after %d bytes of its body: %w", a.length, err)
	}
	if h.status != 200 {
		return nil, &statusError{h.status, a.body}
	}
	return a, nil
}

// readBody reads the body as the head says it comes, and measures it.
func (c *connection) readBody(h head, a *answer, keep bool) error {
	body := io.Reader(c.in)
	switch {
	case h.chunked:
		body = httputil.NewChunkedReader(c.in)
	case h.length >= 0:
		body = io.LimitReader(c.in, int64(h.length))
	}
	for {
		n, err := body.Read(c.buf)
		if n > 0 && a.length == 0 {
			a.first = time.Since(a.start)
		}
		a.take(c.buf[:n], keep)
		if err == nil {
			continue
		}
		if !errors.Is(err, io.EOF) {
			return err
		}
		err = nil
		switch {
		case h.chunked:
			err = c.readTrailer()
		case h.length >= 0 && a.length != h.length:
			err = io.ErrUnexpectedEOF
		}
		a.whole = time.Since(a.start)
		return err
	}
}

// take adds what was read to the answer.
func (a *answer) take(p []byte, keep bool) {
	a.length += len(p)
	if keep {
		a.body = append(a.body, p...)
	}
	if n := len(a.tail); len(p) >= n {
		copy(a.tail[:], p[len(p)-n:])
	} else {
		copy(a.tail[:], a.tail[len(p):])
		copy(a.tail[n-len(p):], p)
	}
}

// readTrailer reads what follows the last chunk.
func (c *connection) readTrailer() error {
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil || len(bytes.TrimSpace(line)) == 0 {
			return err
		}
	}
}

// head is what matters of an answer before its body.
type head struct {
	status  int
	length  int // of the body, in bytes; -1 if it isn't said
	chunked bool
	close   bool
}

func (c *connection) readHead() (head, error) {
	h := head{length: -1}
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return h, fmt.Errorf("waiting for an answer: %w", err)
	}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return h, fmt.Errorf("%q begins no answer of HTTP/1.1", line)
	}
	if h.status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return h, fmt.Errorf("%q has no status", line)
	}
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return h, fmt.Errorf("the answer's head: %w", err)
		}
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if h.length, err = strconv.Atoi(string(value)); err != nil {
				return h, fmt.Errorf("content-length %q", value)
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			h.chunked = bytes.EqualFold(value, []byte("chunked"))
		case bytes.EqualFold(name, []byte("Connection")):
			h.close = bytes.EqualFold(value, []byte("close"))
		}
	}
	h.close = h.close || !h.chunked && h.length < 0
	return h, nil
}
