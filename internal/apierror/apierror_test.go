// SPDX-License-Identifier: MPL-2.0

package apierror

import (
	"encoding/json"
	"net/http/httptest"
	"testing"
	"time"
)

func TestError_IsWhatOpenAIsSDKsAndTheVaultCLIRead(t *testing.T) {
	e := &Error{Status: 402, Type: TypeInsufficientQuota, Code: CodeBudgetExceeded, Message: "spent <all> \"of\" it\xff"}
	w := httptest.NewRecorder()
	e.Write(w)
	if w.Code != 402 || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	const want = `{"error":{"message":"spent \u003call\u003e \"of\" it\ufffd","type":"insufficient_quota","param":null,"code":"budget_exceeded"},"errors":["spent \u003call\u003e \"of\" it\ufffd"],"message":"spent \u003call\u003e \"of\" it\ufffd"}`
	if w.Body.String() != want {
		t.Errorf("%s\nwant %s", w.Body, want)
	}
	var decoded struct {
		Error struct{ Param *string }
	}
	e = &Error{Status: 400, Param: "tools"}
	if err := json.Unmarshal(e.JSON(), &decoded); err != nil || decoded.Error.Param == nil || *decoded.Error.Param != "tools" {
		t.Errorf("param is %v, %v", decoded.Error.Param, err)
	}
}

func TestError_SaysWhenToTryAgainAndToForgetAboutItWhereThatIsFarOff(t *testing.T) {
	for _, c := range []struct {
		after       time.Duration
		retry, must string
	}{
		{0, "", ""}, {-time.Second, "", ""},
		{time.Nanosecond, "1", ""}, {time.Second, "1", ""}, {1001 * time.Millisecond, "2", ""},
		{time.Minute, "60", ""}, {time.Minute + time.Nanosecond, "61", "false"}, {31 * 24 * time.Hour, "2678400", "false"},
	} {
		w := httptest.NewRecorder()
		(&Error{Status: 429, RetryAfter: c.after}).Write(w)
		if w.Header().Get("Retry-After") != c.retry || w.Header().Get("X-Should-Retry") != c.must {
			t.Errorf("%s: %v", c.after, w.Header())
		}
	}
}
