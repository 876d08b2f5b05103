// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// maxJSON is how long a list or object may be as JSON text, in bytes.
const maxJSON = 64 << 10

// decodeJSON decodes JSON text, numbers as json.Number. It refuses what
// encoding/json lets pass: members that are there twice, of which one would be
// ignored silently.
func decodeJSON(text string) (any, error) {
	if len(text) > maxJSON {
		return nil, fmt.Errorf("%d bytes are too long; at most %d", len(text), maxJSON)
	}
	var valid json.RawMessage
	if err := json.Unmarshal([]byte(text), &valid); err != nil {
		return nil, fmt.Errorf("this is no JSON (%w); write such as %s", err, exampleList)
	}
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	return decodeValue(decoder, 0)
}

func decodeValue(decoder *json.Decoder, depth int) (any, error) {
	token, err := decoder.Token()
	if err != nil {
		return nil, err
	}
	if depth > maxDepth+1 {
		return nil, errors.New("this is nested too deep; write one list of limits, such as " + exampleList)
	}
	switch token {
	case json.Delim('['):
		return decodeList(decoder, depth)
	case json.Delim('{'):
		return decodeObject(decoder, depth)
	}
	return token, nil
}

func decodeList(decoder *json.Decoder, depth int) (any, error) {
	list := []any{}
	for decoder.More() {
		value, err := decodeValue(decoder, depth+1)
		if err != nil {
			return nil, err
		}
		list = append(list, value)
	}
	_, err := decoder.Token() // the end
	return list, err
}

func decodeObject(decoder *json.Decoder, depth int) (any, error) {
	object := map[string]any{}
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return nil, err
		}
		name, _ := token.(string) // members have no other names
		if _, twice := object[name]; twice {
			return nil, fmt.Errorf("member %s is there twice; write it once, as in %s", quoted(name), exampleObject)
		}
		if object[name], err = decodeValue(decoder, depth+1); err != nil {
			return nil, err
		}
	}
	_, err := decoder.Token() // the end
	return object, err
}
