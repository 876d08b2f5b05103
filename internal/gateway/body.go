// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/relay"
	"vault-plugin-secrets-portkey/internal/wire"
)

// body is the body of one request: a JSON object, a form that is read as it passes,
// something opaque, or nothing.
type body struct {
	object *wire.Object
	form   *wire.Form
	opaque io.Reader
	length int64       // of a form or of what is opaque; -1 if unknown
	in     *bodyReader // nil for none
	// model is the one that the body names, empty for none.
	model string
	// later are the fields of a form that came after those that Vault was shown;
	// ask asks Vault again with them.
	later []wire.FormField
	ask   func() *apierror.Error
	stop  context.CancelFunc // ends an ask
}

// upload is the body for the relay, nil if it is JSON or nothing.
func (b *body) upload() *relay.Upload {
	switch {
	case b.form != nil:
		return &relay.Upload{Body: formReader{b.form}, Length: b.length, Model: b.model, Interrupt: b.interrupt}
	case b.opaque != nil:
		return &relay.Upload{Body: b.opaque, Length: b.length, Interrupt: b.interrupt}
	}
	return nil
}

// interrupt ends a wait for more of an upload, or for Vault's word on it.
func (b *body) interrupt() {
	b.in.interrupt()
	if b.stop != nil {
		b.stop()
	}
}

// opaqueTypes are the media types whose bodies go on unread. JSON in another
// encoding than UTF-8 could be read as such by a provider, hence no others.
var opaqueTypes = []string{"audio/", "video/", "image/", "application/octet-stream", "application/pdf"}

// jsonTypes are those of bodies that must be JSON whatever they say of themselves:
// curl -d says that it sends a form.
var jsonTypes = []string{"application/json", "text/plain", "application/x-www-form-urlencoded"}

// read reads the body as far as it must be known: JSON wholly, a form up to its
// model.
func (c *call) read() *apierror.Error {
	r := c.http
	if r.Method != http.MethodPost {
		if r.ContentLength != 0 {
			return badRequest("", "a "+r.Method+" takes no body here")
		}
		return nil
	}
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return unsupported(fmt.Sprintf("the body has the Content-Encoding %.40q; send it as it is", encoding))
	}
	if r.ContentLength > c.live.MaxBodyBytes {
		return tooLarge(c.live.MaxBodyBytes)
	}
	if r.ContentLength == 0 {
		return nil
	}
	if len(r.Header["Content-Type"]) > 1 {
		return unsupported("the request has more than one Content-Type; readers could disagree on its body")
	}
	in := &bodyReader{from: r.Body, call: c, holding: true}
	c.body.in = in
	in.start()
	mediaType, refusal := mediaTypeOf(r.Header.Get("Content-Type"))
	if refusal != nil {
		return refusal
	}
	c.body.length = r.ContentLength
	switch {
	case mediaType == "multipart/form-data":
		return c.readForm(in)
	case isOpaque(mediaType) && wire.KindOf(r.Method, c.route.path) == wire.Unmetered && !wire.RunsItsModel(c.route.path):
		in.holding = false
		c.body.opaque = in
		return nil
	case slices.Contains(jsonTypes, mediaType) || strings.HasSuffix(mediaType, "+json"):
		return c.readJSON(in)
	}
	return unsupported(fmt.Sprintf("a body of type %.60q can't be read here; send application/json, or multipart/form-data", mediaType))
}

func mediaTypeOf(contentType string) (string, *apierror.Error) {
	if contentType == "" || contentType == "application/json" {
		return "application/json", nil
	}
	mediaType, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return "", unsupported("the Content-Type can't be read; write application/json or multipart/form-data; boundary=…")
	}
	return mediaType, nil
}

func isOpaque(mediaType string) bool {
	for _, known := range opaqueTypes {
		if strings.HasPrefix(mediaType, known) {
			return true
		}
	}
	return false
}

func (c *call) readJSON(in *bodyReader) *apierror.Error {
	text, err := in.all(c.http.ContentLength)
	if err != nil {
		return bodyError(err)
	}
	in.finish()
	if len(text) == 0 {
		return nil
	}
	object, err := wire.ParseObject(text)
	if err != nil {
		return badRequest("", err.Error())
	}
	if key, repeated := object.Repeated(); repeated {
		return badRequest(key, fmt.Sprintf("the body has the key %.60q more than once; readers could disagree on it", key))
	}
	if _, given := object.Get(NonceField); given {
		return badNonce("a caller's request has no nonce")
	}
	if err := object.CheckKeys([]string{"model"}); err != nil {
		return badRequest("model", err.Error())
	}
	if c.body.model, _, err = object.String("model"); err != nil {
		return badRequest("model", err.Error())
	}
	if c.body.model == relay.DefaultModel {
		c.body.model = ""
	}
	c.body.object = object
	return nil
}

// maxFormField bounds a field of a form that isn't a file, in bytes: prompts for
// images can be long.
const maxFormField = 256 << 10

func (c *call) readForm(in *bodyReader) *apierror.Error {
	b := &c.body
	form, err := wire.NewForm(in, c.http.Header.Get("Content-Type"), wire.FormOptions{
		MaxHead: c.live.MaxBodyBytes, MaxField: maxFormField,
		Later: b.comesLater,
	})
	if err != nil {
		return badRequest("", err.Error())
	}
	needsModel := wire.RunsItsModel(c.route.path)
	err = form.Scan(func(fields []wire.FormField) bool {
		return !needsModel || modelOf(fields) != ""
	})
	if err != nil {
		return bodyError(err)
	}
	for _, f := range form.Fields() {
		if f.Name == NonceField {
			return badNonce("a caller's request has no nonce")
		}
	}
	in.holding = false
	b.form, b.model = form, modelOf(form.Fields())
	return nil
}

func modelOf(fields []wire.FormField) string {
	for _, f := range fields {
		if f.Name == "model" {
			return string(f.Value)
		}
	}
	return ""
}

// comesLater judges a field of a form that comes when the form is already on its
// way.
func (b *body) comesLater(f wire.FormField) error {
	if f.Name == "model" {
		return badRequest("model", "the form names its model too late; put model before the files")
	}
	if f.Name == NonceField {
		return badNonce("a caller's request has no nonce")
	}
	b.later = append(b.later, f)
	if b.ask == nil {
		return nil
	}
	if err := b.ask(); err != nil {
		return err
	}
	return nil
}

// formReader reads a form for the provider.
type formReader struct{ form *wire.Form }

// Read implements io.Reader.
func (r formReader) Read(p []byte) (int, error) {
	n, err := r.form.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		return n, bodyError(err)
	}
	return n, err
}

// bodyError is the answer for a body that can't be read.
func bodyError(err error) *apierror.Error {
	var verdict *apierror.Error
	var syntax *wire.FormError
	switch {
	case errors.As(err, &verdict):
		return verdict
	case errors.As(err, &syntax) && syntax.TooLarge:
		return &apierror.Error{
			Status: http.StatusRequestEntityTooLarge, Type: apierror.TypeInvalidRequest, Code: apierror.CodeRequestTooLarge, Message: err.Error(),
		}
	case errors.As(err, &syntax):
		return badRequest("", err.Error())
	}
	return badRequest("", "the body broke off before its end, or came too slowly")
}

func unsupported(message string) *apierror.Error {
	return &apierror.Error{
		Status: http.StatusUnsupportedMediaType, Type: apierror.TypeInvalidRequest, Code: apierror.CodeUnsupportedMediaType, Message: message,
	}
}

func tooLarge(most int64) *apierror.Error {
	return &apierror.Error{
		Status: http.StatusRequestEntityTooLarge, Type: apierror.TypeInvalidRequest, Code: apierror.CodeRequestTooLarge,
		Message: fmt.Sprintf("the body is larger than %d bytes, the most that max_body_bytes of config/gateway lets through", most),
	}
}
