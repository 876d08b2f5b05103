// SPDX-License-Identifier: MPL-2.0

package wire

import (
	"bytes"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"unicode"
)

// Params is what metering and limits need to know of a request. It shares no
// memory with the request's text.
type Params struct {
	Kind  Kind
	Model string
	// OtherModels are models that the provider may use in place of Model:
	// OpenRouter's `models` (https://openrouter.ai/docs/model-routing).
	// An allow-list must admit them too.
	OtherModels []string
	// Stream says whether the caller asked for a stream, IncludeUsage whether
	// it asked for usage in it.
	Stream, IncludeUsage bool
	// OutputCap is the cap on output tokens of each choice; -1 means that the
	// request gives none. Where it gives two, this is the larger.
	OutputCap int64
	// CapField is the member that gives OutputCap; empty if none does.
	CapField string
	// N is how many choices are returned, BestOf how many are made; both at
	// least 1, and BestOf never less than N.
	N, BestOf int64
	// ServiceTier is as the caller wrote it; empty for none.
	ServiceTier string
	// AudioOutput and ImageOutput say that the request asks for audio or images
	// in the answer, at their own price. Both are set for whatever else but text
	// it asks for.
	AudioOutput, ImageOutput bool
	// Routing names what lets a provider that resells models choose a seller who
	// may be dearer than the model's price: OpenRouter's `provider`
	// (https://openrouter.ai/docs/features/provider-routing) or a model's
	// ":nitro". Empty for none.
	Routing string
	// Prediction is the length in bytes of a predicted output. Tokens of it
	// that aren't used are charged as output, beside OutputCap.
	Prediction int64
	// Input is what bounds the input.
	Input Bound

	twoCaps bool // two members give one
}

// maxCap and maxChoices bound what is taken for a sensible number.
const (
	maxCap     = math.MaxInt32
	maxChoices = 1024
)

// ParamError says which member of a request is wrong, and what is right.
type ParamError struct {
	// Param is the member: "max_tokens", "stream_options.include_usage".
	Param string
	// Problem is for people.
	Problem string
}

// Error implements the error interface.
func (e *ParamError) Error() string { return fmt.Sprintf("%q %s", e.Param, e.Problem) }

// MaxOutput is the largest number of output tokens that the request can be
// charged for when each choice has at most perChoice (0 or more): it is
// multiplied by the choices made for each prompt. It never overflows.
func (p *Params) MaxOutput(perChoice int64) int64 {
	choices := p.BestOf
	if p.Kind == Completions {
		choices *= max(1, p.Input.Messages)
	}
	if perChoice > 0 && choices > (math.MaxInt64-p.Prediction)/perChoice {
		return math.MaxInt64
	}
	return choices*perChoice + p.Prediction
}

// IgnoreCap forgets the cap if field alone gives it, for a provider that may
// take no notice of field. Of two caps the larger holds still: whichever the
// provider reads, it can't be more.
func (p *Params) IgnoreCap(field string) {
	if p.CapField == field && !p.twoCaps {
		p.OutputCap, p.CapField = -1, ""
	}
}

// EnsureCap gives a chat request's cap as field too, if another member alone
// gives it, for servers that may take no notice of that one.
func (p *Params) EnsureCap(o *Object, field string) {
	if p.Kind != Chat || p.CapField == "" {
		return
	}
	if raw, ok := o.Get(field); !ok || isNull(raw) {
		o.Set(field, strconv.AppendInt(nil, p.OutputCap, 10))
	}
}

// LowerCap makes the cap on output tokens no more than to, in every member of
// the request that caps it; a smaller one stays. A request without a cap gets
// one: for Chat as the member field, since providers differ there
// (provider.Provider.ChatCapField). Kinds without output stay as they are.
func (p *Params) LowerCap(o *Object, to int64, field string) {
	fields := capFields(p.Kind)
	if len(fields) == 0 {
		return
	}
	value := strconv.AppendInt(nil, to, 10)
	for _, name := range fields {
		raw, ok := o.Get(name)
		if !ok || isNull(raw) {
			continue
		}
		if n, err := wholeNumber(name, raw, 0, maxCap); err != nil || n > to {
			o.Set(name, value)
		}
	}
	if p.CapField == "" {
		if p.CapField = field; p.Kind != Chat {
			p.CapField = fields[0]
		}
		o.Set(p.CapField, value)
		p.OutputCap = to
	}
	p.OutputCap = min(p.OutputCap, to)
}

// capFields are the members that cap the output.
func capFields(kind Kind) []string {
	switch kind {
	case Chat:
		return []string{"max_completion_tokens", "max_tokens"}
	case Completions:
		return []string{"max_tokens"}
	case Responses:
		return []string{"max_output_tokens"}
	}
	return nil
}

// ReadParams reads the parameters of a POST on path (see KindOf) from its
// body, as edited; nil is a request without a body. Every member that it reads
// may stand there once, spelt exactly so. null counts as absent. Of routes that
// aren't metered, only Model and Stream are read. The error is a *ParamError.
func ReadParams(path string, o *Object) (Params, error) {
	p := Params{Kind: KindOf(http.MethodPost, path), OutputCap: -1, N: 1, BestOf: 1}
	if o == nil {
		return p, nil
	}
	var seen memberSet
	for i := range o.members {
		m := &o.members[i]
		value := m.value
		if value == nil {
			value = o.text[m.start:m.end]
		}
		if err := p.read(m.key, value, &seen); err != nil {
			return Params{}, err
		}
	}
	for i := range o.added {
		if err := p.read([]byte(o.added[i].key), o.added[i].value, &seen); err != nil {
			return Params{}, err
		}
	}
	p.BestOf = max(p.BestOf, p.N)
	return p, nil
}

// read takes one top-level member into account.
func (p *Params) read(key, value []byte, seen *memberSet) error {
	id := memberOf(string(key))
	if id == memberOther {
		if folds(key) {
			if spelt := fold(string(key)); memberOf(spelt) != memberOther {
				return &ParamError{string(key), fmt.Sprintf("must be spelt %q", spelt)}
			}
		}
		p.Input.TextBytes += int64(len(value))
		return nil
	}
	if seen.add(id) {
		return &ParamError{string(key), "stands in the body twice; send it once"}
	}
	if isNull(value) || !p.Kind.Metered() && id != memberModel && id != memberStream {
		return nil
	}
	if id < memberInput {
		return p.control(id, key, value)
	}
	p.Input.TextBytes += int64(len(value))
	if id == memberPrediction {
		p.Prediction = int64(len(value))
		return nil
	}
	p.Input.read(p.Kind, id, key, value)
	return nil
}

// control reads a member that isn't input to the model.
func (p *Params) control(id memberID, key, value []byte) (err error) {
	switch id {
	case memberModel:
		p.Model, err = stringValue(key, value)
		if strings.HasSuffix(p.Model, ":online") { // OpenRouter's web search
			p.Input.openEnded("model " + p.Model)
		}
		p.routesModel(p.Model)
	case memberStream:
		p.Stream, err = boolValue(key, value)
	case memberStreamOptions:
		p.IncludeUsage, err = includeUsage(value)
	case memberN:
		p.N, err = wholeNumber(key, value, 1, maxChoices)
	case memberBestOf:
		p.BestOf, err = wholeNumber(key, value, 1, maxChoices)
	case memberServiceTier:
		p.ServiceTier, err = stringValue(key, value)
	case memberModels:
		p.OtherModels, err = stringValues(key, value)
		for _, model := range p.OtherModels {
			p.routesModel(model)
		}
	case memberModalities:
		p.modalities(value)
	case memberAudio: // its voice and format
		p.AudioOutput = true
	case memberRouting:
		p.Input.TextBytes += int64(len(value))
		if !cheapRouting(value) {
			p.Routing = string(key)
		}
	case memberMaxTokens, memberMaxCompletionTokens, memberMaxOutputTokens:
		err = p.readCap(key, value)
	case memberUncounted:
	}
	return err
}

// readCap reads a cap, if this kind of route knows it.
func (p *Params) readCap(key, value []byte) error {
	for _, name := range capFields(p.Kind) {
		if name != string(key) {
			continue
		}
		n, err := wholeNumber(key, value, 0, maxCap)
		if err != nil {
			return err
		}
		p.twoCaps = p.CapField != ""
		if n > p.OutputCap {
			p.OutputCap, p.CapField = n, name
		}
	}
	return nil
}

// modalities reads a list of what the answer may be made of.
func (p *Params) modalities(value []byte) {
	r := reader{t: value}
	if r.peek() != '[' {
		p.modality(value)
		return
	}
	for more := r.open('['); more; more = r.next(']') {
		p.modality(r.value())
	}
}

func (p *Params) modality(raw []byte) {
	switch strings.ToLower(string(text(raw))) {
	case "text":
	case "audio":
		p.AudioOutput = true
	case "image":
		p.ImageOutput = true
	default:
		p.AudioOutput, p.ImageOutput = true, true
	}
}

// routesModel notices a model's name that asks OpenRouter for the fastest
// seller, whatever the price.
func (p *Params) routesModel(model string) {
	if strings.HasSuffix(strings.ToLower(model), ":nitro") {
		p.Routing = "a model with :nitro"
	}
}

// cheapRouting says whether OpenRouter's preferences leave the choice of a
// seller to the price.
func cheapRouting(value []byte) bool {
	r := reader{t: value}
	if r.peek() != '{' {
		return false
	}
	for more := r.open('{'); more; more = r.next('}') {
		key, raw := string(r.key()), r.value()
		switch key {
		case "data_collection", "zdr", "require_parameters", "allow_fallbacks", "enforce_distillable_text", "max_price":
		case "sort":
			if !isNull(raw) && string(text(raw)) != "price" {
				return false
			}
		default:
			if !isNull(raw) {
				return false
			}
		}
	}
	return true
}

// includeUsage reads stream_options, whose members too may stand there once.
func includeUsage(value []byte) (asked bool, err error) {
	if value[0] != '{' {
		return false, &ParamError{"stream_options", "must be an object"}
	}
	const name, full = "include_usage", "stream_options.include_usage"
	r := reader{t: value}
	seen := false
	for more := r.open('{'); more; more = r.next('}') {
		key := r.key()
		raw := r.value()
		if string(key) != name {
			if folds(key) && fold(string(key)) == name {
				return false, &ParamError{"stream_options." + string(key), fmt.Sprintf("must be spelt %q", name)}
			}
			continue
		}
		if seen {
			return false, &ParamError{full, "stands in the body twice; send it once"}
		}
		seen = true
		if !isNull(raw) {
			if asked, err = boolValue(full, raw); err != nil {
				return false, err
			}
		}
	}
	return asked, nil
}

func boolValue[T string | []byte](name T, raw []byte) (bool, error) {
	switch string(raw) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, &ParamError{string(name), "must be true or false, not " + excerpt(raw)}
}

func stringValue[T string | []byte](name T, raw []byte) (string, error) {
	if raw[0] != '"' {
		return "", &ParamError{string(name), "must be a string, not " + excerpt(raw)}
	}
	return unquote(raw), nil
}

func stringValues(name, raw []byte) (list []string, err error) {
	if raw[0] != '[' {
		return nil, &ParamError{string(name), "must be a list of strings, not " + excerpt(raw)}
	}
	r := reader{t: raw}
	for more := r.open('['); more; more = r.next(']') {
		s, err := stringValue(name, r.value())
		if err != nil {
			return nil, &ParamError{string(name), "must be a list of strings"}
		}
		list = append(list, s)
	}
	return list, nil
}

// wholeNumber reads a number that every provider reads alike: digits, and at
// most zeros after a point (which is how some clients write whole floats).
func wholeNumber[T string | []byte](name T, raw []byte, least, most int64) (int64, error) {
	whole, fraction, _ := bytes.Cut(raw, []byte("."))
	n, err := strconv.ParseInt(string(whole), 10, 64)
	if err != nil || len(bytes.Trim(fraction, "0")) > 0 || n < least || n > most {
		return 0, &ParamError{string(name), fmt.Sprintf("must be a whole number from %d to %d, not %s", least, most, excerpt(raw))}
	}
	return n, nil
}

// excerpt is a value for a message: its text if it is short, else its type.
func excerpt(raw []byte) string {
	if len(raw) <= 32 && raw[0] != '{' && raw[0] != '[' {
		return string(raw)
	}
	switch raw[0] {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return "a long string"
	}
	return string(raw[:29]) + "…"
}

// folds says whether fold changes key: our keys are all in lower case.
func folds(key []byte) bool {
	for _, c := range key {
		if c >= 0x80 || c >= 'A' && c <= 'Z' {
			return true
		}
	}
	return false
}

// fold is key as a decoder that ignores case reads it: in lower case, and with
// the letters that fold to ASCII ones (ſ and the Kelvin sign) so written.
func fold(key string) string {
	return strings.Map(func(r rune) rune {
		for f := unicode.SimpleFold(r); r >= 0x80 && f != r; f = unicode.SimpleFold(f) {
			if f < 0x80 {
				return unicode.ToLower(f)
			}
		}
		return unicode.ToLower(r)
	}, key)
}
