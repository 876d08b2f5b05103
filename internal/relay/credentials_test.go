// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"net/http"
	"testing"

	"vault-plugin-secrets-portkey/internal/apierror"
)

func TestRoute_ThatGivesOutCredentialsIsNeverPassedOn(t *testing.T) {
	for _, path := range []string{
		"v1/realtime/client_secrets", "v1/realtime/sessions", "v1/Realtime/transcription_sessions", "v1/chatkit/sessions",
		"v1/organization/admin_api_keys", "v1/organization/projects/p/service_accounts", "v1/keys", "v1/keys/abc", "v1/auth/keys",
	} {
		for _, method := range []string{http.MethodPost, http.MethodGet} {
			req := chatRequest(t, `{"model":"m"}`)
			req.Method, req.Path = method, path
			serve(t, req, nil).wantRefused(t, 403, apierror.TypeInvalidRequest, apierror.CodeRouteNotAllowed)
		}
	}
	for _, path := range []string{"v1/authors", "v1/chatkit/threads", "v1/keynotes"} {
		req := chatRequest(t, `{"model":"m"}`)
		req.Path = path
		serve(t, req, nil).wantAnswered(t)
	}
}
