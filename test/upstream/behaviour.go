// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// The kinds of behaviour, named as in model names. The package comment says
// what each does.
const (
	kindOK         = "ok"
	kindSlow       = "slow"
	kindStream     = "stream"
	kindRandom     = "random"
	kindHang       = "hang"
	kindHangMid    = "hang-mid"
	kindReset      = "reset"
	kindResetMid   = "reset-mid"
	kindGarbage    = "garbage"
	kindStatus     = "status" // up-<status>
	kindRedirect   = "redirect"
	kindBig        = "big"
	kindEcho       = "echo"
	kindErrorEvent = "error-event"
	kindComments   = "comments"
	kindNoUsage    = "no-usage"
	kindGzip       = "gzip"
)

// Bounds of the arguments: far more than a test needs, less than would hurt the
// machine that runs it.
const (
	maxMillis = 10 * 60 * 1000
	maxEvents = 100_000
	maxBig    = 256 << 20
)

// behaviour is a parsed model name.
type behaviour struct {
	kind     string
	delay    time.Duration // slow; of random the longest
	interval time.Duration // stream
	events   int           // stream; of random the most
	fewest   int           // random
	bytes    int           // big
	status   int           // status, redirect
	variant  string        // garbage: "", "http", "short"
	target   string        // redirect
}

// parseBehaviour reads a model name. It says false for a name that is no
// behaviour, and an error for one with bad arguments.
func parseBehaviour(model string) (behaviour, bool, error) {
	name, ok := strings.CutPrefix(model, "up-")
	if !ok {
		return behaviour{}, false, nil
	}
	kind, args, hasArgs := strings.Cut(name, ":")
	b := behaviour{kind: kind}
	var err error
	switch kind {
	case kindSlow:
		b.delay, err = millis(args)
	case kindStream:
		events, ms, _ := strings.Cut(args, ":")
		if b.events, err = number(events, maxEvents); err == nil {
			b.interval, err = millis(ms)
		}
	case kindRandom:
		err = b.randomly(args)
	case kindBig:
		b.bytes, err = number(args, maxBig)
	case kindRedirect:
		b.status, b.target, err = redirection(args)
	case kindGarbage:
		b.variant = args
		if args != "" && args != "http" && args != "short" {
			err = fmt.Errorf("%q is none of http, short", args)
		}
	case kindOK, kindHang, kindHangMid, kindReset, kindResetMid, kindEcho,
		kindErrorEvent, kindComments, kindNoUsage, kindGzip:
		if hasArgs {
			err = fmt.Errorf("it takes no argument, not %q", args)
		}
	default:
		status, convErr := strconv.Atoi(kind)
		if convErr != nil || status < 400 || status > 599 || hasArgs {
			return behaviour{}, false, nil
		}
		b.kind, b.status = kindStatus, status
	}
	if err != nil {
		return behaviour{}, true, fmt.Errorf("model %q: %w", model, err)
	}
	return b, true, nil
}

// randomly reads <min>:<max>[:<ms>].
func (b *behaviour) randomly(args string) (err error) {
	low, rest, _ := strings.Cut(args, ":")
	high, ms, delayed := strings.Cut(rest, ":")
	if b.fewest, err = number(low, maxEvents); err != nil {
		return err
	}
	if b.events, err = number(high, maxEvents); err != nil {
		return err
	}
	if b.events < b.fewest {
		return fmt.Errorf("%d tokens at most is less than %d at least", b.events, b.fewest)
	}
	if delayed {
		b.delay, err = millis(ms)
	}
	return err
}

func number(s string, limit int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > limit {
		return 0, fmt.Errorf("%q is no number from 0 to %d", s, limit)
	}
	return n, nil
}

func millis(s string) (time.Duration, error) {
	n, err := number(s, maxMillis)
	return time.Duration(n) * time.Millisecond, err
}

// redirection reads [<code>:]<url>.
func redirection(args string) (status int, target string, err error) {
	status, target = http.StatusTemporaryRedirect, args
	if code, rest, ok := strings.Cut(args, ":"); ok {
		if n, err := strconv.Atoi(code); err == nil {
			status, target = n, rest
		}
	}
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return 0, "", fmt.Errorf("%d is none of 301, 302, 303, 307, 308", status)
	}
	// Parse refuses control characters, which no header could carry.
	if _, err := url.Parse(target); err != nil || target == "" {
		return 0, "", fmt.Errorf("%q is no URL to redirect to", target)
	}
	return status, target, nil
}

// behaviourOf is what a request for that model gets: Behave's, else the model's.
// It says false for a model that doesn't exist.
func (s *Server) behaviourOf(model string) (behaviour, bool, error) {
	if forced := s.forced.Load(); forced != nil && *forced != "" {
		return parseBehaviour(*forced)
	}
	for _, m := range s.options.Models {
		if m == model {
			return behaviour{kind: kindOK}, true, nil
		}
	}
	return parseBehaviour(model)
}
