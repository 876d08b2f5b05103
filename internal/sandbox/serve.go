// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// answer is an HTTP answer: body, unless there is a stream.
type answer struct {
	status int
	header http.Header
	body   []byte
	length int64 // of the body; -1 if the header doesn't say
	stream *stream
}

// event is one event of a stream, ready to be sent. due counts the tokens that
// are made before it.
type event struct {
	data []byte
	due  int64
}

// textFormatter is a request for text in one of the wire formats.
type textFormatter interface {
	model() string
	// generation checks the request and says what it asks for.
	generation(v variant) (*generation, *apiError)
	// whole is the answer to a request without stream.
	whole(c *completion) any
	// events yields the answer to one with stream, once.
	events(c *completion) iter.Seq[event]
	// failedEvent tells of an error in mid-stream, after so many events.
	failedEvent(e *apiError, before int64) []byte
}

const (
	pathChat        = "/v1/chat/completions"
	pathCompletions = "/v1/completions"
	pathResponses   = "/v1/responses"
	pathEmbeddings  = "/v1/embeddings"
	pathModels      = "/v1/models"
	pathList        = pathChat + ", " + pathCompletions + ", " + pathResponses + ", " + pathEmbeddings + " and " + pathModels
)

// serve answers req once the answer's header is due. The error means that
// there is no answer.
func (s *Sandbox) serve(req *http.Request) (*answer, error) {
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	path, method := req.URL.Path, http.MethodPost
	model, isModel := strings.CutPrefix(path, pathModels+"/")
	if path == pathModels || isModel {
		method = http.MethodGet
	} else if !slices.Contains([]string{pathChat, pathCompletions, pathResponses, pathEmbeddings}, path) {
		return refusal(unknownURL(req.Method, path)), nil
	}
	if req.Method != method {
		return refusal(methodNotAllowed(req.Method, path, method)), nil
	}
	switch {
	case isModel:
		m, err := s.oneModel(model)
		if err != nil {
			return refusal(err), nil
		}
		return whole(encode(m)), nil
	case path == pathModels:
		return whole(encode(s.listModels())), nil
	case path == pathEmbeddings:
		return s.embed(req)
	}
	return s.generate(req, newText(path))
}

func newText(path string) textFormatter {
	switch path {
	case pathCompletions:
		return new(completionRequest)
	case pathResponses:
		return new(responseRequest)
	}
	return new(chatRequest)
}

// generate answers a request for text.
func (s *Sandbox) generate(req *http.Request, r textFormatter) (*answer, error) {
	var g *generation
	var echo string
	refused, err := s.withBody(req, func(body []byte) *apiError {
		if err := decode(body, r); err != nil {
			return err
		}
		v, err := s.variant(r.model())
		if err != nil {
			return err
		}
		if v.model.Dimensions > 0 {
			return wrongModel(v.name, "embeddings", req.URL.Path)
		}
		if v.echo {
			echo = echoed(req, body)
		}
		if g, err = r.generation(v); err != nil {
			return err
		}
		return g.check()
	})
	if err != nil {
		return nil, err
	}
	if refused != nil {
		return refusal(refused), nil
	}
	c := g.run(s.clock.Now().Unix(), echo)
	b := behaviour{Sandbox: s, ctx: req.Context(), variant: &g.variant, tokens: c.steps}
	if g.stream {
		return b.stream(r.events(c), r.failedEvent)
	}
	return b.whole(r.whole(c))
}

// embed answers a request for embeddings.
func (s *Sandbox) embed(req *http.Request) (*answer, error) {
	var v variant
	var result *embeddingAnswer
	refused, err := s.withBody(req, func(body []byte) (err *apiError) {
		var r embeddingRequest
		if err = decode(body, &r); err != nil {
			return err
		}
		if v, err = s.variant(r.Model); err != nil {
			return err
		}
		if v.model.Dimensions == 0 {
			return wrongModel(v.name, "text", req.URL.Path)
		}
		result, err = r.answer(v)
		return err
	})
	if err != nil {
		return nil, err
	}
	if refused != nil {
		return refusal(refused), nil
	}
	b := behaviour{Sandbox: s, ctx: req.Context(), variant: &v}
	return b.whole(result)
}

// variant reads the field model.
func (s *Sandbox) variant(name string) (variant, *apiError) {
	if name == "" {
		return variant{}, invalid("model", "missing_required_parameter", "you must provide a model parameter")
	}
	v, err := parseName(s.models, name)
	if err != nil {
		return variant{}, modelNotFound(name, err)
	}
	return v, nil
}

// echoed is a request as text, its header sorted.
func echoed(req *http.Request, body []byte) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s\n", req.Method, req.URL.RequestURI())
	_ = req.Header.Write(&b) // a buffer takes everything
	b.WriteByte('\n')
	b.Write(body)
	return strings.ToValidUTF8(b.String(), "\uFFFD")
}

func whole(body []byte) *answer {
	a := &answer{status: http.StatusOK, body: body, length: int64(len(body)), header: make(http.Header, 2)}
	a.header["Content-Type"] = []string{"application/json"}
	a.header["Content-Length"] = []string{strconv.Itoa(len(body))}
	return a
}

func refusal(e *apiError) *answer {
	a := whole(encode(errorAnswer{e}))
	a.status = e.status
	if e.allow != "" {
		a.header.Set("Allow", e.allow)
	}
	if e.retryAfter != "" {
		a.header.Set("Retry-After", e.retryAfter)
	}
	return a
}

func eventStream(events iter.Seq[event], end error) *answer {
	a := &answer{status: http.StatusOK, length: -1, header: make(http.Header, 1), stream: &stream{events: events, end: end}}
	a.header["Content-Type"] = []string{"text/event-stream; charset=utf-8"}
	return a
}

// encode writes v as JSON, without escaping for HTML. The sandbox encodes only
// what can be.
func encode(v any) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

func jsonNull() json.RawMessage { return json.RawMessage("null") }

func dataEvent(v any) []byte { return frame("data: ", v) }

func namedEvent(name string, v any) []byte { return frame("event: "+name+"\ndata: ", v) }

func doneEvent() []byte { return []byte("data: [DONE]\n\n") }

// frame writes one server-sent event.
func frame(prefix string, v any) []byte {
	data := encode(v)
	e := make([]byte, 0, len(prefix)+len(data)+2)
	e = append(e, prefix...)
	e = append(e, data...)
	return append(e, "\n\n"...)
}

var _ io.ReadCloser = (*streamBody)(nil)
