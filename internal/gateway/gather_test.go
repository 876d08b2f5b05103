// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// noted is a connection that notes each write.
type noted struct {
	net.Conn
	mu     sync.Mutex
	writes [][]byte
	fail   error
}

func (c *noted) Write(p []byte) (int, error) {
	if c.fail != nil {
		return 0, c.fail
	}
	c.mu.Lock()
	c.writes = append(c.writes, bytes.Clone(p))
	c.mu.Unlock()
	if c.Conn != nil {
		return c.Conn.Write(p)
	}
	return len(p), nil
}

func (c *noted) taken() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.writes
	c.writes = nil
	return w
}

const someHead = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"

// However an answer comes in pieces, it goes out by one write, when it is whole.
func TestGather_AnAnswerGoesOutByOneWrite(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var g gatherer
	for range 2000 {
		c := &noted{}
		body := strings.Repeat("b", 1+random.IntN(9000))
		if random.IntN(3) == 0 {
			body = strings.Repeat("\r\n", 1+random.IntN(4000)) // as the header's end
		}
		text := []byte(someHead + body)
		g.expect(len(body))
		for rest := text; len(rest) > 0; {
			n := min(1+random.IntN(5000), len(rest))
			if sent, err := g.write(c, rest[:n]); sent != n || err != nil {
				t.Fatal(sent, err)
			}
			if rest = rest[n:]; len(rest) > 0 && len(c.writes) > 0 {
				t.Fatalf("%d bytes were sent, and %d are to come", len(c.writes[0]), len(rest))
			}
		}
		if w := c.taken(); len(w) != 1 || !bytes.Equal(w[0], text) {
			t.Fatalf("%d writes of %d bytes", len(w), len(text))
		}
		// What wasn't announced passes.
		if _, err := g.write(c, []byte("x")); err != nil || len(c.taken()) != 1 {
			t.Fatal("the next piece waits")
		}
	}
}

func TestGather_HoldsNoMoreThanItsBound(t *testing.T) {
	var g gatherer
	c := &noted{}
	if g.expect(mostGathered); g.body != 0 {
		t.Error("it gathers a body that is too long")
	}
	g.expect(mostGathered - 1)
	head := bytes.Repeat([]byte("h"), mostGathered/2) // that never ends
	for range 5 {
		if _, err := g.write(c, head); err != nil {
			t.Fatal(err)
		}
	}
	if sent := bytes.Join(c.taken(), nil); len(sent) != 5*len(head) {
		t.Errorf("%d bytes of %d were sent", len(sent), 5*len(head))
	}
}

func TestGather_SaysThatAWriteFailed(t *testing.T) {
	var g gatherer
	c := &noted{fail: errors.New("reset")}
	g.expect(3)
	if n, err := g.write(c, []byte(someHead)); n != len(someHead) || err != nil {
		t.Error(n, err)
	}
	if _, err := g.write(c, []byte("abc")); !errors.Is(err, c.fail) {
		t.Errorf("%v", err)
	}
	if _, err := g.write(c, []byte("abc")); !errors.Is(err, c.fail) {
		t.Errorf("and then: %v", err)
	}
}

// notedListener notes the writes on the connections that it accepts.
type notedListener struct {
	net.Listener
	latest *noted
}

func (l *notedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.latest = &noted{Conn: c}
	return l.latest, nil
}

// wroteIn returns the writes that the answer to a request took, and its body.
func wroteIn(t *testing.T, to net.Conn, from *noted, method string) ([][]byte, string) {
	t.Helper()
	if from != nil {
		from.taken()
	}
	if _, err := io.WriteString(to, method+" / HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	req := &http.Request{Method: method}
	resp, err := http.ReadResponse(bufio.NewReader(to), req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if from == nil { // the connection wasn't accepted before
		return nil, string(body)
	}
	return from.taken(), string(body)
}

// Answers of every length, also such as fill net/http's buffer exactly, arrive whole,
// and by one write if they are whole at once.
func TestGather_AnswersArriveWhateverTheirLength(t *testing.T) {
	var body []byte
	var pieces int
	var declared bool
	status := http.StatusOK
	sockets := &notedListener{}
	l := openListener(t, func(w http.ResponseWriter, r *http.Request) {
		a := newAnswer(w, r, &live{Settings: Settings{IdleTimeout: soon}})
		if declared {
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		}
		a.WriteHeader(status)
		for i := range pieces {
			_, _ = a.Write(body[i*len(body)/pieces : (i+1)*len(body)/pieces])
		}
		a.end()
	}, func(o *ListenerOptions) {
		o.Listen = func(network, address string) (net.Listener, error) {
			opened, err := net.Listen(network, address)
			sockets.Listener = opened
			return sockets, err
		}
	})
	apply(t, l, listenConfig())
	to, err := net.Dial("tcp", l.Status().Address)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	declared, pieces, body = true, 1, []byte("first")
	if _, got := wroteIn(t, to, nil, http.MethodGet); got != "first" {
		t.Fatalf("%q", got)
	}
	lengths := []int{1, 100, 2047, 2048, 2049, 8192, mostGathered - 1, mostGathered, mostGathered + 1, 100_000}
	for n := 3900; n < 4200; n++ { // one of them fills the buffer together with the header
		lengths = append(lengths, n)
	}
	for _, n := range lengths {
		body = bytes.Repeat([]byte("0123456789"), n/10+1)[:n]
		for _, declared = range []bool{true, false} {
			for _, pieces = range []int{1, 2} {
				writes, got := wroteIn(t, to, sockets.latest, http.MethodGet)
				if got != string(body) {
					t.Fatalf("%d bytes in %d pieces: %d arrived", n, pieces, len(got))
				}
				if declared && pieces == 1 && n < mostGathered && len(writes) != 1 {
					t.Errorf("%d bytes took %d writes", n, len(writes))
				}
			}
		}
		declared, pieces = true, 1
		if _, got := wroteIn(t, to, sockets.latest, http.MethodHead); got != "" {
			t.Errorf("HEAD got %q", got)
		}
	}
	for _, status = range []int{http.StatusNoContent, http.StatusNotModified} {
		if _, got := wroteIn(t, to, sockets.latest, http.MethodGet); got != "" {
			t.Errorf("%d has the body %q", status, got)
		}
	}
}
