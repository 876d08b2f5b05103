// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/ledger"
	"vault-plugin-secrets-portkey/internal/price"
	"vault-plugin-secrets-portkey/internal/wire"
)

// tokenUnits are those that rest on metering.
var tokenUnits = []ledger.Unit{ledger.Tokens, ledger.InputTokens, ledger.OutputTokens}

// countsTokens says whether a limit on tokens applies to the model.
func countsTokens(p *ledger.Policy, model string) bool {
	for _, unit := range tokenUnits {
		if p.Counts(unit, model) {
			return true
		}
	}
	return false
}

// checkBounds refuses what the limits can't hold: routes that aren't metered,
// models without a price, and, on hard limits, what nobody can say the worst
// case of.
func (x *exchange) checkBounds(policy *ledger.Policy) *apierror.Error {
	if x.free() {
		return nil
	}
	vk, model := x.req.VirtualKey, x.limited()
	if err := x.checkOneModel(policy); err != nil {
		return err
	}
	money, tokens := policy.Counts(ledger.USD, model), countsTokens(policy, model)
	if !money && !tokens {
		return nil
	}
	if !x.params.Kind.Metered() {
		if vk.AllowUnmetered {
			return nil
		}
		return &apierror.Error{
			Status: http.StatusForbidden, Type: apierror.TypeInvalidRequest, Code: apierror.CodeRouteNotMetered,
			Message: fmt.Sprintf("what %s uses can't be metered, and virtual key %q has limits on money or tokens; "+
				"`vault patch <mount>/roles/%s allow_unmetered=true` lets it through uncounted", x.req.Path, vk.Name, vk.Name),
		}
	}
	if err := x.checkUnbounded(policy, money); err != nil {
		return err
	}
	if money {
		return x.checkPrices()
	}
	return nil
}

// findEscape looks for a member by which the request may run any model.
func (x *exchange) findEscape(body *wire.Object) *apierror.Error {
	if body == nil || !x.params.Kind.Metered() {
		return nil
	}
	if err := body.CheckKeys(escapes); err != nil {
		return badRequest("", err.Error())
	}
	for _, key := range escapes {
		raw, given := body.Get(key)
		if !given || string(raw) == "null" {
			continue
		}
		if key == "extra_body" && harmlessExtra(x.req.VirtualKey.Target.Provider().ID, raw) {
			continue
		}
		x.escape = key
	}
	return nil
}

// harmlessExtra says whether extra_body holds nothing but settings of Google's
// (https://ai.google.dev/gemini-api/docs/openai) that change no model, cap or
// number of choices. Other servers make its members those of the request.
func harmlessExtra(providerID string, raw []byte) bool {
	var extra map[string]map[string]json.RawMessage
	if providerID != "google" || json.Unmarshal(raw, &extra) != nil {
		return false
	}
	for vendor, settings := range extra {
		if vendor != "google" {
			return false
		}
		for name := range settings {
			switch name {
			case "thinking_config", "cached_content", "safety_settings":
			default:
				return false
			}
		}
	}
	return true
}

// checkOneModel refuses, on hard limits, a request that may run several models,
// or any, where limits tell models apart: nobody can say which of them it falls
// under.
func (x *exchange) checkOneModel(policy *ledger.Policy) *apierror.Error {
	vk := x.req.VirtualKey
	param, what := "", x.req.Path
	switch {
	case policy.Soft() || vk.AllowUnbounded:
		return nil
	case !x.params.Kind.Metered():
		if x.params.Model != "" && wire.RunsItsModel(x.req.Path) {
			return nil
		}
	case x.params.Model == "":
		param, what = "model", "a request without a model"
	case len(x.params.OtherModels) > 0:
		param, what = "models", "\"models\""
	case x.escape != "":
		param, what = x.escape, strconv.Quote(x.escape)
	default:
		return nil
	}
	for _, limit := range policy.Limits() {
		if limit.Models != "" {
			return x.unbounded(param, fmt.Sprintf("%s may run models other than the one that the request names, and the limit %s counts models apart", what, limit))
		}
	}
	return nil
}

// checkUnbounded refuses, on hard limits, what can cost any amount.
func (x *exchange) checkUnbounded(policy *ledger.Policy, money bool) *apierror.Error {
	vk, p := x.req.VirtualKey, &x.params
	if policy.Soft() || vk.AllowUnbounded {
		return nil
	}
	switch {
	case len(p.Input.OpenEnded) > 0:
		return x.unbounded("tools", fmt.Sprintf("%s may spend any amount at the provider", strings.Join(p.Input.OpenEnded, ", ")))
	case x.openEndedModel() != "":
		return x.unbounded("model", fmt.Sprintf("the model %q searches or runs tools at the provider by itself, for fees of their own", x.openEndedModel()))
	case money && p.Routing != "" && vk.Target.Provider().ReportsCost:
		return x.unbounded("provider", fmt.Sprintf("%s may choose a seller whose price isn't known", p.Routing))
	case money && !pricedTier(p.ServiceTier):
		return x.unbounded("service_tier", fmt.Sprintf("the price of service_tier %q isn't known", p.ServiceTier))
	case x.escape != "":
		return x.unbounded(x.escape, fmt.Sprintf("%q may run any model", x.escape))
	}
	return nil
}

// searchSuffix makes any model of OpenRouter search the web.
const searchSuffix = ":online"

// openEndedModel is the first of the request's models that may spend any amount
// at the provider by itself, empty for none.
func (x *exchange) openEndedModel() string {
	p := x.req.VirtualKey.Target.Provider()
	if p.OpenEnded(x.params.Model) {
		return x.params.Model
	}
	for _, model := range x.params.OtherModels {
		if p.OpenEnded(model) || strings.HasSuffix(model, searchSuffix) {
			return model
		}
	}
	return ""
}

// pricedTier says whether a service tier costs no more than the price table
// says (https://platform.openai.com/docs/pricing): flex is cheaper.
func pricedTier(tier string) bool {
	switch strings.ToLower(tier) {
	case "", "auto", "default", "standard", "standard_only", "flex", "on_demand":
		return true
	}
	return false
}

func (x *exchange) unbounded(param, why string) *apierror.Error {
	name := x.req.VirtualKey.Name
	return &apierror.Error{
		Status: http.StatusForbidden, Type: apierror.TypeInvalidRequest, Code: apierror.CodeCostUnbounded, Param: param,
		Message: fmt.Sprintf("%s, so the limits of virtual key %q can't hold; leave it out, or `vault patch <mount>/roles/%s allow_unbounded=true`",
			why, name, name),
	}
}

// checkPrices refuses models without a price. Those that the provider may use
// in place of the one named are priced too.
func (x *exchange) checkPrices() *apierror.Error {
	id := x.req.VirtualKey.Target.Provider().ID
	if x.price == nil {
		return x.notPriced(id, x.params.Model)
	}
	for _, model := range x.params.OtherModels {
		match, ok := x.find(model)
		if !ok {
			return x.notPriced(id, model)
		}
		x.otherPrices = append(x.otherPrices, match)
	}
	return nil
}

// find returns the price of one of the request's models.
func (x *exchange) find(model string) (*price.Match, bool) {
	if x.req.Book == nil || model == "" {
		return nil, false
	}
	return x.req.Book.Find(x.req.VirtualKey.Target.Provider().ID, model, x.started)
}

func (x *exchange) notPriced(providerID, model string) *apierror.Error {
	return &apierror.Error{
		Status: http.StatusForbidden, Type: apierror.TypeInvalidRequest, Code: apierror.CodeModelNotPriced, Param: "model",
		Message: fmt.Sprintf("virtual key %q has a limit on money, and the price of model %q isn't known, or not of all that the request may use; "+
			"set it, in USD per million tokens: `vault write <mount>/prices/%s/%s input=… output=…`",
			x.req.VirtualKey.Name, model, providerID, model),
	}
}
