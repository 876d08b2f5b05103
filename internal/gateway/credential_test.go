// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"bufio"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"vault-plugin-secrets-portkey/internal/apierror"
)

// asReceived is a request as a server reads it from these bytes. Each header
// is a whole line.
func asReceived(t testing.TB, method, target string, headers ...string) *http.Request {
	t.Helper()
	raw := method + " " + target + " HTTP/1.1\r\nHost: gateway.test\r\n"
	for _, line := range headers {
		raw += line + "\r\n"
	}
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw + "\r\n")))
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	return r
}

// refusedWith checks an error's status and code, and that its message can't
// hold what callers must be able to keep secret.
func refusedWith(t testing.TB, err *apierror.Error, status int, code string, secrets ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("not refused; want %d %s", status, code)
	}
	if err.Status != status || err.Code != code || err.Type == "" || err.Message == "" {
		t.Errorf("refused with %d %s %q (%s), want %d %s", err.Status, err.Code, err.Type, err.Message, status, code)
	}
	for _, secret := range secrets {
		if strings.Contains(err.Message, secret) {
			t.Errorf("the message holds %q: %s", secret, err.Message)
		}
	}
}

func TestCredential_IsTheFirstThatIsNotEmptyInTheOrderOfPlaces(t *testing.T) {
	places := []string{
		"X-Vault-Token: c0", "x-portkey-api-key: c1", "Authorization: Bearer c2",
		"x-api-key: c3", "api-key: c4", "x-goog-api-key: c5",
	}
	const last = "c6"
	for first := range len(places) + 1 {
		given := places[first:]
		want := last
		if len(given) > 0 {
			want = given[0][len(given[0])-2:]
		}
		// In the order that could mislead: the last place first.
		reversed := make([]string, 0, 2*len(given))
		for i := range given {
			reversed = append(reversed, given[len(given)-1-i])
		}
		// An earlier place that is empty doesn't count.
		for _, empty := range places[:first] {
			reversed = append(reversed, empty[:len(empty)-2])
		}
		got, err := credentialOf(asReceived(t, "POST", "/v1/x?a=1&key="+last, reversed...))
		if err != nil || got != want {
			t.Errorf("from place %d on: %q, %v; want %q", first, got, err, want)
		}
	}
}

func TestCredential_IsReadAsSDKsWriteIt(t *testing.T) {
	long := strings.Repeat("j", maxCredential)
	for name, c := range map[string]struct {
		target  string
		headers []string
		want    string
	}{
		"trimmed":                          {"/", []string{"X-Vault-Token: \t hvs.a \t"}, "hvs.a"},
		"scheme in any case":               {"/", []string{"authorization: bEaReR hvs.a"}, "hvs.a"},
		"spaces behind the scheme":         {"/", []string{"Authorization:   Bearer    hvs.a  "}, "hvs.a"},
		"twice, the same":                  {"/", []string{"x-api-key: k", "x-api-key: k"}, "k"},
		"twice, one empty":                 {"/", []string{"x-api-key: k", "x-api-key:", "X-API-KEY:  k"}, "k"},
		"Bearer beside Basic":              {"/", []string{"Authorization: Basic YTpi", "Authorization: Bearer k"}, "k"},
		"another place beside Basic":       {"/", []string{"Authorization: Basic YTpi", "api-key: k"}, "k"},
		"another place beside none":        {"/", []string{"Authorization: Bearer", "api-key: k"}, "k"},
		"the longest":                      {"/", []string{"X-Vault-Token: " + long}, long},
		"the query":                        {"/v1beta/models/m:generateContent?alt=sse&key=hvs.a", nil, "hvs.a"},
		"the query, escaped":               {"/?%6bey=hvs%2Ea", nil, "hvs.a"},
		"the query beside a broken pair":   {"/?a=%zz&key=k", nil, "k"},
		"the query twice, the same":        {"/?key=k&key=k", nil, "k"},
		"every character":                  {"/", []string{"X-Vault-Token: !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"}, "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"},
		"a conflict behind the one in use": {"/?key=a&key=b", []string{"X-Vault-Token: k", "x-api-key: a", "x-api-key: b"}, "k"},
	} {
		if got, err := credentialOf(asReceived(t, "POST", c.target, c.headers...)); err != nil || got != c.want {
			t.Errorf("%s: %.40q, %v; want %.40q", name, got, err, c.want)
		}
	}
}

func TestCredential_RefusalsSayWhatIsExpectedAndNeverWhatWasSent(t *testing.T) {
	const secret = "hvs.SECRET"
	missing, invalid := apierror.CodeCredentialMissing, apierror.CodeCredentialInvalid
	for name, c := range map[string]struct {
		target  string
		headers []string
		status  int
		code    string
		says    string
	}{
		"none":                          {"/", nil, 401, missing, "X-Vault-Token, x-portkey-api-key, x-api-key, api-key, x-goog-api-key or ?key="},
		"none but other parameters":     {"/?a=1&Key=x&keys=y", nil, 401, missing, "Authorization: Bearer"},
		"all empty":                     {"/?key=", []string{"X-Vault-Token:", "Authorization: Bearer ", "x-api-key:  "}, 401, missing, "Bearer"},
		"another scheme":                {"/", []string{"Authorization: Basic SECRET"}, 401, missing, "of the scheme Bearer"},
		"no scheme":                     {"/", []string{"Authorization: " + secret}, 401, missing, "of the scheme Bearer"},
		"a scheme that begins the same": {"/", []string{"Authorization: Bearers " + secret}, 401, missing, "of the scheme Bearer"},
		"a space within":                {"/", []string{"Authorization: Bearer " + secret + " x"}, 401, invalid, "space"},
		"a tab within":                  {"/", []string{"X-Vault-Token: " + secret + "\tx"}, 401, invalid, "space"},
		"two joined by an intermediary": {"/", []string{"X-Vault-Token: " + secret + ", b"}, 401, invalid, "space"},
		"not ASCII":                     {"/", []string{"X-Vault-Token: " + secret + "é"}, 401, invalid, "ASCII"},
		"a space of Unicode around it":  {"/", []string{"X-Vault-Token: \u00a0" + secret}, 401, invalid, "ASCII"},
		"a byte that is no character":   {"/", []string{"X-Vault-Token: " + secret + "\xff"}, 401, invalid, "ASCII"},
		"a line break in the query":     {"/?key=" + secret + "%0d%0aX-Vault-Token:%20y", nil, 401, invalid, "control character"},
		"NUL in the query":              {"/?key=" + secret + "%00", nil, 401, invalid, "control character"},
		"DEL in the query":              {"/?key=" + secret + "%7f", nil, 401, invalid, "control character"},
		"too long":                      {"/", []string{"X-Vault-Token: " + strings.Repeat("SECRET", maxCredential/6+1)}, 401, invalid, "too long"},
		"twice, different":              {"/", []string{"X-Vault-Token: " + secret, "X-Vault-Token: b"}, 400, apierror.CodeInvalidRequest, "header X-Vault-Token"},
		"Bearer twice, different":       {"/", []string{"Authorization: Bearer " + secret, "Authorization: bearer b"}, 400, apierror.CodeInvalidRequest, "header Authorization"},
		"the query twice, different":    {"/?key=" + secret + "&%6bey=b", nil, 400, apierror.CodeInvalidRequest, "query parameter key"},
		"the query, behind a semicolon": {"/?a=1;key=" + secret, nil, 401, missing, "Bearer"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := credentialOf(asReceived(t, "POST", c.target, c.headers...))
			refusedWith(t, err, c.status, c.code, "SECRET")
			if got != "" {
				t.Errorf("a credential beside the error: %q", got)
			}
			if err != nil && !strings.Contains(err.Message, c.says) {
				t.Errorf("message doesn't say %q: %s", c.says, err.Message)
			}
		})
	}
}

func TestCredential_LeasedKeysAreToldFromVaultTokens(t *testing.T) {
	for credential, want := range map[string]bool{
		"vk-abc": true, "vk-": true, "hvs.vk-abc": false, "VK-abc": false, "vk": false, "": false, "s.vk-": false,
	} {
		if got := isLeasedKey(credential); got != want {
			t.Errorf("%q: %v", credential, got)
		}
	}
}

func TestQuery_LosesCredentialsAndNothingElse(t *testing.T) {
	for query, want := range map[string]string{
		"":                      "",
		"key=s":                 "",
		"key":                   "",
		"key=s&":                "",
		"&key=s":                "",
		"alt=sse&key=s":         "alt=sse",
		"key=s&alt=sse":         "alt=sse",
		"b=2&key=s&a=1":         "b=2&a=1",
		"key=s&key=t&a=1&key=u": "a=1",
		"a=1&&key=s&b":          "a=1&&b",
		"%6Bey=s&a=%2f+%2F":     "a=%2f+%2F",
		"%6b%65%79=s&a":         "a",
		"KEY=s&Api-Key=s&a=1":   "a=1",
		"access_token=s&api_key=s&api-key=s&access%5ftoken=s&a=key": "a=key",
		"+key=s&key%00=s&%20key%20=s&a":                             "a",
		"a=1;key=s;b=2":                                             "a=1;b=2",
		"key=s;b=2&c":                                               "b=2&c",
		"monkey=1&keys=2&key2=3&k=key&key%2561=4":                   "monkey=1&keys=2&key2=3&k=key&key%2561=4",
		"a=%zz&%zz=1&%6=2":                                          "a=%zz&%zz=1&%6=2",
		"&&a=1&&":                                                   "&&a=1&&",
		"model=%40team%2Fm&z=\xff&y=a+b%20c":                        "model=%40team%2Fm&z=\xff&y=a+b%20c",
	} {
		if got := withoutCredentials(query); got != want {
			t.Errorf("%q became %q, want %q", query, got, want)
		}
	}
}

// FuzzQuery holds that no reader finds a credential in what is left, and that
// all else is there, byte for byte.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{
		"key=s&a=1", "a=1;key=s", "%6bey=s", "+key+=s", "key%00=s", "a=%zz&key=s", "KEY=s&&", "api-key=s;api_key=t&access_token=u",
		"&;&;", "k%65y", "key==s", "=key", "a=key&b=%26key%3Ds", "\u212aey=s", "key%", "%25key=1", "key\t=s",
	} {
		f.Add(seed)
	}
	credential := regexp.MustCompile(`^(?i)[\x00-\x20]*(key|access_token|api[-_]key)[\x00-\x20]*$`)
	names := func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		if decoded, err := url.QueryUnescape(name); err == nil {
			name = decoded
		}
		return credential.MatchString(name)
	}
	f.Fuzz(func(t *testing.T, query string) {
		got := withoutCredentials(query)
		for _, reading := range []string{got, strings.ReplaceAll(got, ";", "&"), strings.ReplaceAll(got, ";", "%3B")} {
			values, _ := url.ParseQuery(reading)
			for name := range values {
				if credential.MatchString(name) {
					t.Fatalf("%q became %q, which has the parameter %q", query, got, name)
				}
			}
		}
		if withoutCredentials(got) != got {
			t.Fatalf("%q became %q, and then something else", query, got)
		}
		isSeparator := func(r rune) bool { return r == '&' || r == ';' }
		var kept []string
		lost := false
		for pair := range strings.SplitSeq(strings.ReplaceAll(query, ";", "&"), "&") {
			if names(pair) {
				lost = true
			} else {
				kept = append(kept, pair)
			}
		}
		if !lost && got != query {
			t.Fatalf("%q has no credential and became %q", query, got)
		}
		if want := strings.Join(kept, "&"); strings.ReplaceAll(got, ";", "&") != want {
			t.Fatalf("%q became %q, want %q", query, got, want)
		}
		if len(strings.FieldsFunc(got, isSeparator)) > len(strings.FieldsFunc(query, isSeparator)) {
			t.Fatalf("%q became %q, which has more parameters", query, got)
		}
	})
}
