// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/ryanuber/go-glob"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/provider"
	"vault-plugin-secrets-portkey/internal/wire"
)

func (r *Relay) checkVirtualKey(vk *VirtualKey) *apierror.Error {
	if vk.Disabled {
		return &apierror.Error{
			Status: http.StatusForbidden, Type: apierror.TypeInvalidRequest, Code: apierror.CodeVirtualKeyDisabled,
			Message: fmt.Sprintf("virtual key %q is disabled", vk.Name),
		}
	}
	if !vk.ExpiresAt.IsZero() && !r.now().Before(vk.ExpiresAt) {
		return &apierror.Error{
			Status: http.StatusForbidden, Type: apierror.TypeInvalidRequest, Code: apierror.CodeVirtualKeyExpired,
			Message: fmt.Sprintf("virtual key %q expired at %s", vk.Name, vk.ExpiresAt.UTC().Format(time.RFC3339)),
		}
	}
	return nil
}

// hasBody says whether requests of this method carry parameters in a body.
func hasBody(method string) bool {
	return method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch
}

// checkRequest reads what policy needs from the request, applies it, and
// returns the body for the provider: the caller's bytes but for the members
// that the virtual key sets.
func checkRequest(req *Request) ([]byte, *apierror.Error) {
	vk := req.VirtualKey
	if !hasBody(req.Method) {
		return nil, nil
	}
	if len(bytes.TrimSpace(req.Body)) == 0 {
		if len(vk.Models) > 0 || wire.NeedsModel(req.Path) {
			return nil, modelRequired(vk)
		}
		return nil, nil
	}
	body, err := wire.ParseObject(req.Body)
	if err != nil {
		return nil, badRequest("", err.Error())
	}
	if err := body.CheckKeys(policyKeys(vk)); err != nil {
		return nil, badRequest("", err.Error())
	}
	if err := checkModel(vk, body, req.Path); err != nil {
		return nil, err
	}
	return body.Bytes(), nil
}

// policyKeys are the members that two readers must agree on: those that policy
// reads, and those that the virtual key sets.
func policyKeys(vk *VirtualKey) []string {
	keys := wire.PolicyKeys()
	if len(vk.Defaults)+len(vk.Forced) == 0 {
		return keys
	}
	keys = slices.Clone(keys)
	for key := range vk.Defaults {
		keys = append(keys, key)
	}
	for key := range vk.Forced {
		keys = append(keys, key)
	}
	return keys
}

// checkModel sets the virtual key's parameters and judges the model that
// results.
func checkModel(vk *VirtualKey, body *wire.Object, path string) *apierror.Error {
	setParams(body, vk)
	model, named, err := body.String("model")
	if err != nil {
		return badRequest("model", err.Error())
	}
	if !named || model == "" {
		if len(vk.Models) > 0 || wire.NeedsModel(path) {
			return modelRequired(vk)
		}
		return nil
	}
	if !Allows(vk.Models, model) {
		return &apierror.Error{
			Status: http.StatusForbidden, Type: apierror.TypeInvalidRequest, Code: apierror.CodeModelNotAllowed, Param: "model",
			Message: fmt.Sprintf("model %q is not allowed on virtual key %q, which allows %s", model, vk.Name, strings.Join(vk.Models, ", ")),
		}
	}
	return nil
}

// setParams fills in the default parameters that the caller left out (null
// counts as given) and sets the forced ones, in a fixed order.
func setParams(body *wire.Object, vk *VirtualKey) {
	for _, key := range sortedKeys(vk.Defaults) {
		if _, given := body.Get(key); !given {
			body.Set(key, vk.Defaults[key])
		}
	}
	for _, key := range sortedKeys(vk.Forced) {
		body.Set(key, vk.Forced[key])
	}
}

func sortedKeys(params map[string]json.RawMessage) []string {
	if len(params) == 0 {
		return nil
	}
	keys := make([]string, 0, len(params))
	for key := range params {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}

// Allows says whether the allow-list models, of globs in which * stands for
// any text, admits model. An empty list admits every model.
func Allows(models []string, model string) bool {
	if len(models) == 0 {
		return true
	}
	return slices.ContainsFunc(models, func(pattern string) bool { return glob.Glob(pattern, model) })
}

// locate finds the provider's URL for the request.
func locate(req *Request) (*provider.Endpoint, *apierror.Error) {
	endpoint, err := req.VirtualKey.Target.Locate(req.Path, req.RawQuery)
	if err == nil {
		return endpoint, nil
	}
	var noRoute *provider.NoRouteError
	if errors.As(err, &noRoute) {
		return nil, &apierror.Error{
			Status: http.StatusNotFound, Type: apierror.TypeInvalidRequest, Code: apierror.CodeRouteNotFound, Message: err.Error(),
		}
	}
	return nil, badRequest("", err.Error())
}

func badRequest(param, message string) *apierror.Error {
	return &apierror.Error{
		Status: http.StatusBadRequest, Type: apierror.TypeInvalidRequest, Code: apierror.CodeInvalidRequest,
		Param: param, Message: message,
	}
}

func modelRequired(vk *VirtualKey) *apierror.Error {
	message := "the request names no model; set \"model\""
	if len(vk.Models) > 0 {
		message = fmt.Sprintf("the request names no model; set \"model\" to one that virtual key %q allows: %s",
			vk.Name, strings.Join(vk.Models, ", "))
	}
	return &apierror.Error{
		Status: http.StatusBadRequest, Type: apierror.TypeInvalidRequest, Code: apierror.CodeModelRequired,
		Param: "model", Message: message,
	}
}
