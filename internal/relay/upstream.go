// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/provider"
)

// NewTransport returns the transport to providers: connections are kept and
// reused, HTTP/2 is used where it is offered, HTTPS_PROXY, HTTP_PROXY and
// NO_PROXY are honoured, and requests for the URL scheme "sandbox" go to
// sandbox. A usual request goes with one system call.
func NewTransport(sandbox http.RoundTripper) *http.Transport {
	t := NewStreamTransport(sandbox)
	t.ReadBufferSize, t.WriteBufferSize = 8<<10, 8<<10
	return t
}

// NewStreamTransport is NewTransport for streams, of which very many may be open:
// its connections take as little memory as may be.
func NewStreamTransport(sandbox http.RoundTripper) *http.Transport {
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ExpectContinueTimeout: time.Second,
		ForceAttemptHTTP2:     true,
		MaxIdleConns:          4096,
		MaxIdleConnsPerHost:   1024,
		IdleConnTimeout:       90 * time.Second,
		ReadBufferSize:        2 << 10, // an event is read at once, as most answers' headers are
		WriteBufferSize:       2 << 10, // it has no use any more while the answer streams
	}
	t.RegisterProtocol("sandbox", sandbox)
	return t
}

// passRequestHeaders are the caller's headers that the provider may see. All
// others stay here: credentials, cookies, Vault's and Portkey's own headers.
// Accept-Encoding is the transport's business, and Idempotency-Key would let
// the transport send a POST twice, which is charged twice. The names are canonical,
// as the doors' are.
var passRequestHeaders = []string{
	"Accept", "Accept-Language", "Content-Type", "User-Agent",
	"Openai-Beta", "Anthropic-Version", "Anthropic-Beta", "X-Client-Request-Id",
}

func (r *Relay) send(ctx context.Context, x *exchange, endpoint *provider.Endpoint, body []byte) (*http.Response, *apierror.Error) {
	req := x.req
	up := &http.Request{Method: req.Method, URL: endpoint.URL, Host: endpoint.URL.Host, Header: make(http.Header, 8)}
	for _, name := range passRequestHeaders {
		if v := req.Header[name]; len(v) > 0 {
			up.Header[name] = v
		}
	}
	if upload := req.Upload; upload != nil {
		up.ContentLength = upload.Length
		x.upload = newSentUpload(ctx, upload, &x.sent)
		up.Body = x.upload
	} else if body != nil {
		ctx = x.setBody(ctx, up, body, r.traced)
		up.Header["Content-Type"] = jsonContent
	}
	if agent := up.Header["User-Agent"]; len(agent) == 0 || agent[0] == "" {
		up.Header["User-Agent"] = ownAgent
	}
	endpoint.Authenticate(up.Header)

	// RoundTrip, not a Client: a client would follow redirects, and take the
	// provider key along.
	transport := r.transport
	if x.params.Stream {
		transport = r.streams
	}
	resp, err := transport.RoundTrip(up.WithContext(ctx))
	if err != nil {
		if up.Body == nil && !neverConnected(err) {
			x.sent.Store(true) // there was no more of it than its head
		}
		if verdict := x.upload.end(); verdict != nil {
			return nil, verdict
		}
		return nil, upstreamError(ctx, endpoint.URL.Host, err)
	}
	x.status, x.firstByte = resp.StatusCode, r.now()
	if resp.StatusCode < 200 || resp.StatusCode > 599 {
		_ = resp.Body.Close()
		return nil, unreachable(fmt.Sprintf("the provider at %s answered with status %d, which is none of HTTP", endpoint.URL.Host, resp.StatusCode))
	}
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		_ = resp.Body.Close()
		return nil, unreachable(fmt.Sprintf("the provider at %s answered with a redirect (status %d), which is never followed; check the key's base_url",
			endpoint.URL.Host, resp.StatusCode))
	}
	return resp, nil
}

var (
	jsonContent = []string{"application/json"}
	ownAgent    = []string{"vault-plugin-secrets-portkey"}
)

// smallBody and smallStreamBody are the longest bodies that fit into the buffers of
// NewTransport and NewStreamTransport together with a usual head.
const (
	smallBody       = 7 << 10
	smallStreamBody = 1 << 10
)

// setBody gives a request its body, in a way that tells when the provider may have
// all of it. A small one goes out with the request's head: the transport does so
// only with types that it knows (net/http's Request.write), and says by a trace
// when it begins to.
func (x *exchange) setBody(ctx context.Context, up *http.Request, body []byte, traced bool) context.Context {
	up.ContentLength = int64(len(body))
	most := smallBody
	if x.params.Stream {
		most = smallStreamBody
	}
	small := traced && len(body) <= most && strings.HasPrefix(up.URL.Scheme, "http") // the sandbox tells nothing
	up.GetBody = func() (io.ReadCloser, error) {
		if small {
			return io.NopCloser(bytes.NewReader(body)), nil
		}
		return &sentBody{Reader: bytes.NewReader(body), sent: &x.sent}, nil
	}
	up.Body, _ = up.GetBody()
	if !small {
		return ctx
	}
	x.trace.WroteHeaders = func() { x.sent.Store(true) }
	return httptrace.WithClientTrace(ctx, &x.trace)
}

// neverConnected says that there was no connection to send anything on.
func neverConnected(err error) bool {
	var operation *net.OpError
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	return errors.As(err, &operation) && operation.Op == "dial" || errors.As(err, &dns) ||
		errors.As(err, &certificate) || errors.As(err, &record)
}

// sentBody notes that the transport has read all of the body: from then on the
// provider may have the whole request.
type sentBody struct {
	*bytes.Reader
	sent *atomic.Bool
}

// Read implements io.Reader.
func (b *sentBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if b.Len() == 0 {
		b.sent.Store(true)
	}
	return n, err
}

// WriteTo implements io.WriterTo, which copying prefers to Read.
func (b *sentBody) WriteTo(w io.Writer) (int64, error) {
	b.sent.Store(true)
	return b.Reader.WriteTo(w)
}

// Close implements io.Closer.
func (b *sentBody) Close() error { return nil }

// errUploadOver is what the transport reads of an upload when the exchange is over.
var errUploadOver = errors.New("the exchange is over")

// sentUpload is sentBody for an upload. Providers may answer before they have all of it,
// and the transport may still read it when it has returned (http.RoundTripper).
type sentUpload struct {
	upload      *Upload
	sent        *atomic.Bool
	interrupted atomic.Bool

	mu      sync.Mutex      // held while the door's body is read
	left    int64           // bytes still to come, -1 if that isn't known
	err     error           // what ended the door's body; nil before
	refused *apierror.Error // the door's verdict, if that was it
	over    bool

	// The watch for the end of the exchange's context.
	stop    func() bool
	stopped sync.Once
	fired   chan struct{}
}

// newSentUpload returns a body whose reader doesn't wait longer than until ctx ends: the
// transport would wait for it. The caller must call end.
func newSentUpload(ctx context.Context, upload *Upload, sent *atomic.Bool) *sentUpload {
	b := &sentUpload{upload: upload, left: upload.Length, sent: sent, fired: make(chan struct{})}
	b.stop = context.AfterFunc(ctx, func() {
		defer close(b.fired)
		b.interrupt()
	})
	return b
}

// Read implements io.Reader. At the end it reads no more of the door's body: transports
// look for bytes behind it, when the door may have closed it already.
func (b *sentUpload) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.over:
		return 0, errUploadOver
	case b.err != nil:
		return 0, b.err
	case b.left >= 0 && int64(len(p)) > b.left:
		p = p[:b.left]
	}
	n, err := b.upload.Body.Read(p)
	if b.left > 0 {
		b.left -= int64(n)
	}
	if err == nil && b.left == 0 {
		err = io.EOF
	}
	b.err = err
	switch {
	case errors.Is(err, io.EOF):
		b.sent.Store(true)
	case !b.interrupted.Load(): // else it may be of the interruption
		errors.As(err, &b.refused)
	}
	return n, err
}

// Close implements io.Closer. Whoever opened the upload closes it.
func (b *sentUpload) Close() error { return nil }

// interrupt makes a read that waits return.
func (b *sentUpload) interrupt() {
	if b.upload.Interrupt != nil && !b.sent.Load() {
		b.interrupted.Store(true)
		b.upload.Interrupt()
	}
}

// end ends the upload: from then on nothing is read of the door's body, nor is it
// interrupted. It returns the door's verdict, if the door refused the upload while it
// was read. Of no upload there is none.
func (b *sentUpload) end() *apierror.Error {
	if b == nil {
		return nil
	}
	b.stopped.Do(func() {
		if !b.stop() {
			<-b.fired
		}
		b.interrupt()
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	return b.refused
}

// upstreamError says why there is no (whole) answer of the provider.
func upstreamError(ctx context.Context, host string, err error) *apierror.Error {
	var timeout net.Error
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return gone(ctx)
	case errors.Is(ctx.Err(), context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return tooSlow(host)
	}
	return unreachable(fmt.Sprintf("the provider at %s could not be reached or broke off: %s", host, reason(err)))
}

// reason is what may be said of err. Its own text is shown only where it is of
// kinds that quote nothing that the provider sent: net/http quotes what it
// can't parse, and that may be the provider key, echoed.
func reason(err error) string {
	var dns *net.DNSError
	var operation *net.OpError
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection was closed before the answer was complete"
	case errors.Is(err, context.DeadlineExceeded):
		return "it took too long"
	case errors.As(err, &dns):
		return fmt.Sprintf("its name %q could not be resolved", dns.Name)
	case errors.As(err, &certificate):
		return "its TLS certificate is not valid here: " + certificateReason(certificate)
	case errors.As(err, &record):
		return "it does not speak TLS there"
	case errors.As(err, &operation) && (operation.Op == "dial" || operation.Op == "read" || operation.Op == "write"):
		return operation.Op + ": " + systemReason(operation.Err)
	}
	return "its answer is not valid HTTP"
}

// certificateReason says what is wrong with a certificate, without the names in
// it, which are the provider's words too.
func certificateReason(err error) string {
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &authority):
		return "it is signed by an unknown authority"
	case errors.As(err, &host):
		return "it is for another host"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "it has expired or is not yet valid"
	}
	return "it can't be verified"
}

// systemReason is the operating system's word for a failed connection.
func systemReason(err error) string {
	var number syscall.Errno
	if errors.As(err, &number) {
		return number.Error()
	}
	return "the connection failed"
}

// gone is why ctx was cancelled: the door's verdict, or that the caller has gone.
func gone(ctx context.Context) *apierror.Error {
	var verdict *apierror.Error
	if errors.As(context.Cause(ctx), &verdict) {
		return verdict
	}
	return callerGone()
}

// callerGone is an answer that nobody is there to read; 499 is what nginx made
// of it.
func callerGone() *apierror.Error {
	return &apierror.Error{Status: 499, Type: apierror.TypeAPI, Code: apierror.CodeCallerGone, Message: "the caller went away"}
}

func unreachable(message string) *apierror.Error {
	return &apierror.Error{Status: http.StatusBadGateway, Type: apierror.TypeAPI, Code: apierror.CodeUnreachable, Message: message}
}
