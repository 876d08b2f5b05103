// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"
	"time"
)

// maxBody is the largest request body that is read, in bytes; a larger one is
// answered with 413.
const maxBody = 64 << 20

// object is a JSON object on its way out.
type object = map[string]any

// marshal is json.Marshal without the escapes that OpenAI doesn't use either.
func marshal(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		// Only this package's own maps, strings and numbers come here.
		panic("upstream: an answer that does not marshal: " + err.Error())
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// ServeHTTP serves one request; it is for net/http to call.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.begin() {
		panic(http.ErrAbortHandler)
	}
	defer s.inflight.Done()
	arrived := time.Now()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	x := &exchange{server: s, w: &statusWriter{ResponseWriter: w}, r: r, body: body}
	x.key = s.keyOf(r)
	if err == nil {
		x.model = modelOf(r, body)
	}
	s.meter.arrive(arrived)
	x.place = s.journal.add(x.request())
	defer x.end()

	x.ordinaryHeaders()
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		x.fail(failure{http.StatusRequestEntityTooLarge, fmt.Sprintf("The request body is larger than %d bytes.", maxBody), typeInvalid, nil, "request_too_large"})
	case err != nil:
		x.fail(badRequest(nil, nil, "The request body could not be read: %v", err))
	default:
		x.sleep(s.options.Delay)
		x.route()
	}
}

// keyOf is the API key of a request, "" for none or for another scheme.
func (s *Server) keyOf(r *http.Request) string {
	if h := s.options.KeyHeader; h != "" {
		return r.Header.Get(h)
	}
	scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(key)
}

// modelOf finds the model in the path, in a JSON body or in a form.
func modelOf(r *http.Request, body []byte) string {
	if id, ok := strings.CutPrefix(r.URL.Path, "/v1/models/"); ok {
		return id
	}
	mediaType, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err == nil && mediaType == "multipart/form-data" {
		return modelOfForm(body, params["boundary"])
	}
	var named struct {
		Model string `json:"model"`
	}
	if json.Unmarshal(body, &named) != nil {
		return "" // the endpoint says what is wrong with the body
	}
	return named.Model
}

func modelOfForm(body []byte, boundary string) string {
	parts := multipart.NewReader(bytes.NewReader(body), boundary)
	for {
		part, err := parts.NextPart()
		if err != nil {
			return "" // the end, or no form: without a model either way
		}
		if part.FormName() == "model" {
			value, err := io.ReadAll(part)
			if err != nil {
				return ""
			}
			return string(value)
		}
	}
}

// route answers by method and path, as api.openai.com does.
func (x *exchange) route() {
	method, path := x.r.Method, x.r.URL.Path
	serve, allowed := x.endpoint(path)
	switch {
	case serve == nil:
		x.fail(failure{http.StatusNotFound, fmt.Sprintf("Invalid URL (%s %s)", method, path), typeInvalid, nil, nil})
	case !slices.Contains(allowed, method):
		x.fail(failure{http.StatusMethodNotAllowed, fmt.Sprintf("Not allowed to %s on %s. (HINT: Perhaps you meant to make your request with %s?)", method, path, strings.Join(allowed, " or ")), typeInvalid, nil, "method_not_supported"})
	case !x.server.accepts(x.key):
		x.fail(wrongKey(x.key))
	default:
		serve()
	}
}

// endpoint returns what serves a path and the methods that it has, or nil.
func (x *exchange) endpoint(path string) (serve func(), methods []string) {
	post := []string{http.MethodPost}
	switch path {
	case "/v1/chat/completions":
		return func() { x.complete(chatFormat()) }, post
	case "/v1/completions":
		return func() { x.complete(textFormat()) }, post
	case "/v1/responses":
		return func() { x.complete(responsesFormat()) }, post
	case "/v1/embeddings":
		return x.embed, post
	case "/v1/audio/transcriptions":
		return x.transcribe, post
	case "/v1/models":
		return x.listModels, []string{http.MethodGet}
	}
	if id, ok := strings.CutPrefix(path, "/v1/models/"); ok && id != "" && !strings.Contains(id, "/") {
		return x.oneModel, []string{http.MethodGet, http.MethodDelete}
	}
	return nil, nil
}

// accepts says whether a request with that key is let in.
func (s *Server) accepts(key string) bool {
	keys := *s.keys.Load()
	return len(keys) == 0 || keys[key]
}

// start resolves the model's behaviour and carries out what needs no answer of
// the endpoint. It says false when the exchange is over.
func (x *exchange) start() (behaviour, bool) {
	b, exists, err := x.server.behaviourOf(x.model)
	switch {
	case err != nil:
		x.fail(badRequest("model", "invalid_behaviour", "%v", err))
	case !exists:
		x.fail(noModel(x.model))
	default:
		return b, !x.misbehave(b)
	}
	return b, false
}
