// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/relay"
	"vault-plugin-secrets-portkey/internal/wire"
)

// maxTicket bounds a ticket in a path, and maxRole the name of a virtual key, in
// bytes. Vault sets no bound to names, but a header could hold a megabyte.
const (
	maxTicket = 128
	maxRole   = 512
)

// routeKind says which of the gateway's doors a request came to.
type routeKind uint8

const (
	kindHealth routeKind = iota + 1 // /healthz
	kindReady                       // /readyz
	kindProxy                       // /v1/<mount>proxy/<role>/<provider path>, as in Vault
	kindPrompt                      // /v1/<mount>prompts/<prompt>/<action>, as in Vault, and /v1/prompts/…
	kindNative                      // a provider's own root: /v1/…, /v1beta/…, /openai/…
	kindTicket                      // /t/<ticket>/<what is below the mount>
)

// route is where a request wants to go.
type route struct {
	kind   routeKind
	ticket string // of kindTicket, else empty: letters, digits, - and _
	role   string // named by the path, of kindProxy and kindTicket; a valid name
	// path is the provider path, decoded, without a leading slash:
	// v1/chat/completions. Escaped again, it means the same to every reader.
	// Empty for kindHealth, kindReady and calls of prompts.
	path string
	// prompt is what a call of a prompt is for, of kindPrompt and kindTicket; zero
	// for any other.
	prompt promptCall
}

// below is where a request on a virtual key, or a call of a prompt, is below the
// mount. This is what Vault is asked about.
func (rt route) below(role string) string {
	if rt.prompt.ref != "" {
		return promptsPrefix + rt.prompt.ref + "/" + rt.prompt.action
	}
	return proxyPrefix + role + "/" + rt.path
}

// Where calls are below the mount.
const (
	proxyPrefix   = "proxy/"
	promptsPrefix = "prompts/"
)

// parseRoute reads where a request wants to go, from what the server read. It
// refuses whatever this gateway, Vault and a provider could understand
// differently, in the query string too. mount is the mount's path in Vault,
// with its trailing slash; empty while it isn't known, when no kindProxy can
// be told. OPTIONS is refused: cors.preflight answers preflights before.
func parseRoute(r *http.Request, mount string) (route, *apierror.Error) {
	var kind routeKind
	switch r.URL.Path {
	case "/healthz":
		kind = kindHealth
	case "/readyz":
		kind = kindReady
	}
	if err := checkMethod(r.Method, kind != 0); err != nil {
		return route{}, err
	}
	if err := checkUpgrade(r.Header["Upgrade"]); err != nil {
		return route{}, err
	}
	if err := checkTarget(r); err != nil {
		return route{}, err
	}
	if kind != 0 {
		return route{kind: kind}, nil
	}
	path := r.URL.Path[1:]
	if mount != "" {
		// The mount's name is compared whole: Vault may allow more in it than
		// checkPath does.
		below, found := belowMount(path, mount)
		if found && (strings.HasPrefix(below, proxyPrefix) || strings.HasPrefix(below, promptsPrefix) || !isProviders(r.Method, path)) {
			return mountRoute(r.Method, below)
		}
	}
	if err := checkPath(path); err != nil {
		return route{}, err
	}
	if ticketed, found := strings.CutPrefix(path, "t/"); found {
		return ticketRoute(r.Method, ticketed)
	}
	if below, found := strings.CutPrefix(path, "v1/"); found {
		if call, found := parsePromptCall(r.Method, below); found {
			return promptRoute(call)
		}
	}
	if err := checkNative(r.Method, path, mount != ""); err != nil {
		return route{}, err
	}
	return route{kind: kindNative, path: path}, nil
}

// belowMount cuts v1/ and the mount's path, which ends with a slash, off a path. That
// of the mount itself may lack the slash.
func belowMount(path, mount string) (below string, found bool) {
	rest, found := strings.CutPrefix(path, "v1/")
	if !found {
		return "", false
	}
	if rest == mount[:len(mount)-1] {
		return "", true
	}
	return strings.CutPrefix(rest, mount)
}

// mountRoute reads what is below the mount.
func mountRoute(method, below string) (route, *apierror.Error) {
	call, isPrompt := parsePromptCall(method, below)
	rest, found := strings.CutPrefix(below, proxyPrefix)
	role, path, complete := strings.Cut(rest, "/")
	if !isPrompt && (!found || !complete) {
		return route{}, vaultsOwn()
	}
	if err := checkPath(rest); err != nil {
		return route{}, err
	}
	if isPrompt {
		return promptRoute(call)
	}
	if !isRoleName(role) {
		return route{}, notFound(role)
	}
	return route{kind: kindProxy, role: role, path: path}, nil
}

// ticketRoute reads what follows /t/. Whether there is such a ticket isn't
// known here.
func ticketRoute(method, rest string) (route, *apierror.Error) {
	ticket, below, _ := strings.Cut(rest, "/")
	rt, err := mountRoute(method, below)
	if len(ticket) > maxTicket || strings.Trim(ticket, ticketLetters) != "" || err != nil && err.Code == apierror.CodeRouteNotFound {
		return route{}, &apierror.Error{
			Status: http.StatusNotFound, Type: apierror.TypeInvalidRequest, Code: apierror.CodeTicketInvalid,
			Message: "this is no address that Vault redirects to, which is /t/<ticket>/proxy/<virtual key>/<provider path>, " +
				"or /t/<ticket>/prompts/<prompt>/completions; send the request to Vault again",
		}
	}
	rt.kind, rt.ticket = kindTicket, ticket
	if err != nil {
		rt = route{}
	}
	return rt, err
}

const ticketLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// isProviders says whether a path is one that providers have, or Portkey has for
// prompts, even though the mount has the same name: a mount may be called "chat" or
// "prompts".
func isProviders(method, path string) bool {
	if below, found := strings.CutPrefix(path, "v1/"); found {
		if _, found := parsePromptCall(method, below); found {
			return true
		}
	}
	return wire.KindOf(method, path) != wire.Unmetered || wire.RunsItsModel(path)
}

// checkNative refuses paths that are Vault's, or that would be kindProxy at
// another mount or namespace, or once the mount is known. No provider has them.
func checkNative(method, path string, mounted bool) *apierror.Error {
	rest, found := strings.CutPrefix(path, "v1/")
	if !found {
		return nil
	}
	switch first, _, _ := strings.Cut(rest, "/"); first {
	case "sys", "auth", "identity", "cubbyhole":
		return vaultsOwn()
	}
	if !isBelowMount(method, rest) || isProviders(method, path) {
		return nil
	}
	if !mounted {
		return &apierror.Error{
			Status: http.StatusServiceUnavailable, Type: apierror.TypeAPI, Code: apierror.CodeGatewayUnavailable, RetryAfter: time.Second,
			Message: "the gateway doesn't know yet at which path of Vault it is mounted; it learns it from the first request that Vault brings, such as `vault read <mount>/status`",
		}
	}
	return noRoute("this gateway belongs to another mount of Vault; " +
		"the path is /v1/<mount>/proxy/<virtual key>/<provider path> or /v1/<mount>/prompts/<prompt>/completions, with the mount's path as `vault secrets list` shows it and without a namespace")
}

// isBelowMount says whether a path looks like a call at some mount.
func isBelowMount(method, path string) bool {
	if strings.Contains(path, "/"+proxyPrefix) {
		return true
	}
	i := strings.LastIndex(path, "/"+promptsPrefix)
	if i < 0 {
		return false
	}
	_, found := parsePromptCall(method, path[i+1:])
	return found
}

func vaultsOwn() *apierror.Error {
	return noRoute("this path is of Vault's own API: send it to Vault's address; " +
		"the gateway serves /v1/<mount>/proxy/<virtual key>/<provider path>, /v1/<mount>/prompts/<prompt>/completions (POST) and the providers' own paths, such as /v1/chat/completions")
}

func noRoute(message string) *apierror.Error {
	return &apierror.Error{
		Status: http.StatusNotFound, Type: apierror.TypeInvalidRequest, Code: apierror.CodeRouteNotFound, Message: message,
	}
}

// isWord is \w of Vault's names.
func isWord(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_'
}

// isRoleName says whether a virtual key can have this name: that of Vault's
// framework.GenericNameRegex, and without "..", which Vault's storage refuses.
func isRoleName(name string) bool {
	for i := range len(name) {
		if !isWord(name[i]) && name[i] != '-' && name[i] != '.' {
			return false
		}
	}
	return name != "" && len(name) <= maxRole && isWord(name[0]) && isWord(name[len(name)-1]) && !strings.Contains(name, "..")
}

// notFound is the answer for a virtual key of a name that none can have.
func notFound(name string) *apierror.Error {
	return relay.NotFound(clip(name))
}

// clip shortens a caller's words for a message.
func clip(s string) string {
	if len(s) <= 64 {
		return s
	}
	return s[:64] + "…"
}

// vaultPath is where a request stands in Vault: below /v1/, escaped for a URL.
// below is as of route.below; mount is as for parseRoute and not empty.
func vaultPath(mount, below string) string {
	return (&url.URL{Path: mount + below}).EscapedPath()
}
