// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/test/upstream"
)

// eventually asks every 20 ms until ok says true, and fails the test after
// 30 s: far longer than a busy machine needs.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited 30 s for %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// rotation: an app never notices that the provider's key changes.
func (s *suite) rotation(t *testing.T) {
	t.Run("FiftyUnderLoadFailNoRequestAndEachCarriesAKeyOfItsTime", s.rotateUnderLoad)
	t.Run("VerifiedKeepsTheOldKeyWhenTheProviderRefusesTheNew", func(t *testing.T) {
		up, old := s.own(t, mount, "checked")
		app := s.app(t, mount, "checked", map[string]any{"key": "checked"})
		resp := post(t, s.root, mount+"/keys/checked/rotate", map[string]any{"api_key": s.secret(), "verify": true})
		if resp.Status != http.StatusBadRequest {
			t.Fatalf("a key that the provider refuses: %s", resp)
		}
		wantCompletion(t, post(t, app, chatPath(mount, "checked"), s.chat("up-ok")))
		if lastRequest(t, up).Key != old {
			t.Error("the old key isn't used any more")
		}
		if got := post(t, s.root, mount+"/keys/checked/verify", nil).Data()["result"]; got != "valid" {
			t.Errorf("verify says %v of a good key", got)
		}
		fresh := s.secret()
		up.SetKeys(fresh)
		if got := post(t, s.root, mount+"/keys/checked/verify", nil).Data()["result"]; got != "refused" {
			t.Errorf("verify says %v of a key that the provider withdrew", got)
		}
		if v := s.root.Write(t, mount+"/keys/checked/rotate", map[string]any{"api_key": fresh, "verify": true}).Data()["version"]; v != 2.0 {
			t.Errorf("version %v", v)
		}
		wantCompletion(t, post(t, app, chatPath(mount, "checked"), s.chat("up-ok")))
	})
}

const (
	rotations = 50
	loops     = 4
)

// progress is how far the app's loops are: for each, how many rotations were
// complete when the call began that it ended last.
type progress struct {
	mu    sync.Mutex
	moved *sync.Cond
	began [loops]int64
}

func newProgress() *progress {
	p := &progress{}
	p.moved = sync.NewCond(&p.mu)
	for i := range p.began {
		p.began[i] = -1
	}
	return p
}

// ended notes that a loop has ended a call.
func (p *progress) ended(loop int, began int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.began[loop] = began
	p.moved.Broadcast()
}

// await returns when every loop has ended a call that began after n rotations,
// and so has none under way that began before.
func (p *progress) await(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for slices.Min(p.began[:]) < n {
		p.moved.Wait()
	}
}

// rotateUnderLoad: the provider takes the old and the new key while the key is
// rotated, and only the new one once every call that began before has ended.
// Each request says how many rotations were complete when it began.
func (s *suite) rotateUnderLoad(t *testing.T) {
	up, first := s.own(t, mount, "rotated")
	app := s.app(t, mount, "rotated", map[string]any{"key": "rotated"})
	keys := []string{first}

	var complete atomic.Int64 // rotations
	var stop atomic.Bool
	var running sync.WaitGroup
	progress := newProgress()
	for loop := range loops {
		running.Go(func() {
			for !stop.Load() {
				began := complete.Load()
				body := s.chat("up-ok")
				body["user"] = strconv.FormatInt(began, 10)
				resp, err := app.Do(t.Context(), http.MethodPost, chatPath(mount, "rotated"), body)
				if err != nil || resp.Status != http.StatusOK {
					t.Errorf("a call that began after %d rotations: %v %v", began, resp, err)
				}
				progress.ended(loop, began)
			}
		})
	}
	// Also when a write below ends the test.
	defer running.Wait()
	defer stop.Store(true)
	for n := int64(1); n <= rotations; n++ {
		next := s.secret()
		up.SetKeys(keys[len(keys)-1], next)
		s.root.Write(t, mount+"/keys/rotated/rotate", map[string]any{"api_key": next})
		keys = append(keys, next)
		complete.Store(n)
		progress.await(n)
		up.SetKeys(next)
	}
	stop.Store(true)
	running.Wait()
	checkKeysOfTheirTime(t, up.Requests(), keys)
	if got := s.root.Read(t, mount+"/keys/rotated").Data()["version"]; got != float64(rotations+1) {
		t.Errorf("version %v after %d rotations", got, rotations)
	}
}

// checkKeysOfTheirTime: a request that began after n rotations came with the
// key of then, or with the next if it was rotated meanwhile.
func checkKeysOfTheirTime(t *testing.T, requests []upstream.Request, keys []string) {
	t.Helper()
	used := map[string]bool{}
	for _, r := range requests {
		var body struct{ User string }
		if err := json.Unmarshal(r.Body, &body); err != nil {
			t.Fatal(err)
		}
		began, err := strconv.Atoi(body.User)
		if err != nil {
			t.Fatal(err)
		}
		used[r.Key] = true
		if !slices.Contains(keys[began:min(began+2, len(keys))], r.Key) {
			t.Errorf("a request that began after %d rotations came with the key of another time", began)
		}
	}
	if len(used) != len(keys) {
		t.Errorf("%d of %d keys were used", len(used), len(keys))
	}
}
