// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/relay"
)

// bufferedAnswer collects an answer, because Vault takes it only whole. It
// belongs to one request.
type bufferedAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
	most   int // bytes; 0 for no bound
	// outcome is what the relay made of the request; zero if it wasn't asked.
	outcome relay.Outcome
	// redactions are the spellings of the provider key.
	redactions []string
	// budget is shared by all answers of the mount; taken is this one's share.
	budget *byteBudget
	taken  int
}

var _ relay.Answer = (*bufferedAnswer)(nil)

func newBufferedAnswer(most int) *bufferedAnswer {
	return &bufferedAnswer{header: make(http.Header), most: most}
}

// Header implements http.ResponseWriter.
func (a *bufferedAnswer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *bufferedAnswer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

// Write implements http.ResponseWriter. What is larger than the bound is
// refused with the error that the caller is to see.
func (a *bufferedAnswer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	if a.most > 0 && a.body.Len()+len(p) > a.most {
		return 0, &apierror.Error{
			Status: http.StatusBadGateway, Type: apierror.TypeAPI, Code: apierror.CodeAnswerTooLarge,
			Message: fmt.Sprintf("the provider's answer is larger than %d bytes, the most that inline_max_answer_bytes lets through Vault", a.most),
		}
	}
	if a.budget != nil {
		if !a.budget.take(len(p)) {
			return 0, &apierror.Error{
				Status: http.StatusTooManyRequests, Type: apierror.TypeRequests, Code: apierror.CodeRateLimitExceeded, RetryAfter: time.Second,
				Message: "too many large answers are on their way through Vault at once; try again shortly",
			}
		}
		a.taken += len(p)
	}
	return a.body.Write(p)
}

// release gives the answer's share of the budget back.
func (a *bufferedAnswer) release() {
	if a.budget != nil {
		a.budget.give(a.taken)
		a.taken = 0
	}
}

// byteBudget bounds what all buffered answers of a mount hold together: each
// byte is copied several times on its way through gRPC and Vault.
type byteBudget struct{ used atomic.Int64 }

// inlineBudget is the budget of a mount, in bytes: more than the largest single
// answer that the settings allow.
const inlineBudget = maxAnswerBytes + 32<<20

func (b *byteBudget) take(n int) bool {
	if b.used.Add(int64(n)) > inlineBudget {
		b.used.Add(-int64(n))
		return false
	}
	return true
}

func (b *byteBudget) give(n int) { b.used.Add(-int64(n)) }

// Abort implements relay.Answer. A stream that broke off keeps what came, and
// ends with the error event that the relay wrote; anything else was not whole,
// and gives way to the error.
func (a *bufferedAnswer) Abort(err *apierror.Error) {
	if relay.IsEventStream(a.header) && err.Code != apierror.CodeAnswerTooLarge {
		return
	}
	trace := a.header.Get(relay.TraceHeader)
	a.header = http.Header{relay.TraceHeader: {trace}}
	a.status, a.most = 0, 0
	a.body.Reset()
	a.release()
	a.budget = nil
	err.Write(a)
}

// response is the answer as Vault takes it. The body goes as bytes: Vault
// decodes a string that happens to be base64.
func (a *bufferedAnswer) response() *logical.Response {
	contentType := a.header.Get("Content-Type")
	if contentType == "" {
		contentType = "application/octet-stream"
	}
	a.header.Del("Content-Type")
	a.header.Del("Content-Length")
	for name, values := range a.header { // there is nothing after a body here
		if plain, trails := strings.CutPrefix(name, http.TrailerPrefix); trails {
			delete(a.header, name)
			a.header[plain] = values
		}
	}
	return &logical.Response{
		Headers: a.header,
		Data: map[string]any{
			logical.HTTPStatusCode:  a.status,
			logical.HTTPContentType: contentType,
			logical.HTTPRawBody:     append([]byte{}, a.body.Bytes()...), // never nil, which Vault can't read
		},
	}
}
