// SPDX-License-Identifier: MPL-2.0

package sandbox

// modelsCreated dates the models: 2025-01-01T00:00:00Z in Unix seconds.
const modelsCreated = 1_735_689_600

// The answers of GET /v1/models and GET /v1/models/{model}
// (https://platform.openai.com/docs/api-reference/models).
type (
	modelList struct {
		Object string        `json:"object"`
		Data   []modelObject `json:"data"`
	}
	modelObject struct {
		ID      string `json:"id"`
		Object  string `json:"object"`
		Created int64  `json:"created"`
		OwnedBy string `json:"owned_by"`
	}
)

func newModelObject(id string) modelObject {
	return modelObject{ID: id, Object: "model", Created: modelsCreated, OwnedBy: "sandbox"}
}

// listModels lists the models without modifiers.
func (s *Sandbox) listModels() *modelList {
	list := &modelList{Object: "list", Data: make([]modelObject, len(s.models))}
	for i := range s.models {
		list.Data[i] = newModelObject(s.models[i].ID)
	}
	return list
}

// oneModel answers for every name that a request may have as its model.
func (s *Sandbox) oneModel(name string) (*modelObject, *apiError) {
	if _, err := parseName(s.models, name); err != nil {
		return nil, modelNotFound(name, err)
	}
	m := newModelObject(name)
	return &m, nil
}
