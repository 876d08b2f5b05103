// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"net/http"
	"net/url"
	"strings"

	"vault-plugin-secrets-portkey/internal/apierror"
)

// maxCredential bounds a credential, in bytes. Vault's batch tokens hold their
// policies and metadata, so that they can be as long as a large JWT.
const maxCredential = 16 << 10

// leasedPrefix begins every leased key, and no Vault token: those begin with
// "hvs.", "hvb.", "s." or "b.", or are what an operator chose.
const leasedPrefix = "vk-"

// isLeasedKey says whether a credential is a leased key rather than a Vault
// token.
func isLeasedKey(credential string) bool { return strings.HasPrefix(credential, leasedPrefix) }

// credentialOf returns the Vault token or leased key that a request carries:
// 1 to maxCredential bytes of visible ASCII. It is in the first of these places
// that isn't empty, since some SDKs fill a later one with a placeholder:
// X-Vault-Token, x-portkey-api-key, Authorization: Bearer, x-api-key, api-key,
// x-goog-api-key, ?key=. Errors are 401, or 400 where one place is given twice
// with different values; they never hold what was sent.
func credentialOf(r *http.Request) (credential string, err *apierror.Error) {
	for _, name := range [...]string{"X-Vault-Token", "X-Portkey-Api-Key", "Authorization", "X-Api-Key", "Api-Key", "X-Goog-Api-Key"} {
		values := r.Header[name]
		if name == "Authorization" {
			values = bearers(values)
		}
		if credential, err = onlyOne(values, "header "+name); credential != "" || err != nil {
			return checkCredential(credential, err)
		}
	}
	if r.URL.RawQuery != "" {
		if credential, err = onlyOne(r.URL.Query()["key"], "query parameter key"); credential != "" || err != nil {
			return checkCredential(credential, err)
		}
	}
	return "", credentialMissing(len(r.Header["Authorization"]) > 0)
}

// bearers are the credentials among the values of Authorization that are of
// the scheme Bearer, in any letter case (RFC 9110 §11.1).
func bearers(values []string) []string {
	if len(values) == 1 && strings.HasPrefix(values[0], "Bearer ") { // as nearly all are
		if credential := values[0][len("Bearer "):]; !strings.ContainsAny(credential, " \t") {
			return []string{credential}
		}
	}
	var found []string
	for _, value := range values {
		scheme, credential, _ := strings.Cut(strings.Trim(value, " \t"), " ")
		if strings.EqualFold(scheme, "bearer") {
			found = append(found, credential)
		}
	}
	return found
}

// onlyOne returns the value that is given, without the white space around it;
// empty for none. Where different ones are given, two readers could disagree
// on which counts, and that is an error; place says where, for people.
func onlyOne(values []string, place string) (string, *apierror.Error) {
	only := ""
	for _, value := range values {
		value = strings.Trim(value, " \t")
		switch {
		case value == "" || value == only:
		case only == "":
			only = value
		default:
			return "", badRequest("", "the "+place+" is given more than once, with different values; give it once")
		}
	}
	return only, nil
}

// checkCredential refuses, for one that was found, what no token or key can be.
// It passes on an earlier error.
func checkCredential(credential string, err *apierror.Error) (string, *apierror.Error) {
	if err != nil {
		return "", err
	}
	malformed := func(problem string) (string, *apierror.Error) {
		return "", &apierror.Error{
			Status: http.StatusUnauthorized, Type: apierror.TypeInvalidRequest, Code: apierror.CodeCredentialInvalid,
			Message: "the credential " + problem + "; it must be a Vault token or a leased key (`vault read <mount>/creds/<virtual key>`), and nothing else",
		}
	}
	if len(credential) > maxCredential {
		return malformed("is too long")
	}
	for i := range len(credential) {
		if credential[i] <= ' ' || credential[i] > '~' {
			return malformed("holds a space, a control character or a character outside ASCII")
		}
	}
	return credential, nil
}

// credentialMissing is the answer where there is no credential. otherScheme
// says that there is an Authorization header all the same. What is in it isn't
// repeated: even its first word may be a token.
func credentialMissing(otherScheme bool) *apierror.Error {
	message := "the request carries no credential"
	if otherScheme {
		message = "the Authorization header holds no credential of the scheme Bearer"
	}
	return &apierror.Error{
		Status: http.StatusUnauthorized, Type: apierror.TypeInvalidRequest, Code: apierror.CodeCredentialMissing,
		Message: message + "; send a Vault token or a leased key as `Authorization: Bearer <token>` (an SDK's api_key), " +
			"or in X-Vault-Token, x-portkey-api-key, x-api-key, api-key, x-goog-api-key or ?key=",
	}
}

// withoutCredentials returns a query string without the parameters in which
// services take credentials; every other byte is as it was, in its order. A
// semicolon counts as a separator too, since some servers take it for one.
func withoutCredentials(rawQuery string) string {
	var kept strings.Builder
	for start, first := 0, true; start <= len(rawQuery); {
		end := len(rawQuery)
		if i := strings.IndexAny(rawQuery[start:], "&;"); i >= 0 {
			end = start + i
		}
		if pair := rawQuery[start:end]; !namesCredential(pair) {
			if !first {
				kept.WriteByte(rawQuery[start-1])
			}
			kept.WriteString(pair)
			first = false
		}
		start = end + 1
	}
	return kept.String()
}

// namesCredential says whether a reader, even a lenient one, could take a pair
// of a query string for a credential.
func namesCredential(pair string) bool {
	name, _, _ := strings.Cut(pair, "=")
	if decoded, err := url.QueryUnescape(name); err == nil {
		name = decoded
	}
	name = strings.TrimFunc(name, func(r rune) bool { return r <= ' ' })
	for _, known := range [...]string{"key", "access_token", "api-key", "api_key"} {
		if strings.EqualFold(name, known) {
			return true
		}
	}
	return false
}

func badRequest(param, message string) *apierror.Error {
	return &apierror.Error{
		Status: http.StatusBadRequest, Type: apierror.TypeInvalidRequest, Code: apierror.CodeInvalidRequest,
		Param: param, Message: message,
	}
}
