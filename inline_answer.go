// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"bytes"
	"fmt"
	"net/http"

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
	return a.body.Write(p)
}

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
	return &logical.Response{
		Headers: a.header,
		Data: map[string]any{
			logical.HTTPStatusCode:  a.status,
			logical.HTTPContentType: contentType,
			logical.HTTPRawBody:     a.body.Bytes(),
		},
	}
}
